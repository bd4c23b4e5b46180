"""Rules as data: the guide's six as they stand there, the rest, and the inventory's own."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from jobs.alert_machine import Severity
from jobs.alert_rule import MONITORING_BLIND, PRIMARIES, Rule, Scope
from jobs.alert_rules import rules_of
from jobs.alert_table import RULES
from jobs.health_settings import AlertRule, MonitoringSettings
from postgres.health.metrics import METRICS

MINUTE = timedelta(minutes=1)
WARNING, CRITICAL = Severity.WARNING, Severity.CRITICAL


@pytest.mark.parametrize(
    ("name", "metric", "fire", "severity", "words"),
    [
        ("PoolUsage", "pool_usage_pct", 80, WARNING, ("leak", "larger pool", "/db pool")),
        ("ConnectionsWaiting", "connections_waiting", 10, CRITICAL, ("at once", "run too long")),
        ("SlowQueries", "slow_queries", 100, WARNING, ("/db slow", "index")),
        ("ReplicationLag", "replication_lag_ms", 60_000, CRITICAL, ("standby", "failover")),
        ("DiskUsage", "disk_usage_pct", 80, WARNING, ("Archive", "larger", "clean up logs")),
        ("Deadlocks", "deadlocks", 5, WARNING, ("statements", "transactions shorter")),
    ],
)
def test_the_guides_six_have_its_thresholds_severities_and_actions(
    name: str, metric: str, fire: float, severity: Severity, words: tuple[str, ...]
) -> None:
    rule = RULES[name]
    assert (rule.metric, rule.fire, rule.severity, rule.above) == (metric, fire, severity, True)
    assert all(word in rule.action for word in words)


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.name)
def test_every_rule_is_in_order(rule: Rule) -> None:
    assert rule.metric in METRICS or rule.metric == PRIMARIES
    assert rule.clear <= rule.fire if rule.above else rule.clear >= rule.fire
    assert set(rule.silenced_by) <= RULES.keys()
    assert rule.says.format(value="1", limit="2", where="x")
    assert rule.action.format(database="x")
    assert "/db " in rule.action or rule.name == MONITORING_BLIND
    assert rule.hold > timedelta(0) < rule.repeat
    assert (rule.escalate is not None) == (rule.severity is CRITICAL)
    if rule.metric in METRICS and not METRICS[rule.metric].is_of_node:
        assert rule.scope is Scope.CLUSTER


def test_no_two_alerts_silence_one_another() -> None:
    for rule in RULES.values():
        for name in rule.silenced_by:
            assert rule.name not in RULES[name].silenced_by


def of(**rules: AlertRule | dict[str, Any]) -> dict[str, Rule]:
    """The rules of a database whose inventory says this."""
    given = {
        name: rule if isinstance(rule, AlertRule) else AlertRule(name=name, **rule)
        for name, rule in rules.items()
    }
    return dict(rules_of(MonitoringSettings(rules=given)))


def test_without_a_word_a_database_has_our_rules_and_none_when_it_is_not_monitored() -> None:
    assert rules_of(MonitoringSettings()) == RULES
    assert rules_of(MonitoringSettings(is_on=False)) == {}


def test_what_clears_moves_with_what_fires_unless_it_is_said() -> None:
    assert of(ReplicationLag={"fire": 30_000})["ReplicationLag"].clear == 15_000
    rule = of(ReplicationLag={"fire": 30_000, "clear": 20_000, "severity": "warning"})
    assert (rule["ReplicationLag"].clear, rule["ReplicationLag"].severity) == (20_000, WARNING)
    assert len(rule) == len(RULES)


def test_the_inventorys_words_replace_ours_one_by_one() -> None:
    rule = of(
        PoolUsage={
            "lasting": MINUTE, "hold": 2 * MINUTE, "repeat": 3 * MINUTE, "escalate": 4 * MINUTE,
            "action": "Ask Ana.", "runbook": "https://wiki/pool",
        }
    )["PoolUsage"]  # fmt: skip
    assert (rule.lasting, rule.hold, rule.repeat) == (MINUTE, 2 * MINUTE, 3 * MINUTE)
    assert (rule.escalate, rule.action, rule.runbook) == (
        4 * MINUTE, "Ask Ana.", "https://wiki/pool",
    )  # fmt: skip
    assert (rule.fire, rule.says) == (RULES["PoolUsage"].fire, RULES["PoolUsage"].says)


def test_a_rule_of_the_inventory_may_watch_any_metric() -> None:
    found = of(
        TooManyTemp={"metric": "temp_bytes_s", "fire": 1000.0},
        FewReplicas={"metric": "replicas_streaming", "fire": 2, "above": False},
    )
    assert (found["TooManyTemp"].clear, found["TooManyTemp"].scope) == (900, Scope.NODE)
    assert (found["FewReplicas"].clear, found["FewReplicas"].scope) == (2.2, Scope.CLUSTER)
    assert found["TooManyTemp"].severity is WARNING


def test_a_rule_that_is_switched_off_is_none() -> None:
    assert "Deadlocks" not in of(Deadlocks=AlertRule(name="Deadlocks", is_on=False))


@pytest.mark.parametrize(
    ("name", "rule", "because"),
    [
        ("Mine", {"metric": "qps"}, "needs `metric` and `fire`"),
        ("Mine", {"fire": 5}, "needs `metric` and `fire`"),
        ("Mine", {"metric": "speed", "fire": 5}, "no metric speed"),
        ("Mine", {"metric": "qps", "fire": 5, "clear": 6}, "must clear below that, not at 6"),
        ("Mine", {"metric": "qps", "fire": 5, "clear": 4, "above": False}, "must clear above"),
        ("PoolUsage", {"clear": 90}, "fires above 80, so it must clear below"),
        ("PoolUsage", {"metric": "qps"}, "give a rule of your own another name"),
        ("BackupMissing", {"fire": 5}, "about backups"),
        ("Deadlock", {"is_on": False}, "none of ours, so it cannot be switched off"),
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused(
    name: str, rule: dict[str, Any], because: str
) -> None:
    with pytest.raises(ValueError, match=because):
        of(**{name: rule})


def test_monitoring_is_blind_after_five_minutes_or_three_collections() -> None:
    """An age that grows is pending at a fifth of the time, and fires at all of it."""
    for every, minutes in ((timedelta(seconds=30), 5), (10 * MINUTE, 30)):
        limits = RULES[MONITORING_BLIND].limits(MonitoringSettings(every=every))
        assert timedelta(seconds=limits.fire) + limits.lasting == minutes * MINUTE
        assert limits.stale == minutes * MINUTE
