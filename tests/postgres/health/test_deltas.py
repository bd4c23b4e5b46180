"""Two looks make rates, and no reset ever makes a negative or a giant one."""

from __future__ import annotations

import json
from dataclasses import replace
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postgres.health.counters import Counters, DatabaseCounters
from postgres.health.deltas import HOUR_SECONDS, Hour, hour_numbers, rates, reset_between

BUSY = DatabaseCounters(1000, 100, 90_000, 10_000, 3, 5_000_000, 2, None)
BEFORE = Counters(
    at=1000.0, started=10.0, standby=False, writer_reset=10.0,
    databases=MappingProxyType({5: BUSY, 0: DatabaseCounters(0, 0, 500, 5, 0, 0, 0, None)}),
    wal_bytes=1_000_000, checkpoints_timed=7, checkpoints_requested=1, checkpoints_reset=10.0,
)  # fmt: skip


def later(before: Counters, *, seconds: float = 30.0, **changes: object) -> Counters:
    new = before.databases[5]._replace(
        commits=1240, rollbacks=160, blocks_hit=98_000, blocks_read=12_000, deadlocks=5,
        temp_bytes=8_000_000, bad_sessions=3,
    )  # fmt: skip
    databases = MappingProxyType({**before.databases, 5: new})
    after = replace(before, at=before.at + seconds, databases=databases, wal_bytes=1_600_000)
    return replace(after, **changes)  # type: ignore[arg-type]


def test_rates_are_differences_over_the_servers_own_seconds() -> None:
    found = rates(BEFORE, later(BEFORE))
    assert found.numbers == {
        "tps": 10.0, "rollback_pct": 20.0, "cache_hit_pct": 80.0,
        "temp_bytes_s": 100_000.0, "wal_bytes_s": 20_000.0,
    }  # fmt: skip
    assert found.events["deadlocks"] == 2
    assert found.events["bad_sessions"] == 1
    assert found.note == ""


def test_a_first_look_has_no_rates_and_nothing_to_say() -> None:
    found = rates(None, BEFORE)
    assert set(found.numbers.values()) == {None}
    assert found.note == ""


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"started": 900.0}, "restarted"),
        ({"writer_reset": 900.0}, "crashed"),
        ({"standby": True}, "become a standby"),
        ({"databases": MappingProxyType({5: BUSY._replace(reset="now")})}, "pg_stat_reset"),
        ({"databases": MappingProxyType({5: BUSY._replace(commits=999)})}, "went back"),
        ({"databases": MappingProxyType({5: BUSY._replace(bad_sessions=None)})}, "went back"),
    ],
)
def test_a_reset_has_no_rates_and_says_which(changes: dict[str, object], said: str) -> None:
    found = rates(BEFORE, later(BEFORE, **changes))
    assert set(found.numbers.values()) == {None}
    assert not found.events
    assert said in found.note


def test_a_promoted_standby_says_that_it_is_a_primary() -> None:
    assert "become a primary" in reset_between(replace(BEFORE, standby=True), later(BEFORE))


@pytest.mark.parametrize("seconds", [-5.0, 0.0, 0.002, 4000.0])
def test_looks_too_near_or_too_far_apart_have_no_rates(seconds: float) -> None:
    assert rates(BEFORE, later(BEFORE, seconds=seconds)).numbers["tps"] is None


def test_a_database_that_was_dropped_takes_nothing_away_and_a_new_one_counts_from_zero() -> None:
    new = DatabaseCounters(60, 0, 10, 0, 0, 0, 0, None)
    after = later(BEFORE, databases=MappingProxyType({0: BEFORE.databases[0], 9: new}))
    assert rates(BEFORE, after).numbers["tps"] == 2.0


def test_few_blocks_tell_nothing_about_the_cache() -> None:
    after = later(
        BEFORE, databases=MappingProxyType({5: BUSY._replace(blocks_read=BUSY.blocks_read + 999)})
    )
    assert rates(BEFORE, after).numbers["cache_hit_pct"] is None


def test_what_an_old_version_does_not_count_is_unknown_and_not_zero() -> None:
    old = BUSY._replace(bad_sessions=None)
    before = replace(BEFORE, databases=MappingProxyType({5: old}))
    after = later(before, databases=MappingProxyType({5: old._replace(commits=1030)}))
    found = rates(before, after)
    hour = Hour.begin(0.0).add(after.at, found.events)
    assert hour_numbers(hour)["bad_sessions"] is None
    assert hour_numbers(hour)["deadlocks"] == 0.0


def test_checkpoints_whose_own_counter_was_reset_count_as_none() -> None:
    after = later(BEFORE, checkpoints_reset=99.0, checkpoints_timed=0, checkpoints_requested=0)
    found = rates(BEFORE, after)
    assert (found.events["checkpoints"], found.numbers["tps"]) == (0, 10.0)


def test_an_hour_counts_what_lies_in_it_and_survives_being_written() -> None:
    hour = Hour.begin(0.0).add(10.0, {"deadlocks": 2, "checkpoints": 4, "checkpoints_requested": 1})
    hour = hour.add(HOUR_SECONDS - 10, {"deadlocks": 3, "checkpoints": 0})
    again = Hour.read(json.loads(json.dumps(hour.written())))
    assert again is not None
    assert hour_numbers(again) == {
        "deadlocks": 5.0, "bad_sessions": None, "checkpoints_requested_pct": 25.0,
    }  # fmt: skip
    assert again.add(HOUR_SECONDS + 10, {}).count("deadlocks") == 3


@pytest.mark.parametrize("junk", [None, {}, [], {"since": "x", "events": {}},
                                  {"since": 1.0, "events": {"a": [[1]]}}])  # fmt: skip
def test_what_is_no_hour_is_not_read_as_one(junk: object) -> None:
    assert Hour.read(junk) is None


def test_an_hour_of_many_looks_stays_small_and_loses_nothing() -> None:
    hour = Hour.begin(0.0)
    for second in range(1000):
        hour = hour.add(float(second), {"deadlocks": 1})
    assert len(hour.events["deadlocks"]) <= 200
    assert hour.count("deadlocks") == 1000


small = st.integers(0, 10**6)
databases = st.builds(
    DatabaseCounters, small, small, small, small, small, small, st.none() | small,
    st.none() | st.sampled_from(["a", "b"]),
)  # fmt: skip
looks = st.builds(
    Counters,
    at=st.floats(0, 10_000), started=st.sampled_from([1.0, 2.0]), standby=st.booleans(),
    writer_reset=st.none() | st.sampled_from([1.0, 2.0]),
    databases=st.dictionaries(st.integers(0, 3), databases, max_size=3),
    wal_bytes=st.none() | small, checkpoints_timed=small, checkpoints_requested=small,
    checkpoints_reset=st.none() | st.sampled_from([1.0, 2.0]),
)  # fmt: skip


@given(before=looks, after=looks)
def test_no_two_looks_make_a_negative_number(before: Counters, after: Counters) -> None:
    found = rates(before, after)
    assert all(value is None or value >= 0 for value in found.numbers.values())
    assert all(count >= 0 for count in found.events.values())
    if reset_between(before, after):
        assert set(found.numbers.values()) == {None}
        assert found.note


@given(before=looks, more=st.lists(small, min_size=8, max_size=8), seconds=st.floats(1, 3000))
def test_counters_that_only_rose_give_exactly_their_rise(
    before: Counters, more: list[int], seconds: float
) -> None:
    grown = {
        oid: DatabaseCounters(
            *(None if old is None else old + new for old, new in zip(d[:-1], more, strict=False)),  # type: ignore[arg-type]
            d.reset,
        )
        for oid, d in before.databases.items()
    }
    after = replace(before, at=before.at + seconds, databases=grown)
    found = rates(before, after)
    assert found.note == ""
    expected = len(grown) * (more[0] + more[1]) / (after.at - before.at)
    assert found.numbers["tps"] == pytest.approx(expected)
