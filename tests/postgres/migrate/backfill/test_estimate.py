"""How long it should take: from the catalog, and from batches on a copy that change nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from postgres.dsn import parse_dsn
from postgres.errors import PostgresError
from postgres.migrate.backfill.estimate import START_SECONDS, Estimate, estimate, measure
from tests.conftest import Target
from tests.postgres.migrate.backfill.support import COUNT, SMALL, counts


async def test_rows_size_and_what_is_written_to_are_known(conn: Any) -> None:
    await conn.execute("ANALYZE rows")
    path = await conn.fetchval("SHOW search_path")
    found = await estimate(conn, COUNT)
    assert (found.rows, found.matching, found.is_hot, found.fillfactor) == (2000, 2000, True, 100)
    assert found.indexes == ("public.rows_pkey",)
    assert found.size_bytes > 8192
    assert 0 < found.low_seconds < found.high_seconds < 5
    assert await conn.fetchval("SHOW search_path") == path


@pytest.mark.parametrize(
    "index", ["(n)", "((n + 1))", "(id) WHERE n > 5", "(id) INCLUDE (n)", "(note, n)"]
)
async def test_an_index_that_has_an_assigned_column_costs_all_indexes(
    conn: Any, index: str
) -> None:
    before = await estimate(conn, COUNT)
    await conn.execute(f"CREATE INDEX x ON rows {index}; CREATE INDEX y ON rows (note)")
    found = await estimate(conn, COUNT)
    assert not found.is_hot
    assert found.indexes == ("public.rows_pkey", "public.x", "public.y")
    assert work(found) > 2 * work(before)


async def test_room_on_the_pages_makes_it_cheaper(conn: Any) -> None:
    full = await estimate(conn, COUNT)
    await conn.execute("ALTER TABLE rows SET (fillfactor = 45)")
    roomy = await estimate(conn, COUNT)
    assert roomy.fillfactor == 45
    assert work(roomy) < work(full)


async def test_a_condition_and_triggers_are_seen(conn: Any) -> None:
    await conn.execute(
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;"
        "CREATE TRIGGER on_update BEFORE UPDATE ON rows FOR EACH ROW EXECUTE FUNCTION f();"
        "CREATE TRIGGER on_delete BEFORE DELETE ON rows FOR EACH ROW EXECUTE FUNCTION f();"
        "ANALYZE rows"
    )
    found = await estimate(conn, replace(COUNT, where_sql="id <= 500 -- a quarter"))
    assert found.rows == 2000
    assert 400 < found.matching < 600
    assert found.triggers == ("on_update",)


async def test_more_ranges_are_faster_and_a_missing_table_is_said(conn: Any) -> None:
    one = await estimate(conn, replace(COUNT, ranges=1))
    four = await estimate(conn, replace(COUNT, ranges=4))
    assert work(one) / work(four) == pytest.approx(2.3, rel=0.02)
    with pytest.raises(PostgresError, match=r"no table public\.nowhere"):
        await estimate(conn, replace(COUNT, table="nowhere"))


@pytest.mark.parametrize("ranges", [1, 2])
async def test_batches_on_a_copy_are_spread_and_change_nothing(
    conn: Any, target: Target, ranges: int
) -> None:
    pace = await measure(parse_dsn(target.dsn), replace(COUNT, ranges=ranges), SMALL)
    assert pace.samples == 10
    assert 700 <= pace.rows <= 1000
    assert pace.rows_per_second > 1000
    assert pace.commit_seconds < 0.5
    assert await counts(conn) == {0: 2000}
    assert await conn.fetchval("SELECT to_regnamespace('twokey_migrate')") is None
    found = await estimate(conn, COUNT, pace)
    assert found.is_measured
    likely = 2000 / pace.rows_per_second * 1.1 + START_SECONDS
    assert found.low_seconds == pytest.approx(0.8 * likely)
    assert found.high_seconds == pytest.approx(1.4 * likely)


async def test_a_copy_without_rows_says_nothing_and_a_wrong_expression_does(
    conn: Any, target: Target
) -> None:
    broken = replace(COUNT, assignments_sql="n = 1 / (id - id)::int")
    with pytest.raises(PostgresError, match="could not be tried on the copy: division by zero"):
        await measure(parse_dsn(target.dsn), broken, SMALL)
    await conn.execute("TRUNCATE rows")
    pace = await measure(parse_dsn(target.dsn), COUNT, SMALL)
    assert (pace.rows_per_second, pace.rows) == (0, 0)
    assert (await estimate(conn, COUNT, pace)).rows == 0


def work(found: Estimate) -> float:
    """Seconds for the rows alone, at most."""
    return found.high_seconds - 3 * START_SECONDS
