"""What statements took is summed by the hour, the heaviest and the most called of each."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from store.connect import Store
from store.statements import (
    HEAVIEST_KEPT,
    MOST_CALLED_KEPT,
    RUNNING_FACTOR,
    SEEN_EVERY,
    TEXT_CHARS_MAX,
    StatementSum,
    StatementText,
    add_statements,
    add_texts,
    statement_hours,
    statement_sums,
    unknown_texts,
)

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
TAKEN = StatementSum(
    queryid=1, calls=2, total_ms=10, square_ms=52, max_ms=6, rows=2, blocks_hit=3, blocks_read=4,
    temp_blocks=5, wal_bytes=6,
)  # fmt: skip


async def test_sums_grow_and_the_longest_call_stays(store: Store) -> None:
    async with store.begin() as conn:
        await add_statements(conn, "orders", "orders", NOON, [TAKEN])
        await add_statements(conn, "orders", "orders", NOON, [replace(TAKEN, max_ms=4)])
        await add_statements(conn, "orders", "west", NOON, [replace(TAKEN, max_ms=9)])
        await add_statements(conn, "orders", "orders", NOON + HOUR, [TAKEN])
        await add_statements(conn, "users", "users", NOON, [TAKEN])
        await add_statements(conn, "users", "users", NOON, [])
        [whole] = await statement_sums(conn, "orders", since=NOON, until=NOON + HOUR)
        [one] = await statement_sums(conn, "orders", since=NOON, until=NOON + HOUR, node="orders")
        hours = await statement_hours(conn, "orders", since=NOON, until=NOON + 2 * HOUR)
    assert one == replace(
        TAKEN, calls=4, total_ms=20, square_ms=104, rows=4, blocks_hit=6, blocks_read=8,
        temp_blocks=10, wal_bytes=12,
    )  # fmt: skip
    assert (whole.calls, whole.max_ms) == (6, 9)
    assert [(each.at, each.node, each.calls) for each in hours] == [
        (NOON, "orders", 4), (NOON, "west", 2), (NOON + HOUR, "orders", 2),
    ]  # fmt: skip


async def test_the_heaviest_come_first_with_their_texts(store: Store) -> None:
    heavy = replace(TAKEN, queryid=-7, total_ms=500)
    async with store.begin() as conn:
        await add_statements(conn, "orders", "orders", NOON, [TAKEN, heavy])
        assert await unknown_texts(conn, "orders", [1, -7], at=NOON) == [-7, 1]
        text = StatementText(queryid=-7, text="SELECT $1" + "\0" * 2, is_utility=False)
        begin = StatementText(queryid=1, text="b" * (TEXT_CHARS_MAX + 1), is_utility=True)
        await add_texts(conn, "orders", [text, begin], at=NOON)
        await add_texts(conn, "orders", [replace(text, text="another")], at=NOON)
        await add_texts(conn, "orders", [], at=NOON)
        assert await unknown_texts(conn, "orders", [1, -7], at=NOON) == []
        assert await unknown_texts(conn, "users", [-7], at=NOON) == [-7]
        found = await statement_sums(conn, "orders", since=NOON, until=NOON + HOUR)
        [hour, _] = await statement_hours(conn, "orders", since=NOON, until=NOON + HOUR)
    assert [(each.queryid, each.text[:9], each.is_utility) for each in found] == [
        (-7, "SELECT $1", False), (1, "bbbbbbbbb", True),
    ]  # fmt: skip
    assert [len(each.text) for each in found] == [9, TEXT_CHARS_MAX]
    assert (hour.queryid, hour.text) == (-7, "SELECT $1")


async def test_the_lightest_give_way_when_their_hour_is_over(store: Store) -> None:
    many = [
        replace(TAKEN, queryid=number, total_ms=1000 - number, calls=number)
        for number in range(1000)
    ]
    async with store.begin() as conn:
        await add_statements(conn, "orders", "orders", NOON, many)
        running = await statement_sums(conn, "orders", since=NOON, until=NOON + HOUR)
        await add_statements(conn, "orders", "orders", NOON + HOUR, [TAKEN])
        ended = await statement_sums(conn, "orders", since=NOON, until=NOON + HOUR)
    assert len(running) == (HEAVIEST_KEPT + MOST_CALLED_KEPT) * RUNNING_FACTOR
    assert [each.queryid for each in ended] == [
        *range(HEAVIEST_KEPT), *range(1000 - MOST_CALLED_KEPT, 1000),
    ]  # fmt: skip


async def test_a_text_of_use_is_seen_once_a_day(store: Store) -> None:
    async with store.begin() as conn:
        text = StatementText(queryid=1, text="SELECT $1", is_utility=False)
        await add_texts(conn, "orders", [text], at=NOON)
        seen = []
        for later in (SEEN_EVERY, SEEN_EVERY + HOUR):
            await unknown_texts(conn, "orders", [1], at=NOON + later)
            found = await conn.exec_driver_sql("SELECT seen_at FROM statement_texts")
            seen.append(found.scalar_one())
    assert seen == [NOON, NOON + SEEN_EVERY + HOUR]
