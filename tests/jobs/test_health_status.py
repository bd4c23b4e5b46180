"""A database's status in one word, the reason for it, and what to do next."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from jobs.health_state import FiringAlert, HealthState
from jobs.health_status import advice, judged, suggestions, worst_first
from store.samples import NodeRow
from tests.jobs.health import NOW, a_health, a_node, an_alert

MINUTE = timedelta(minutes=1)
CRITICAL = an_alert("DatabaseFull", "critical")
WARNING = an_alert()
STALE = {"seen_at": NOW - 6 * MINUTE}


@pytest.mark.parametrize(
    ("nodes", "alerts", "status"),
    [
        ((a_node(),), (), "healthy"),
        ((a_node(),), (WARNING,), "warning"),
        ((a_node(),), (WARNING, CRITICAL), "critical"),
        ((), (), "unknown"),
        ((a_node(seen_at=None, ok=False, numbers={}),), (), "unknown"),
        ((), (WARNING,), "warning"),
        ((a_node(**STALE),), (), "warning"),
        ((a_node(), a_node("west", **STALE)), (), "warning"),
        ((a_node(seen_at=NOW - 4 * MINUTE),), (), "healthy"),
        ((a_node(ok=False),), (), "warning"),
        ((a_node(), a_node("west", ok=False)), (), "warning"),
        ((a_node(**STALE),), (CRITICAL,), "critical"),
    ],
)
def test_the_status_is_what_fires_and_then_whether_anybody_sees_it(
    nodes: tuple[NodeRow, ...], alerts: tuple[FiringAlert, ...], status: str
) -> None:
    assert judged(a_health(*nodes, alerts=alerts), NOW).status == status


def test_who_is_looked_at_rarely_is_blind_later() -> None:
    state = a_health(a_node(seen_at=NOW - 6 * MINUTE), every=5 * MINUTE)
    assert judged(state, NOW).status == "healthy"
    assert judged(state, NOW + 10 * MINUTE).status == "warning"


def test_a_primary_elsewhere_is_the_one_whose_numbers_count() -> None:
    promoted = a_node("west", detail={"role": "primary"}, numbers={"qps": 7})
    state = a_health(a_node(detail={"role": "standby"}), promoted)
    assert state.main is promoted
    assert state.numbers == {"qps": 7}


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (a_health(a_node()), "Nothing fires, and every node answers."),
        (a_health(is_on=False), "Monitoring of orders is switched off."),
        (a_health(), "No worker has looked at orders yet."),
        (a_health(a_node(seen_at=None, problem="No route.", numbers={})), "No route."),
        (
            a_health(a_node(**STALE, problem="It timed out.")),
            "Nobody has seen orders for 6 min. It timed out.",
        ),
        (
            a_health(a_node(), alerts=tuple(an_alert(f"A{number}") for number in range(5))),
            "5 alerts fire: A0, A1, A2 and 2 more.",
        ),
        (
            a_health(a_node(), alerts=(an_alert("SlotInactive", label="west"),)),
            "1 alert fires: SlotInactive west.",
        ),
    ],
)
def test_the_status_has_its_reason(state: HealthState, reason: str) -> None:
    assert judged(state, NOW).reason == reason


def test_what_fires_comes_before_what_is_missing_and_nothing_twice() -> None:
    missing, reset = "No statistics: CREATE EXTENSION.", "Statistics were reset an hour ago."
    detail = {"role": "primary", "statements_missing": missing, "notes": [reset, missing]}
    west = a_node("west", ok=False, problem="It is down.")
    state = a_health(a_node(detail=detail), west, alerts=(CRITICAL, WARNING))
    assert [each.text for each in advice(state, NOW)] == [
        "critical: DatabaseFull. Pool use is 91 %. Look: /db pool orders",
        "warning: HighPoolUsage. Pool use is 91 %. Look: /db pool orders",
        "Node west was not seen for 8 s. It is down.",
        "No statistics: CREATE EXTENSION.",
        "Statistics were reset an hour ago.",
    ]


def test_at_most_five_lines_are_said_and_the_last_counts_the_rest() -> None:
    state = a_health(a_node(), alerts=tuple(an_alert(f"A{number}") for number in range(9)))
    found = advice(state, NOW)
    assert len(found) == 5
    assert found[-1].text == "And 5 more: /db alerts orders"


def test_why_there_are_no_numbers_is_said_with_what_to_do() -> None:
    (only,) = advice(a_health(), NOW)
    assert only.text == (
        "No worker has looked at orders yet. See whether a worker runs that has it in its"
        " inventory, and what twokey doctor says."
    )
    (off,) = advice(a_health(is_on=False), NOW)
    assert "Take `monitoring: false` out" in off.text


def test_what_an_alert_says_of_a_node_is_not_said_again() -> None:
    down = an_alert("ServerDown", "critical")
    assert len(advice(a_health(a_node(ok=False), alerts=(down,)), NOW)) == 1
    other = an_alert("WalArchiveDown", "critical")
    assert len(advice(a_health(a_node(ok=False), alerts=(other,)), NOW)) == 2


def test_who_is_at_it_and_why_nobody_is_told_is_said() -> None:
    alert = an_alert(acked_by="ana", detail={"muted": "silenced by Ana"})
    (only,) = advice(a_health(a_node(), alerts=(alert,)), NOW)
    assert only.text == (
        "warning: HighPoolUsage. Pool use is 91 %. Somebody is at it. It is not told at present:"
        " silenced by Ana. Look: /db pool orders"
    )


def test_what_could_be_read_only_in_part_is_said() -> None:
    node = a_node(problem="Sizes could not be read.", next_step="GRANT pg_monitor TO mon;")
    (only,) = advice(a_health(node), NOW)
    assert only.text == "Node orders: Sizes could not be read. GRANT pg_monitor TO mon;"


def test_who_blocks_others_and_waits_for_nobody_gets_a_button() -> None:
    blockers = [{"pid": 11, "blocked_by": [10]}, {"pid": 12, "blocked_by": [11]}]
    state = a_health(a_node(detail={"role": "primary", "blockers": blockers}))
    (only,) = suggestions(state, ())
    assert only.params == {"database": "orders", "pid": 10}


def test_what_helps_against_an_alert_is_a_button_once_and_never_this_screen() -> None:
    def helps(*operations: str) -> dict[str, Any]:
        return {
            "suggestions": [
                {"text": "x", "operation": each, "params": {"database": "orders"}, "reason": ""}
                for each in operations
            ]
        }

    alerts = (
        an_alert("PoolUsage", detail=helps("pool", "health")),
        an_alert("Deadlocks", detail=helps("locks", "pool")),
        an_alert("Odd", detail={"suggestions": "nothing"}),
    )
    state = a_health(a_node(), alerts=alerts)
    found = suggestions(state, advice(state, NOW))
    assert [each.operation for each in found] == ["pool", "locks"]


def test_the_worst_come_first() -> None:
    other = replace(a_health(a_node()).database, name="billing")
    healthy = judged(replace(a_health(a_node()), database=other), NOW)
    unknown = judged(a_health(), NOW)
    critical = judged(a_health(a_node(), alerts=(CRITICAL,)), NOW)
    two = judged(a_health(a_node(), alerts=(CRITICAL, WARNING)), NOW)
    assert worst_first([healthy, unknown, critical, two]) == [two, critical, unknown, healthy]
