"""How long it should take: from the catalog, and from a trial on a copy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from postgres.errors import PostgresError
from postgres.migrate.backfill.estimate import (
    MEASURED_HIGH,
    MEASURED_LOW,
    START_SECONDS,
    Estimate,
    estimate,
)
from postgres.migrate.backfill.trial import Trial
from tests.postgres.migrate.backfill.support import COUNT


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


async def test_a_trial_narrows_it_and_goes_by_the_rows_that_there_are_now(conn: Any) -> None:
    tried = Trial(
        rows=1000, ranges=2, passed=500, updated=500, batches=5, seconds=10.0, start_seconds=1.0,
        late_per_second=100.0,
    )  # fmt: skip
    found = await estimate(conn, COUNT, tried)
    assert found.is_measured
    # 500 rows in the 10 s that they took, and 1,500 more at 100 a second.
    assert found.low_seconds == pytest.approx(MEASURED_LOW * 26)
    assert found.high_seconds == pytest.approx(MEASURED_HIGH * 26)


async def test_a_trial_of_an_empty_table_says_nothing(conn: Any) -> None:
    found = await estimate(conn, COUNT, Trial(rows=0, ranges=2))
    assert not found.is_measured
    assert found == await estimate(conn, COUNT)


def work(found: Estimate) -> float:
    """Seconds for the rows alone, at most."""
    return found.high_seconds - 3 * START_SECONDS
