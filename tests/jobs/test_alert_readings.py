"""What a database's servers say, rule by rule: whose number counts, and when it is none."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from jobs.alert_helps import root_blocker, suggestions_as_json, suggestions_of
from jobs.alert_machine import Memory
from jobs.alert_readings import metric_signals, number, servers_of
from jobs.alert_signal import Key, Signal
from jobs.health_settings import AlertRule
from jobs.operation import Database
from store.samples import NodeRow
from tests.jobs.alert_world import DAY, HOUR, MINUTE, NOON, SECOND, a_node, orders


def signals(*nodes: NodeRow, database: Database | None = None) -> dict[Key, Signal]:
    servers = servers_of(database or orders(), nodes, NOON)
    return {each.key: each for each in metric_signals(servers)}


def value(found: dict[Key, Signal], name: str, label: str = "") -> float | None:
    return found[name, label].reading.value


def test_each_server_has_its_own_numbers_and_the_cluster_those_of_its_primary() -> None:
    found = signals(
        a_node(NOON, disk_usage_pct=70, replication_lag_ms=7),
        a_node(NOON, "west", role="standby", disk_usage_pct=60, replication_lag_ms=None),
        database=orders("west"),
    )
    assert (value(found, "DiskUsage"), value(found, "DiskUsage", "west")) == (70, 60)
    assert value(found, "ReplicationLag") == 7
    assert ("ReplicationLag", "west") not in found


def test_after_a_failover_the_cluster_is_what_its_new_primary_says() -> None:
    found = signals(
        a_node(NOON, ok=False, seen=HOUR, replication_lag_ms=7),
        a_node(NOON, "west", replication_lag_ms=9),
        database=orders("west"),
    )
    assert (found["ReplicationLag", ""].node, value(found, "ReplicationLag")) == ("west", 9)


@pytest.mark.parametrize(
    ("node", "known"),
    [
        ({"seen": 5 * MINUTE}, True),
        ({"seen": 5 * MINUTE + SECOND}, False),
        ({"ok": False}, False),
        ({"seen": -HOUR}, True),  # the worker's clock is ahead
    ],
)
def test_a_number_counts_as_long_as_its_sample(node: dict[str, Any], *, known: bool) -> None:
    found = value(signals(a_node(NOON, pool_usage_pct=50, **node)), "PoolUsage")
    assert found == (50 if known else None)


def test_a_database_that_is_measured_seldom_is_believed_for_longer() -> None:
    node = a_node(NOON, seen=25 * MINUTE)
    database = orders(every=10 * MINUTE)
    assert value(signals(node, database=database), "PoolUsage") == 20
    assert value(signals(node), "PoolUsage") is None


@pytest.mark.parametrize("stored", ["80", True, float("nan"), float("inf"), [80], None])
def test_what_is_no_number_is_not_known(stored: Any) -> None:
    assert number(a_node(NOON, pool_usage_pct=stored), "pool_usage_pct") is None


def test_a_row_that_is_no_object_is_not_known() -> None:
    row = NodeRow(database="orders", node="orders", at=NOON, ok=True, seen_at=NOON,
                  numbers=[1], detail="x")  # type: ignore[arg-type]  # fmt: skip
    found = signals(row)
    assert value(found, "PoolUsage") is None
    assert found["PoolUsage", ""].say(Memory(value=90)).suggestions


def test_a_server_is_down_when_the_last_attempt_failed_and_was_not_long_ago() -> None:
    assert value(signals(a_node(NOON)), "ServerDown") == 1
    down = a_node(NOON, ok=False, seen=HOUR)
    assert value(signals(down), "ServerDown") == 0
    said = signals(down)["ServerDown", ""].say(Memory(value=0))
    assert said.problem == "orders does not answer. It refuses connections."
    assert (said.next_step, said.value) == ("Start it.", None)
    old = a_node(NOON - HOUR, ok=False)
    assert value(signals(old), "ServerDown") is None
    assert value(signals(), "ServerDown") is None


def test_the_age_of_a_sample_is_measured_also_where_there_never_was_one() -> None:
    assert value(signals(a_node(NOON, seen=90 * SECOND)), "MonitoringBlind") == 90
    assert value(signals(a_node(NOON, seen=-HOUR)), "MonitoringBlind") == 0
    for nodes in ((), (a_node(NOON, ok=False, seen=None),)):
        found = signals(*nodes)
        age = value(found, "MonitoringBlind")
        assert age is not None
        said = found["MonitoringBlind", ""].say(Memory(value=age))
        assert said.problem.startswith("Nobody has measured orders for as long as we know:")
        assert said.value is None


def test_two_primaries_are_counted_as_of_the_older_claim() -> None:
    database = orders("west")
    both = signals(a_node(NOON), a_node(NOON, "west", seen=MINUTE), database=database)
    reading = both["TwoPrimaries", ""].reading
    assert (reading.value, reading.at) == (2, NOON - MINUTE)
    one = signals(a_node(NOON), a_node(NOON, "west", role="standby"), database=database)
    assert value(one, "TwoPrimaries") == 1
    gone = signals(a_node(NOON), a_node(NOON, "west", ok=False), database=database)
    assert value(gone, "TwoPrimaries") == 1
    assert value(signals(database=database), "TwoPrimaries") is None


@pytest.mark.parametrize(
    ("usage", "days", "read"),
    [(60, 5, 5), (50, 5, 21), (None, 5, None), (60, None, None), (40, None, 21)],
)
def test_a_disk_is_full_soon_only_where_it_is_half_full(
    usage: float | None, days: float | None, read: float | None
) -> None:
    found = signals(a_node(NOON, disk_usage_pct=usage, days_until_full=days))
    assert value(found, "DiskFullSoon") == read


def test_what_is_said_has_the_number_its_limit_the_place_and_what_helps() -> None:
    found = signals(
        a_node(NOON), a_node(NOON, "west", role="standby"),
        database=orders("west", runbooks="https://wiki/{alert}?db={database}"),
    )  # fmt: skip
    said = found["DiskUsage", "west"].say(Memory(value=84.25))
    assert said.problem == ("84.2 % of the data volume of orders/west is used; the limit is 80 %.")
    assert said.next_step.endswith("/db forecast orders")
    assert said.runbook == "https://wiki/DiskUsage?db=orders"
    assert [each.operation for each in said.suggestions] == ["forecast"]


def test_what_an_inventory_writes_is_not_taken_for_our_marks() -> None:
    rule = AlertRule(name="Mine", metric="qps", fire=5, action="Ask {ana} about {database} {0}",
                     runbook="https://own")  # fmt: skip
    said = signals(a_node(NOON), database=orders(rules={"Mine": rule}))["Mine", ""].say(
        Memory(value=7)
    )
    assert said.next_step == "Ask {ana} about orders {0}"
    assert said.problem.startswith("qps of orders is 7/s (")
    assert said.runbook == "https://own"


BLOCKERS = [
    {"pid": 30, "blocked_by": [20], "wait_s": 90},
    {"pid": 20, "blocked_by": [10], "wait_s": 80},
]


@pytest.mark.parametrize(
    ("detail", "pid"),
    [
        ({"blockers": BLOCKERS, "roots": [{"pid": 10}]}, 10),
        ({"blockers": BLOCKERS}, 10),
        ({"blockers": []}, None),
        ({}, None),
        ({"blockers": "x", "roots": [7]}, None),
        ({"blockers": [{"pid": 1, "blocked_by": ["x"]}]}, None),
    ],
)
def test_who_holds_up_the_others_is_the_one_that_waits_for_nobody(
    detail: dict[str, Any], pid: int | None
) -> None:
    assert root_blocker(detail) == pid


def test_the_blocker_is_a_button_that_asks_to_end_it() -> None:
    node = a_node(NOON, detail={"blockers": BLOCKERS})
    said = signals(node)["LockWait", ""].say(Memory(value=90))
    first = said.suggestions[0]
    assert (first.text, first.operation) == ("End session 10", "terminate-backend")
    assert first.params == {"database": "orders", "pid": 10}
    assert first.reason == f"LockWait: {said.problem}"
    stored = {"suggestions": suggestions_as_json(said.suggestions)}
    assert suggestions_of(stored) == said.suggestions
    assert suggestions_of({"suggestions": [{"text": 1}]}) == suggestions_of({}) == ()


def test_a_servers_alerts_are_those_of_the_inventory() -> None:
    """A row of a server that has left it is nobody's."""
    found = signals(a_node(NOON), a_node(NOON - DAY, "east", role="standby"))
    assert {label for _, label in found} == {""}
    assert timedelta(0) < found["PoolUsage", ""].limits.lasting
