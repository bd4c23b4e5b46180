"""Roll-ups say what their samples said, whoever makes them and however often."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from store.connect import Store
from store.measured import (
    BITE,
    ROLLUPS_KEPT,
    SAMPLES_KEPT,
    STATEMENTS_KEPT,
    WAITS_MAX,
    trim,
)
from store.rollups import roll_up
from store.samples import LATE_MAX, WIDTHS, NodeRow, Point, Width, record, series
from store.sizes import Size, record_sizes, size_history

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
FILL = sa.text("""
    INSERT INTO samples (database, node, at, numbers)
    SELECT 'orders', 'orders', at, jsonb_build_object('tps', extract(epoch FROM at)::bigint % 1000)
      FROM generate_series(CAST(:since AS timestamptz), CAST(:until AS timestamptz),
                           CAST(:every AS interval)) AS at
""")
COUNT = sa.text("SELECT count(*) FROM samples")


async def sample(store: Store, at: datetime, **numbers: float) -> None:
    row = NodeRow(database="orders", node="orders", at=at, ok=True, numbers=numbers)
    async with store.begin() as conn:
        assert await record(conn, [row])


async def roll(store: Store, width: Width, now: datetime) -> int:
    """All bites; how many they were."""
    for bites in range(1, 1000):
        async with store.begin() as conn:
            if not await roll_up(conn, width, now):
                return bites
    raise AssertionError("roll-ups never end")


async def points(store: Store, width: Width, *metrics: str) -> list[Point]:
    async with store.begin() as conn:
        return list(
            await series(
                conn, "orders", "orders", metrics, since=NOON - 1000 * DAY,
                until=NOON + 1000 * DAY, width=width,
            )
        )  # fmt: skip


async def fill(store: Store, since: datetime, until: datetime, every: timedelta) -> None:
    async with store.begin() as conn:
        await conn.execute(FILL, {"since": since, "until": until, "every": every})


async def stored(store: Store, width: Width) -> Mapping[datetime, Any]:
    async with store.begin() as conn:
        found = await conn.execute(
            sa.text("SELECT at, numbers FROM rollups WHERE width = :width"), {"width": width}
        )
        return {row.at: row.numbers for row in found}


async def test_a_span_has_count_average_least_most_and_last(store: Store) -> None:
    for minute, tps in ((0, 4), (1, 1), (2, 10), (5, 7)):
        await sample(store, NOON + minute * MINUTE, tps=tps)
    await sample(store, NOON + 6 * MINUTE, up=1)
    await roll(store, "5m", NOON + 10 * MINUTE)
    assert await stored(store, "5m") == {
        NOON: {"tps": [3, 5, 1, 10, 10]},
        NOON + 5 * MINUTE: {"tps": [1, 7, 7, 7, 7], "up": [1, 1, 1, 1, 1]},
    }
    first, second = await points(store, "5m", "tps", "up")
    assert (first.numbers, first.least, first.most) == (
        {"tps": 5, "up": None}, {"tps": 1, "up": None}, {"tps": 10, "up": None},
    )  # fmt: skip
    assert second.numbers == {"tps": 7, "up": 1}


async def test_hours_weigh_what_they_are_made_of_and_days_too(store: Store) -> None:
    for at, tps in ((0, 1), (1, 1), (2, 1), (5, 9), (61, 30)):
        await sample(store, NOON + at * MINUTE, tps=tps)
    for width in WIDTHS:
        await roll(store, width, NOON + 3 * HOUR)
    assert await stored(store, "1h") == {
        NOON: {"tps": [4, 3, 1, 9, 9]},
        NOON + HOUR: {"tps": [1, 30, 30, 30, 30]},
    }
    assert await stored(store, "1d") == {NOON - 12 * HOUR: {"tps": [5, 8.4, 1, 30, 30]}}


async def test_two_who_try_at_once_count_nothing_twice(store: Store) -> None:
    await fill(store, NOON, NOON + 3 * HOUR, MINUTE)
    await asyncio.gather(*(roll(store, "5m", NOON + 4 * HOUR) for _ in range(4)))
    await roll(store, "5m", NOON + 4 * HOUR)
    made = await stored(store, "5m")
    assert sum(numbers["tps"][0] for numbers in made.values()) == 181
    await roll(store, "5m", NOON + 4 * HOUR)
    assert await stored(store, "5m") == made


async def test_what_comes_late_still_counts_at_every_width(store: Store) -> None:
    late = NOON + 3 * HOUR
    await fill(store, NOON, late, MINUTE)
    for width in WIDTHS:
        await roll(store, width, late)
    came = late - LATE_MAX + timedelta(seconds=1)
    async with store.begin() as conn:
        await conn.execute(FILL, {"since": came, "until": came, "every": MINUTE})
    for width in WIDTHS:
        await roll(store, width, late + 5 * MINUTE)
        made = await stored(store, width)
        assert sum(numbers["tps"][0] for numbers in made.values()) == 182


async def test_a_long_time_without_samples_is_jumped_over(store: Store) -> None:
    await sample(store, NOON, tps=1)
    await roll(store, "5m", NOON)
    await sample(store, NOON + 9 * DAY, tps=2)
    assert await roll(store, "5m", NOON + 9 * DAY) <= 2
    assert list(await stored(store, "5m")) == [NOON, NOON + 9 * DAY]


async def test_a_clock_that_is_ahead_stops_nothing(store: Store) -> None:
    await sample(store, NOON + DAY, tps=1)
    await roll(store, "5m", NOON + DAY)
    await sample(store, NOON, tps=2)  # stored, though older
    await roll(store, "5m", NOON + MINUTE)
    assert NOON in await stored(store, "5m")


async def test_a_day_is_rolled_up_in_bites(store: Store) -> None:
    await fill(store, NOON - DAY, NOON, MINUTE)
    assert await roll(store, "5m", NOON) > 10
    assert sum(each["tps"][0] for each in (await stored(store, "5m")).values()) == 1441


@pytest.fixture
async def aged(store: Store) -> Store:
    """Five days of samples, rolled up."""
    await fill(store, NOON - 5 * DAY, NOON, 10 * MINUTE)
    for width in WIDTHS:
        await roll(store, width, NOON)
    return store


async def removed(store: Store, now: datetime) -> None:
    for _ in range(100):
        async with store.begin() as conn:
            if not await trim(conn, now):
                return
    raise AssertionError("there is always more to remove")


async def count(store: Store) -> int:
    async with store.begin() as conn:
        return int((await conn.execute(COUNT)).scalar_one())


async def test_samples_are_kept_for_two_days_and_roll_ups_for_longer(aged: Store) -> None:
    before = {width: await stored(aged, width) for width in WIDTHS}
    await removed(aged, NOON)
    assert await count(aged) == SAMPLES_KEPT / (10 * MINUTE) + 1
    assert {width: await stored(aged, width) for width in WIDTHS} == before
    for width in WIDTHS:  # what is made again has all that it had
        await roll(aged, width, NOON + MINUTE)
    assert {width: await stored(aged, width) for width in WIDTHS} == before


async def test_what_is_not_rolled_up_yet_waits_but_not_for_ever(store: Store) -> None:
    await fill(store, NOON - 5 * DAY, NOON, 10 * MINUTE)
    await removed(store, NOON)
    assert await count(store) == (SAMPLES_KEPT + WAITS_MAX) / (10 * MINUTE) + 1


async def test_each_width_ends_in_its_own_time(aged: Store) -> None:
    late = NOON + ROLLUPS_KEPT["5m"] + WAITS_MAX + DAY
    await removed(aged, late)
    assert [len(await stored(aged, width)) for width in WIDTHS] == [0, 121, 6]
    late = NOON + ROLLUPS_KEPT["1h"] + WAITS_MAX + DAY
    await removed(aged, late)
    assert [len(await stored(aged, width)) for width in ("1h", "1d")] == [0, 6]
    await removed(aged, NOON + ROLLUPS_KEPT["1d"] + DAY)
    assert await stored(aged, "1d") == {}


async def test_statements_texts_and_sizes_end_too(store: Store) -> None:
    fill_rows = sa.text("""
        INSERT INTO statements
        SELECT 'orders', 'orders', CAST(:at AS timestamptz), number, 1, 1, 1, 1, 1, 1, 1, 1, 1
          FROM generate_series(1, CAST(:rows AS int)) AS number
    """)
    left = sa.text("""
        SELECT (SELECT count(*) FROM statements), (SELECT count(*) FROM statement_texts)
    """)
    async with store.begin() as conn:
        await conn.execute(fill_rows, {"at": NOON, "rows": BITE + 1})
        await conn.execute(fill_rows, {"at": NOON + HOUR, "rows": 1})
        await conn.execute(
            sa.text("INSERT INTO statement_texts VALUES ('orders', 1, 'SELECT', false, :at)"),
            {"at": NOON},
        )
        await record_sizes(conn, "orders", date(2023, 11, 1), {"database": Size(bytes=1)})
        await record_sizes(conn, "orders", NOON.date(), {"database": Size(bytes=2)})
        assert await trim(conn, NOON + STATEMENTS_KEPT + MINUTE)
        assert not await trim(conn, NOON + STATEMENTS_KEPT + MINUTE)
        assert tuple((await conn.execute(left)).one()) == (1, 1)
        await trim(conn, NOON + STATEMENTS_KEPT + 3 * DAY)
        assert tuple((await conn.execute(left)).one()) == (0, 0)
        kept = await size_history(conn, "orders", "database", since=date(2020, 1, 1))
    assert [each.bytes for each in kept] == [2]
