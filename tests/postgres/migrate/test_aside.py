"""What a file drops is kept aside, and comes back as it was."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from postgres.facts import SCHEMA_LINES
from postgres.migrate.apply_guards import check_statements
from postgres.migrate.aside import with_aside
from postgres.migrate.aside_back import PutBack, drop_statement, put_back
from postgres.migrate.aside_words import AsideBounds, AsidePlan, Kept, What
from postgres.migrate.own_schema import ASIDE_SCHEMA, ensure_schema
from postgres.migrate.restore_point import mark
from postgres.migrate.reverse import Exactness, read_reverse_facts, reverse
from postgres.migrate.words import Review, ReviewedStatement, StatementKind
from postgres.schema.reading import Names, read_named
from postgres.server import Binaries, Server, create
from tests.conftest import folder_of_its_own
from tests.postgres.conftest import FAST, run_sql

SHOP = """
    CREATE TABLE customers (id bigserial PRIMARY KEY, name text NOT NULL);
    CREATE TABLE orders (
        id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        customer bigint NOT NULL, note text NOT NULL DEFAULT 'none', found text,
        doubled int GENERATED ALWAYS AS (id * 2) STORED,
        CONSTRAINT owner FOREIGN KEY (customer) REFERENCES customers);
    CREATE INDEX by_note ON orders (note);
    CREATE SEQUENCE numbers OWNED BY customers.id;
    CREATE MATERIALIZED VIEW notes AS SELECT note, count(*) AS n FROM orders GROUP BY note;
    CREATE TABLE parents (id int PRIMARY KEY);
    CREATE TABLE children (id int PRIMARY KEY, parent int REFERENCES parents ON DELETE CASCADE);
    CREATE TABLE nokey (a int, b text);
    CREATE TABLE parted (n int) PARTITION BY RANGE (n);
    CREATE TABLE secret (id int PRIMARY KEY, word text);
    ALTER TABLE secret ENABLE ROW LEVEL SECURITY;
    CREATE ROLE keeper LOGIN;
    CREATE POLICY one ON secret TO keeper USING (id = 1);
    GRANT ALL ON secret TO keeper;
    INSERT INTO customers (name) SELECT 'c' || n FROM generate_series(1, 50) AS n;
    INSERT INTO orders (customer, note, found) SELECT n, 'n' || n, n FROM generate_series(1, 50) n;
    INSERT INTO nokey SELECT n, n FROM generate_series(1, 10) n;
    INSERT INTO secret SELECT n, 'w' FROM generate_series(1, 10) n;
    GRANT SELECT ON customers TO keeper;
    REFRESH MATERIALIZED VIEW notes;
    ANALYZE;
"""
BOUNDS = AsideBounds()


@pytest.fixture(scope="module")
def server(binaries: Binaries) -> Iterator[Server]:
    """A server with a template."""
    home = folder_of_its_own()
    made = asyncio.run(_start(binaries, home))
    try:
        yield made
    finally:
        asyncio.run(made.remove())


async def _start(binaries: Binaries, home: Path) -> Server:
    made = await create(binaries, home / "aside", settings=FAST, sync=False)
    await made.start()
    await run_sql(made.dsn(), "CREATE DATABASE shop")
    await run_sql(made.dsn("shop"), SHOP)
    return made


@pytest.fixture
async def conn(server: Server) -> Any:
    """In a transaction that is rolled back, with the schema of kept things there."""
    made = await asyncpg.connect(server.dsn("shop"))
    transaction = made.transaction()
    await transaction.start()
    await ensure_schema(made, ASIDE_SCHEMA)
    try:
        yield made
    finally:
        await transaction.rollback()
        await made.close()


def _review(*statements: str) -> Review:
    return Review(
        statements=tuple(
            ReviewedStatement(
                index=index, sql=sql, line=index + 1, node="", kind=StatementKind.DESTRUCTIVE
            )
            for index, sql in enumerate(statements)
        )
    )


async def _planned(conn: Any, *statements: str, bounds: AsideBounds = BOUNDS) -> AsidePlan:
    facts = await read_reverse_facts(conn, ";".join(statements))
    return with_aside(_review(*statements), facts, bounds)


async def _kept(conn: Any, *statements: str) -> Kept:
    """Run a plan, and give the one thing that it keeps."""
    plan = await _planned(conn, *statements)
    assert not plan.problems
    assert [each.original for each in plan.review.statements] == list(statements)
    check_statements(plan.review.statements)
    for each in plan.review.statements:
        await conn.execute(each.sql)
    (kept,) = plan.kept
    return Kept.from_json(kept.to_json())


async def _back(conn: Any, kept: Kept) -> PutBack:
    """Put it back the way a run does, but in one transaction."""
    found = await _way(conn, kept)
    assert not found.problems
    for each in found.first:
        await conn.execute(each)
    if found.fill is not None:
        bounds = () if found.fill.is_whole else ((0, 0), (1_000_000, 0))
        await conn.execute(found.fill.batch, *bounds)
    for each in found.last:
        await conn.execute(each.replace(" CONCURRENTLY", ""))
    return found


async def _way(conn: Any, kept: Kept) -> PutBack:
    names = frozenset({(kept.before.schema, kept.before.name), (ASIDE_SCHEMA, kept.name)})
    return put_back(kept, await read_named(conn, Names(relations=names)))


async def _lines(conn: Any) -> list[str]:
    found = [row["line"] for row in await conn.fetch(SCHEMA_LINES, 10_000)]
    await conn.execute("SET search_path = public")
    return found


@pytest.mark.parametrize(
    ("sql", "what", "rows"),
    [
        ("DROP TABLE orders -- with a comment", What.TABLE, "TABLE orders"),
        ("ALTER TABLE orders ADD x int, DROP COLUMN note", What.COLUMN, "SELECT note FROM orders"),
        ("ALTER TABLE orders DROP COLUMN found", What.COLUMN, "SELECT id, found FROM orders"),
        ("TRUNCATE orders", What.ROWS, "TABLE orders"),
        ("DELETE FROM orders", What.ROWS, "TABLE orders"),
        ("TRUNCATE nokey", What.ROWS, "TABLE nokey"),
        ("DROP MATERIALIZED VIEW notes", What.VIEW, "TABLE notes"),
        ("DROP SEQUENCE numbers", What.SEQUENCE, "SELECT last_value FROM numbers"),
    ],
)
async def test_what_is_dropped_is_kept_and_comes_back_as_it_was(
    conn: Any, sql: str, what: What, rows: str
) -> None:
    if "TABLE orders" in sql and "ALTER" not in sql:
        await conn.execute("DROP MATERIALIZED VIEW notes")
    if "DROP COLUMN note" in sql:
        await conn.execute("DROP MATERIALIZED VIEW notes")
    await conn.execute("SELECT nextval('numbers')")
    lines, data = await _lines(conn), sorted(map(str, await conn.fetch(rows)))

    kept = await _kept(conn, sql)
    await _back(conn, kept)
    if "ADD x" in sql:
        await conn.execute("ALTER TABLE orders DROP COLUMN x")

    assert kept.what is what
    assert sorted(map(str, await conn.fetch(rows))) == data
    wanted = [line for line in lines if "twokey_aside" not in line]
    assert [line for line in await _lines(conn) if "twokey_aside" not in line] == wanted


@pytest.mark.parametrize(
    ("sql", "data"),
    [
        ("DROP TABLE orders", "TABLE orders"),
        ("ALTER TABLE orders ADD x int; ALTER TABLE orders DROP COLUMN note, DROP COLUMN found",
         "SELECT id, note, found FROM orders"),
        ("CREATE TABLE more (a int); TRUNCATE customers, orders", "TABLE orders"),
        ("DELETE FROM orders", "TABLE orders"),
        ("DROP SEQUENCE numbers", "SELECT last_value FROM numbers"),
    ],
)  # fmt: skip
async def test_with_what_is_kept_the_way_back_brings_everything(
    conn: Any, sql: str, data: str
) -> None:
    await conn.execute("DROP MATERIALIZED VIEW notes")
    statements = sql.split("; ")
    lines, rows = await _lines(conn), sorted(map(str, await conn.fetch(data)))
    facts = await read_reverse_facts(conn, sql)
    plan = with_aside(_review(*statements), facts, BOUNDS)

    found = reverse(sql, facts, kept=plan.kept)
    for each in plan.review.statements:
        await conn.execute(each.sql)
    for text in found.statements:
        await conn.execute(text.replace(" CONCURRENTLY", ""))

    assert (found.exactness, found.reasons, plan.problems) == (Exactness.EXACT, (), ())
    assert sorted(map(str, await conn.fetch(data))) == rows
    wanted = [line for line in lines if "twokey_aside" not in line]
    assert [line for line in await _lines(conn) if "twokey_aside" not in line] == wanted
    assert reverse(sql, facts).exactness is not Exactness.EXACT


async def test_a_table_that_is_kept_is_out_of_everybodys_sight_and_holds_nobody_up(
    conn: Any,
) -> None:
    await conn.execute("DROP MATERIALIZED VIEW notes")
    kept = await _kept(conn, "DROP TABLE orders")

    await conn.execute("DELETE FROM customers")  # its foreign key is gone with it
    await conn.execute("CREATE TABLE orders (id int PRIMARY KEY)")  # every name is free again
    assert kept.kept == "twokey_aside.orders_1"
    assert await conn.fetchval("SELECT count(*) FROM twokey_aside.orders_1") == 50
    assert not await conn.fetchval("SELECT has_schema_privilege('keeper', 'twokey_aside', 'USAGE')")


async def test_rights_and_owner_come_back_with_the_table(conn: Any) -> None:
    await conn.execute("DROP MATERIALIZED VIEW notes; DROP TABLE orders")
    await conn.execute("ALTER TABLE customers OWNER TO keeper")
    rights = "SELECT relacl::text || relowner::regrole FROM pg_class WHERE oid = $1::regclass"
    before = await conn.fetchval(rights, "customers")

    await _back(conn, await _kept(conn, "DROP TABLE customers"))

    assert await conn.fetchval(rights, "customers") == before


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("DROP TABLE customers", "owner on table public.orders depends on public.customers"),
        ("DROP TABLE customers CASCADE", "drops more than it names"),
        ("DROP TABLE orders, customers", "materialized view public.notes depends"),
        ("ALTER TABLE nokey DROP COLUMN b", "has no primary key"),
        ("ALTER TABLE orders DROP COLUMN id", "is in the primary key"),
        ("ALTER TABLE orders DROP COLUMN note CASCADE", "drops more than it names"),
        ("TRUNCATE customers CASCADE", "empties more tables"),
        ("DELETE FROM parents", "reaches public.children as well"),
        ("DROP TABLE parted", "is partitioned"),
        ("DELETE FROM orders RETURNING id", "does more besides"),
        ("DROP SCHEMA public CASCADE", "drops more than it names"),
        ("DROP OWNED BY keeper", "drops what it does not name"),
        ("ALTER TABLE orders RENAME TO sales; DROP TABLE sales", "is not certain"),
        ("ALTER TABLE orders RENAME note TO remark; ALTER TABLE orders DROP remark", "not certain"),
    ],
)
async def test_what_cannot_be_kept_is_said_and_left_as_it_is(conn: Any, sql: str, why: str) -> None:
    statements = sql.split("; ")

    plan = await _planned(conn, *statements)

    (problem,) = plan.problems
    assert why in problem.text
    assert problem.next_step.endswith(".")
    assert (plan.kept, plan.review) == ((), _review(*statements))


@pytest.mark.parametrize(
    "sql",
    [
        "DROP TABLE IF EXISTS nope",
        "CREATE TABLE made (a int); DROP TABLE made",
        "ALTER TABLE orders ADD x int; ALTER TABLE orders DROP x",
        "ALTER TABLE orders DROP COLUMN doubled",
        "DELETE FROM orders WHERE id = 1",
        "DROP INDEX by_note",
        "UPDATE orders SET note = 'x'",
    ],
)
async def test_what_loses_nothing_from_before_runs_as_it_is(conn: Any, sql: str) -> None:
    statements = sql.split("; ")

    plan = await _planned(conn, *statements)

    assert (plan.review, plan.kept, plan.problems) == (_review(*statements), (), ())


async def test_more_than_the_bound_is_not_copied_while_everybody_waits(conn: Any) -> None:
    small = AsideBounds(rows=49)

    plan = await _planned(conn, "ALTER TABLE orders DROP COLUMN note", bounds=small)

    (problem,) = plan.problems
    assert "would be copied while everybody waits" in problem.text
    assert "/db change" in problem.next_step
    assert not (await _planned(conn, "DROP SEQUENCE numbers", bounds=small)).problems


async def test_the_server_itself_refuses_what_drop_would_refuse(conn: Any) -> None:
    await conn.execute("DROP MATERIALIZED VIEW notes")
    plan = await _planned(conn, "DROP TABLE orders")
    await conn.execute("CREATE VIEW late AS SELECT * FROM orders")  # after the plan

    with pytest.raises(asyncpg.DependentObjectsStillExistError):
        async with conn.transaction():
            await conn.execute(plan.review.statements[0].sql)

    assert await conn.fetchval("SELECT count(*) FROM orders") == 50


async def test_a_copy_that_would_miss_rows_is_not_made(server: Server, conn: Any) -> None:
    await conn.execute("ALTER TABLE secret OWNER TO keeper; ALTER TABLE secret FORCE ROW SECURITY"
                       .replace("ROW SECURITY", "ROW LEVEL SECURITY"))  # fmt: skip
    await conn.execute("ALTER SCHEMA twokey_aside OWNER TO keeper")
    plan = await _planned(conn, "TRUNCATE secret")
    await conn.execute("SET LOCAL ROLE keeper")

    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
        async with conn.transaction():
            await conn.execute(plan.review.statements[0].sql)


async def test_values_of_today_win_over_kept_ones_and_both_are_counted(conn: Any) -> None:
    await conn.execute("DROP MATERIALIZED VIEW notes")
    kept = await _kept(conn, "ALTER TABLE orders DROP COLUMN found, DROP COLUMN note")
    await conn.execute("DELETE FROM orders WHERE id = 1")
    await conn.execute("ALTER TABLE orders ADD found text, ADD note text")
    await conn.execute("UPDATE orders SET found = 'new' WHERE id = 2")

    found = await _back(conn, kept)

    values = await conn.fetch("SELECT id, found, note FROM orders WHERE id <= 3 ORDER BY id")
    assert [tuple(each) for each in values] == [(2, "new", "n2"), (3, "3", "n3")]
    assert found.fill is not None
    assert dict(await conn.fetchrow(found.fill.conflicts)) == {"conflicts": 1, "gone": 1}
    assert "only rows where it is NULL" in found.notes[0]


async def test_rows_come_back_where_they_are_missing(conn: Any) -> None:
    await conn.execute("CREATE UNIQUE INDEX once ON orders (found)")
    kept = await _kept(conn, "DELETE FROM orders")
    await conn.execute(
        "INSERT INTO orders (id, customer, note, found) OVERRIDING SYSTEM VALUE"
        " VALUES (7, 1, 'new', '7'), (70, 1, 'new', '8')"
    )

    found = await _back(conn, kept)

    assert await conn.fetchval("SELECT count(*) FROM orders") == 50
    assert await conn.fetchval("SELECT note FROM orders WHERE id = 7") == "new"
    assert found.fill is not None
    # 7 has another note today; 8 has no place, as another row has what is to be there once.
    assert dict(await conn.fetchrow(found.fill.conflicts)) == {"conflicts": 1, "gone": 1}


async def test_nothing_is_put_where_something_else_stands(conn: Any) -> None:
    await conn.execute("DROP MATERIALIZED VIEW notes")
    kept = await _kept(conn, "DROP TABLE orders")
    await conn.execute("CREATE TABLE orders (id int)")

    assert "is there again" in (await _way(conn, kept)).problems[0]
    await conn.execute(drop_statement(kept))
    assert "not there any more" in (await _way(conn, kept)).problems[0]


async def test_a_second_table_of_a_name_is_kept_beside_the_first(conn: Any) -> None:
    await conn.execute("DROP MATERIALIZED VIEW notes")
    await _kept(conn, "DROP TABLE orders")
    await conn.execute("CREATE TABLE orders (id int PRIMARY KEY)")

    second = await _kept(conn, "DROP TABLE orders")

    assert second.kept == "twokey_aside.orders_2"


async def test_a_restore_point_has_time_and_place_and_a_name_where_we_may(server: Server) -> None:
    for user, is_named in (("postgres", True), ("keeper", False)):
        made = await asyncpg.connect(server.dsn("shop", user))
        try:
            point = await mark(made, "twokey-17" * 20)
        finally:
            await made.close()
        assert (point.named, "/" in point.lsn, point.at.tzinfo is not None) == (
            is_named, True, True,
        )  # fmt: skip
