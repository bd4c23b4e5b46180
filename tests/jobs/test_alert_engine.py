"""One look after the other at a database: what people hear, as one incident."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from jobs.alert_engine import Look, decide
from jobs.alert_machine import Memory, Phase, Severity
from jobs.alert_readings import metric_signals, servers_of
from jobs.health_settings import AlertRule
from tests.jobs.alert_world import (
    HOUR,
    MINUTE,
    NOON,
    SECOND,
    Town,
    a_node,
    a_row,
    a_silence,
    an_incident,
    orders,
)  # fmt: skip

FULL: dict[str, Any] = {"disk_usage_pct": 85}
POOL: dict[str, Any] = {"pool_usage_pct": 90}
BUSY: dict[str, Any] = {**POOL, "slow_queries": 500}


def test_where_all_is_well_nothing_is_stored_or_said() -> None:
    town = Town()
    assert town.lives(MINUTE, {}) == []
    assert town.looks(a_node(town.now)).is_empty


def test_what_fires_on_a_database_is_one_incident_until_all_of_it_is_over() -> None:
    town = Town()
    (begun,) = town.lives(2 * MINUTE + 30 * SECOND, BUSY)
    assert begun == (
        "warning: PoolUsage. 90 % of the connection slots of orders are taken; the limit is 80 %."
    )
    numbers = [town.open_id]
    (joined,) = town.lives(MINUTE, BUSY)
    assert joined.startswith("warning: SlowQueries.")
    (over,) = town.lives(6 * MINUTE, {"slow_queries": 500})
    assert over == "Over: PoolUsage, told 6 min 30 s ago; 90 % at the worst."
    numbers.append(town.open_id)
    for span, servers in ((6 * MINUTE, {}), (3 * MINUTE, POOL)):
        town.lives(span, servers)
        numbers.append(town.open_id)
    assert numbers == [1, 1, None, 2]


def test_what_joins_an_open_incident_is_loud_and_what_opens_one_is_in_its_message() -> None:
    town = Town()
    loud = []
    for _ in range(12):
        town.now += 30 * SECOND
        decision = town.looks(a_node(town.now, **POOL, connections_waiting=50))
        loud += [note.is_loud for note in decision.notes]
    assert loud == [False, True]


@pytest.mark.parametrize(
    ("then", "severity"), [(POOL, "warning"), ({**POOL, "replication_lag_ms": 90_000}, "critical")]
)
def test_an_incident_is_as_bad_as_the_worst_that_fires(then: dict[str, Any], severity: str) -> None:
    town = Town()
    town.lives(3 * MINUTE, {**POOL, "deadlocks": 9})
    town.lives(2 * MINUTE, then)
    assert town.incident is not None
    assert town.incident.severity == severity


def test_what_was_critical_is_a_warning_when_only_a_warning_is_left() -> None:
    town = Town()
    town.lives(3 * MINUTE, {**POOL, "replication_lag_ms": 90_000})
    town.lives(4 * MINUTE, POOL)
    assert town.incident is not None
    assert town.incident.severity == "warning"


def test_looking_twice_at_the_same_time_changes_nothing_more() -> None:
    town = Town()
    town.lives(3 * MINUTE, BUSY)
    again = town.looks(a_node(town.now, **BUSY))
    assert (again.notes, again.memories, again.is_changed) == ((), {}, False)


def test_a_server_that_is_down_silences_what_it_can_no_longer_say() -> None:
    town = Town()
    town.lives(3 * MINUTE, POOL)
    said = town.lives(20 * MINUTE, {"ok": False, "seen": 10 * MINUTE})
    assert said[0].startswith("critical: ServerDown. orders does not answer.")
    assert [text.partition(" for")[0] for text in said[1:]] == [
        "Nobody has acknowledged ServerDown"
    ]
    assert town.muted == {"PoolUsage": "ServerDown fires", "MonitoringBlind": "ServerDown fires"}
    assert town.told == ["PoolUsage", "ServerDown"]


def test_a_replica_that_is_down_silences_its_own_alerts_and_that_it_is_missing() -> None:
    town = Town(orders("west"))
    primary = {"replicas_missing": 1}
    standby = {"name": "west", "role": "standby", "ok": False, "seen": HOUR}
    town.lives(6 * MINUTE, {**primary, **POOL}, standby)
    assert town.told == ["PoolUsage", "ServerDown west"]
    assert town.muted["ReplicaMissing"] == "ServerDown fires for it"
    # Another one is missing that answers: that is news.
    town.lives(MINUTE, {"replicas_missing": 2, **POOL}, standby)
    assert "ReplicaMissing" in town.told


def test_what_goes_on_when_the_server_is_back_is_told_then() -> None:
    town = Town()
    town.lives(2 * MINUTE, {"ok": False, "seen": HOUR})
    said = town.lives(5 * MINUTE, POOL)
    assert [text.partition(".")[0].partition(",")[0] for text in said] == [
        "Over: ServerDown", "warning: PoolUsage",
    ]  # fmt: skip


def test_nobody_measures_so_the_rest_is_silent_and_nothing_is_over() -> None:
    town = Town()
    town.lives(3 * MINUTE, POOL)
    frozen = a_node(town.now, **POOL)
    said = []
    for _ in range(20):
        town.now += 30 * SECOND
        said += [note.text for note in town.looks(frozen).notes]
    assert [text.partition(":")[0] for text in said] == ["critical"]
    assert "MonitoringBlind. Nobody has measured orders for 5 min" in said[0]
    assert town.told == ["MonitoringBlind", "PoolUsage"]
    assert town.muted == {"PoolUsage": "MonitoringBlind fires"}


def test_what_nobody_ever_measured_is_told_after_a_while_and_not_at_the_first_look() -> None:
    town = Town()
    assert town.lives(4 * MINUTE) == []
    assert len(town.lives(MINUTE)) == 1


def test_a_critical_alert_silences_the_warning_about_the_same() -> None:
    town = Town()
    town.lives(6 * MINUTE, FULL)
    assert town.told == ["DiskUsage"]
    town.lives(2 * HOUR, {"disk_usage_pct": 97, "days_until_full": 1}, step=2 * MINUTE)
    assert town.muted == {
        "DiskUsage": "DiskNearlyFull fires", "DiskFullSoon": "DiskUsage fires",
    }  # fmt: skip
    assert town.told == ["DiskNearlyFull", "DiskUsage"]


def test_a_rule_of_the_inventory_silences_ours_about_the_same_metric() -> None:
    worse = AlertRule(name="PoolFull", metric="pool_usage_pct", fire=95, severity="critical")
    town = Town(orders(rules={"PoolFull": worse}))
    town.lives(3 * MINUTE, {"pool_usage_pct": 99})
    assert town.told == ["PoolFull"]
    assert town.muted == {"PoolUsage": "PoolFull fires"}


def test_a_full_disk_of_one_server_silences_no_other() -> None:
    town = Town(orders("west"))
    standby = {"name": "west", "role": "standby", "disk_usage_pct": 97}
    town.lives(7 * MINUTE, FULL, standby)
    assert town.told == ["DiskNearlyFull west", "DiskUsage"]


@pytest.mark.parametrize(("name", "is_muted"), [("", True), ("PoolUsage", True), ("Other", False)])
def test_a_silence_is_of_one_alert_or_of_all(name: str, *, is_muted: bool) -> None:
    town = Town(silences=[a_silence(name)])
    said = town.lives(5 * MINUTE, POOL)
    assert (said == []) is is_muted
    assert (town.incident is None) is is_muted
    assert town.rows["PoolUsage", ""].incident_id == (None if is_muted else 1)
    if is_muted:
        assert town.muted["PoolUsage"] == "silenced until 2026-11-22 13:00 UTC: the move"
        town.silences = []
        assert len(town.lives(30 * SECOND, POOL)) == 1


def test_a_run_silences_what_it_does_to_the_server_and_not_what_backups_owe() -> None:
    town = Town(silences=[a_silence(source="run")])
    assert town.lives(10 * MINUTE, {"ok": False, "seen": HOUR}) == []
    signals = metric_signals(servers_of(orders(), (), NOON))
    backup = replace(
        next(iter(signals)), name="BackupDamaged", is_of_server=False, is_measured=False
    )
    decision = decide(
        Look(
            database="orders", signals=(backup,), silences=tuple(town.silences),
            memories={("BackupDamaged", ""): Memory(phase=Phase.FIRING, since=NOON)},
        ),
        NOON,
    )  # fmt: skip
    assert decision.severity is not None


def test_acknowledged_nothing_is_repeated_and_what_joins_is_told() -> None:
    town = Town()
    town.lives(3 * MINUTE, POOL)
    town.acks()
    assert town.lives(10 * HOUR, POOL, step=4 * MINUTE) == []
    assert len(town.lives(5 * MINUTE, BUSY)) == 1


def test_what_is_not_watched_any_more_ends_with_a_word() -> None:
    town = Town()
    town.lives(3 * MINUTE, POOL)
    town.database = orders(rules={"PoolUsage": AlertRule(name="PoolUsage", is_on=False)})
    assert town.lives(30 * SECOND, POOL) == ["PoolUsage is not watched any more."]
    assert (town.incident, town.rows, town.memories) == (None, {}, {})


def test_what_could_not_be_read_stays_as_it_is() -> None:
    memory = Memory(phase=Phase.FIRING, since=NOON, told_at=NOON, told=Severity.CRITICAL)
    row = a_row("PoolUsage", severity="critical")
    decision = decide(
        Look(
            database="orders", signals=(), memories={("PoolUsage", ""): memory},
            rows={("PoolUsage", ""): row}, unread=lambda name: True,
            incident=replace(an_incident(1, NOON), severity="critical"),
        ),
        NOON,
    )  # fmt: skip
    assert decision.is_empty
    assert decision.severity is Severity.CRITICAL


def test_a_memory_that_is_lost_is_known_from_the_alert_that_fires() -> None:
    town = Town()
    town.lives(3 * MINUTE, POOL)
    town.memories.clear()
    assert town.lives(HOUR, POOL) == []
    assert town.lives(6 * MINUTE, {})[0].startswith("Over: PoolUsage")


def test_many_that_begin_at_once_are_one_note() -> None:
    town = Town(orders("west", "east"))
    servers = [
        {"name": name, "role": role, "deadlocks": 9, "checksum_failures": 1,
         "idle_in_transaction_s_max": 999, "lock_wait_s_max": 999}
        for name, role in (("orders", "primary"), ("west", "standby"), ("east", "standby"))
    ]  # fmt: skip
    (note,) = town.lives(30 * SECOND, *servers)
    assert len(note.splitlines()) == 12
    assert "critical: ChecksumFailures (west)." in note


def test_the_message_is_drawn_anew_when_somebody_else_holds_up_the_others() -> None:
    town, drawn = Town(), []
    for pid in (10, 10, 20, 20):
        town.now += 30 * SECOND
        decision = town.looks(
            a_node(town.now, lock_wait_s_max=90 + pid, detail={"roots": [{"pid": pid}]})
        )
        drawn.append((decision.is_changed, len(decision.notes)))
    assert drawn == [(True, 1), (False, 0), (True, 0), (False, 0)]
