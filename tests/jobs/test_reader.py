"""A look at a target: read-only, short, and with clear words when it fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest
from pydantic import SecretStr

from jobs.operation import JobError
from jobs.reader import LiveContext, Readers
from jobs.routing import NoRouteError, closed
from store.connect import Store
from tests.jobs.support import clock, database


@pytest.fixture
async def readers() -> AsyncIterator[Readers]:
    made = Readers(statement_timeout=timedelta(seconds=0.3))
    yield made
    await made.close()


@pytest.fixture
async def patient() -> AsyncIterator[Readers]:
    made = Readers()
    yield made
    await made.close()


async def test_rows_come_as_mappings(readers: Readers, work_target: str) -> None:
    rows = await readers.of(database("orders", work_target)).rows("SELECT $1::int AS one", 1)
    assert [dict(row) for row in rows] == [{"one": 1}]


async def test_nothing_can_be_written(readers: Readers, work_target: str) -> None:
    with pytest.raises(JobError, match="read-only transaction"):
        await readers.of(database("orders", work_target)).rows("CREATE TABLE t ()")


async def test_a_list_of_hosts_that_wants_a_writer_is_read_too(
    patient: Readers, work_target: str
) -> None:
    dsn = f"{work_target}{'&' if '?' in work_target else '?'}target_session_attrs=read-write"
    reader = patient.of(database("orders", dsn))
    assert await reader.rows("SELECT 1 AS one") == [{"one": 1}]
    async with reader.session(limit=timedelta(seconds=5)) as session:
        assert len(await session.fetch("SELECT 1")) == 1


async def test_a_slow_query_is_ended_and_said_so(readers: Readers, work_target: str) -> None:
    with pytest.raises(JobError, match=r"orders took longer than 0\.3 s") as slow:
        await readers.of(database("orders", work_target)).rows("SELECT pg_sleep(5)")
    assert slow.value.next_step


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ("postgresql://u@127.0.0.1:1/x", "orders cannot be reached"),
        ("postgresql://u@/x?host=/nonexistent", "orders cannot be reached"),
    ],
)
async def test_a_server_that_is_away_is_named(readers: Readers, broken: str, says: str) -> None:
    with pytest.raises(JobError, match=says):
        await readers.of(database("orders", broken)).rows("SELECT 1")


async def test_a_database_that_does_not_exist_is_named(readers: Readers, work_target: str) -> None:
    missing = work_target.replace("work_target", "missing", 1)
    with pytest.raises(JobError, match="no such database"):
        await readers.of(database("orders", missing)).rows("SELECT 1")


async def test_a_connection_that_was_cut_is_made_anew(readers: Readers, work_target: str) -> None:
    reader = readers.of(database("orders", work_target))
    before = await reader.rows("SELECT pg_backend_pid() AS pid")
    other = Readers()
    await other.of(database("orders", work_target)).rows(
        "SELECT pg_terminate_backend($1, 3000)", before[0]["pid"]
    )
    await other.close()
    after = await reader.rows("SELECT pg_backend_pid() AS pid")
    assert after != before


async def test_an_operation_without_a_database_says_so(readers: Readers, store: Store) -> None:
    context = LiveContext(target=None, readers=readers, store=store, clock=clock)
    with pytest.raises(JobError, match="without a database"):
        _ = context.database


async def test_a_changed_place_gets_a_new_reader_and_the_old_one_is_closed(
    patient: Readers, work_target: str
) -> None:
    here = database("orders", work_target)
    there = replace(here, dsn=SecretStr(f"{work_target}&application_name=there"))
    old = patient.of(here)
    assert patient.of(here) is old
    [[pid]] = [row.values() for row in await old.rows("SELECT pg_backend_pid()")]
    asking = asyncio.create_task(old.rows("SELECT pg_sleep(0.2), 1 AS one"))
    await asyncio.sleep(0)
    new = patient.of(there)
    assert new is not old
    assert (await asking)[0]["one"] == 1  # what was asked is answered
    gone = "SELECT count(*) AS left FROM pg_stat_activity WHERE pid = $1"
    async with asyncio.timeout(30):
        while (await new.rows(gone, pid))[0]["left"]:
            await asyncio.sleep(0.02)
    # Whoever held on to the old one is still answered, and leaves nothing behind.
    [[pid]] = [row.values() for row in await old.rows("SELECT pg_backend_pid()")]
    async with asyncio.timeout(30):
        while (await new.rows(gone, pid))[0]["left"]:
            await asyncio.sleep(0.02)


async def test_what_leads_nowhere_says_why_and_changes_no_reader(
    readers: Readers, work_target: str
) -> None:
    here = database("orders", work_target)
    known = readers.of(here)
    nowhere = closed(here, NoRouteError("Nobody takes writes.", next_step="Look there."))
    with pytest.raises(JobError, match="Nobody takes writes") as refusal:
        await readers.of(nowhere).rows("SELECT 1")
    assert refusal.value.next_step == "Look there."
    with pytest.raises(JobError, match="Nobody takes writes"):
        async with readers.of(nowhere).session(limit=timedelta(seconds=1)):
            pass
    assert readers.of(here) is known
