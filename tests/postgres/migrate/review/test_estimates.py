"""How long a statement should take, against what was measured on 5 million rows."""

from __future__ import annotations

import pytest

from postgres.migrate.review.effects import Touch
from postgres.migrate.review.estimates import seconds_of
from postgres.migrate.review.facts import TableFacts
from postgres.migrate.words import Lock, Work
from tests.postgres.migrate.review.known import one

MEASURED = TableFacts(name="public.acc", size_bytes=1_290_000_000, rows=5_000_000)


def seconds(work: Work, pace: str = "", *, rows: bool = False) -> tuple[float, float]:
    found = seconds_of(
        [
            Touch(
                table="public.acc",
                lock=Lock.ACCESS_EXCLUSIVE,
                work=work,
                facts=MEASURED,
                pace=pace,
                changes_rows=rows,
            )
        ]
    )
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("work", "pace", "measured"),
    [
        # research/migrations.md, "DDL durations, 5M rows": all that was measured, in seconds.
        (Work.SCAN, "", [0.69, 0.75, 0.79, 0.81, 1.02, 1.06]),
        (Work.SCAN, "index", [2.08, 2.34, 2.52, 2.55, 3.24, 3.74]),
        (Work.SCAN, "foreign key", [0.8, 1.28, 1.37, 1.67]),
        (Work.REWRITE, "", [23.3, 24.84, 25.79, 31.31, 32.9, 37.66]),
    ],
)
def test_what_was_measured_lies_in_the_estimate(
    work: Work, pace: str, measured: list[float]
) -> None:
    low, high = seconds(work, pace)
    assert low <= min(measured)
    assert max(measured) <= high
    assert high / low < 6


def test_an_update_of_all_rows_is_at_most_twice_what_was_measured() -> None:
    low, high = seconds(Work.SCAN, "update", rows=True)
    assert low == 0
    assert 110.5 <= high <= 221


def test_the_catalog_alone_takes_no_time() -> None:
    assert seconds(Work.CATALOG) == (0.0, 0.1)


@pytest.mark.parametrize(
    "sql",
    [
        "DO $$ BEGIN END $$",
        "CREATE INDEX i ON nothing_here (id)",
        "SELECT tidy('x')",
        "UPDATE nothing_here SET id = 1",
    ],
)
def test_where_only_a_rehearsal_tells_there_is_no_number(sql: str) -> None:
    statement = one(sql)
    assert (statement.low_seconds, statement.high_seconds) == (None, None)


def test_a_new_table_costs_nothing_and_a_foreign_key_counts_its_own_side() -> None:
    made = one("CREATE TABLE fresh (id int REFERENCES acc)")
    assert (made.low_seconds, made.high_seconds) == (0.0, 0.1)
    key = one("ALTER TABLE tenants ADD FOREIGN KEY (id) REFERENCES acc")
    assert key.high_seconds == 0.1
