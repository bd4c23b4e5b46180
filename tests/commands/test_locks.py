"""`/db locks` on a real server: blockers, row locks, prepared transactions, what may be shown."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from commands import locks
from jobs.backend_words import doing, lock_of, transaction_text, who
from jobs.operation import JobError
from postgres.health.blocking import Backend
from postgres.server import Server
from tests.commands.sessions import blocked, ended, job_on, until_waiting
from tests.postgres.health.explaining import connected, shop_of

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
PARAMS = locks.Params(database="shop")


@pytest.fixture(scope="module", params=[17, 15])
def busy(request: pytest.FixtureRequest) -> Iterator[Server]:
    with shop_of(request.param) as made:
        yield made


async def test_nobody_waits(busy: Server, tmp_path: Path) -> None:
    async with job_on(busy, tmp_path) as job:
        answer = await locks.answer(job, PARAMS)
    assert answer.title == "Locks of shop: nobody waits"
    assert answer.table is None
    assert locks.OPERATION.is_cached is False


async def test_the_root_is_named_with_what_helps(busy: Server, tmp_path: Path) -> None:
    async with (
        job_on(busy, tmp_path, user="watcher") as job,
        blocked(busy, waiting=2) as (blocker, waiting),
    ):
        answer = await locks.answer(job, PARAMS)
        pid = blocker.get_server_pid()
        first, second = (conn.get_server_pid() for conn in waiting)
    assert answer.title == "Locks of shop: 2 sessions waiting"
    [line] = answer.lines
    assert line.startswith(f"2 sessions held up by {pid}, app (web): idle in transaction for ")
    assert "last: BEGIN; UPDATE orders SET note = ? WHERE id = ?" in line
    assert f"/db terminate-backend shop {pid}" in line
    assert answer.table is not None
    rows = answer.table.rows
    assert [row[0] for row in rows] == [str(pid), f"└ {first}", f"└── {second}"]
    assert "on orders (row)" in rows[1][3]
    assert rows[0][2] == "-"
    assert rows[1][5].startswith("runs UPDATE orders SET note = ? WHERE id = ? for ")
    assert "secret" not in str(answer)
    assert [(each.operation, each.params["pid"]) for each in answer.suggestions] == [
        ("terminate-backend", pid)
    ]


async def test_a_table_lock_and_a_blocker_at_work(busy: Server, tmp_path: Path) -> None:
    async with (
        job_on(busy, tmp_path) as job,
        connected(busy) as holder,
        connected(busy) as waiter,
        connected(busy) as watch,
    ):
        await holder.execute("BEGIN; LOCK customers")
        at_work = asyncio.create_task(holder.execute("SELECT pg_sleep(600)"))
        waits = asyncio.create_task(waiter.fetch("SELECT * FROM customers"))
        await until_waiting(watch, [waiter.get_server_pid()])
        answer = await locks.answer(job, PARAMS)
        await ended(watch, [waiter, holder])
        await asyncio.gather(at_work, waits, return_exceptions=True)
    assert answer.table is not None
    assert answer.table.rows[1][3] == "AccessShare on customers"
    assert "/db cancel-backend shop" in answer.lines[0]
    assert [each.operation for each in answer.suggestions] == [
        "cancel-backend", "terminate-backend",
    ]  # fmt: skip


async def test_a_prepared_transaction_is_found_behind_its_locks(
    busy: Server, tmp_path: Path
) -> None:
    async with job_on(busy, tmp_path) as job, connected(busy) as conn:
        await conn.execute(
            "BEGIN; UPDATE orders SET note = 'x' WHERE id = 2; LOCK customers IN SHARE MODE;"
            " PREPARE TRANSACTION 'pay-7'"
        )
        async with connected(busy) as row, connected(busy) as table:
            tasks = [
                asyncio.create_task(row.execute("UPDATE orders SET note = 'y' WHERE id = 2")),
                asyncio.create_task(table.execute("UPDATE customers SET email = '' WHERE id = 1")),
            ]
            await until_waiting(conn, [row.get_server_pid(), table.get_server_pid()])
            answer = await locks.answer(job, PARAMS)
            await conn.execute("ROLLBACK PREPARED 'pay-7'")
            await asyncio.gather(*tasks)
    assert "2 sessions held up by prepared pay-7" in answer.lines[0]
    assert "ROLLBACK PREPARED" in answer.lines[0]
    assert answer.table is not None
    assert [row[0][:2] for row in answer.table.rows] == ["pr", "└ ", "└ "]
    assert answer.suggestions == ()


async def test_a_user_who_sees_only_itself_is_not_told_that_nobody_waits(
    busy: Server, tmp_path: Path
) -> None:
    async with job_on(busy, tmp_path, user="app") as job, blocked(busy, user="postgres"):
        with pytest.raises(JobError, match="may not see who waits") as refusal:
            await locks.answer(job, PARAMS)
    assert "GRANT pg_monitor TO app" in refusal.value.next_step


def session(**more: object) -> Backend:
    values: dict[str, object] = {
        "key": 7, "user": "app", "seen_at": NOW, "state": "active", "query": "select 'x'",
        "query_start": NOW - timedelta(seconds=90), "state_change": NOW, **more,
    }  # fmt: skip
    return Backend(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        (session(), "runs select ? for 1 min 30 s"),
        (session(state="idle in transaction"), "idle in transaction for 0 s, last: select ?"),
        (session(query="<insufficient privilege>", state=""), "not visible to our user"),
        (session(query="ALTER ROLE x PASSWORD 'y'"), "runs ALTER ROLE for 1 min 30 s"),
        (session(key="gid"), "prepared, and neither committed nor rolled back"),
        (
            session(
                backend_type="autovacuum worker",
                query="autovacuum: VACUUM public.t (to prevent wraparound)",
            ),
            "autovacuum to prevent wraparound: it does not give way",
        ),
        (session(backend_type="checkpointer", state="", query=""), "checkpointer"),
    ],
)
def test_what_a_session_does_in_words(backend: Backend, words: str) -> None:
    assert doing(backend).startswith(words)


def test_names_of_others_are_shortened() -> None:
    assert who(session(application="w" * 99, client="10.0.0.3")) == f"app ({'w' * 39}…, 10.0.0.3)"
    assert lock_of(session(mode="Share", locktype="transactionid")) == "Share on a row"
    assert transaction_text(session()) == "-"
    aged = replace(session(), xact_start=NOW - timedelta(hours=2))
    assert transaction_text(aged) == "2 h"


def test_who_must_not_be_ended_is_said() -> None:
    vacuum = session(
        backend_type="autovacuum worker", query="autovacuum: VACUUM t (to prevent wraparound)"
    )
    assert "Let it end" in locks._way_out(vacuum, "shop")
    worker = session(backend_type="autovacuum worker", query="autovacuum: VACUUM t")
    assert "ends by itself" in locks._way_out(worker, "shop")
