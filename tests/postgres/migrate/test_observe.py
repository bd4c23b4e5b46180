"""What statements do on a copy, by PostgreSQL's own account."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

import asyncpg
import pytest

from postgres.dsn import parse_dsn
from postgres.migrate.observe import CopyObserver
from postgres.migrate.words import (
    Lock,
    Observation,
    ReviewedStatement,
    StatementKind,
    Touched,
    Work,
)
from postgres.server import Server
from tests.postgres.conftest import run_sql

ROWS = 2000
TABLES = f"""
    CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL);
    INSERT INTO customers SELECT n, 'c' || n FROM generate_series(1, {ROWS}) n;
    CREATE TABLE orders (id int PRIMARY KEY, customer int NOT NULL, note varchar(50), cents int);
    INSERT INTO orders SELECT n, n, 'n', n FROM generate_series(1, {ROWS}) n;
    CREATE INDEX orders_customer ON orders (customer);
    CREATE VIEW cheap AS SELECT id FROM orders WHERE id < 10;
    CREATE TABLE "odd.name" ("a" int);
    ANALYZE;
"""
AE, SUE, SRE = Lock.ACCESS_EXCLUSIVE, Lock.SHARE_UPDATE_EXCLUSIVE, Lock.SHARE_ROW_EXCLUSIVE
ORDERS, CUSTOMERS = "public.orders", "public.customers"


@pytest.fixture(scope="module")
def dsn(server: Server) -> Iterator[str]:
    """A database with two tables. What a test does to it is rolled back."""
    name = f"observed_{os.getpid()}"
    asyncio.run(run_sql(server.dsn("postgres"), f"CREATE DATABASE {name}"))
    asyncio.run(run_sql(server.dsn(name), TABLES))
    try:
        yield server.dsn(name)
    finally:
        asyncio.run(run_sql(server.dsn("postgres"), f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
async def conn(dsn: str) -> AsyncIterator[Any]:
    made = await asyncpg.connect(dsn)
    try:
        yield made
    finally:
        await made.close()


def reviewed(
    sql: str, *touched: Touched, index: int = 0, must_be_alone: bool = False
) -> ReviewedStatement:
    return ReviewedStatement(
        index=index, sql=sql, line=1, node="", kind=StatementKind.OPAQUE, touched=touched,
        must_be_alone=must_be_alone,
    )  # fmt: skip


async def seen(dsn: str, conn: Any, *statements: ReviewedStatement) -> Sequence[Observation]:
    """What each of them did, in one transaction that is rolled back."""
    observer = CopyObserver(parse_dsn(dsn))
    work = conn.transaction()
    await work.start()
    try:
        found = []
        for statement in statements:
            await observer.before(conn, statement)
            await conn.execute(statement.sql)
            found.append(await observer.after(conn, statement))
        return found
    finally:
        await work.rollback()


@pytest.mark.parametrize(
    ("sql", "locks", "rewritten", "scanned", "written"),
    [
        ("ALTER TABLE orders ADD COLUMN more text", {ORDERS: AE}, [], {}, {}),
        ("ALTER TABLE orders ADD at timestamptz DEFAULT now()", {ORDERS: AE}, [], {}, {}),
        ("ALTER TABLE orders ALTER note TYPE varchar(100)", {ORDERS: AE}, [], {}, {}),
        (
            "ALTER TABLE orders ALTER cents TYPE bigint",
            {ORDERS: AE}, [ORDERS], {ORDERS: 3 * ROWS}, {},  # and its two indexes anew
        ),
        (
            "ALTER TABLE orders ADD u uuid DEFAULT gen_random_uuid()",
            {ORDERS: AE}, [ORDERS], {ORDERS: 3 * ROWS}, {},  # and its two indexes anew
        ),
        (
            "ALTER TABLE orders ALTER cents SET NOT NULL",
            {ORDERS: AE}, [], {ORDERS: ROWS}, {},
        ),
        (
            "ALTER TABLE orders ADD CHECK (cents > 0) NOT VALID",
            {ORDERS: AE}, [], {}, {},
        ),
        (
            "CREATE INDEX more ON orders (cents)",
            {ORDERS: Lock.SHARE}, [], {ORDERS: ROWS}, {},
        ),
        (
            "UPDATE orders SET cents = 1 WHERE id <= 10",
            {ORDERS: Lock.ROW_EXCLUSIVE}, [], {}, {ORDERS: 10},
        ),
        (
            "DO $$ BEGIN EXECUTE 'TRUNCATE ' || 'orders'; END $$",
            {ORDERS: AE}, [ORDERS], {}, {},
        ),
        # An index that goes keeps everybody off its table.
        ("DROP INDEX orders_customer", {ORDERS: AE}, [], {}, {}),
        ("REINDEX INDEX orders_customer", {ORDERS: AE}, ["public.orders_customer"],
         {ORDERS: ROWS}, {}),
        ("ALTER INDEX orders_customer RENAME TO other", {}, [], {}, {}),
        ("CREATE OR REPLACE VIEW cheap AS SELECT id FROM orders", {"public.cheap": AE}, [], {}, {}),
        ('ALTER TABLE "odd.name" ADD b int', {"public.odd.name": AE}, [], {}, {}),
        # What is new nobody waits for.
        ("CREATE TABLE new (id int PRIMARY KEY)", {}, [], {}, {}),
    ],
)  # fmt: skip
async def test_locks_rewrites_scans_and_rows_are_read_from_the_server(
    dsn: str,
    conn: Any,
    sql: str,
    locks: Mapping[str, Lock],
    rewritten: Sequence[str],
    scanned: Mapping[str, int],
    written: Mapping[str, int],
) -> None:
    (found,) = await seen(dsn, conn, reviewed(sql))
    strong = {table: lock for table, lock in found.locks.items() if lock > Lock.ROW_SHARE}
    assert strong == dict(locks)
    assert list(found.rewritten) == list(rewritten)
    if not sql.startswith(("UPDATE", "REINDEX")):  # an index may or may not be used for so few rows
        assert dict(found.scanned) == dict(scanned)
    assert dict(found.written) == dict(written)
    assert found.seconds > 0
    assert not found.is_sampled


async def test_a_set_not_null_that_a_constraint_has_proven_reads_nothing(
    dsn: str, conn: Any
) -> None:
    check = "ALTER TABLE orders ADD CONSTRAINT filled CHECK (cents IS NOT NULL)"
    first, second = await seen(
        dsn,
        conn,
        reviewed(check),
        reviewed("ALTER TABLE orders ALTER cents SET NOT NULL", index=1),
    )
    assert first.scanned == {ORDERS: ROWS}
    assert second.scanned == {}


async def test_a_foreign_key_locks_both_tables_and_reads_them(dsn: str, conn: Any) -> None:
    sql = "ALTER TABLE orders ADD FOREIGN KEY (customer) REFERENCES customers"
    touched = [Touched(table=each, lock=SRE, work=Work.SCAN) for each in (ORDERS, CUSTOMERS)]
    (found,) = await seen(dsn, conn, reviewed(sql, *touched))
    assert found.locks == {ORDERS: SRE, CUSTOMERS: SRE}
    assert found.scanned == {ORDERS: ROWS, CUSTOMERS: ROWS}


async def test_what_is_read_by_queries_that_count_no_scan_is_known_from_the_review(
    dsn: str, conn: Any
) -> None:
    (found,) = await seen(
        dsn, conn, reviewed("SELECT 1", Touched(table=CUSTOMERS, lock=SRE, work=Work.SCAN))
    )
    assert found.scanned == {CUSTOMERS: ROWS}


async def test_a_lock_counts_for_all_that_follows_in_the_transaction(dsn: str, conn: Any) -> None:
    _, later = await seen(
        dsn,
        conn,
        reviewed("ALTER TABLE orders ADD COLUMN more text"),
        reviewed("UPDATE customers SET name = name", index=1),
    )
    assert later.locks == {ORDERS: AE, CUSTOMERS: Lock.ROW_EXCLUSIVE}
    assert later.written == {CUSTOMERS: ROWS}


async def test_a_table_that_the_transaction_made_itself_is_not_waited_for(
    dsn: str, conn: Any
) -> None:
    _, altered = await seen(
        dsn,
        conn,
        reviewed("CREATE TABLE new (id int)"),
        reviewed("ALTER TABLE new ALTER id TYPE bigint", index=1),
    )
    assert altered.locks == {}


async def test_wal_is_counted(dsn: str, conn: Any) -> None:
    nothing, much = await seen(
        dsn,
        conn,
        reviewed("SELECT 1"),
        reviewed("CREATE TABLE wide AS SELECT repeat('x', 1000) FROM generate_series(1, 2000)"),
    )
    assert much.wal_bytes > 2_000_000
    assert nothing.wal_bytes < 100_000


async def test_a_search_path_of_the_file_misleads_nobody(dsn: str, conn: Any) -> None:
    _, _, found = await seen(
        dsn,
        conn,
        reviewed(
            "CREATE SCHEMA trap; CREATE VIEW trap.pg_class AS SELECT 1 AS oid;"
            "CREATE VIEW trap.pg_locks AS SELECT 1 AS pid;"
        ),
        reviewed("SET LOCAL search_path = trap, public, pg_catalog", index=1),
        reviewed("ALTER TABLE orders ADD COLUMN more text", index=2),
    )
    assert found.locks == {ORDERS: AE}


async def test_what_must_be_alone_is_looked_at_from_outside(dsn: str, conn: Any) -> None:
    statement = reviewed(
        "CREATE INDEX CONCURRENTLY beside ON orders (cents, note, customer)",
        Touched(table=ORDERS, lock=SUE, work=Work.SCAN),
        must_be_alone=True,
    )
    observer = CopyObserver(parse_dsn(dsn))
    await observer.before(conn, statement)
    await conn.execute(statement.sql)
    found = await observer.after(conn, statement)
    await conn.execute("DROP INDEX beside")
    assert found.is_sampled
    assert found.locks == {ORDERS: SUE}
    assert found.scanned[ORDERS] >= ROWS


async def test_the_outside_look_sees_what_the_review_did_not(dsn: str, conn: Any) -> None:
    statement = reviewed("VACUUM FULL orders", must_be_alone=True)
    other = await asyncpg.connect(dsn)
    observer = CopyObserver(parse_dsn(dsn))
    # It waits with nothing granted, then holds its lock while it writes: seen by a look or not.
    await observer.before(conn, statement)
    async with other.transaction():
        await other.execute("LOCK TABLE customers IN SHARE MODE")
        waits = asyncio.create_task(conn.execute("BEGIN; LOCK TABLE orders; LOCK customers"))
        while not await other.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
    await waits
    await conn.execute("ROLLBACK")
    await conn.execute(statement.sql)
    found = await observer.after(conn, statement)
    await other.close()
    assert found.locks[ORDERS] is AE
    assert ORDERS in found.rewritten


async def test_an_observer_whose_second_session_fails_goes_by_what_is_known(
    dsn: str, conn: Any
) -> None:
    statement = reviewed("VACUUM orders", Touched(table=ORDERS, lock=SUE), must_be_alone=True)
    observer = CopyObserver(parse_dsn("postgresql://nobody@127.0.0.1:1/none"))
    await observer.before(conn, statement)
    await conn.execute(statement.sql)
    found = await observer.after(conn, statement)
    assert found.locks == {ORDERS: SUE}


async def test_closing_lets_go_of_the_second_session(dsn: str, conn: Any) -> None:
    observer = CopyObserver(parse_dsn(dsn))
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    before = await conn.fetchval(sessions)
    await observer.before(conn, reviewed("VACUUM", must_be_alone=True))
    assert await conn.fetchval(sessions) > before
    await observer.close()
    while await conn.fetchval(sessions) > before:
        await asyncio.sleep(0.01)
