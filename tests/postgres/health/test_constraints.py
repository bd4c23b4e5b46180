"""What a schema does not enforce: found by the catalogue, guessed by names, and mended."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from postgres.health.constraints import FindingKind, constraint_findings
from tests.conftest import Target

SCHEMA = """
    CREATE TABLE customers (id int PRIMARY KEY, name text, email text NOT NULL);
    CREATE TABLE orders (id int PRIMARY KEY, customer_id int NOT NULL, total int);
    CREATE TABLE "Category" (id int PRIMARY KEY);
    CREATE TABLE items ("categoryId" int, order_id int REFERENCES orders);
    CREATE TABLE notes (id int PRIMARY KEY, order_id bigint);
    CREATE DOMAIN address AS text CHECK (VALUE ~ '@');
    CREATE TABLE sound (
        id int PRIMARY KEY,
        customer_id int REFERENCES customers,
        email address UNIQUE,
        contact_email text CHECK (contact_email ~ '@'),
        slug text
    );
    CREATE UNIQUE INDEX ON sound (lower(slug));
    CREATE INDEX ON sound (customer_id);
"""


@pytest.fixture
async def conn(target: Target) -> AsyncIterator[Any]:
    made = await asyncpg.connect(target.dsn)
    await made.execute(SCHEMA)
    yield made
    await made.close()


async def found(conn: Any, kind: FindingKind) -> list[tuple[str, str]]:
    return [
        (each.table, each.what) for each in await constraint_findings(conn) if each.kind is kind
    ]


async def mend(conn: Any, kind: FindingKind) -> None:
    """Run the statements of the only finding of its kind."""
    [finding] = [each for each in await constraint_findings(conn) if each.kind is kind]
    for statement in finding.statements:
        await conn.execute(statement)


async def test_a_column_that_is_called_like_a_table_is_taken_for_a_reference(conn: Any) -> None:
    assert await found(conn, FindingKind.MISSING_FOREIGN_KEY) == [
        ("public.items", '"categoryId" looks like a reference to public."Category"'),
        ("public.orders", "customer_id looks like a reference to public.customers"),
    ]


async def test_another_type_is_no_reference(conn: Any) -> None:
    found_by_name = await found(conn, FindingKind.MISSING_FOREIGN_KEY)
    assert "public.notes" not in [table for table, _ in found_by_name]


async def test_the_statements_of_a_missing_foreign_key_make_it(conn: Any) -> None:
    await conn.execute("DROP TABLE items")
    await mend(conn, FindingKind.MISSING_FOREIGN_KEY)
    assert await found(conn, FindingKind.MISSING_FOREIGN_KEY) == []
    assert await found(conn, FindingKind.UNVALIDATED) == []


async def test_a_table_without_a_primary_key_is_found_and_its_partitions_are_not(
    conn: Any,
) -> None:
    await conn.execute("""
        CREATE TABLE log (at date) PARTITION BY RANGE (at);
        CREATE TABLE log_1 PARTITION OF log FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
    """)
    tables = [table for table, _ in await found(conn, FindingKind.NO_PRIMARY_KEY)]
    assert sorted(tables) == ["public.items", "public.log"]


async def test_what_was_not_validated_is_found_and_can_be(conn: Any) -> None:
    await conn.execute("ALTER TABLE orders ADD CONSTRAINT positive CHECK (total > 0) NOT VALID")
    [(table, what)] = await found(conn, FindingKind.UNVALIDATED)
    assert (table, what) == ("public.orders", "positive: CHECK ((total > 0)) NOT VALID")
    await mend(conn, FindingKind.UNVALIDATED)
    assert await found(conn, FindingKind.UNVALIDATED) == []


async def test_a_foreign_key_whose_triggers_are_off_is_not_enforced(conn: Any) -> None:
    await conn.execute("ALTER TABLE sound DISABLE TRIGGER ALL")
    [(table, what)] = await found(conn, FindingKind.DISABLED)
    assert (table, what) == ("public.sound", "sound_customer_id_fkey: its triggers are disabled")
    await mend(conn, FindingKind.DISABLED)
    assert await found(conn, FindingKind.DISABLED) == []


async def test_an_e_mail_column_needs_a_check_of_its_own_or_of_its_domain(conn: Any) -> None:
    assert await found(conn, FindingKind.MISSING_CHECK) == [
        ("public.customers", "email: no check says what an e-mail address is")
    ]
    await mend(conn, FindingKind.MISSING_CHECK)
    assert await found(conn, FindingKind.MISSING_CHECK) == []
    await conn.execute("INSERT INTO customers VALUES (1, 'Ana', 'ana@example.com')")
    with pytest.raises(asyncpg.CheckViolationError):
        await conn.execute("INSERT INTO customers VALUES (2, 'Ben', 'ben@example')")


async def test_a_key_of_people_should_be_unique_also_by_an_index_on_lower(conn: Any) -> None:
    assert await found(conn, FindingKind.MISSING_UNIQUE) == [
        ("public.customers", "email: looks like a key of people")
    ]


async def test_a_key_that_has_duplicates_is_said_and_no_index_is_offered(conn: Any) -> None:
    await conn.execute("""
        INSERT INTO customers SELECT n, 'x', 'a@b.de' FROM generate_series(1, 300) n;
        ANALYZE customers;
    """)
    [finding] = [
        each for each in await constraint_findings(conn) if each.kind is FindingKind.MISSING_UNIQUE
    ]
    assert "has duplicates" in finding.what
    assert finding.statements == ()


async def test_a_foreign_key_without_an_index_matters_on_a_large_table_only(conn: Any) -> None:
    assert await found(conn, FindingKind.UNINDEXED_FOREIGN_KEY) == []
    await conn.execute("""
        INSERT INTO orders VALUES (1, 1, 1);
        INSERT INTO items SELECT 1, 1 FROM generate_series(1, 10000);
        ANALYZE items;
    """)
    [(table, what)] = await found(conn, FindingKind.UNINDEXED_FOREIGN_KEY)
    assert table == "public.items"
    assert what.startswith("items_order_id_fkey: each delete in orders")
    await mend(conn, FindingKind.UNINDEXED_FOREIGN_KEY)
    assert await found(conn, FindingKind.UNINDEXED_FOREIGN_KEY) == []
