"""A ledger of acknowledged rows on real servers, and on a pair whose primary is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from postgres.cluster import ledger_door, ledger_file
from postgres.cluster.ledger import Ledger, heartbeat_ages, measure, remove
from postgres.cluster.ledger_file import LedgerFile, is_begun, read
from postgres.cluster.ledger_writer import Standing
from postgres.cluster.verify import DRILL_SCHEMA
from postgres.cluster.words import NodeSpec
from postgres.connect import connection
from postgres.dsn import Target, parse_dsn
from postgres.errors import PostgresError
from postgres.ports import LOOPBACK, free_port
from tests import conftest

LIMIT: Final = timedelta(seconds=30)
ROOT: Final = Path(__file__).parents[3]


def clock() -> datetime:
    return datetime.now(UTC)


def node(target: Target, name: str = "pg1") -> tuple[NodeSpec, ...]:
    return (NodeSpec(name=name, target=target),)


def rows(number: int) -> Any:
    return lambda standing: standing.acknowledged >= number


async def value(target: Target, query: str, *args: object) -> Any:
    async with connection(target) as conn:
        return await conn.fetchval(query, *args)


async def come_true(target: Target, query: str, *args: object) -> None:
    async with asyncio.timeout(LIMIT.total_seconds()), connection(target) as conn:
        while not await conn.fetchval(query, *args):
            await asyncio.sleep(0.01)


@pytest.fixture
def db(target: conftest.Target) -> Target:
    """A database on the shared server."""
    return parse_dsn(target.dsn)


@pytest.fixture
async def app(db: Target) -> AsyncIterator[Target]:
    """The same as an application that owns nothing in it."""
    role = f"app_{os.getpid()}"
    async with connection(db) as conn:
        await conn.execute(f"CREATE ROLE {role} LOGIN; ALTER ROLE {role} SET synchronous_commit=on")
    yield Target(words={**db.words, "user": role})
    async with connection(db) as conn:
        await conn.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


class Wire:
    """A way to a server that can be cut, or swallow what the server says."""

    def __init__(self, upstream: Target) -> None:
        self._upstream = upstream
        self.is_deaf = False
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.port = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Target]:
        self.port = free_port()
        server = await asyncio.start_server(self._serve, LOOPBACK, self.port)
        words = {**self._upstream.words, "host": LOOPBACK, "port": str(self.port)}
        try:
            yield Target(words={**words, "sslmode": "disable"})
        finally:
            server.close()
            self.cut()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        words = self._upstream.words
        # The shared server listens on a socket.
        there, away = await asyncio.open_unix_connection(
            f"{words['host']}/.s.PGSQL.{words['port']}"
        )
        self._writers += [writer, away]
        self._tasks.append(asyncio.create_task(self._pipe(reader, away, is_said=False)))
        self._tasks.append(asyncio.create_task(self._pipe(there, writer, is_said=True)))

    async def _pipe(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_said: bool
    ) -> None:
        while data := await reader.read(65536):
            if not (is_said and self.is_deaf):
                writer.write(data)


async def test_each_row_is_written_with_the_applications_role_and_read_back(
    db: Target, app: Target, tmp_path: Path
) -> None:
    began = clock()
    async with Ledger(app, node(db), "run-1", tmp_path / "run", clock=clock) as ledger:
        assert await ledger.until(
            lambda now: now.acknowledged >= 30 and now.server == "pg1", limit=LIMIT
        )
        owner = "SELECT usename FROM pg_stat_activity WHERE application_name = 'twokey-ledger'"
        assert await value(db, owner) == app.words["user"]
        ages = await heartbeat_ages(node(db), "run-1", clock=clock)
        assert 0 <= (ages["pg1"] or -1) < 30
        running = await ledger.measure(db, injected_at=began)
    found = await ledger.measure(db, injected_at=began)
    assert found.acknowledged == ledger.standing.acknowledged >= running.acknowledged >= 30
    for each in (running, found):
        assert (each.lost, each.ambiguous, each.failed, each.local) == (0, 0, 0, 0)
    assert found.acknowledged == await value(db, f"SELECT count(*) FROM {DRILL_SCHEMA}.ledger")
    kept = read(tmp_path / "run")
    assert all(span.sent < span.acked_last for span in kept.spans)
    assert set(kept.names.values()) == {"pg1"}


async def test_rows_that_the_server_no_longer_has_are_lost(db: Target, tmp_path: Path) -> None:
    async with Ledger(None, node(db), "run-1", tmp_path, clock=clock) as ledger:
        assert await ledger.until(rows(10), limit=LIMIT)
    injected = clock()
    kept = read(tmp_path)
    gone = [span.first for span in kept.spans][-4:]
    async with connection(db) as conn:
        await conn.execute(f"DELETE FROM {DRILL_SCHEMA}.ledger WHERE seq = ANY($1)", gone)
    found = await ledger.measure(db, injected_at=injected)
    assert found.lost == 4
    times = {span.first: span.acked_last for span in kept.spans}
    assert found.rpo_seconds == pytest.approx(times[gone[-1]] - times[gone[0] - 1])
    async with connection(db) as conn:
        await conn.execute(f"DROP TABLE {DRILL_SCHEMA}.ledger")
    assert (await ledger.measure(db, injected_at=injected)).lost == found.acknowledged


async def test_clean_up_leaves_what_belongs_to_others(db: Target, tmp_path: Path) -> None:
    table = "SELECT to_regclass('twokey_drill.ledger') IS NOT NULL"
    async with Ledger(None, node(db), "run-1", tmp_path / "1", clock=clock) as ledger:
        assert await ledger.until(rows(3), limit=LIMIT)
        # Another one that has begun, and has no rows yet.
        async with connection(db) as conn:
            await conn.execute(f"INSERT INTO {DRILL_SCHEMA}.heartbeats VALUES ('run-2', 0, now())")
    await remove(db, "run-1")
    assert await value(db, f"SELECT count(*) FROM {DRILL_SCHEMA}.ledger") == 0
    assert await value(db, f"SELECT string_agg(key, '') FROM {DRILL_SCHEMA}.heartbeats") == "run-2"
    await remove(db, "run-2")
    assert not await value(db, table)
    await remove(db, "run-2")  # again: nothing to do


async def test_clean_up_waits_for_nobody_who_reads_the_tables(db: Target, tmp_path: Path) -> None:
    async with Ledger(None, node(db), "run-1", tmp_path / "1", clock=clock) as ledger:
        assert await ledger.until(rows(3), limit=LIMIT)
    async with connection(db) as conn, conn.transaction():
        await conn.execute(f"LOCK TABLE {DRILL_SCHEMA}.ledger IN ACCESS SHARE MODE")
        await remove(db, "run-1")
    assert await value(db, f"SELECT count(*) FROM {DRILL_SCHEMA}.ledger") == 0


async def test_an_answer_that_got_lost_makes_a_row_ambiguous_and_a_new_connection(
    db: Target, tmp_path: Path
) -> None:
    wire = Wire(db)
    began = clock()
    async with (
        wire.open() as endpoint,
        Ledger(endpoint, node(db), "run-1", tmp_path, clock=clock) as ledger,
    ):
        assert await ledger.until(rows(5), limit=LIMIT)
        wire.is_deaf = True
        before = ledger.standing.acknowledged
        # Answers that were on their way may still arrive.
        await come_true(
            db,
            f"""SELECT count(*) > $1 AND max(at) < clock_timestamp() - interval '300 ms'
                  FROM {DRILL_SCHEMA}.ledger""",
            before,
        )
        wire.cut()
        wire.is_deaf = False
        assert await ledger.until(rows(ledger.standing.acknowledged + 5), limit=LIMIT)
        found = await ledger.measure(db, injected_at=began)
    assert (found.lost, found.ambiguous) == (0, 1)
    assert ledger.standing.searches >= 2


async def test_a_writer_that_waits_for_a_lock_ends_with_the_ledger(
    db: Target, app: Target, tmp_path: Path
) -> None:
    async with connection(db) as conn:
        async with asyncio.timeout(20), Ledger(app, node(db), "r", tmp_path, clock=clock) as ledger:
            assert await ledger.until(rows(3), limit=LIMIT)
            lock = conn.transaction()
            await lock.start()
            await conn.execute(f"LOCK TABLE {DRILL_SCHEMA}.ledger")
            await come_true(db, "SELECT true FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
            began = time.monotonic()
        seconds = time.monotonic() - began
        await lock.rollback()
    assert seconds < 10  # without an end of its own it waits for the lock, which is ours
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


async def test_one_that_looks_for_a_server_ends_when_it_is_cancelled(
    db: Target, tmp_path: Path
) -> None:
    async def use(endpoint: Target) -> None:
        async with Ledger(endpoint, node(db), "r", tmp_path, clock=clock):
            entered.set()
            await asyncio.Event().wait()

    entered = asyncio.Event()
    wire = Wire(db)
    async with asyncio.timeout(20), wire.open() as endpoint:
        wire.is_deaf = True
        task = asyncio.create_task(use(endpoint))
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await asyncio.sleep(0)
    others = asyncio.all_tasks() - {asyncio.current_task()}
    assert not [each for each in others if "ledger" in repr(each)]


async def test_it_ends_by_itself_and_says_why(db: Target, tmp_path: Path) -> None:
    short = timedelta(milliseconds=200)
    async with Ledger(None, node(db), "r", tmp_path, clock=clock, limit=short) as ledger:
        assert not await ledger.until(lambda _: False, limit=LIMIT)
        assert "it has written for" in ledger.standing.problem


async def test_what_cannot_be_written_down_is_not_counted(
    db: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    async with Ledger(None, node(db), "r", tmp_path, clock=clock) as ledger:
        assert await ledger.until(rows(3), limit=LIMIT)
        monkeypatch.setattr(LedgerFile, "row", full)
        assert not await ledger.until(lambda _: False, limit=LIMIT)
        assert "No space left" in ledger.standing.problem
    assert ledger.standing.acknowledged == len(read(tmp_path).spans)


async def test_it_begins_with_nobody_who_takes_writes_only_where_it_goes_on(
    db: Target, tmp_path: Path
) -> None:
    away = Target(words={**db.words, "port": str(free_port())})
    with pytest.raises(PostgresError, match="No node takes writes"):
        async with Ledger(None, node(away), "r", tmp_path, clock=clock):
            pass
    assert not is_begun(tmp_path)
    async with Ledger(None, node(db), "r", tmp_path, clock=clock) as ledger:
        assert await ledger.until(rows(3), limit=LIMIT)
    async with Ledger(None, node(away), "r", tmp_path, clock=clock) as ledger:
        assert not await ledger.until(rows(1), limit=timedelta(milliseconds=200))
        assert ledger.standing.problem == ""


KILLED: Final = """
import asyncio, sys
from datetime import UTC, datetime
from pathlib import Path
from postgres.cluster.ledger import Ledger
from postgres.cluster.words import NodeSpec
from postgres.dsn import parse_dsn

async def main(dsn, folder):
    nodes = (NodeSpec(name="pg1", target=parse_dsn(dsn)),)
    async with Ledger(None, nodes, "run-1", Path(folder), clock=lambda: datetime.now(UTC)):
        await asyncio.sleep(120)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_the_next_life_of_a_killed_worker_knows_all_that_was_acknowledged(
    target: conftest.Target, db: Target, tmp_path: Path
) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KILLED, target.dsn, str(tmp_path), cwd=ROOT
    )
    try:
        async with asyncio.timeout(60):
            while len(read(tmp_path).spans) < 20:
                assert process.returncode is None
                await asyncio.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        await process.wait()
    before = read(tmp_path)
    killed = clock()
    async with Ledger(None, node(db), "run-1", tmp_path, clock=clock) as ledger:
        assert await ledger.until(rows(5), limit=LIMIT)
        found = await ledger.measure(db, injected_at=killed)
    assert found.acknowledged >= len(before.spans) + 5
    assert found.lost == 0
    assert found.ambiguous <= 1  # the one that was being answered
    assert 0 < found.blind_seconds <= found.write_gap_seconds
    assert read(tmp_path).last > 2 * ledger_file.ROWS_PER_LIFE > before.last
    ended = await measure(
        db, key="run-1", folder=tmp_path, injected_at=killed, until=clock() + timedelta(hours=1)
    )
    assert ended.blind_seconds == pytest.approx(3600, abs=60)


async def test_a_cancelled_wait_for_a_standby_is_an_acknowledgement_and_is_told_apart(
    db: Target, app: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It may hang up on what waits; it never lets the server give up the wait.
    monkeypatch.setattr(ledger_door, "ANSWER_SECONDS_MAX", 0.3)
    waiting = "application_name = 'twokey-ledger' AND wait_event = 'SyncRep'"
    async with Ledger(app, node(db), "r", tmp_path, clock=clock) as ledger:
        assert await ledger.until(rows(3), limit=LIMIT)
        try:
            await _set_standbys(db, "nobody")
            await come_true(db, f"SELECT count(*) = 4 FROM pg_stat_activity WHERE {waiting}")
            searches = ledger.standing.searches
            acknowledged = ledger.standing.acknowledged
            await asyncio.sleep(0.5)
            assert await value(db, f"SELECT count(*) FROM pg_stat_activity WHERE {waiting}") == 4
            assert ledger.standing.searches <= searches + 1  # no fifth one waits
            assert ledger.standing.acknowledged == acknowledged
            monkeypatch.setattr(ledger_door, "ANSWER_SECONDS_MAX", 30.0)
            cancel = f"""SELECT count(*) > 0 FROM (
                SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE {waiting}) AS s"""
            async with asyncio.timeout(30):
                while ledger.standing.acknowledged < acknowledged + 2:
                    await value(db, cancel)
        finally:
            await _set_standbys(db, "")
        assert await ledger.until(rows(ledger.standing.acknowledged + 3), limit=LIMIT)
        found = await ledger.measure(db, injected_at=clock())
    assert found.local >= 2
    assert (found.lost, found.lost_local) == (0, 0)
    assert found.ambiguous >= 4


async def _set_standbys(db: Target, names: str) -> None:
    async with connection(db) as conn:
        await conn.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
        await conn.execute("SELECT pg_reload_conf()")
    await come_true(db, "SELECT current_setting('synchronous_standby_names') = $1", names)


async def test_standing_of_one_that_never_began(tmp_path: Path) -> None:
    idle = Ledger(None, (), "r", tmp_path, clock=clock)
    assert idle.standing == Standing()
    await idle.stop()
    assert not await idle.until(lambda _: False, limit=LIMIT)


async def test_tables_of_a_stranger_are_refused(db: Target, app: Target, tmp_path: Path) -> None:
    async with connection(db) as conn:
        await conn.execute(f"CREATE SCHEMA {DRILL_SCHEMA} AUTHORIZATION {app.words['user']}")
    with pytest.raises(PostgresError, match="belongs to"):
        async with Ledger(app, node(db), "r", tmp_path, clock=clock):
            pass
    unknown = Target(words={**db.words, "user": "nobody_of_this_name"})
    async with connection(db) as conn:
        await conn.execute(f"DROP SCHEMA {DRILL_SCHEMA}")
    with pytest.raises(PostgresError, match="cannot be made"):
        async with Ledger(unknown, node(db), "r", tmp_path, clock=clock):
            pass
