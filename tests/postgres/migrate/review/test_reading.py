"""What the catalog of a real server says about the things that files of SQL name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from postgres.errors import PostgresError
from postgres.migrate.review import reading
from postgres.migrate.review.facts import Column, Facts, TableConstraint
from postgres.migrate.review.reading import read_facts
from postgres.migrate.review.reviewer import judge_file
from postgres.migrate.words import StatementKind, Work
from tests.conftest import Target

SCHEMA = """
    CREATE SCHEMA shop;
    CREATE SCHEMA other;
    CREATE DOMAIN shop.email AS text CHECK (VALUE LIKE '%@%');
    CREATE DOMAIN shop.over AS shop.email;
    CREATE DOMAIN shop.plain AS text;
    CREATE FUNCTION other.lower(int) RETURNS int LANGUAGE sql AS 'SELECT 1';
    CREATE FUNCTION shop.noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE TABLE shop.tenants (id int PRIMARY KEY);
    CREATE TABLE shop.acc (
        id bigint PRIMARY KEY,
        "Ten ant" int REFERENCES shop.tenants,
        price numeric(12, 2) DEFAULT 0,
        "No Te" varchar(20),
        at shop.plain,
        pair int,
        CONSTRAINT noted CHECK ("No Te" IS NOT NULL),
        CONSTRAINT two CHECK (pair IS NOT NULL AND price > 0)
    );
    ALTER TABLE shop.acc ADD CONSTRAINT later CHECK (price IS NOT NULL) NOT VALID;
    CREATE INDEX acc_expr ON shop.acc (lower("No Te"), price) INCLUDE (id);
    CREATE TABLE shop.orders (acc_id bigint REFERENCES shop.acc);
    CREATE TRIGGER noting BEFORE UPDATE ON shop.acc FOR EACH ROW EXECUTE FUNCTION shop.noted();
    CREATE RULE quiet AS ON DELETE TO shop.orders DO INSTEAD NOTHING;
    CREATE TABLE shop.parts (id int PRIMARY KEY) PARTITION BY RANGE (id);
    CREATE TABLE shop.parts_1 PARTITION OF shop.parts FOR VALUES FROM (0) TO (100);
    CREATE TABLE shop.parts_2 PARTITION OF shop.parts FOR VALUES FROM (100) TO (10000)
        PARTITION BY RANGE (id);
    CREATE TABLE shop.parts_2a PARTITION OF shop.parts_2 FOR VALUES FROM (100) TO (10000);
    CREATE TABLE shop.parts_d PARTITION OF shop.parts DEFAULT;
    CREATE TABLE public.acc (id int);
    CREATE TABLE public.uncounted (id int) WITH (autovacuum_enabled = off);
    CREATE VIEW shop.looks AS SELECT * FROM shop.acc;
    INSERT INTO shop.tenants SELECT generate_series(1, 10);
    INSERT INTO shop.acc SELECT n, n % 10 + 1, 1, 'n', 'x', 1 FROM generate_series(1, 3000) n;
    INSERT INTO shop.parts SELECT generate_series(1, 5000);
    ANALYZE shop.acc, shop.parts, shop.parts_1, shop.parts_2a, shop.parts_d;
    CREATE ROLE nobody_{pid} LOGIN;
    GRANT USAGE ON SCHEMA shop TO nobody_{pid};
    ALTER ROLE nobody_{pid} SET search_path = nowhere, shop, public;
"""


@pytest.fixture
async def conn(target: Target) -> AsyncIterator[Any]:
    """A login that may not read a single table, with a search path of its own."""
    owner = await asyncpg.connect(target.dsn)
    name = f"nobody_{target.name.rpartition('target_')[2]}"
    await owner.execute(SCHEMA.replace("nobody_{pid}", name))
    made = await asyncpg.connect(target.dsn.replace("://postgres@", f"://{name}@"), timeout=30)
    try:
        assert await made.fetchval("SELECT current_user") == name
        yield made
    finally:
        await made.close()
        await owner.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")
        await owner.close()


async def test_the_catalog_is_read_by_a_login_that_may_read_no_table(conn: Any) -> None:
    named = ["ALTER TABLE shop.acc ADD x shop.email; SELECT lower('x') FROM shop.parts"]
    named += ["DROP TABLE parts_1, acc, nothing_here; COMMENT ON COLUMN shop.orders.acc_id IS ''"]
    facts = await read_facts(conn, [*named, "DROP INDEX acc_expr; SELECT * FROM shop.looks"])
    _acc(facts)
    _parts(facts)
    assert facts.is_read
    assert facts.functions["lower"].catalog == "i"
    assert facts.functions["lower"].is_made_by_people
    assert (facts.types["email"].kind, facts.types["email"].is_checked) == ("d", True)
    assert facts.indexes["shop.acc_expr"] == "shop.acc"
    assert facts.tables["shop.orders"].has_rules
    assert facts.tables["shop.looks"].kind == "v"
    assert "shop.nothing_here" not in facts.tables


def _acc(facts: Facts) -> None:
    acc = facts.tables["shop.acc"]
    assert acc.rows == 3000
    assert 100_000 < acc.size_bytes < 1_000_000
    assert 100_000 < acc.index_bytes < 1_000_000
    assert acc.columns["price"] == Column(
        name="price", type_name="numeric", typmod=(12 << 16 | 2) + 4, has_default=True
    )
    assert acc.columns["id"].is_not_null
    assert acc.columns["at"].type_name == "shop.plain"
    assert acc.constraint("noted") == TableConstraint(
        name="noted", kind="c", columns=("No Te",), not_null="No Te"
    )
    assert acc.constraint("later") == TableConstraint(
        name="later", kind="c", columns=("price",), is_valid=False, not_null="price"
    )
    assert acc.never_null == {"id", "No Te"}
    assert (acc.references, acc.referenced_by) == (("shop.tenants",), ("shop.orders",))
    assert acc.triggers == ("noting",)
    assert acc.index_columns == {"acc_pkey": ("id",), "acc_expr": ("", "price", "id")}


def _parts(facts: Facts) -> None:
    parts = facts.tables["shop.parts"]
    assert (parts.kind, parts.rows) == ("p", 5000)
    assert parts.size_bytes > 150_000
    assert set(parts.children) == {
        "shop.parts_1", "shop.parts_2", "shop.parts_2a", "shop.parts_d",
    }  # fmt: skip
    assert parts.default_partition == "shop.parts_d"
    assert facts.tables["shop.parts_1"].parents == ("shop.parts",)
    assert facts.tables["shop.parts_1"].rows == 99


async def test_a_name_without_schema_is_found_as_the_session_would(conn: Any) -> None:
    sql = "ALTER TABLE acc ADD COLUMN x int; ALTER TABLE public.acc ADD COLUMN x int"
    facts = await read_facts(conn, [sql])
    said = judge_file(sql, facts, major=17, name="f", says=None).statements
    assert [each.touched[0].table for each in said] == ["shop.acc", "public.acc"]
    made = judge_file("CREATE TABLE t (); DROP TABLE t", facts, major=17, name="f", says=None)
    assert made.kind is StatementKind.ADDITIVE
    assert facts.full_name(("t",)) == "shop.t"


async def test_a_table_that_nobody_has_counted_has_no_number_of_rows(
    conn: Any, target: Target
) -> None:
    owner = await asyncpg.connect(target.dsn)
    try:
        await owner.execute("INSERT INTO uncounted SELECT generate_series(1, 500)")
        await owner.execute("SELECT pg_stat_reset()")
        facts = await read_facts(conn, ["SELECT * FROM uncounted, acc"])
    finally:
        await owner.close()
    assert facts.tables["public.uncounted"].rows is None
    assert facts.tables["public.uncounted"].size_bytes > 0
    assert judge_file(
        "UPDATE uncounted SET id = 1 WHERE id = 2", facts, major=17, name="f", says=None
    ).statements[0].findings[0].rule == "large-update"  # fmt: skip


async def test_dropping_a_schema_names_all_that_is_in_it(conn: Any) -> None:
    sql = "DROP SCHEMA shop CASCADE"
    facts = await read_facts(conn, [sql])
    (said,) = judge_file(sql, facts, major=17, name="f", says=None).statements
    assert {"shop.acc", "shop.orders", "shop.parts"} <= {each.table for each in said.touched}
    assert said.destroys == "schema shop, whatever depends on shop"


async def test_the_catalog_tells_which_functions_and_types_are_harmless(conn: Any) -> None:
    async def kind(sql: str) -> StatementKind:
        facts = await read_facts(conn, [sql])
        return judge_file(sql, facts, major=17, name="f", says=None).kind

    add = "ALTER TABLE acc ADD COLUMN x "
    assert await kind("SELECT upper('x'), count(*), to_char(now(), 'YYYY')") is (
        StatementKind.ADDITIVE
    )
    assert await kind("SELECT lower('x')") is StatementKind.OPAQUE
    assert await kind("SELECT pg_read_file('x')") is StatementKind.OPAQUE
    assert await kind("SELECT query_to_xml('DROP TABLE acc', true, true, '')") is (
        StatementKind.OPAQUE
    )
    assert await kind(f"{add} shop.plain") is StatementKind.ADDITIVE
    assert await kind(f"{add} shop.email") is StatementKind.BLOCKING
    assert await kind(f"{add} shop.over") is StatementKind.BLOCKING
    assert await kind(f"{add} timestamptz DEFAULT transaction_timestamp()") is (
        StatementKind.ADDITIVE
    )
    assert await kind(f"{add} timestamptz DEFAULT clock_timestamp()") is StatementKind.BLOCKING


async def test_a_check_over_two_columns_proves_none_of_them(conn: Any) -> None:
    sql = "ALTER TABLE acc ALTER COLUMN pair SET NOT NULL"
    facts = await read_facts(conn, [sql])
    (said,) = judge_file(sql, facts, major=17, name="f", says=None).statements
    assert said.touched[0].work is Work.SCAN


async def test_files_that_name_nothing_still_have_a_search_path(conn: Any) -> None:
    assert (await read_facts(conn, ["SELECT 1"])).search_path == ("shop", "public")
    assert (await read_facts(conn, [])).search_path == ("shop", "public")


async def test_more_names_than_anybody_reads_are_refused(
    conn: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "NAMES_MAX", 2)
    with pytest.raises(PostgresError, match="name 3 things"):
        await read_facts(conn, ["SELECT 1 FROM a, b, c"])
