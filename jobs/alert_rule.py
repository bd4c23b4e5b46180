"""What a rule is: when an alert fires, what is said then, and what makes it needless. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final

from jobs.alert_machine import Limits, Severity
from jobs.health_settings import MonitoringSettings

SERVER_DOWN: Final = "ServerDown"
MONITORING_BLIND: Final = "MonitoringBlind"
TWO_PRIMARIES: Final = "TwoPrimaries"
REPLICA_MISSING: Final = "ReplicaMissing"
TWO_WRITABLE: Final = "TwoWritableNodes"
NODE_MISSING: Final = "NodeMissing"
# Numbers of the look at all servers of `cluster:`; `jobs.alert_cluster` reads them.
NODES_WRITABLE: Final = "nodes_writable"
NODES_MISSING: Final = "nodes_missing"
OF_CLUSTER: Final = frozenset({NODES_WRITABLE, NODES_MISSING})
# How many servers of a cluster say now that they are its primary; `jobs.alert_readings` counts.
PRIMARIES: Final = "primaries"
STALE: Final = timedelta(minutes=5)
# So many collections may be missing before their last one says nothing any more.
_COLLECTIONS_MISSED: Final = 3
# An age grows while one looks: it is pending for most of its time, so that a worker that
# starts has the time to measure, also where nobody ever did.
_BLIND_SHARE: Final = 0.2


class Scope(StrEnum):
    """Whose number it is."""

    NODE = "node"  # of each server
    CLUSTER = "cluster"  # of the server that is the primary now


class Help(StrEnum):
    """What helps: `jobs.alert_helps` makes a button of it."""

    END_BLOCKER = "end blocker"
    LOCKS = "locks"
    SLOW = "slow"
    POOL = "pool"
    FORECAST = "forecast"
    INDEXES = "indexes"
    HEALTH = "health"
    VERIFY = "verify"
    REPLICATION = "replication"


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """Another number of the same server that must be above `fire` too."""

    metric: str
    fire: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """When an alert fires, and what is said then.

    `says` has {value}, {limit} and {where}; `action` has {database}. `silenced_by`: alerts of
    the same server that make this one needless. Of one `subject`, a critical one silences a
    warning.
    """

    name: str
    metric: str
    fire: float
    clear: float
    severity: Severity
    says: str
    action: str
    above: bool = True
    lasting: timedelta = timedelta(0)
    hold: timedelta = timedelta(minutes=5)
    repeat: timedelta = timedelta(hours=4)
    escalate: timedelta | None = None
    scope: Scope = Scope.NODE
    subject: str = ""
    silenced_by: tuple[str, ...] = ()
    helps: tuple[Help, ...] = ()
    beside: Beside | None = None
    runbook: str = ""

    def limits(self, settings: MonitoringSettings) -> Limits:
        """What the state machine goes by, on a database that is collected so often."""
        stale = stale_after(settings)
        fire, clear, lasting = self.fire, self.clear, self.lasting
        if self.name == MONITORING_BLIND:
            quiet = max(timedelta(seconds=self.fire), stale)
            fire = clear = quiet.total_seconds() * _BLIND_SHARE
            lasting = quiet * (1 - _BLIND_SHARE)
        return Limits(
            fire=fire,
            clear=clear,
            above=self.above,
            lasting=lasting,
            hold=self.hold,
            repeat=self.repeat,
            escalate=self.escalate,
            stale=stale,
        )


def stale_after(settings: MonitoringSettings) -> timedelta:
    """How old a sample may be that still says something."""
    return max(STALE, _COLLECTIONS_MISSED * settings.every)
