"""Rehearsals in the store: the newest of each subject counts."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from store.connect import Store
from store.rehearsals import RehearsalRow, newest_rehearsal, record_rehearsal
from store.tables import rehearsals
from tests.commands.archived import add_request

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
ROW = RehearsalRow(
    database="shop", subject="a", at=NOW, ok=True, backup_id="shop-1", seconds=1.5, data_bytes=9,
    detail={"units": []},
)  # fmt: skip


async def test_the_newest_of_just_this_on_just_that_database_counts(store: Store) -> None:
    later = replace(ROW, at=NOW + timedelta(hours=1), ok=False, problem="no.")
    async with store.begin() as conn:
        for row in (later, ROW, replace(later, subject="b"), replace(later, database="other")):
            await record_rehearsal(conn, row)
        assert await newest_rehearsal(conn, "shop", "a") == later
        assert await newest_rehearsal(conn, "shop", "c") is None


async def test_of_two_at_the_same_moment_the_later_entry_counts(store: Store) -> None:
    async with store.begin() as conn:
        await record_rehearsal(conn, ROW)
        await record_rehearsal(conn, replace(ROW, seconds=2.5))
        found = await newest_rehearsal(conn, "shop", "a")
    assert found is not None
    assert found.seconds == 2.5


async def test_a_step_that_is_repeated_stores_it_once(store: Store) -> None:
    mine = replace(ROW, request_id=await add_request(store))
    async with store.begin() as conn:
        await record_rehearsal(conn, mine)
        await record_rehearsal(conn, replace(mine, seconds=9.0))
        await record_rehearsal(conn, replace(mine, subject="b"))
        count = await conn.scalar(sa.select(sa.func.count()).select_from(rehearsals))
        assert await newest_rehearsal(conn, "shop", "a") == mine
    assert count == 2
