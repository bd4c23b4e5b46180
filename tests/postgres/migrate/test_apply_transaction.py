"""Files that are one transaction, on a real server: all of it and its record, or nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from postgres.dsn import parse_dsn
from postgres.errors import PostgresError
from postgres.migrate.apply import BlockedError, ExceededError, Expected, apply_short
from postgres.migrate.words import Direction, Lock, StatementKind, Tool
from tests.conftest import Target
from tests.postgres.migrate.applying import QUICK, Told, apply_now, other, silent, unit_of

TABLES = """
    CREATE TABLE orders (id int PRIMARY KEY, note text);
    INSERT INTO orders SELECT n, 'n' FROM generate_series(1, 500) AS n;
    CREATE TABLE customers (id int PRIMARY KEY);
"""
COLUMN = """
    SELECT EXISTS (SELECT FROM pg_attribute
                    WHERE attrelid = to_regclass($1) AND attname = $2 AND NOT attisdropped)
"""


@pytest.fixture
async def conn(target: Target) -> AsyncIterator[Any]:
    """A connection to a fresh database with tables in it."""
    made = await asyncpg.connect(target.dsn)
    await made.execute(TABLES)
    yield made
    await made.close()


async def has_column(conn: Any, name: str, table: str = "orders") -> bool:
    return bool(await conn.fetchval(COLUMN, table, name))


async def booked(conn: Any) -> list[str]:
    if not await conn.fetchval("SELECT to_regclass('twokey_migrate.applied') IS NOT NULL"):
        return []
    rows = await conn.fetch("SELECT version FROM twokey_migrate.applied ORDER BY 1")
    return [row["version"] for row in rows]


async def test_a_file_and_its_record_stand_together(conn: Any, target: Target) -> None:
    unit = unit_of("ALTER TABLE orders ADD a int;\nCREATE TABLE new AS SELECT 1 AS one;")
    done = await apply_now(target.dsn, unit)
    assert not done.was_done
    assert await has_column(conn, "a")
    assert await booked(conn) == ["0001"]
    assert [each.locks for each in done.observations] == [
        {"public.orders": Lock.ACCESS_EXCLUSIVE},
        {"public.orders": Lock.ACCESS_EXCLUSIVE},
    ], "locks are held to the end, and nobody waits for what is new"


async def test_what_is_applied_is_not_applied_again(conn: Any, target: Target) -> None:
    unit = unit_of("UPDATE orders SET note = note || '+'", kind=StatementKind.DATA)
    await apply_now(target.dsn, unit)
    assert (await apply_now(target.dsn, unit)).was_done
    assert await conn.fetchval("SELECT DISTINCT note FROM orders") == "n+"


async def test_the_way_back_takes_the_record_back(conn: Any, target: Target) -> None:
    sql, down = "ALTER TABLE orders ADD a int", "ALTER TABLE orders DROP a"
    await apply_now(target.dsn, unit_of(sql, down=down))
    back = unit_of(sql, down=down, direction=Direction.DOWN)
    assert not (await apply_now(target.dsn, back)).was_done
    assert not await has_column(conn, "a")
    assert await booked(conn) == []
    assert (await apply_now(target.dsn, back)).was_done


async def test_a_statement_that_fails_takes_everything_back(conn: Any, target: Target) -> None:
    unit = unit_of("ALTER TABLE orders ADD a int;\nALTER TABLE orders ADD b no_such_type;")
    with pytest.raises(PostgresError, match=r'line 2 .*"no_such_type" does not exist') as failed:
        await apply_now(target.dsn, unit)
    assert "Nothing has changed." in failed.value.problem
    assert not await has_column(conn, "a")
    assert await booked(conn) == []


async def test_a_lock_that_is_held_for_ever_is_given_up_and_its_holder_named(
    conn: Any, target: Target
) -> None:
    told = Told()
    unit = unit_of("CREATE TABLE new ();\nALTER TABLE orders ADD a int")
    async with other(target.dsn, "SELECT note FROM orders WHERE note = 'secret'") as holder:
        with pytest.raises(BlockedError) as failed:
            await apply_now(target.dsn, unit, tell=told)
        pid = holder.get_server_pid()
    assert f"process {pid} (postgres, shop" in failed.value.problem
    assert "AccessExclusive on public.orders" in failed.value.problem
    assert "idle in transaction" in failed.value.problem
    assert "secret" not in failed.value.problem
    assert f"/db terminate-backend {pid}" in failed.value.next_step
    assert "/db locks" in failed.value.next_step
    assert [each.key for each in failed.value.blockers] == [pid]
    assert told.has("trying again (3 of 4)")
    assert await conn.fetchval("SELECT to_regclass('new')") is None
    assert await booked(conn) == []


async def test_a_lock_that_is_given_back_is_had_at_a_later_try(conn: Any, target: Target) -> None:
    async with other(target.dsn, "SELECT FROM orders") as holder:

        async def tell(text: str, fraction: float | None) -> None:
            if "trying again" in text:
                await holder.execute("ROLLBACK")

        done = await apply_now(target.dsn, unit_of("ALTER TABLE orders ADD a int"), tell=tell)
    assert len(done.waits) == 1
    assert done.waits[0].index == 0
    assert "SELECT FROM orders" in done.waits[0].blockers[0]
    assert await has_column(conn, "a")


async def test_a_stronger_lock_than_rehearsed_is_rolled_back(conn: Any, target: Target) -> None:
    await conn.execute("CREATE INDEX orders_note ON orders (note)")
    unit = unit_of("CREATE TABLE new ();\nDROP INDEX orders_note")
    expected = Expected(locks={0: {}, 1: {"public.orders": Lock.SHARE}}, seconds={})
    with pytest.raises(ExceededError) as failed:
        await apply_now(target.dsn, unit, expected=expected)
    said = failed.value.problem
    assert "line 2 (DROP INDEX) took ACCESS EXCLUSIVE on public.orders" in said
    assert "the rehearsal had SHARE there" in said
    assert await conn.fetchval("SELECT to_regclass('orders_note') IS NOT NULL")
    assert await booked(conn) == []
    more = Expected(locks={0: {"public.orders": Lock.ACCESS_EXCLUSIVE}}, seconds={})
    assert not (await apply_now(target.dsn, unit, expected=more)).was_done


async def test_what_takes_much_longer_than_rehearsed_is_cancelled(
    conn: Any, target: Target
) -> None:
    unit = unit_of("CREATE TABLE new ();\nSELECT pg_sleep(20)")
    expected = Expected(locks={}, seconds={0: 0.001, 1: 0.01}, floor_seconds=0.3)
    with pytest.raises(ExceededError, match=r"took more than 0.3 s; the rehearsal took 0.0 s"):
        await apply_now(target.dsn, unit, expected=expected)
    assert await conn.fetchval("SELECT to_regclass('new')") is None


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE new (); COMMIT",
        "CREATE TABLE new (); ROLLBACK; CREATE TABLE other ()",
        "CREATE TABLE new (); END",
        "CREATE TABLE new (); PREPARE TRANSACTION 'x'",
        "CREATE TABLE new (); DISCARD ALL",
        "CREATE TABLE new (); COPY new FROM STDIN",
    ],
)
async def test_a_file_that_would_end_the_transaction_is_refused_before_anything_runs(
    conn: Any, target: Target, sql: str
) -> None:
    with pytest.raises(PostgresError, match="Nothing has run"):
        await apply_now(target.dsn, unit_of(sql))
    assert await conn.fetchval("SELECT to_regclass('new')") is None
    assert await conn.fetchval("SELECT to_regnamespace('twokey_migrate')") is None


async def test_the_deadlock_that_we_make_is_ours_to_try_again(conn: Any, target: Target) -> None:
    unit = unit_of(
        "LOCK TABLE customers IN EXCLUSIVE MODE;\nUPDATE orders SET note = 'ours' WHERE id = 1"
    )
    async with other(target.dsn, "UPDATE orders SET note = 'theirs' WHERE id = 1") as holder:

        async def tell(text: str, fraction: float | None) -> None:
            if "trying again" in text and holder.is_in_transaction():
                await holder.execute("COMMIT")

        applying = asyncio.create_task(apply_now(target.dsn, unit, tell=tell))
        await asyncio.sleep(0.02)
        await holder.execute("LOCK TABLE customers IN ROW EXCLUSIVE MODE")
        done = await applying
    assert done.waits
    assert await conn.fetchval("SELECT note FROM orders WHERE id = 1") == "ours"


async def test_short_statements_stand_together_with_what_the_caller_writes(
    conn: Any, target: Target
) -> None:
    async def before(conn: Any) -> None:
        assert conn.is_in_transaction()

    async def after(conn: Any) -> None:
        await conn.execute("INSERT INTO customers VALUES (7)")

    await apply_short(
        parse_dsn(target.dsn),
        ["ALTER TABLE orders ADD a int", "ALTER TABLE orders RENAME a TO b"],
        limits=QUICK, tell=silent, before=before, after=after,
    )  # fmt: skip
    assert await has_column(conn, "b")
    assert await conn.fetchval("SELECT count(*) FROM customers") == 1


async def test_what_the_caller_finds_wrong_takes_everything_back(conn: Any, target: Target) -> None:
    async def after(conn: Any) -> None:
        raise PostgresError("It is not as it was.", next_step="Look.")

    with pytest.raises(PostgresError, match="not as it was"):
        await apply_short(
            parse_dsn(target.dsn), ["ALTER TABLE orders ADD a int"], limits=QUICK, tell=silent,
            after=after,
        )  # fmt: skip
    assert not await has_column(conn, "a")


async def test_a_book_that_changes_meanwhile_stops_it(conn: Any, target: Target) -> None:
    await apply_now(target.dsn, unit_of("SELECT 1", version="0000"))
    unit = unit_of("ALTER TABLE orders ADD a int")
    writing = "INSERT INTO twokey_migrate.applied VALUES ('0009', 'x', 'y', now(), 0)"
    async with other(target.dsn, writing) as holder:

        async def tell(text: str, fraction: float | None) -> None:
            if "trying again" in text and holder.is_in_transaction():
                await holder.execute("COMMIT")

        with pytest.raises(PostgresError, match="Somebody else has changed twokey_migrate"):
            await apply_now(target.dsn, unit, tell=tell)
    assert not await has_column(conn, "a")


async def test_the_tool_at_work_is_waited_for_and_then_left_alone(
    conn: Any, target: Target
) -> None:
    from postgres.migrate.books.opening import book_of

    book = book_of(Tool.DBMATE)
    assert await book.try_lock(conn)
    unit = unit_of("ALTER TABLE orders ADD a int", tool=Tool.DBMATE)
    with pytest.raises(BlockedError, match="dbmate itself is at work"):
        await apply_now(target.dsn, unit)
    assert not await has_column(conn, "a")
    await book.unlock(conn)
    await apply_now(target.dsn, unit)
    assert await has_column(conn, "a")


async def test_what_is_deferred_to_the_commit_counts_as_well(conn: Any, target: Target) -> None:
    await conn.execute(
        "CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN INSERT INTO customers VALUES (1); RETURN NULL; END';"
        " CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON orders INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION late()"
    )
    unit = unit_of("UPDATE orders SET note = 'x' WHERE id = 1", kind=StatementKind.DATA)
    expected = Expected(locks={0: {"public.orders": Lock.ROW_EXCLUSIVE}}, seconds={})
    with pytest.raises(ExceededError, match=r"ROW EXCLUSIVE on public\.customers"):
        await apply_now(target.dsn, unit, expected=expected)
    assert await conn.fetchval("SELECT note FROM orders WHERE id = 1") == "n"


async def test_a_review_of_another_text_is_not_run(conn: Any, target: Target) -> None:
    agreed, other_one = unit_of("ALTER TABLE orders ADD a int"), unit_of("DROP TABLE orders")
    with pytest.raises(PostgresError, match="is not of its present text"):
        await apply_now(target.dsn, replace(agreed, review=other_one.review))
    assert await conn.fetchval("SELECT to_regclass('orders') IS NOT NULL")
