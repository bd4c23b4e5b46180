"""What a backfill overwrites is kept: every value once, whatever is killed and whoever writes."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from postgres.errors import PostgresError
from postgres.migrate.backfill.kept import keeping_update
from postgres.migrate.backfill.key import Key, Table
from postgres.migrate.backfill.ledger import forget
from postgres.migrate.backfill.spec import BackfillSpec, Keep
from tests.conftest import Target
from tests.postgres.migrate.backfill.support import KEPT, SMALL, counts, do, until

ROOT = Path(__file__).parents[4]
PASSED = "SELECT coalesce(sum(passed), 0) FROM twokey_migrate.backfill_ranges"
THERE = "SELECT to_regclass('twokey_migrate.backfill_ranges') IS NOT NULL"
# Each old value once, with what was written, and nothing that was not changed.
LEDGER = """
    SELECT count(*) AS kept, count(DISTINCT k.id) AS keys,
           count(*) FILTER (WHERE k.n = 0 AND k.twokey_written_1 = 1) AS right,
           count(*) FILTER (WHERE r.n = k.twokey_written_1) AS as_written
      FROM twokey_aside.rows_kept k JOIN rows r USING (id)
"""


async def kept(conn: Any) -> tuple[int, ...]:
    return tuple(await conn.fetchrow(LEDGER))


async def test_each_old_value_is_kept_with_its_key_and_what_was_written(
    conn: Any, target: Target
) -> None:
    outcome = await do(target.dsn, KEPT)
    assert (outcome.rows, outcome.passed) == (2000, 2000)
    assert await counts(conn) == {1: 2000}
    assert await kept(conn) == (2000, 2000, 2000, 2000)
    says = await conn.fetchval("SELECT obj_description('twokey_aside.rows_kept'::regclass)")
    assert says == "What count has overwritten in public.rows"
    assert not await conn.fetchval(
        "SELECT has_schema_privilege('pg_monitor', 'twokey_aside', 'USAGE')"
    )
    # Done already: nobody needs what it kept any more.
    await conn.execute("DROP TABLE twokey_aside.rows_kept")
    assert (await do(target.dsn, KEPT)).notes == ("It was done already.",)


@pytest.mark.chaos
async def test_kills_of_the_process_lose_no_old_value_and_keep_none_twice(
    conn: Any, target: Target
) -> None:
    asked = json.dumps({"dsn": target.dsn, "ranges": 2, "keeps": True})
    for share in (0.1, 0.4, 0.7):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.postgres.migrate.backfill.support", asked, cwd=ROOT
        )
        await until(lambda least=share * 2000: _passed(conn, least))
        process.kill()
        await process.wait()
        # A batch that was on its way to the server may end yet; it ends whole.
        stands, done = await kept(conn), (await counts(conn)).get(1, 0)
        assert stands[0] == stands[1] == stands[2] == stands[3] <= done < 2000
    assert (await do(target.dsn, KEPT)).rows == 2000
    assert await counts(conn) == {1: 2000}
    assert await kept(conn) == (2000, 2000, 2000, 2000)


async def _passed(conn: Any, least: float) -> bool:
    return bool(await conn.fetchval(THERE) and await conn.fetchval(PASSED) > least)


async def test_what_another_transaction_wrote_at_the_last_moment_is_what_is_kept(
    conn: Any, target: Target
) -> None:
    other = await asyncpg.connect(target.dsn)
    try:
        await other.execute("BEGIN; UPDATE rows SET n = 40 WHERE id = 55")
        await other.execute("UPDATE rows SET n = 50 WHERE id = 56")
        spec = replace(KEPT, where_sql="n < 50", ranges=1)
        work = asyncio.create_task(do(target.dsn, spec, limits=replace(SMALL, retries=1000)))
        await until(lambda: conn.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            " AND application_name LIKE 'twokey backfill%' AND datname = current_database()"
        ))  # fmt: skip
        await other.execute("COMMIT")
        assert (await work).rows == 1999
    finally:
        await other.close()
    assert await counts(conn) == {1: 1998, 41: 1, 50: 1}
    found = await conn.fetch("SELECT * FROM twokey_aside.rows_kept WHERE id IN (55, 56)")
    assert [tuple(row) for row in found] == [(55, 40, 41)]


async def test_what_a_trigger_made_of_it_is_kept_as_written_and_what_it_held_back_is_not(
    conn: Any, target: Target
) -> None:
    await conn.execute(
        "CREATE FUNCTION wild() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN NEW.n := 7; RETURN CASE WHEN OLD.id = 7 THEN NULL ELSE NEW END; END $$;"
        "CREATE TRIGGER wild BEFORE UPDATE ON rows FOR EACH ROW EXECUTE FUNCTION wild()"
    )
    assert (await do(target.dsn, KEPT)).rows == 1999
    assert await counts(conn) == {0: 1, 7: 1999}
    query = "SELECT n, twokey_written_1, count(*) FROM twokey_aside.rows_kept GROUP BY 1, 2"
    assert [tuple(row) for row in await conn.fetch(query)] == [(0, 7, 1999)]


async def test_any_key_any_names_and_partitions_are_kept_by(conn: Any, target: Target) -> None:
    await conn.execute("""
        CREATE TABLE "Odd ""Rows" ("Day" date, "select" text COLLATE "C", n int, "New n" jsonb,
                                   twokey int[], PRIMARY KEY ("Day", "select"))
            PARTITION BY RANGE ("Day");
        CREATE TABLE early PARTITION OF "Odd ""Rows" FOR VALUES FROM (MINVALUE) TO ('2026-02-01');
        CREATE TABLE late PARTITION OF "Odd ""Rows" FOR VALUES FROM ('2026-02-01') TO (MAXVALUE);
        INSERT INTO "Odd ""Rows" SELECT '2026-01-01'::date + i % 90, 'k' || i, i, '{"a": 1}', NULL
          FROM generate_series(1, 500) i;
    """)
    spec = BackfillSpec(
        key="odd", schema="public", table='Odd "Rows',
        assignments_sql='"New n" = NULL, twokey = ARRAY[n, n], n = -n', where_sql="n > 100 --",
        keep=Keep(name="odd's kept", bytes_max=2**30),
    )  # fmt: skip
    assert (await do(target.dsn, spec)).rows == 400
    row = await conn.fetchrow("""
        SELECT count(*) AS kept, bool_and(k."New n" = '{"a": 1}' AND k.twokey IS NULL
                                          AND k.n = -r.n AND k.twokey_written_1 IS NULL
                                          AND k.twokey_written_2 = r.twokey
                                          AND k.twokey_written_3 = r.n) AS is_right
          FROM twokey_aside."odd's kept" k JOIN "Odd ""Rows" r USING ("Day", "select")
    """)
    assert tuple(row) == (400, True)


async def test_more_than_may_be_kept_stops_it_with_whole_batches(conn: Any, target: Target) -> None:
    spec = replace(KEPT, keep=Keep(name="rows_kept", bytes_max=64 * 2**10), ranges=1)
    with pytest.raises(PostgresError, match=r"public.rows take .* and 64 kB may be kept") as full:
        await do(target.dsn, spec)
    assert "done and kept" in full.value.next_step
    stands = await kept(conn)
    assert 0 < stands[0] < 2000
    assert stands == (stands[0],) * 4
    assert (await counts(conn))[1] == stands[0]
    await do(target.dsn, KEPT)
    assert await kept(conn) == (2000,) * 4


@pytest.mark.parametrize(
    ("between", "again", "because"),
    [
        ("SELECT 1", replace(KEPT, keep=None), "begun keeping the old values in rows_kept"),
        ("DROP TABLE twokey_aside.rows_kept", KEPT, "not there any more: it was put back"),
        (
            "DROP TABLE twokey_aside.rows_kept; CREATE TABLE twokey_aside.rows_kept (id int)",
            KEPT,
            "not there any more",
        ),
    ],
)
async def test_it_goes_on_keeping_as_it_began_or_not_at_all(
    conn: Any, target: Target, between: str, again: BackfillSpec, because: str
) -> None:
    stops = "n = n + 1 + 0 / (1500 - id::int)"
    with pytest.raises(PostgresError, match="cannot be computed"):
        await do(target.dsn, replace(KEPT, assignments_sql=stops, ranges=1))
    await conn.execute("DELETE FROM rows WHERE id = 1500")
    await conn.execute(between)
    before = await counts(conn)
    with pytest.raises(PostgresError, match=because):
        await do(target.dsn, replace(again, assignments_sql=stops))
    assert await counts(conn) == before


async def test_a_name_that_is_taken_stops_it_before_anything_is_done(
    conn: Any, target: Target
) -> None:
    await conn.execute("CREATE SCHEMA twokey_aside; CREATE TABLE twokey_aside.rows_kept (a int)")
    with pytest.raises(PostgresError, match="has no place"):
        await do(target.dsn, KEPT)
    assert await counts(conn) == {0: 2000}
    assert not await forget(conn, KEPT.key)


async def test_a_schema_of_somebody_else_gets_no_values(conn: Any, target: Target) -> None:
    await conn.execute("CREATE SCHEMA twokey_aside AUTHORIZATION pg_monitor")
    with pytest.raises(PostgresError, match="belongs to pg_monitor"):
        await do(target.dsn, KEPT)
    assert await counts(conn) == {0: 2000}


def test_the_condition_is_asked_once() -> None:
    """A row for which it holds by chance could else be locked, and not written."""
    key = Key(index="pk", names=("id",), quoted=("id",), types=("bigint",), dates=(False,))
    table = Table(oid=1, quoted="public.rows", key=key, is_ours=True, is_partitioned=False,
                  rows=1, pages=1)  # fmt: skip
    spec = replace(KEPT, where_sql="random() < 0.5")
    assert spec.keep is not None
    made = keeping_update(spec, spec.keep, table, ("n",), has_start=True)
    assert made.count("random()") == 1
