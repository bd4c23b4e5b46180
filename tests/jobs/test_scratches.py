"""Scratch servers end when their time is up, and none of them is forgotten."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from jobs.scratches import (
    Verdict,
    end,
    end_all,
    folder_of,
    keep_scratches,
    look,
    this_host,
    verdict,
)
from postgres.postmaster import live_postmaster
from postgres.restore.lasting import alone
from postgres.server import Server, create, find_binaries
from store.connect import Store
from store.scratches import Scratch, expire_scratch, find_scratch, record_scratch, running_scratches
from tests.conftest import folder_of_its_own
from tests.jobs.support import ADD_REQUEST, eventually

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
NOTES = sa.text("SELECT payload ->> 'text' FROM outbox WHERE topic = 'note' ORDER BY id")

ROW = Scratch(
    id="orders-7", request_id=1, database="orders", backup_id="orders-1", target="end",
    host=this_host(), folder="/home/scratch/orders-7", port=5999,
    dsn="postgresql://twokey@127.0.0.1:5999/shop", state="running", created_at=NOW,
    expires_at=NOW + HOUR,
)  # fmt: skip


@pytest.fixture
async def home() -> AsyncIterator[Path]:
    """Twokey's home; no server is left in it."""
    made = folder_of_its_own()
    try:
        yield made
    finally:
        for data in made.glob("scratch/*/scratch/data"):
            if found := live_postmaster(data):
                os.kill(found.pid, 9)
        shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
async def scratch(store: Store, home: Path) -> Scratch:
    """A row of a scratch server that runs for an hour; its folder is not there."""
    async with store.begin() as conn:
        values = {"database": "orders", "params": "{}", "plan": "{}", "plan_hash": "h", "now": NOW}
        request_id = (await conn.execute(ADD_REQUEST, values)).scalar_one()
        folder = str(folder_of(home, "orders-7"))
        made = replace(ROW, request_id=request_id, folder=folder)
        await record_scratch(conn, made)
    return made


async def started(scratch: Scratch) -> Server:
    """A real server where the row says that one is."""
    folder = Path(scratch.folder)
    with alone(folder, make=True):
        data = folder / "scratch" / "data"
        made = await create(find_binaries(os.environ), data, settings={"fsync": "off"}, sync=False)
    await made.start()
    return made


async def notes(store: Store) -> Sequence[str]:
    async with store.begin() as conn:
        return [str(text) for text in (await conn.execute(NOTES)).scalars()]


async def found(store: Store, scratch: Scratch) -> Scratch:
    async with store.begin() as conn:
        now = await find_scratch(conn, scratch.id)
    assert now is not None
    return now


@pytest.mark.parametrize(
    ("alive", "now", "expected"),
    [
        (True, NOW, Verdict.KEEP),
        (True, NOW + HOUR - timedelta(seconds=1), Verdict.KEEP),
        (True, NOW + HOUR, Verdict.EXPIRED),
        (False, NOW, Verdict.LOST),
        (False, NOW + HOUR, Verdict.EXPIRED),
    ],
)
def test_what_has_become_of_a_server(*, alive: bool, now: datetime, expected: Verdict) -> None:
    assert verdict(ROW, alive=alive, now=now) is expected


async def test_a_server_is_ended_when_its_time_is_up_and_not_before(
    store: Store, home: Path, scratch: Scratch
) -> None:
    server = await started(scratch)
    await look(store, home, now=NOW + HOUR / 2)
    assert await server.is_running()
    assert await notes(store) == []
    await look(store, home, now=NOW + HOUR)
    assert not server.started_here
    assert not (home / "scratch" / "orders-7").exists()
    assert (await found(store, scratch)).state == "removed"
    assert (await found(store, scratch)).ended_at == NOW + HOUR
    assert await notes(store) == [
        "The scratch server orders-7 was removed with all its data, after 1 h."
    ]
    await look(store, home, now=NOW + 2 * HOUR)
    assert len(await notes(store)) == 1


async def test_a_server_that_does_not_run_any_more_is_told_as_lost(
    store: Store, home: Path, scratch: Scratch
) -> None:
    Path(scratch.folder).mkdir(parents=True)
    await look(store, home, now=NOW + timedelta(minutes=2))
    assert (await found(store, scratch)).state == "lost"
    assert not Path(scratch.folder).exists()
    (note,) = await notes(store)
    assert "orders-7" in note
    assert "is gone after 2 min" in note


async def test_what_a_run_that_died_has_left_is_removed_with_its_server(
    store: Store, home: Path, scratch: Scratch
) -> None:
    orphan = replace(scratch, id="orders-8", folder=str(folder_of(home, "orders-8")))
    server = await started(orphan)
    await look(store, home, now=NOW + timedelta(minutes=2))
    assert not server.started_here
    assert not Path(orphan.folder).exists()


async def test_a_server_that_is_just_being_made_is_left_alone(store: Store, home: Path) -> None:
    folder = folder_of(home, "orders-9")
    with alone(folder, make=True):
        await look(store, home, now=NOW)
        assert folder.exists()
    await look(store, home, now=NOW)
    assert not folder.exists()


async def test_a_server_that_was_restored_anew_is_not_ended_for_its_forerunner(
    store: Store, home: Path, scratch: Scratch
) -> None:
    folder_of(home, "orders-7").mkdir(parents=True)
    async with store.begin() as conn:
        await record_scratch(conn, replace(scratch, port=6001))
    assert not await end(store, scratch, state="removed", now=NOW)
    assert (await found(store, scratch)).state == "running"


async def test_servers_of_another_home_or_host_are_not_ours(
    store: Store, home: Path, scratch: Scratch
) -> None:
    await look(store, home / "other", now=NOW + HOUR)
    await look(store, home, host="elsewhere", now=NOW + HOUR)
    assert (await found(store, scratch)).state == "running"


async def test_a_host_that_stays_silent_is_not_waited_for(
    store: Store, home: Path, scratch: Scratch
) -> None:
    await look(store, home, host="elsewhere", now=NOW + 2 * HOUR)
    assert (await found(store, scratch)).state == "running"
    await look(store, home, host="elsewhere", now=NOW + 2 * HOUR + timedelta(seconds=1))
    assert (await found(store, scratch)).state == "lost"


async def test_the_end_of_a_demo_ends_them_all_and_tells_nobody(
    store: Store, home: Path, scratch: Scratch
) -> None:
    server = await started(scratch)
    await end_all(store, home, now=NOW)
    assert not server.started_here
    assert (await found(store, scratch)).state == "removed"
    assert await notes(store) == []
    assert not (home / "scratch").exists()


async def test_who_drops_a_server_lets_its_time_be_up(store: Store, scratch: Scratch) -> None:
    async with store.begin() as conn:
        await expire_scratch(conn, scratch.id, now=NOW + timedelta(minutes=1))
        await expire_scratch(conn, scratch.id, now=NOW + timedelta(minutes=2))
        (row,) = await running_scratches(conn, database="orders")
    assert row.expires_at == NOW + timedelta(minutes=1)


async def test_the_keeper_goes_on_after_it_could_not_look(
    store: Store, home: Path, scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def failing(there: Path) -> tuple[Path, ...]:
        seen.append(1)
        raise OSError(f"{there} is on a disk that is away")

    monkeypatch.setattr("jobs.scratches.lasting_folders", failing)
    keeping = asyncio.create_task(
        keep_scratches(store, home, clock=lambda: NOW, every=timedelta(seconds=0.01))
    )

    async def twice() -> bool:
        return len(seen) > 1

    try:
        await eventually(twice)
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
