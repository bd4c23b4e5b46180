"""Tiers, holds and removals in the catalogue: whoever comes second finds it changed."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from store.backups import (
    BackupRecord,
    Verification,
    add_tier,
    all_backups,
    find_backup,
    record_backup,
    record_verification,
)
from store.connect import Store
from store.keeping import (
    begin_removal,
    end_removal,
    find_again,
    hold_backup,
    lose_backups,
    newest_mark,
    release_backup,
)
from store.tables import wal_marks

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def backup(name: str, **changes: Any) -> BackupRecord:
    values = {
        "id": name, "database": "shop", "kind": "full", "engine": "native", "state": "complete",
        "folder": "/backups", "started_at": NOW, "ended_at": NOW, "seconds": 1.0, "size_bytes": 7,
        "data_bytes": 7, "start_lsn": "0/1", "end_lsn": "0/2", "timeline": 1,
        "system_identifier": "7", "major": 17, "manifest_sha256": "x",
        "row_counts": {"shop public.t": [1, 1]}, "request_id": None, "tiers": ["daily"],
    }  # fmt: skip
    return BackupRecord(**{**values, **changes})


@pytest.fixture
async def kept(store: Store) -> Store:
    """A full backup, an incremental on it, and a logical one."""
    async with store.begin() as conn:
        await record_backup(conn, backup("full"))
        await record_backup(conn, backup("incr", kind="incremental", base="full"))
        await record_backup(conn, backup("dump", kind="logical"))
    return store


async def begun(store: Store, name: str) -> bool:
    async with store.begin() as conn:
        return await begin_removal(conn, name, why="old", request_id=1, at=NOW)


async def held(store: Store, name: str, request_id: int = 1) -> Any:
    async with store.begin() as conn:
        return await hold_backup(
            conn, database="shop", backup_id=name, reason="r", at=NOW, request_id=request_id
        )


async def state(store: Store, name: str) -> str:
    async with store.begin() as conn:
        found = await find_backup(conn, "shop", name)
    assert found is not None
    return found.state


async def test_a_tier_is_added_once_and_to_full_backups_only(kept: Store) -> None:
    async with kept.begin() as conn:
        assert [await add_tier(conn, name, "weekly") for name in ("full", "full", "incr")] == [
            True, False, False,
        ]  # fmt: skip
        found = await find_backup(conn, "shop", "full")
    assert found is not None
    assert list(found.tiers) == ["daily", "weekly"]


async def test_what_another_one_builds_on_is_not_removed(kept: Store) -> None:
    assert not await begun(kept, "full")
    assert await begun(kept, "incr")
    assert not await begun(kept, "full")  # until the other one is gone
    async with kept.begin() as conn:
        assert await end_removal(conn, "incr", at=NOW)
        assert not await end_removal(conn, "incr", at=NOW)
    assert await begun(kept, "full")
    assert not await begun(kept, "full")


async def test_a_hold_and_a_removal_at_once_end_with_one_of_them(kept: Store) -> None:
    for name in ("incr", "dump"):
        hold, removal = await asyncio.gather(held(kept, name), begun(kept, name))
        assert (hold is None) is removal


async def test_what_is_on_hold_is_not_removed(kept: Store) -> None:
    assert (await held(kept, "dump"))["by"] == "request 1"
    assert not await begun(kept, "dump")


async def test_a_hold_that_is_set_again_by_the_same_request_is_one_hold(kept: Store) -> None:
    first = await held(kept, "dump")
    assert await held(kept, "dump") == first
    assert await held(kept, "dump", request_id=2) is None


async def test_what_is_going_cannot_be_held(kept: Store) -> None:
    assert await begun(kept, "dump")
    assert await held(kept, "dump") is None


async def test_only_the_hold_that_was_looked_at_is_released(kept: Store) -> None:
    hold = await held(kept, "dump")
    values = {"database": "shop", "backup_id": "dump", "request_id": 2}
    other = (NOW + timedelta(hours=1)).isoformat()
    async with kept.begin() as conn:
        assert not await release_backup(conn, held_at=other, **values)  # type: ignore[arg-type]
        assert await release_backup(conn, held_at=hold["at"], **values)  # type: ignore[arg-type]
        assert not await release_backup(conn, held_at=hold["at"], **values)  # type: ignore[arg-type]
        found = await find_backup(conn, "shop", "dump")
    assert found is not None
    assert found.hold is None
    released = found.detail["released"]
    assert isinstance(released, dict)
    assert (released["reason"], released["released_by"]) == ("r", "request 2")


async def test_a_verification_brings_nothing_back_that_is_going(kept: Store) -> None:
    assert await begun(kept, "dump")
    async with kept.begin() as conn:
        proof = Verification(
            backup_id="dump", at=NOW, ok=True, restore_seconds=1, total_seconds=1, checks=[],
            request_id=None,
        )  # fmt: skip
        await record_verification(conn, proof)
    assert await state(kept, "dump") == "removing"


async def test_what_was_lost_is_what_it_was_when_it_is_back(kept: Store) -> None:
    async with kept.begin() as conn:
        await conn.execute(sa.text("UPDATE backups SET state = 'damaged' WHERE id = 'dump'"))
        assert await lose_backups(conn, "shop", ["dump", "full"], at=NOW) != []
        assert await lose_backups(conn, "shop", ["dump"], at=NOW) == []
        assert await find_again(conn, "other", ["dump"]) == []
        assert sorted(await find_again(conn, "shop", ["dump", "full"])) == ["dump", "full"]
    assert [await state(kept, name) for name in ("dump", "full")] == ["damaged", "complete"]


async def test_all_but_what_is_removed_is_judged_without_its_row_counts(kept: Store) -> None:
    assert await begun(kept, "dump")
    async with kept.begin() as conn:
        found = await all_backups(conn, "shop")
        assert {each.backup.id for each in found} == {"full", "incr", "dump"}
        assert all(not each.backup.row_counts for each in found)
        await end_removal(conn, "dump", at=NOW)
        assert {each.backup.id for each in await all_backups(conn, "shop")} == {"full", "incr"}


async def test_the_newest_mark_says_where_the_cluster_stands(store: Store) -> None:
    async with store.begin() as conn:
        assert await newest_mark(conn, "shop") is None
        for minutes, timeline in ((0, 1), (1, 2)):
            await conn.execute(
                wal_marks.insert().values(
                    database="shop", at=NOW + timedelta(minutes=minutes), system_identifier="7",
                    timeline=timeline, lsn="0/1", next_xid=1,
                )
            )  # fmt: skip
        assert await newest_mark(conn, "shop") == (NOW + timedelta(minutes=1), "7", 2)
