"""N+1 is seen in the sums of hours: made-up hours where it is, and where it is not."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from jobs.n_plus_one import HINTS_MAX, HOURS_MIN, n_plus_one
from postgres.health.statement_text import key_lookup
from store.statements import StatementHour

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
PARENT = "select id, name from organizations where plan = $1"
CHILD = "select * from users where organization_id = $1"
TRAFFIC = [10, 40, 25, 70, 5, 55, 33, 90, 62, 18, 47, 81]

Course = Callable[[int], int]


def hours(
    queryid: int, text: str, calls: Course, rows: Course, *, traffic: list[int] = TRAFFIC,
    node: str = "shop", is_utility: bool = False,
) -> list[StatementHour]:  # fmt: skip
    return [
        StatementHour(
            at=NOON + n * timedelta(hours=1), node=node, queryid=queryid, calls=calls(load),
            total_ms=10.0, square_ms=1.0, max_ms=1.0, rows=rows(load), text=text,
            is_utility=is_utility,
        )
        for n, load in enumerate(traffic)
    ]  # fmt: skip


def parent(**more: object) -> list[StatementHour]:
    return hours(1, PARENT, lambda n: n, lambda n: 20 * n, **more)  # type: ignore[arg-type]


def child(**more: object) -> list[StatementHour]:
    return hours(2, CHILD, lambda n: 20 * n + 1, lambda n: 60 * n, **more)  # type: ignore[arg-type]


def test_the_pair_is_found_with_what_it_would_save() -> None:
    [pair] = n_plus_one([*parent(), *child()], key_lookup)
    assert (pair.parent, pair.child, pair.key) == (PARENT, CHILD, "users.organization_id")
    total = sum(TRAFFIC)
    assert (pair.parent_calls, pair.parent_rows) == (total, 20 * total)
    assert pair.saved_calls == 20 * total + 12 - total
    assert (pair.hours, round(pair.slope, 3)) == (12, 1.0)
    assert pair.correlation > 0.999


def test_noise_does_not_hide_it() -> None:
    chance = random.Random(3)  # noqa: S311 - no secret
    noisy = hours(2, CHILD, lambda n: int(20 * n * chance.uniform(0.95, 1.05)), lambda n: n)
    assert len(n_plus_one([*parent(), *noisy], key_lookup)) == 1


def test_several_nodes_count_together() -> None:
    halves = [
        *hours(1, PARENT, lambda n: n, lambda n: 10 * n, node="a"),
        *hours(1, PARENT, lambda n: n, lambda n: 10 * n, node="b"),
    ]
    assert len(n_plus_one([*halves, *child()], key_lookup)) == 1


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(
            hours(2, CHILD, lambda n: 24 * n, lambda n: n), id="a fifth more calls than rows"
        ),
        pytest.param(
            hours(2, CHILD, lambda n: 20 * (100 - n), lambda n: n), id="goes the other way"
        ),
        pytest.param(
            hours(2, "select * from users where organization_id > $1",
                  lambda n: 20 * n, lambda n: n), id="no lookup by equality",
        ),
        pytest.param(
            hours(2, "select * from users u join teams t on t.id = u.team where u.id = $1",
                  lambda n: 20 * n, lambda n: n), id="two tables",
        ),
        pytest.param(
            hours(2, CHILD, lambda n: 20 * n, lambda n: n, traffic=TRAFFIC[:7]), id="few hours"
        ),
        pytest.param(
            hours(2, CHILD, lambda n: 20 * n, lambda n: n, is_utility=True), id="a utility one"
        ),
        pytest.param(
            hours(2, CHILD, lambda n: 20 * n, lambda n: n, traffic=TRAFFIC[::-1]), id="other hours"
        ),
        pytest.param(hours(2, "", lambda n: 20 * n, lambda n: n), id="no text"),
    ],
)  # fmt: skip
def test_what_is_no_n_plus_one(other: list[StatementHour]) -> None:
    assert n_plus_one([*parent(), *other], key_lookup) == ()


def test_calls_that_follow_only_roughly_are_no_n_plus_one() -> None:
    # The slope is right, but what happens in an hour is not told by the rows of it.
    off = {n: 220 if place % 2 else -220 for place, n in enumerate(sorted(TRAFFIC))}
    rough = hours(2, CHILD, lambda n: max(20 * n + off[n], 0), lambda n: n)
    xs, ys = [20 * n for n in TRAFFIC], [each.calls for each in rough]
    slope, correlation = statistics.linear_regression(xs, ys).slope, statistics.correlation(xs, ys)
    assert 0.9 < slope < 1.1
    assert 0.9 < correlation < 0.98
    assert n_plus_one([*parent(), *rough], key_lookup) == ()


def test_few_hours_tell_nothing() -> None:
    few = TRAFFIC[: HOURS_MIN - 1]
    assert n_plus_one([*parent(traffic=few), *child(traffic=few)], key_lookup) == ()
    enough = TRAFFIC[:HOURS_MIN]
    assert n_plus_one([*parent(traffic=enough), *child(traffic=enough)], key_lookup)


def test_two_statements_of_every_request_only_follow_the_traffic() -> None:
    session = hours(
        1, "select * from sessions where token = $1", lambda n: 20 * n, lambda n: 20 * n
    )
    assert n_plus_one([*session, *child()], key_lookup) == ()


def test_where_all_hours_are_alike_nothing_can_be_said() -> None:
    flat = [50] * 24
    assert n_plus_one([*parent(traffic=flat), *child(traffic=flat)], key_lookup) == ()


def test_few_calls_are_not_worth_a_word() -> None:
    small = [n % 3 for n in range(12)]
    rows = hours(1, PARENT, lambda n: n, lambda n: 3 * n, traffic=small)
    calls = hours(2, CHILD, lambda n: 3 * n, lambda n: n, traffic=small)
    assert n_plus_one([*rows, *calls], key_lookup) == ()


def test_hints_are_bounded_and_those_that_save_most_come_first() -> None:
    many: list[StatementHour] = []
    for k in range(1, 12):
        many += hours(k, f"select * from p{k} where x < $1", lambda n: n, lambda n, k=k: 5 * k * n)  # type: ignore[misc]
        many += hours(
            100 + k, f"select * from c{k} where id = $1", lambda n, k=k: 5 * k * n, lambda n: n  # type: ignore[misc]
        )  # fmt: skip
    found = n_plus_one(many, key_lookup)
    assert len(found) == HINTS_MAX
    assert [pair.key for pair in found[:2]] == ["c11.id", "c10.id"]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("select * from users where id = $1", "users.id"),
        ("SELECT u.* FROM app.users AS u WHERE $1::uuid = u.id AND u.gone IS NULL LIMIT $2",
         "users.id"),
        ("select * from users where a > $1 and id = $2", "users.id"),
        ("select * from users where a = b", None),
        ("select * from users where id = $1 or x = $2", None),
        ("select * from users where id <> $1", None),
        ("select * from users where id in ($1, $2)", None),
        ("select * from users", None),
        ("select count(*) from users where id = $1 group by x", None),
        ("with x as (select 1) select * from users where id = $1", None),
        ("select * from (select 1) x where id = $1", None),
        ("select $1", None),
        ("update users set a = $1 where id = $2", None),
        ("select * from users where cut = 'of", None),
    ],
)  # fmt: skip
def test_what_is_a_key_lookup(text: str, key: str | None) -> None:
    assert key_lookup(text) == key
