"""What is the matter with indexes that are there, and which of them must stay."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from postgres.health.indexes import (
    UNUSED_AFTER,
    Counted,
    Finding,
    Flaw,
    Index,
    Looked,
    judge,
    read_indexes,
    read_scans,
    used_elsewhere,
)
from tests.conftest import Target

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
LONG = Counted(node="shop", since=NOW - UNUSED_AFTER, now=NOW, scans={})
USED = Index(
    oid=1, table_oid=10, schema="public", table_name="orders", name="a", method="btree",
    is_unique=False, is_valid=True, is_identity=False, is_exclusion=False, key_count=1, count=1,
    columns=(2,), classes=(1,), collations=(0,), options=(0,), expressions="", predicate="",
    in_constraint=False, is_partitioned=False, in_extension=False, nulls_equal=False,
    size_bytes=5 << 20, scans=7, is_being_built=False,
)  # fmt: skip
IDLE = replace(USED, scans=0)
WIDE = replace(
    USED, oid=2, name="ab", key_count=2, count=2, columns=(2, 3), classes=(1, 1),
    collations=(0, 0), options=(0, 0),
)  # fmt: skip
TABLES = """
    CREATE TABLE orders (id int PRIMARY KEY, customer int, note text, UNIQUE (note));
    INSERT INTO orders SELECT n, n % 100, n FROM generate_series(1, 2000) AS n;
    CREATE INDEX customer_1 ON orders (customer);
    CREATE INDEX customer_2 ON orders (customer);
    CREATE INDEX customer_note ON orders (customer, note);
    CREATE INDEX lower_note ON orders (lower(note)) WHERE customer > 5;
    CREATE UNIQUE INDEX id_again ON orders (id);
    CREATE TABLE parted (k int) PARTITION BY RANGE (k);
    CREATE TABLE part_1 PARTITION OF parted FOR VALUES FROM (0) TO (10);
    CREATE INDEX parted_k ON parted (k);
    CREATE INDEX part_k ON part_1 (k);
    ANALYZE orders;
"""


def flaws(*indexes: Index, counted: Counted = LONG, references: Any = None) -> list[Any]:
    looked = Looked(indexes=indexes, references=references or {}, counted=counted)
    return [(each.index.name, each.flaw, each.by and each.by.name) for each in judge(looked)]


def test_an_index_that_is_used_has_no_flaw() -> None:
    assert flaws(USED, WIDE.__class__(**{**_fields(WIDE), "columns": (3, 2)})) == []


def test_unused_is_said_only_after_30_days_of_statistics() -> None:
    assert flaws(IDLE) == [("a", Flaw.UNUSED, None)]
    short = replace(LONG, since=NOW - UNUSED_AFTER + timedelta(seconds=1))
    assert flaws(IDLE, counted=short) == []
    assert flaws(IDLE, counted=replace(LONG, since=None)) == []


def test_a_small_one_is_not_worth_a_word() -> None:
    assert flaws(replace(IDLE, size_bytes=8192)) == []


@pytest.mark.parametrize(
    "kept",
    [
        {"in_constraint": True},
        {"is_unique": True},
        {"is_identity": True},
        {"is_exclusion": True},
        {"is_partitioned": True},
        {"in_extension": True},
    ],
)
def test_what_must_stay_is_neither_unused_nor_redundant(kept: dict[str, bool]) -> None:
    assert flaws(replace(IDLE, **kept), WIDE) == []


def test_of_three_that_are_alike_the_oldest_stays() -> None:
    twins = [replace(USED, oid=oid, name=f"a{oid}") for oid in (3, 4, 5)]
    assert sorted(flaws(*twins)) == [("a4", Flaw.DUPLICATE, "a3"), ("a5", Flaw.DUPLICATE, "a3")]


@pytest.mark.parametrize(
    "differs",
    [
        {"columns": (3,)},
        {"classes": (9,)},
        {"collations": (9,)},
        {"options": (1,)},
        {"predicate": "x > 1"},
        {"expressions": "lower(x)"},
        {"method": "hash"},
        {"nulls_equal": True},
    ],
)
def test_what_differs_in_anything_is_no_duplicate(differs: dict[str, Any]) -> None:
    assert flaws(USED, replace(USED, oid=9, name="other", **differs)) == []


def test_a_unique_one_goes_only_for_another_unique_one() -> None:
    unique = replace(USED, oid=9, name="u", is_unique=True)
    assert flaws(USED, unique) == [("a", Flaw.DUPLICATE, "u")]
    backed = replace(unique, oid=3, name="pk", in_constraint=True)
    assert flaws(unique, backed) == [("u", Flaw.DUPLICATE, "pk")]


@pytest.mark.parametrize(
    ("differs", "found"),
    [
        ({}, [("a", Flaw.REDUNDANT, "ab")]),
        ({"columns": (3, 2)}, []),
        ({"options": (1, 0)}, []),
        ({"classes": (9, 1)}, []),
        ({"collations": (9, 0)}, []),
        ({"predicate": "x > 1"}, []),
        ({"method": "gin"}, []),
        ({"expressions": "lower(x)"}, []),
        ({"is_valid": False, "is_being_built": True}, []),
    ],
)
def test_one_that_a_wider_one_begins_with_is_redundant(
    differs: dict[str, Any], found: list[Any]
) -> None:
    assert flaws(USED, replace(WIDE, **differs)) == found


def test_what_takes_over_is_not_called_unused_at_the_same_time() -> None:
    assert flaws(USED, replace(WIDE, scans=0)) == [("a", Flaw.REDUNDANT, "ab")]


def test_one_with_included_columns_is_not_redundant() -> None:
    assert flaws(replace(USED, count=2, columns=(2, 7)), WIDE) == []


def test_a_half_built_one_is_told_unless_it_is_being_built() -> None:
    half = replace(USED, is_valid=False)
    assert flaws(half) == [("a", Flaw.INVALID, None)]
    assert flaws(replace(half, is_being_built=True)) == []


def test_the_last_that_serves_a_foreign_key_had_better_stay() -> None:
    looked = Looked(indexes=(IDLE,), references={10: (frozenset({2}),)}, counted=LONG)
    (found,) = judge(looked)
    assert "foreign key" in found.but
    helped = replace(looked, indexes=(IDLE, replace(WIDE, scans=1, options=(1, 0))))
    assert [each.but for each in judge(helped)] == [""]


def test_replicas_have_a_say_in_what_is_unused() -> None:
    found = Finding(index=IDLE, flaw=Flaw.UNUSED)
    assert used_elsewhere(found, [replace(LONG, scans={1: 3})], []) is None
    assert used_elsewhere(found, [replace(LONG, scans={1: 0})], []) == found
    short = replace(LONG, node="r1", since=NOW - timedelta(days=2))
    assert "r1 has counted" in getattr(used_elsewhere(found, [short], []), "but", "")
    assert "r2 could not be asked" in getattr(used_elsewhere(found, [], ["r2"]), "but", "")
    other = Finding(index=IDLE, flaw=Flaw.DUPLICATE, by=USED)
    assert used_elsewhere(other, [replace(LONG, scans={1: 3})], ["r2"]) == other


@pytest.fixture
async def conn(target: Target) -> AsyncIterator[Any]:
    """A connection to a fresh database with some tables."""
    made = await asyncpg.connect(target.dsn)
    await made.execute(TABLES)
    yield made
    await made.close()


async def test_a_real_catalogue_is_judged(conn: Any) -> None:
    with pytest.raises(asyncpg.UniqueViolationError):
        await conn.execute("CREATE UNIQUE INDEX CONCURRENTLY half ON orders (customer)")
    looked = await read_indexes(conn, "shop")
    found = {each.index.name: (each.flaw, each.by and each.by.name) for each in judge(looked)}
    assert found == {
        "half": (Flaw.INVALID, None),
        "customer_2": (Flaw.DUPLICATE, "customer_1"),
        "customer_1": (Flaw.REDUNDANT, "customer_note"),
        "id_again": (Flaw.DUPLICATE, "orders_pkey"),
        "part_k": (Flaw.DUPLICATE, "part_1_k_idx"),
    }


async def test_scans_are_counted_and_statistics_have_a_beginning(conn: Any) -> None:
    await conn.execute(
        "SET enable_seqscan = off; SELECT * FROM orders WHERE note = '7';"
        " SELECT pg_stat_force_next_flush()"
    )
    oid = await conn.fetchval("SELECT 'orders_note_key'::regclass::oid")
    before = await read_scans(conn, "shop", [oid])
    await conn.execute("SELECT pg_stat_reset()")
    after = await read_scans(conn, "shop", [oid])
    assert after.since is not None
    assert before.since is not None
    assert after.since > before.since
    assert (before.scans, after.scans) == ({oid: 1}, {oid: 0})
    assert not after.is_long_enough


def _fields(index: Index) -> dict[str, Any]:
    return {name: getattr(index, name) for name in index.__slots__}
