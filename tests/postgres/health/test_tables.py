"""Sizes are found without waiting for anybody's lock."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from postgres.health import tables
from postgres.health.tables import largest_tables
from tests.postgres.health.conftest import Pair, Watch, connected, sql

SHOP = """
    CREATE TABLE orders (id int PRIMARY KEY, note text);
    INSERT INTO orders SELECT n, repeat('x', 90) FROM generate_series(1, 20000) n;
    CREATE TABLE "odd ""Name" AS SELECT generate_series(1, 5000) AS n;
    CREATE TABLE pictures (id int, picture text STORAGE EXTERNAL);
    INSERT INTO pictures SELECT n, repeat(md5(n::text), 300) FROM generate_series(1, 300) n;
    VACUUM ANALYZE;
"""


@pytest.fixture(scope="session")
def shop_name(pair: Pair) -> str:
    """A database with three tables; do not change them."""
    asyncio.run(sql(pair.primary, "CREATE DATABASE sized"))
    asyncio.run(sql(pair.primary, *SHOP.strip().rstrip(";").split(";"), database="sized"))
    return "sized"


@pytest.fixture
async def conn(pair: Pair, shop_name: str, watch: Watch) -> Any:
    """A monitor's connection."""
    collector = watch(pair.primary, database=shop_name).collector
    return await collector._connection.open()


async def test_the_largest_come_first_with_their_indexes_and_toast(
    pair: Pair, shop_name: str, conn: Any
) -> None:
    found, note = await largest_tables(conn)
    assert [table.name for table in found] == [
        "public.pictures", "public.orders", 'public."odd ""Name"'
    ]  # fmt: skip
    assert note == ""
    async with connected(pair.primary, shop_name) as owner:
        sizes = [
            await owner.fetchval("SELECT pg_total_relation_size($1::text::regclass)", table.name)
            for table in found
        ]
        indexes = await owner.fetchval("SELECT pg_indexes_size('orders')")
    assert [table.bytes for table in found] == sizes
    assert (found[1].index_bytes, found[1].rows, found[1].is_exact) == (indexes, 20000, True)


@pytest.mark.parametrize(
    ("lock", "name"),
    [
        ("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE", "public.orders"),
        ("REINDEX INDEX orders_pkey", "public.orders"),
        ("LOCK TABLE pictures IN ACCESS EXCLUSIVE MODE", "public.pictures"),
    ],
)
async def test_a_locked_table_keeps_its_estimate_and_nobody_waits(
    pair: Pair, shop_name: str, conn: Any, lock: str, name: str
) -> None:
    exact = {table.name: table.bytes for table in (await largest_tables(conn))[0]}
    async with connected(pair.primary, shop_name) as holder:
        await holder.execute("BEGIN")
        await holder.execute(lock)
        found, note = await largest_tables(conn)
    assert {table.name for table in found if not table.is_exact} == {name}
    (estimate,) = [table.bytes for table in found if table.name == name]
    assert estimate == pytest.approx(exact[name], rel=0.1)
    assert note == ""


async def test_a_lock_that_comes_after_the_check_is_given_up_on(
    pair: Pair, shop_name: str, conn: Any
) -> None:
    class Late:
        """Sees no lock, as if it was taken just after the check."""

        async def fetch(self, query: str, *args: Any) -> Any:
            return [] if query == tables._LOCKED else await conn.fetch(query, *args)

    async with connected(pair.primary, shop_name) as holder:
        await holder.execute("BEGIN; LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
        found, note = await largest_tables(Late())
    assert "locked meanwhile" in note
    assert [table.is_exact for table in found] == [False] * 3


async def test_a_table_that_was_never_analysed_is_among_the_largest(
    pair: Pair, watch: Watch
) -> None:
    await sql(pair.primary, "CREATE DATABASE imported")
    many = [f"CREATE TABLE small_{n} AS SELECT 1 AS n" for n in range(40)]
    await sql(pair.primary, *many, "VACUUM ANALYZE", database="imported")
    await sql(
        pair.primary,
        "CREATE TABLE fresh AS SELECT generate_series(1, 30000) AS n",
        "SELECT pg_stat_force_next_flush()",
        database="imported",
    )
    seen = await watch(pair.primary, database="imported")()
    assert seen.detail["tables"][0]["name"] == "public.fresh"
    assert len(seen.detail["tables"]) == 10


async def test_databases_and_wal_are_measured_and_a_size_is_kept_for_the_history(
    pair: Pair, shop_name: str, watch: Watch
) -> None:
    seen = await watch(pair.primary, database=shop_name)()
    sizes = {each["name"]: each["bytes"] for each in seen.detail["databases"]}
    assert {"postgres", shop_name} <= set(sizes)
    assert seen.numbers["database_bytes"] == sum(sizes.values())
    history = {size.what: size.bytes for size in seen.sizes}
    assert history["database"] == sum(sizes.values())
    assert history["table public.orders"] > 2_000_000
    assert history["wal"] >= 16 * 1024 * 1024


async def test_a_database_that_may_not_be_measured_leaves_no_gap_in_the_history(
    pair: Pair, shop_name: str, watch: Watch
) -> None:
    await sql(pair.primary, f"REVOKE CONNECT ON DATABASE {shop_name} FROM PUBLIC")
    try:
        seen = await watch(pair.primary, user="guest")()
    finally:
        await sql(pair.primary, f"GRANT CONNECT ON DATABASE {shop_name} TO PUBLIC")
    assert seen.numbers["database_bytes"] is None
    assert "database" not in {size.what for size in seen.sizes}
    assert any(shop_name in note for note in seen.detail["notes"])
