"""Tables are cut into pieces by keys of any type, and every key lies in exactly one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from postgres.errors import PostgresError
from postgres.migrate.backfill.key import interval_text, read_table
from postgres.migrate.backfill.ranges import (
    Piece,
    cuts_of,
    last_key,
    pieces_of,
    wanted_pieces,
)
from tests.conftest import Target
from tests.postgres.migrate.backfill.support import COUNT, do

KINDS = """
    CREATE EXTENSION citext;
    CREATE DOMAIN noon AS timestamptz;
    CREATE TABLE seeds AS SELECT i FROM generate_series(1, 700) AS i ORDER BY md5(i::text);
"""


@pytest.fixture
async def conn(target: Target) -> AsyncIterator[Any]:
    made = await asyncpg.connect(target.dsn)
    yield made
    await made.close()


async def test_keys_of_any_type_are_walked_through_once(conn: Any, target: Target) -> None:
    await conn.execute(KINDS)
    keys = {
        "bigint": "i::bigint - 1000",
        "smallint": "i::smallint",
        "numeric": "i / 7.0",
        "float8": "CASE i WHEN 1 THEN 'NaN' WHEN 2 THEN '-Infinity' ELSE i / 3.0 END::float8",
        "text": "chr(65 + i % 50) || i || '''\"\\ é'",
        'text COLLATE "C"': "md5(i::text)",
        "public.citext": "CASE WHEN i % 2 = 0 THEN 'K' ELSE 'k' END || i",
        "uuid": "md5(i::text)::uuid",
        "bytea": "decode(md5(i::text), 'hex')",
        "date": "date '0099-12-30 BC' + i * 300",
        "timestamptz": "timestamptz '2024-03-31 00:00+00' + i * interval '97 seconds'",
        "public.noon": "timestamptz '2024-03-31 00:00+00' + i * interval '97 seconds'",
        "interval": "i * interval '31 hours'",
        "inet": "inet '10.0.0.0' + i",
        "char(8)": "i::text",
        "int[]": "ARRAY[i % 10, i]",
    }
    # Without its schema citext would be compared as text, in another order than its index has.
    await conn.execute(f"ALTER DATABASE {target.name} SET search_path = ''")
    for number, (kind, value) in enumerate(keys.items()):
        table = f"t{number}"
        await conn.execute(
            f"CREATE TABLE {table} (k {kind} PRIMARY KEY, n int DEFAULT 0);"
            f"INSERT INTO {table} (k) SELECT {value} FROM seeds"
        )
        spec = replace(COUNT, key=table, table=table, ranges=1)
        outcome = await do(target.dsn, spec)
        assert (outcome.rows, outcome.passed) == (700, 700), kind
        assert await conn.fetch(f"SELECT n, count(*) FROM {table} GROUP BY n") == [(1, 700)], kind
        assert outcome.batches >= 7


async def test_dates_are_read_back_whatever_the_servers_style(conn: Any, target: Target) -> None:
    await conn.execute(f"ALTER DATABASE {target.name} SET datestyle = 'SQL, DMY'")
    # It writes IST in summer, which is read as Israel's time: an hour earlier.
    await conn.execute(f"ALTER DATABASE {target.name} SET timezone = 'Europe/Dublin'")
    await conn.execute(
        "CREATE TABLE rows (a date, b timestamptz, n int DEFAULT 0, PRIMARY KEY (a, b));"
        "INSERT INTO rows (a, b) SELECT date '2024-01-01' + i % 40, timestamptz '2024-06-01' +"
        " i * interval '1 hour' FROM generate_series(1, 2000) AS i"
    )
    assert (await do(target.dsn)).rows == 2000
    assert await conn.fetchval("SELECT count(*) FROM rows WHERE n = 1") == 2000


async def test_a_key_of_several_columns_is_walked_through_once(conn: Any, target: Target) -> None:
    await conn.execute(
        'CREATE TABLE rows ("a ""b" text, b int, "C" uuid, n int DEFAULT 0,'
        ' PRIMARY KEY ("a ""b", b, "C"));'
        "INSERT INTO rows SELECT chr(65 + i % 3), i % 7, md5(i::text)::uuid"
        " FROM generate_series(1, 3000) AS i"
    )
    outcome = await do(target.dsn, replace(COUNT, ranges=4))
    assert outcome.rows == 3000
    assert await conn.fetchval("SELECT count(*) FROM rows WHERE n = 1") == 3000


async def test_a_unique_index_over_columns_without_null_will_do(conn: Any, target: Target) -> None:
    await conn.execute(
        "CREATE TABLE rows (a int NOT NULL, b int, c int NOT NULL, d int NOT NULL, n int);"
        "CREATE UNIQUE INDEX ON rows (b); CREATE UNIQUE INDEX ON rows (c) WHERE c > 5;"
        "CREATE UNIQUE INDEX ON rows ((d + 1)); CREATE UNIQUE INDEX ON rows (d DESC);"
        "CREATE UNIQUE INDEX ON rows USING btree (a, c) INCLUDE (n);"
        "INSERT INTO rows SELECT i / 10, i, i, i FROM generate_series(1, 500) AS i"
    )
    await conn.execute("SET search_path = ''")
    table = await read_table(conn, "public", "rows")
    assert table.key.names == ("a", "c")
    assert (await do(target.dsn, replace(COUNT, assignments_sql="n = 1"))).rows == 500


@pytest.mark.parametrize(
    ("make", "because"),
    [
        ("CREATE TABLE rows (n int); CREATE INDEX ON rows (n)", "has no primary key"),
        ("CREATE TABLE rows (a int UNIQUE, n int)", "has no primary key"),
        ("CREATE VIEW rows AS SELECT 1 AS n", "no table public.rows"),
        (
            "CREATE TABLE rows (a int PRIMARY KEY, n int); CREATE TABLE kid () INHERITS (rows)",
            "inherit from public.rows",
        ),
        ("CREATE TABLE rows (n int PRIMARY KEY)", "n of public.rows is part of the key"),
        ("CREATE TABLE rows (a int PRIMARY KEY)", 'column "n" does not exist'),
    ],
)
async def test_a_table_that_cannot_be_walked_through_is_refused(
    conn: Any, target: Target, make: str, because: str
) -> None:
    await conn.execute(make)
    with pytest.raises(PostgresError, match=because) as refused:
        await do(target.dsn)
    assert refused.value.next_step
    assert await conn.fetchval("SELECT to_regnamespace('twokey_migrate')") is None


async def test_pieces_are_about_equal_and_cover_everything(conn: Any) -> None:
    await conn.execute(
        "CREATE TABLE rows (a int, b int, PRIMARY KEY (a, b));"
        # Nine of ten rows have the same leading value, and there is a great hole.
        "INSERT INTO rows SELECT CASE WHEN i % 10 = 0 THEN i * 1000 ELSE 7 END, i"
        " FROM generate_series(1, 20000) AS i"
    )
    await conn.execute("SET search_path = ''")
    table = await read_table(conn, "public", "rows")
    pieces = pieces_of(await cuts_of(conn, table, 8), await last_key(conn, table))
    assert len(pieces) == 8
    sizes = []
    for piece in pieces:
        within = table.key.within(has_start=piece.after is not None)
        query = f"SELECT count(*) FROM public.rows WHERE {within}"
        sizes.append(await conn.fetchval(query, *(piece.after or ()), *piece.upto))
    assert sum(sizes) == 20_000
    assert max(sizes) - min(sizes) <= 1


def test_pieces_meet_without_gap_or_overlap() -> None:
    assert pieces_of([], None) == ()
    assert pieces_of([], ("9",)) == (Piece(after=None, upto=("9",)),)
    assert pieces_of([("3",), ("9",)], ("9",)) == (
        Piece(after=None, upto=("3",)),
        Piece(after=("3",), upto=("9",)),
    )


@pytest.mark.parametrize(
    ("rows", "workers", "pieces"),
    [(10**9, 1, 1), (10**6, 2, 16), (10**6, 4, 25), (100, 4, 1), (80_001, 2, 2), (0, 2, 1)],
)
def test_there_are_more_pieces_than_workers_where_there_are_many_rows(
    rows: int, workers: int, pieces: int
) -> None:
    assert wanted_pieces(rows, workers=workers, batch_rows=10_000) == pieces


def test_a_range_is_said_in_words() -> None:
    assert interval_text(["id"], None, ["9"]) == "id up to 9"
    assert interval_text(["a", "b"], ["1", "x"], ["2", "y"]) == "(a, b) after 1, x up to 2, y"
