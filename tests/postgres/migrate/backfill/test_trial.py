"""A backfill is tried on a copy that nobody keeps, and on nothing else."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from postgres.dsn import Target as Place
from postgres.dsn import parse_dsn
from postgres.errors import PostgresError
from postgres.migrate.backfill import trial
from postgres.migrate.backfill.trial import DISPOSABLE, Batch, Trial, spread, trial_of, try_backfill
from tests.conftest import Target
from tests.postgres.migrate.backfill.support import COUNT, SMALL, counts


def place(target: Target, mark: str = "on") -> Place:
    """As whoever makes a copy marks it; a server of tests has it for this session alone."""
    words = parse_dsn(target.dsn).words
    return Place(words={**words, "options": f"-c {DISPOSABLE}={mark}"})


@pytest.mark.parametrize("mark", ["", "off", "on"])
async def test_only_a_server_that_is_marked_as_disposable_is_tried_on(
    conn: Any, target: Target, mark: str
) -> None:
    where = place(target, mark) if mark else parse_dsn(target.dsn)
    if mark == "on":
        assert (await try_backfill(where, COUNT, SMALL)).is_whole
        return
    with pytest.raises(PostgresError, match=r"not a copy that is thrown away: nothing was tried"):
        await try_backfill(where, COUNT, SMALL)
    assert await counts(conn) == {0: 2000}
    assert await conn.fetchval("SELECT to_regnamespace('twokey_migrate')") is None


@pytest.mark.parametrize("ranges", [1, 2])
async def test_what_fits_into_the_time_is_done_whole_and_as_often_as_it_is_asked(
    conn: Any, target: Target, ranges: int
) -> None:
    for times in (1, 2):
        spec = replace(COUNT, ranges=ranges, where_sql="id <= 1500")
        found = await try_backfill(place(target), spec, SMALL)
        assert (found.rows, found.passed, found.updated) == (2000, 2000, 1500)
        assert (found.is_whole, found.ranges) == (True, ranges)
        assert 20 <= found.batches <= 20 + ranges
        assert 0 < found.seconds < 30
        assert found.late_per_second > 0
        assert found.seconds_for(2000) == pytest.approx(found.start_seconds + found.seconds)
        assert await counts(conn) == {times: 1500, 0: 500}


async def test_what_does_not_fit_is_ended_with_slices_from_all_over_the_table(
    conn: Any, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "_SLICES_MAX", 4)
    monkeypatch.setattr(trial, "_SLICE_ROWS", 100)
    found = await try_backfill(place(target), COUNT, SMALL)
    assert not found.is_whole
    assert found.passed == found.updated == 400
    quarters = await conn.fetch("SELECT (id - 1) / 500 AS at FROM rows WHERE n = 1 GROUP BY 1")
    assert sorted(row["at"] for row in quarters) == [0, 1, 2, 3]


async def test_it_ends_when_its_time_is_up_and_leaves_nothing_at_work(
    conn: Any, target: Target
) -> None:
    # 10 ms a row: 10 s for all of them, and a batch each 0.2 s.
    slow = replace(COUNT, assignments_sql="n = n + 1 + (pg_sleep(0.01) IS NULL)::int")
    small = replace(SMALL, rows=20, rows_max=20)
    found = await try_backfill(place(target), slow, small, most=timedelta(seconds=3))
    assert not found.is_whole
    assert 0 < found.passed < 2000
    assert found.seconds <= 3
    at_work = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'twokey backfill%'"
    assert await conn.fetchval(f"{at_work} AND datname = current_database()") == 0


async def test_what_cannot_be_done_there_is_said(conn: Any, target: Target) -> None:
    broken = replace(COUNT, assignments_sql="n = 1 / (id - id)::int")
    with pytest.raises(PostgresError, match="could not be tried on the copy: ") as failed:
        await try_backfill(place(target), broken, SMALL)
    assert "on the original it would fail as well" in failed.value.next_step
    await conn.execute("TRUNCATE rows")
    empty = await try_backfill(place(target), COUNT, SMALL)
    assert (empty.passed, empty.late_per_second, empty.seconds_for(5)) == (0, 0, 0)


def test_the_first_half_is_left_out_of_the_pace_of_the_rest() -> None:
    # 100 rows in the first 4 s, then 100 a second; a batch in both counts by its share of time.
    batches = [
        Batch(ended=14, seconds=4, passed=100, updated=9),
        Batch(ended=16, seconds=2, passed=200, updated=9),
        Batch(ended=18, seconds=2, passed=200, updated=9),
    ]
    found = trial_of(batches, began=9.0, rows=1000, ranges=1)
    assert found == Trial(
        rows=1000, ranges=1, passed=500, updated=27, batches=3, seconds=8.0, start_seconds=1.0,
        late_per_second=100.0,
    )  # fmt: skip
    assert found.seconds_for(1000) == pytest.approx(1 + 8 + 5)
    assert found.seconds_for(250) == pytest.approx(1 + 4)
    across = [
        Batch(ended=4, seconds=4, passed=100, updated=0),
        Batch(ended=4, seconds=1, passed=60, updated=0),
    ]
    assert trial_of(across, began=0, rows=9, ranges=2).late_per_second == pytest.approx(55)


@pytest.mark.parametrize("count", [0, 1, 2, 5, 8, 37])
def test_every_number_comes_once_and_each_beginning_is_spread(count: int) -> None:
    order = spread(count)
    assert sorted(order) == list(range(count))
    if count == 8:
        assert order == [0, 4, 2, 6, 1, 5, 3, 7]
