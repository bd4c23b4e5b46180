"""One size of each thing for each day."""

from __future__ import annotations

from datetime import date, timedelta

from store.connect import Store
from store.sizes import DaySize, Size, TableSize, record_sizes, size_history, tables_on

DAY = date(2026, 11, 22)


async def test_the_last_measurement_of_a_day_stays(store: Store) -> None:
    async with store.begin() as conn:
        await record_sizes(conn, "orders", DAY, {"database": Size(bytes=1)})
        await record_sizes(conn, "orders", DAY, {"database": Size(bytes=2), "wal": Size(bytes=9)})
        await record_sizes(conn, "orders", DAY + timedelta(days=1), {"database": Size(bytes=3)})
        await record_sizes(conn, "users", DAY, {"database": Size(bytes=7)})
        await record_sizes(conn, "users", DAY, {})
        found = await size_history(conn, "orders", "database", since=DAY)
        late = await size_history(conn, "orders", "database", since=DAY + timedelta(days=1))
    assert found == [DaySize(day=DAY, bytes=2), DaySize(day=DAY + timedelta(days=1), bytes=3)]
    assert late == found[1:]


async def test_tables_are_those_of_the_newest_day_up_to_a_day(store: Store) -> None:
    earlier = DAY - timedelta(days=3)
    async with store.begin() as conn:
        await record_sizes(conn, "orders", earlier, {"table public.old": Size(bytes=5, rows=1)})
        await record_sizes(
            conn,
            "orders",
            DAY,
            {
                "database": Size(bytes=99),
                "table public.a": Size(bytes=1, rows=10),
                "table public.table b": Size(bytes=2),
            },
        )
        today = await tables_on(conn, "orders", DAY)
        yesterday = await tables_on(conn, "orders", DAY - timedelta(days=1))
        assert await tables_on(conn, "orders", earlier - timedelta(days=1)) == []
    assert today == [
        TableSize(name="public.table b", day=DAY, bytes=2),
        TableSize(name="public.a", day=DAY, bytes=1, rows=10),
    ]
    assert yesterday == [TableSize(name="public.old", day=earlier, bytes=5, rows=1)]
