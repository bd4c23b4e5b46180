"""What people hear of a cluster's servers: two that take writes at once, and missing ones."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import pytest

from jobs.alert_cluster import cluster_signals
from jobs.alert_machine import Severity
from jobs.alert_readings import metric_signals, servers_of
from jobs.cluster_look import cluster_name, cluster_row
from jobs.health_settings import AlertRule
from jobs.operation import Database
from postgres.cluster.words import NodeSeen
from store.samples import NodeRow
from tests.jobs.alert_world import (
    HOUR,
    MINUTE,
    NOON,
    SECOND,
    Town,
    a_node,
    a_silence,
    orders,
)
from tests.jobs.cluster_pictures import away, clustered, primary, promoted, standby

ORDERS = clustered(orders())
WELL = (primary(), standby())
SPLIT = (primary(), promoted())


def row(now: datetime, *nodes: NodeSeen, database: Database = ORDERS) -> NodeRow:
    return replace(cluster_row(database, nodes, at=now, worker="w"), seen_at=now)


def passes(town: Town, rounds: int, *nodes: NodeSeen, own: bool = True) -> list[str]:
    """So many rounds of the collector; what was said meanwhile. `own`: the primary is measured."""
    before = len(town.notes)
    for _ in range(rounds):
        town.now += 30 * SECOND
        town.looks(a_node(town.now, ok=own), row(town.now, *nodes, database=town.database))
    return town.notes[before:]


def test_a_cluster_that_is_well_says_nothing() -> None:
    assert passes(Town(database=ORDERS), 10, *WELL) == []


def test_two_that_take_writes_are_told_at_the_first_look_with_what_not_to_do() -> None:
    town = Town(database=ORDERS)
    [said] = passes(town, 1, *SPLIT)
    assert said == (
        "critical: TwoWritableNodes. orders: east and west both take writes: east on timeline 3 at"
        " 0/1000000, west on timeline 4 at 0/1000000."
    )
    stored = town.rows["TwoWritableNodes", ""]
    assert stored.severity == Severity.CRITICAL
    assert "Do not promote, restart, rewind or rejoin anything" in stored.next_step
    assert "west was promoted last" in stored.next_step
    assert "/db replication orders" in stored.next_step
    assert stored.value == 2
    assert [each["operation"] for each in _buttons(stored.detail)] == ["replication"]


def _buttons(detail: object) -> list[dict[str, object]]:
    assert isinstance(detail, dict)
    return list(detail["suggestions"])


def test_no_run_at_work_and_no_server_that_is_down_keeps_it_from_being_told() -> None:
    town = Town(database=ORDERS, silences=[a_silence(source="run")])
    said = passes(town, 4, *SPLIT, own=False)
    assert [text for text in said if "TwoWritableNodes" in text]
    assert town.told == ["TwoWritableNodes"]
    assert "ServerDown" in town.muted  # the run's silence works for what it is for


def test_a_person_may_silence_it() -> None:
    town = Town(database=ORDERS, silences=[a_silence("TwoWritableNodes")])
    assert passes(town, 2, *SPLIT) == []
    assert "TwoWritableNodes" in town.muted


def test_it_says_so_until_it_has_been_over_for_a_minute() -> None:
    town = Town(database=ORDERS)
    passes(town, 2, *SPLIT)
    assert passes(town, 2, *WELL) == []
    kept = town.rows["TwoWritableNodes", ""]
    assert "east and west both take writes" in kept.problem
    [over] = passes(town, 1, *WELL)
    assert over.startswith("Over: TwoWritableNodes")
    assert town.rows == {}


def test_where_nobody_looked_it_is_not_over() -> None:
    town = Town(database=ORDERS)
    passes(town, 2, *SPLIT)
    for _ in range(30):
        town.now += MINUTE
        town.looks(a_node(town.now))
    assert "TwoWritableNodes" in town.told


def test_a_missing_server_is_told_by_its_name_after_a_minute_and_over_by_itself() -> None:
    town = Town(database=clustered(orders(), "east", "west", "far"))
    assert passes(town, 2, primary(), away("west"), standby("far")) == []
    [said] = passes(town, 1, primary(), away("west"), standby("far"))
    assert said == (
        "warning: NodeMissing (west). west, a server of orders, does not answer: connection refused"
        " by west.example:5432."
    )
    passes(town, 3, primary(), away("west"), away("far"))
    assert town.told == ["NodeMissing far", "NodeMissing west"]
    passes(town, 3, primary(), standby("west"), away("far"))
    assert town.told == ["NodeMissing far"]
    assert "take it out of `cluster.nodes`" in town.rows["NodeMissing", "far"].next_step
    assert town.rows["NodeMissing", "far"].value is None


def test_while_a_run_is_at_work_a_missing_server_is_expected() -> None:
    town = Town(database=ORDERS, silences=[a_silence(source="run")])
    assert passes(town, 6, primary(), away()) == []
    assert "NodeMissing" in town.muted


def test_a_replica_of_that_name_that_is_down_is_told_once() -> None:
    town = Town(database=clustered(orders("west")))
    for _ in range(6):
        town.now += 30 * SECOND
        town.looks(
            a_node(town.now), a_node(town.now, "west", ok=False),
            row(town.now, primary(), away(), database=town.database),
        )  # fmt: skip
    assert town.told == ["ServerDown west"]
    assert "ServerDown" in town.muted["NodeMissing"]


def test_a_database_without_a_named_cluster_has_none_of_these() -> None:
    found = cluster_signals(servers_of(orders(), [a_node(NOON)], NOON))
    assert list(found) == []


def test_an_old_look_says_nothing() -> None:
    servers = servers_of(ORDERS, [row(NOON - HOUR, *SPLIT)], NOON)
    assert {each.reading.value for each in cluster_signals(servers)} == {None}
    assert not any(each.is_found for each in cluster_signals(servers))


def test_the_row_of_the_cluster_is_no_server_that_claims_to_be_the_primary() -> None:
    """A look at a cluster that nobody measures ends no alert about two primaries."""
    servers = servers_of(ORDERS, [row(NOON, *WELL)], NOON)
    found = {each.name: each.reading.value for each in metric_signals(servers)}
    assert found["TwoPrimaries"] is None
    assert "TwoWritableNodes" not in found


@pytest.mark.parametrize(
    ("given", "watched"),
    [
        (AlertRule(name="NodeMissing", is_on=False), ["TwoWritableNodes"]),
        (
            AlertRule(name="NoPrimary", metric="nodes_writable", fire=1, clear=1, above=False),
            ["NoPrimary", "NodeMissing", "NodeMissing", "TwoWritableNodes"],
        ),
    ],
)
def test_an_inventory_may_switch_them_off_and_have_its_own(
    given: AlertRule, watched: list[str]
) -> None:
    database = clustered(orders(rules={given.name: given}))
    servers = servers_of(database, [row(NOON, standby("east"), standby())], NOON)
    found = sorted(cluster_signals(servers), key=lambda each: each.name)
    assert [each.name for each in found] == watched
    own = [each.reading.value for each in found if each.name == "NoPrimary"]
    assert own in ([], [0.0])


def test_no_server_can_have_the_name_of_the_row() -> None:
    assert cluster_name(ORDERS) == "orders/cluster"
