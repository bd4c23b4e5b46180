"""Lag from both sides, with the traps of each: pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postgres.health.lag import Trail, merge, seen_by_primary

MB = 1_000_000
# A primary that writes a megabyte a second, seen every 30 seconds; now is 120.
TRAIL = Trail(points=((0.0, 0), (30.0, 30 * MB), (60.0, 60 * MB), (90.0, 90 * MB), (120.0, 120 * MB)))  # fmt: skip  # noqa: E501


def replica(replayed_mb: int, **changes: Any) -> dict[str, Any]:
    return {
        "name": "west", "addr": "10.0.0.2", "state": "streaming", "sync": "async",
        "lag_bytes": (120 - replayed_mb) * MB, "replay_lsn": replayed_mb * MB, "replay_ms": None,
        "reply_age_s": 0.1, "is_logical": False, **changes,
    }  # fmt: skip


def lag_ms(row: Mapping[str, Any], trail: Trail = TRAIL) -> float | None:
    return seen_by_primary([row], trail).numbers["replication_lag_ms"]


def test_an_idle_primary_says_null_and_means_zero() -> None:
    assert lag_ms(replica(120)) == 0.0


def test_null_while_bytes_are_missing_is_no_zero() -> None:
    assert lag_ms(replica(50)) == 60_000  # written before second 60, at the least


def test_a_reply_that_is_old_makes_the_lag_older() -> None:
    assert lag_ms(replica(110, replay_ms=4000, reply_age_s=5.0)) == 9000


def test_a_standbys_clock_that_is_wrong_raises_no_alarm() -> None:
    assert lag_ms(replica(119, replay_ms=20, reply_age_s=7200.0)) == 30_000
    assert lag_ms(replica(119, replay_ms=20, reply_age_s=-7200.0)) == 20


def test_a_lag_that_is_reported_too_small_is_as_large_as_the_trail_knows() -> None:
    assert lag_ms(replica(10, replay_ms=50)) == 90_000


def test_without_a_trail_what_is_reported_counts_and_nothing_is_unknown() -> None:
    now = Trail(points=((120.0, 120 * MB),))
    assert lag_ms(replica(110, replay_ms=4000), now) == 4100
    assert lag_ms(replica(110), now) is None


@pytest.mark.parametrize(
    "row",
    [
        replica(120, is_logical=True),
        replica(0, replay_lsn=None, lag_bytes=None),  # pg_receivewal replays nothing
    ],
)
def test_what_only_reads_wal_is_no_standby(row: dict[str, Any]) -> None:
    found = seen_by_primary([row], TRAIL)
    assert (found.replicas, found.numbers["replicas_streaming"]) == ((), 0.0)


def test_a_standby_that_catches_up_does_not_stream_yet() -> None:
    found = seen_by_primary([replica(0, state="catchup"), replica(120)], TRAIL)
    assert found.numbers["replicas_streaming"] == 1.0
    assert found.numbers["replication_lag_bytes"] == 120 * MB


def test_a_trail_that_goes_back_begins_anew() -> None:
    assert TRAIL.add(121.0, 5).points == ((121.0, 5),)
    assert TRAIL.add(119.0, 200 * MB).points == ((119.0, 200 * MB),)


@given(st.lists(st.tuples(st.floats(0.1, 60), st.integers(0, 10**9)), max_size=700))
def test_a_trail_stays_short_in_order_and_bounds_what_it_is_asked(
    steps: list[tuple[float, int]],
) -> None:
    trail, at, lsn = Trail(), 0.0, 0
    for seconds, grown in steps:
        at, lsn = at + seconds, lsn + grown
        trail = trail.add(at, lsn)
    assert len(trail.points) <= 480
    assert list(trail.points) == sorted(trail.points)
    at_least, at_most = trail.bounds(lsn // 2)
    assert at_least >= 0
    assert at_most is None or at_most >= at_least


@dataclass(frozen=True, kw_only=True)
class Seen:
    detail: Mapping[str, Any]
    trail: Trail = field(default_factory=Trail)
    numbers: Mapping[str, float | None] = field(default_factory=dict)


def primary(*replicas: Mapping[str, Any]) -> Seen:
    told = seen_by_primary(replicas, TRAIL)
    return Seen(
        detail={"role": "primary", "system": "7", "replicas": list(told.replicas)}, trail=TRAIL
    )


def standby(replayed_mb: int, status: str | None = "streaming", **detail: Any) -> Seen:
    return Seen(
        detail={
            "role": "standby", "system": "7",
            "standby": {"status": status, "replay_lsn": replayed_mb * MB}, **detail,
        }
    )  # fmt: skip


def test_all_is_well() -> None:
    found = merge(primary(replica(120)), [standby(120)], 1, names=["west"])
    assert dict(found.numbers) == {
        "replication_lag_ms": 0.0, "replication_lag_bytes": 0.0, "replicas_streaming": 1.0,
        "replicas_missing": 0.0,
    }  # fmt: skip
    assert found.notes == ()


def test_a_disconnected_standby_is_missing_and_late_though_neither_side_says_so() -> None:
    found = merge(primary(), [standby(20, None)], 1, names=["west"])
    assert dict(found.numbers) == {
        "replication_lag_ms": 90_000.0, "replication_lag_bytes": 100.0 * MB,
        "replicas_streaming": 0.0, "replicas_missing": 1.0,
    }  # fmt: skip
    assert found.replicas[0]["state"] == "disconnected"
    assert "west does not stream" in found.notes[0]


def test_a_standby_that_nobody_can_ask_is_missing() -> None:
    assert merge(primary(), [], 1).numbers["replicas_missing"] == 1.0


def test_a_standby_behind_another_standby_is_not_missing() -> None:
    found = merge(primary(replica(120)), [standby(120), standby(119)], 2)
    assert found.numbers["replicas_missing"] == 0.0


def test_without_the_primary_the_standbys_count_and_lag_is_unknown() -> None:
    found = merge(None, [standby(120), standby(20, None)], 2)
    assert found.numbers["replication_lag_ms"] is None
    assert found.numbers["replicas_missing"] == 1.0


def test_two_primaries_are_said_and_do_not_count_as_streaming() -> None:
    other = Seen(detail={"role": "primary", "system": "7", "replicas": []}, trail=TRAIL)
    found = merge(primary(), [other], 1, names=["west"])
    assert "two of them take writes" in found.notes[0]
    assert found.numbers["replicas_missing"] == 1.0


def test_a_standby_of_another_cluster_is_said_and_does_not_count() -> None:
    found = merge(primary(), [standby(120, system="8")], 1, names=["west"])
    assert "another cluster" in found.notes[0]
    assert found.numbers["replicas_missing"] == 1.0
