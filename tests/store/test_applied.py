"""What our runs have applied: once per run, and no longer once it is taken back."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from store.applied import (
    AppliedRow,
    applied_rows,
    newest_applied,
    record_applied,
    record_taken_back,
)
from store.connect import Store
from store.watches import WatchRow, change_watch, forget_watches, open_watch, open_watches

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
ROW = AppliedRow(
    database="staging", tool="dbmate", version="0042", name="add email", sha256="a" * 64,
    down_sha256="", request_id=None, applied_at=NOON, seconds=0.5, detail={"reverse": []},
)  # fmt: skip


async def a_request(store: Store) -> int:
    async with store.begin() as conn:
        made = await conn.execute(
            sa.text("""
                INSERT INTO requests (state, version, operation, database, asked_by,
                       asked_by_slack, authors, door, reason, params, plan, plan_hash, policy_hash,
                       attributes, rule, step, asked_at, expires_at, detail, channel)
                VALUES ('executing', 1, 'migrate', 'staging', 'ana', '', '{ana}', 'cli', '', '{}',
                        '{}', 'h', 'p', '{}', 'r', 0, now(), now(), '{}', '') RETURNING id
            """)
        )
        return int(made.scalar_one())


async def test_the_last_word_on_a_version_counts(store: Store) -> None:
    number = await a_request(store)
    async with store.begin() as conn:
        await record_applied(conn, ROW)
        await record_applied(conn, replace(ROW, database="orders", sha256="b" * 64))
        await record_taken_back(conn, "staging", "0042", request_id=number, at=NOON)
        gone = await applied_rows(conn, ["staging"], ["0042", "0043"])
        later = replace(ROW, applied_at=NOON + timedelta(hours=1), sha256="c" * 64)
        await record_applied(conn, later)
        found = await applied_rows(conn, ["staging", "orders"], ["0042"])
        listed = await newest_applied(conn, "staging")
    assert gone["staging", "0042"].rolled_back_at == NOON
    assert found["staging", "0042"] == later
    assert found["orders", "0042"].sha256 == "b" * 64
    assert [row.sha256[0] for row in listed] == ["c", "a"]


async def test_a_run_enters_a_version_once(store: Store) -> None:
    row = replace(ROW, request_id=await a_request(store))
    async with store.begin() as conn:
        await record_applied(conn, row)
        await record_applied(conn, replace(row, seconds=9.0))
        (found,) = await newest_applied(conn, "staging")
    assert found.seconds == 0.5


async def test_a_watch_is_open_until_it_is_fine(store: Store) -> None:
    number = await a_request(store)
    row = WatchRow(
        database="staging", request_id=number, subject="0042", state="watching", at=NOON,
        until=NOON + timedelta(minutes=15), before={"lock_waits": 1.5}, undo={"operation": "x"},
    )  # fmt: skip
    async with store.begin() as conn:
        await open_watch(conn, row)
        await open_watch(conn, replace(row, subject="again"))
        assert await open_watches(conn) == [row]
        await change_watch(conn, number, state="worse", at=NOON)
        assert [each.state for each in await open_watches(conn)] == ["worse"]
        await change_watch(conn, number, state="fine", at=NOON)
        await change_watch(conn, number, state="worse", at=NOON)
        assert await open_watches(conn) == []
        await forget_watches(conn, before=NOON)
        kept = (await conn.execute(sa.text("SELECT count(*) FROM watches"))).scalar_one()
        await forget_watches(conn, before=NOON + timedelta(seconds=1))
        gone = (await conn.execute(sa.text("SELECT count(*) FROM watches"))).scalar_one()
    assert (kept, gone) == (1, 0)
