"""What is wrong with backups, as signals of the same machine as all other alerts. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import partial
from types import MappingProxyType
from typing import Final

from jobs.alert_helps import backup_suggestions
from jobs.alert_machine import Limits, Memory, Reading, Severity
from jobs.alert_readings import runbook
from jobs.alert_signal import Signal, Words
from jobs.alerts import NAMES, Alert, findings
from jobs.backup_state import DatabaseState
from jobs.operation import Database

# What ends for a moment only has not ended.
HOLD: Final = timedelta(minutes=1)
_REPEAT: Final = MappingProxyType(
    {Severity.WARNING: timedelta(days=1), Severity.CRITICAL: timedelta(hours=4)}
)
_ESCALATE: Final = timedelta(hours=1)
# These say nothing new while the server itself does not answer.
_OF_SERVER: Final = frozenset({"WalArchiveDown", "WalArchiveBehind", "SlotGrowth"})


def backup_signals(state: DatabaseState, node: str, now: datetime) -> Iterator[Signal]:
    """Every alert about backups, found or not. `node`: the server that they are of."""
    found = {alert.name: alert for alert in findings(state, now)}
    for name in NAMES:
        alert = found.get(name)
        severity = alert.severity if alert else Severity.WARNING
        yield Signal(
            name=name,
            label="",
            node=node,
            severity=severity,
            limits=_limits(severity),
            reading=Reading(value=1.0 if alert else 0.0, at=now),
            say=partial(_words, state.database, name, alert),
            subject=name,
            is_of_server=name in _OF_SERVER,
            is_measured=False,
            is_found=alert is not None,
        )


def _limits(severity: Severity) -> Limits:
    return Limits(
        fire=0.5,
        clear=0.5,
        hold=HOLD,
        repeat=_REPEAT[severity],
        escalate=_ESCALATE if severity is Severity.CRITICAL else None,
    )


def _words(database: Database, name: str, alert: Alert | None, memory: Memory) -> Words:
    del memory
    if alert is None:
        return Words(problem="", next_step="")
    return Words(
        problem=alert.problem,
        next_step=alert.next_step,
        suggestions=backup_suggestions(name, database.name, f"{name}: {alert.problem}"),
        runbook=runbook(name, database),
    )
