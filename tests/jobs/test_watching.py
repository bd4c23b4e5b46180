"""Whether a change has made things worse: compared with before, for long enough, and only then."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.alert_engine import Decision, Look, decide
from jobs.alert_readings import servers_of
from jobs.watching import LEAST, OVERTIME, averages, degrees, verdict, watch_signals
from store.samples import NodeRow, Point
from store.watches import WatchRow
from tests.jobs.alert_world import HOUR, MINUTE, NOON, SECOND, Town, a_node

BEFORE = {"rollback_pct": 0.5, "slow_queries": 3.0, "replication_lag_ms": 20.0, "lock_waits": 0.0}
AS_BEFORE = {"rollback_pct": 0.6, "slow_queries": 4.0, "lock_waits": 1.0}
UNDO = {"operation": "migrate", "params": {"database": "orders", "action": "rollback"}}
WATCH = WatchRow(
    database="orders", request_id=12, subject="0042 add email", state="watching", at=NOON,
    until=NOON + 15 * MINUTE, before=BEFORE, undo=UNDO,
)  # fmt: skip


@dataclass
class Watched(Town):
    """Looks at nothing but a change."""

    watch: WatchRow = WATCH

    def looks(self, *nodes: NodeRow) -> Decision:
        servers = servers_of(self.database, nodes, self.now)
        decision = decide(
            Look(
                database="orders",
                signals=tuple(watch_signals([self.watch], servers, self.now)),
                memories=self.memories,
                rows=self.rows,
                incident=self.incident,
            ),
            self.now,
        )
        self.keep(decision)
        return decision


def test_what_is_as_before_is_not_told() -> None:
    town = Watched()
    assert town.lives(15 * MINUTE, AS_BEFORE) == []
    assert town.rows == {}


@pytest.mark.parametrize(
    ("worse", "said"),
    [
        ({"rollback_pct": 9.0}, "transactions that were rolled back: 9 %, was 0.5 %"),
        ({"slow_queries": 40.0}, "statements over one second"),
        ({"lock_waits": 8.0}, "lock requests"),
        ({"replication_lag_ms": 30_000.0}, "the worst standby is behind: 30 s"),
    ],
)
def test_what_is_worse_for_long_enough_is_told_with_the_way_back(
    worse: dict[str, float], said: str
) -> None:
    town = Watched()
    assert town.lives(90 * SECOND, AS_BEFORE | worse) == []  # it may be the change itself
    (note,) = town.lives(3 * MINUTE, AS_BEFORE | worse)
    assert "orders is worse than before request 12 (0042 add email)" in note
    assert said in note
    (row,) = town.rows.values()
    assert row.severity == "critical"
    (button,) = row.detail["suggestions"]
    assert (button["text"], button["operation"]) == ("Take it back", "migrate")
    assert button["params"] == UNDO["params"]


def test_what_gets_well_again_is_over() -> None:
    town = Watched()
    town.lives(5 * MINUTE, AS_BEFORE | {"slow_queries": 40.0})
    assert town.told == ["WorseAfterChange request 12"]
    town.lives(7 * MINUTE, AS_BEFORE)
    assert town.told == []


def test_samples_from_before_the_end_say_nothing_of_it() -> None:
    town = Watched(watch=replace(WATCH, at=NOON + HOUR))
    assert town.lives(30 * MINUTE, AS_BEFORE | {"slow_queries": 400.0}) == []


def test_without_samples_nothing_is_worse_and_nothing_is_well() -> None:
    town = Watched()
    town.lives(5 * MINUTE, AS_BEFORE | {"slow_queries": 40.0})
    for _ in range(40):
        town.now += 30 * SECOND
        town.looks(a_node(NOON + 5 * MINUTE, slow_queries=40.0))
    assert town.told == ["WorseAfterChange request 12"]
    quiet = Watched()
    quiet.looks()
    assert quiet.rows == {}


def test_a_change_that_cannot_be_undone_has_no_button() -> None:
    town = Watched(watch=replace(WATCH, undo={}))
    town.lives(5 * MINUTE, AS_BEFORE | {"slow_queries": 40.0})
    (row,) = town.rows.values()
    assert row.detail["suggestions"] == []
    assert "/db slow orders" in row.next_step


@given(st.sampled_from(sorted(LEAST)), st.floats(0, 1e6), st.floats(0, 1e6))
def test_worse_is_beyond_twice_and_beyond_what_such_a_number_moves(
    metric: str, before: float, now: float
) -> None:
    (found,) = degrees({metric: before}, {metric: now})
    is_worse = now > 2 * before and now > before + LEAST[metric]
    assert (found.degree > 1) == is_worse


def test_only_metrics_of_both_times_are_compared() -> None:
    assert degrees({"lock_waits": 1.0}, {"lock_waits": None, "deadlocks": 9.0}) == ()


def test_the_picture_of_before_is_the_average_of_what_was_measured() -> None:
    points = [_point(1.0), _point(None), _point(3.0)]
    assert averages(points) == {"lock_waits": 2.0}
    assert averages([]) == {}


def _point(value: float | None) -> Point:
    numbers = {"lock_waits": value}
    return Point(at=NOON, numbers=numbers, least=numbers, most=numbers)


END = WATCH.until


@pytest.mark.parametrize(
    ("state", "is_firing", "after", "becomes"),
    [
        ("watching", False, -SECOND, None),
        ("watching", False, timedelta(0), "fine"),
        ("watching", True, -SECOND, "worse"),
        ("watching", True, HOUR, "worse"),
        ("worse", True, HOUR, None),
        ("worse", False, -SECOND, None),
        ("worse", False, timedelta(0), "fine"),
        ("worse", True, OVERTIME, "fine"),
    ],
)
def test_a_watch_ends_when_its_time_is_up_and_all_is_well(
    *, state: str, is_firing: bool, after: timedelta, becomes: str | None
) -> None:
    watch = replace(WATCH, state=state)
    assert verdict(watch, is_firing=is_firing, now=END + after) == becomes
