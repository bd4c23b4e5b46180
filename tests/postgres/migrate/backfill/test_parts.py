"""The SQL parts of a backfill are what they are said to be, or nothing is sent."""

from __future__ import annotations

from dataclasses import replace

import pytest

from postgres.errors import PostgresError
from postgres.migrate.backfill.parts import assigned_columns
from tests.postgres.migrate.backfill.support import COUNT


@pytest.mark.parametrize(
    ("assignments", "columns"),
    [
        ("a = 1", ("a",)),
        ('"Odd name" = lower(b), c = CASE WHEN d THEN 1 END -- why', ("Odd name", "c")),
        ("(a, b) = (1, 2)", ("a", "b")),
        ("a = 'x; DROP TABLE t'", ("a",)),
    ],
)
def test_what_is_assigned_is_known(assignments: str, columns: tuple[str, ...]) -> None:
    assert assigned_columns(replace(COUNT, assignments_sql=assignments)) == columns


@pytest.mark.parametrize(
    "assignments",
    [
        "a = 1 WHERE true",
        "a = 1 FROM other",
        "a = 1 RETURNING a",
        "a = 1; DROP TABLE t",
        "a = $1",
        "a = ",
        "",
        "a = 'open",
        "a = 1 /* open",
    ],
)
def test_assignments_that_are_more_or_less_than_that_are_refused(assignments: str) -> None:
    with pytest.raises(PostgresError) as refused:
        assigned_columns(replace(COUNT, assignments_sql=assignments))
    assert refused.value.next_step


@pytest.mark.parametrize(
    "where", ["n IS NULL", "a = 1 OR b = 2 -- both", "note LIKE '%)%'", "n = ANY ('{1,2}')"]
)
def test_a_condition_is_taken(where: str) -> None:
    assert assigned_columns(replace(COUNT, where_sql=where)) == ("n",)


@pytest.mark.parametrize(
    "where",
    [
        "true) OR (true",
        "true ORDER BY 1",
        "true LIMIT 1",
        "true UNION SELECT 2",
        "true; DELETE FROM t",
        "true FOR UPDATE",
        "true GROUP BY n",
        "n = $3",
        "-- nothing",
    ],
)
def test_a_condition_that_could_reach_other_rows_is_refused(where: str) -> None:
    with pytest.raises(PostgresError):
        assigned_columns(replace(COUNT, where_sql=where))


@pytest.mark.parametrize("more", [{"ranges": 0}, {"ranges": 17}, {"key": ""}, {"key": "k" * 201}])
def test_what_is_out_of_bounds_is_refused(more: dict[str, object]) -> None:
    with pytest.raises(PostgresError) as refused:
        assigned_columns(replace(COUNT, **more))  # type: ignore[arg-type]
    assert refused.value.next_step


def test_a_fingerprint_says_what_was_agreed_and_not_how_fast() -> None:
    same = COUNT.fingerprint(("id",))
    assert replace(COUNT, ranges=4, key="other").fingerprint(("id",)) == same
    others = [
        COUNT.fingerprint(("n",)),
        COUNT.fingerprint(("id", "n")),
        replace(COUNT, where_sql="n = 0").fingerprint(("id",)),
        replace(COUNT, assignments_sql="n = n + 2").fingerprint(("id",)),
        replace(COUNT, table="rows2").fingerprint(("id",)),
        replace(COUNT, schema="public2").fingerprint(("id",)),
    ]
    assert len({same, *others}) == 7
