"""What statements did between two looks, and what an estimate may say."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postgres.health.counters import StatementCounters, StatementKey, StatementSample
from postgres.health.statement_deltas import KEPT_MAX, Kind, StatementRates, statement_rates

ORDERS, OTHER = 16384, 16385


def key(queryid: int, *, database: int = ORDERS, user: int = 10, top: bool = True) -> StatementKey:
    return StatementKey(user, database, queryid, top)


def took(*times_ms: float, since: float | None = None) -> StatementCounters:
    return StatementCounters(
        calls=len(times_ms), total_ms=sum(times_ms), square_ms=sum(t * t for t in times_ms),
        max_ms=max(times_ms, default=0.0), rows=len(times_ms), blocks_hit=2 * len(times_ms),
        blocks_read=0, temp_blocks=0, wal_bytes=0, since=since,
    )  # fmt: skip


def at(seconds: float, rows: dict[StatementKey, StatementCounters]) -> StatementSample:
    return StatementSample(at=seconds, reset=1.0, sees_all=True, rows=MappingProxyType(rows))


def between(
    before: StatementSample | None,
    after: StatementSample,
    kinds: dict[int, Kind] | None = None,
) -> StatementRates:
    return statement_rates(before, after, database=ORDERS, kind=(kinds or {}).get)


def test_rates_are_of_ordinary_statements_alone() -> None:
    before = at(0, {key(1): took(2.0), key(2): took(0.1), key(3): took(1.0)})
    after = at(
        60, {key(1): took(2.0, 4.0, 6.0), key(2): took(*[0.1] * 500), key(3): took(*[1.0] * 100)}
    )
    found = between(before, after, {1: Kind.ORDINARY, 2: Kind.UTILITY, 3: Kind.OURS})
    assert found.numbers["qps"] == pytest.approx(2 / 60)
    assert found.numbers["query_ms_avg"] == pytest.approx(5.0)
    assert [(d.queryid, d.calls, d.is_utility) for d in found.deltas] == [
        (2, 499, True), (1, 2, False)
    ]  # fmt: skip


def test_a_statement_inside_a_function_is_not_counted_twice() -> None:
    after = at(60, {key(1): took(9.0), key(2, top=False): took(9.0)})
    assert between(at(0, {}), after).numbers["qps"] == pytest.approx(1 / 60)


def test_what_another_database_did_counts_for_the_server_and_is_not_kept() -> None:
    after = at(60, {key(1, database=OTHER): took(5.0), key(2): took(5.0)})
    found = between(at(0, {}), after)
    assert found.numbers["qps"] == pytest.approx(2 / 60)
    assert [d.queryid for d in found.deltas] == [2]


def test_users_of_one_statement_are_summed() -> None:
    after = at(60, {key(1, user=10): took(5.0), key(1, user=11): took(7.0, 9.0)})
    (delta,) = between(at(0, {}), after).deltas
    assert (delta.calls, delta.total_ms, delta.square_ms, delta.max_ms) == (3, 21.0, 155.0, 9.0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"reset": 2.0}, "reset"), ({"sees_all": False}, "privileges"), ({"at": 0.001}, "apart")],
)
def test_looks_that_cannot_be_compared_have_no_rates(changes: dict[str, float], said: str) -> None:
    after = replace(at(60, {key(1): took(5.0)}), **changes)  # type: ignore[arg-type]
    found = between(at(0, {}), after)
    assert set(found.numbers.values()) == {None}
    assert not found.deltas
    assert said in found.note


def test_an_entry_that_was_evicted_and_came_back_counts_from_zero() -> None:
    before = at(0, {key(1): took(*[1.0] * 100)})
    (delta,) = between(before, at(60, {key(1): took(2.0, 2.0)})).deltas
    assert (delta.calls, delta.total_ms) == (2, 4.0)


def test_an_entry_made_anew_since_counts_from_zero_although_it_grew() -> None:
    before = at(0, {key(1): took(1.0, since=-100.0)})
    (delta,) = between(before, at(60, {key(1): took(2.0, 2.0, since=30.0)})).deltas
    assert delta.calls == 2


def test_an_entry_that_was_only_invisible_has_no_past_in_this_interval() -> None:
    after = at(60, {key(1): took(*[1.0] * 9999, since=-500.0), key(2): took(3.0, since=30.0)})
    found = between(at(0, {}), after)
    assert found.numbers["qps"] == pytest.approx(1 / 60)


def test_the_slowest_known_execution_is_the_record_or_else_the_mean() -> None:
    before = at(0, {key(1): took(9.0), key(2): took(1.0)})
    after = at(60, {key(1): took(9.0, 2.0, 4.0), key(2): took(1.0, 2.0, 7.0)})
    found = {d.queryid: d.max_ms for d in between(before, after).deltas}
    assert found == {1: pytest.approx(3.0), 2: pytest.approx(7.0)}


def test_single_slow_executions_are_counted_exactly() -> None:
    after = at(60, {key(1): took(1500.0), key(2): took(900.0), key(3): took(30_000.0)})
    numbers = between(at(0, {}), after).numbers
    assert (numbers["slow_queries"], numbers["slow_queries_max"]) == (2.0, 2.0)


def test_a_statement_that_was_never_slow_is_not_even_perhaps_slow() -> None:
    after = at(60, {key(1): took(*[400.0] * 1000)})
    assert between(at(0, {}), after).numbers["slow_queries_max"] == 0.0


def test_slow_executions_of_a_mixed_load_are_estimated_within_the_bound() -> None:
    """The common way, counting statements whose mean is slow, finds none of these."""
    chance = random.Random(7)  # noqa: S311
    truth, rows = 0, {}
    for queryid, middle in enumerate((150, 250, 350, 500, 600)):
        times = [chance.lognormvariate(math.log(middle), 0.8) for _ in range(200)]
        truth += sum(t > 1000 for t in times)
        rows[key(queryid)] = took(*times)
    numbers = between(at(0, {}), at(60, rows)).numbers
    assert numbers["slow_queries"] == pytest.approx(truth, rel=0.15)
    assert truth <= (numbers["slow_queries_max"] or 0)


def test_the_95th_percentile_of_a_mixed_load_is_close() -> None:
    chance = random.Random(11)  # noqa: S311
    every, rows = [], {}
    for queryid in range(300):
        times = [chance.lognormvariate(chance.uniform(0, 4), 0.5) for _ in range(20)]
        every += times
        rows[key(queryid)] = took(*times)
    truth = sorted(every)[int(0.95 * len(every))]
    assert between(at(0, {}), at(60, rows)).numbers["query_ms_p95"] == pytest.approx(truth, rel=0.2)


def test_of_many_statements_the_heaviest_and_the_busiest_are_kept() -> None:
    rows = {key(n): took(1000.0 + n) for n in range(2000)}
    rows[key(9999)] = took(*[0.001] * 5000)
    deltas = between(at(0, {}), at(60, rows)).deltas
    assert len(deltas) == KEPT_MAX
    assert deltas[0].queryid == 1999
    assert 9999 in {d.queryid for d in deltas}


times = st.lists(st.floats(0, 5000), min_size=1, max_size=6)
histories = st.dictionaries(st.integers(1, 5).map(key), times, max_size=5)


@given(first=histories, more=histories)
def test_executions_that_happened_are_found_and_bounded(
    first: dict[StatementKey, list[float]], more: dict[StatementKey, list[float]]
) -> None:
    both = {k: first.get(k, []) + more.get(k, []) for k in {*first, *more}}
    before = at(0, {k: took(*v) for k, v in first.items()})
    found = between(before, at(60, {k: took(*v) for k, v in both.items()}))
    happened = [t for v in more.values() for t in v]
    slow = sum(t > 1000 for t in happened)
    assert sum(d.calls for d in found.deltas) == len(happened)
    assert sum(d.total_ms for d in found.deltas) == pytest.approx(sum(happened), abs=1e-6)
    at_most = found.numbers["slow_queries_max"] or 0.0
    assert slow <= at_most + 1e-6
    assert 0 <= (found.numbers["slow_queries"] or 0.0) <= at_most + 1e-9
    p95 = found.numbers["query_ms_p95"]
    assert (p95 is None) == (not happened)
    longest = max((t for v in both.values() for t in v), default=0.0)
    assert p95 is None or 0 <= p95 <= longest + 1e-5


counters = st.builds(
    StatementCounters, st.integers(1, 99), *[st.floats(0, 1e9)] * 3, *[st.integers(0, 99)] * 5,
    st.none() | st.floats(-100, 60),
)  # fmt: skip
samples = st.dictionaries(st.integers(1, 4).map(key), counters, max_size=4)


@given(first=samples, second=samples)
def test_no_two_samples_make_a_negative_number(
    first: dict[StatementKey, StatementCounters], second: dict[StatementKey, StatementCounters]
) -> None:
    found = between(at(0, first), at(60, second))
    assert all(v is None or v >= 0 for v in found.numbers.values())
    for d in found.deltas:
        assert min(d.calls, d.total_ms, d.square_ms, d.max_ms, d.rows, d.wal_bytes) >= 0
        assert d.square_ms * (1 + 1e-9) + 1e-9 >= d.total_ms**2 / d.calls
