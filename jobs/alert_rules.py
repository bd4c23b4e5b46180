"""The rules of a database: ours as its inventory has them, and its own. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from types import MappingProxyType
from typing import Final

from jobs.alert_machine import Severity
from jobs.alert_rule import Help, Rule, Scope
from jobs.alert_table import RULES
from jobs.alerts import NAMES
from jobs.health_settings import AlertRule, MonitoringSettings
from postgres.health.metrics import METRICS

_CLEAR_SHARE: Final = 0.1


def rules_of(settings: MonitoringSettings) -> Mapping[str, Rule]:
    """The rules of a database: ours as the inventory has them, and its own.

    Raises:
        ValueError: a rule cannot be used. Reading the inventory asks, so that later it can.
    """
    if not settings.is_on:
        return MappingProxyType({})
    found = dict(RULES)
    for name, given in settings.rules.items():
        if name in NAMES:
            raise ValueError(
                f"rule {name} is about backups and has no threshold: `backups:` says what is due"
            )
        if not given.is_on:
            if name not in RULES:
                raise ValueError(f"rule {name} is none of ours, so it cannot be switched off")
            found.pop(name)
        else:
            found[name] = _ours(RULES[name], given) if name in RULES else _own(given)
    return MappingProxyType(found)


def _ours(rule: Rule, given: AlertRule) -> Rule:
    """One of ours with other values. What clears moves with what fires."""
    if given.metric not in {None, rule.metric}:
        raise ValueError(
            f"rule {rule.name} is about {rule.metric}: give a rule of your own another name"
        )
    above = rule.above if given.above is None else given.above
    fire = rule.fire if given.fire is None else given.fire
    clear = given.clear
    if clear is None and above is rule.above and rule.fire:
        clear = fire * rule.clear / rule.fire
    changed = replace(rule, fire=fire, clear=_clear(fire, clear, above=above), above=above)
    return _timed(changed, given)


def _own(given: AlertRule) -> Rule:
    """A rule of the inventory. It lasts two minutes unless it says otherwise."""
    if given.metric is None or given.fire is None:
        raise ValueError(f"rule {given.name} is none of ours: it needs `metric` and `fire`")
    if given.metric not in METRICS:
        raise ValueError(f"rule {given.name}: there is no metric {given.metric}")
    above = True if given.above is None else given.above
    metric = METRICS[given.metric]
    made = Rule(
        name=given.name,
        metric=given.metric,
        fire=given.fire,
        clear=_clear(given.fire, given.clear, above=above),
        above=above,
        lasting=timedelta(minutes=2),
        severity=Severity.WARNING,
        says=f"{given.metric} of {{where}} is {{value}} ({metric.says}); the limit is {{limit}}.",
        action="See how the server is: /db health {database}",
        scope=Scope.NODE if metric.is_of_node else Scope.CLUSTER,
        helps=(Help.HEALTH,),
    )
    return _timed(made, given)


def _clear(fire: float, clear: float | None, *, above: bool) -> float:
    """Where it clears: a tenth on the good side of what fires, unless it is said."""
    if clear is None:
        return fire - abs(fire) * _CLEAR_SHARE * (1 if above else -1)
    return clear


def _timed(rule: Rule, given: AlertRule) -> Rule:
    """The rest of what the inventory may say.

    Raises:
        ValueError: it would be over and fire at once.
    """
    if (rule.clear > rule.fire) if rule.above else (rule.clear < rule.fire):
        side, way = ("below", "above") if rule.above else ("above", "below")
        raise ValueError(
            f"rule {rule.name} fires {way} {rule.fire:g}, so it must clear {side} that,"
            f" not at {rule.clear:g}"
        )
    return replace(
        rule,
        severity=Severity(given.severity) if given.severity else rule.severity,
        lasting=rule.lasting if given.lasting is None else given.lasting,
        hold=rule.hold if given.hold is None else given.hold,
        repeat=rule.repeat if given.repeat is None else given.repeat,
        escalate=rule.escalate if given.escalate is None else given.escalate,
        action=given.action or rule.action,
        runbook=given.runbook or rule.runbook,
    )
