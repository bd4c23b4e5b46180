"""What is said about a rehearsed disaster: when what happened, what it cost, whether it passed.

A report is data, as JSON in the store, in the evidence pack and in exports. Times are the
worker's clock, aware, in UTC; spans are seconds; what nobody could tell is None and is never
taken for zero: a drill whose loss is not known has not passed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from pydantic import JsonValue, TypeAdapter

from jobs.cluster_settings import DrillKind

REPORT_VERSION: Final = 1


class Phase(StrEnum):
    """How far a drill is. In this order; what a stop means depends on it."""

    ANNOUNCED = "announced"
    CHECKED = "checked"  # pre-flight, and the configuration before
    WRITING = "writing"  # the ledger has its baseline
    INJECTED = "injected"
    DETECTED = "detected"  # writes have stopped, or nobody is the primary
    PROMOTED = "promoted"  # one server takes writes again
    CONNECTED = "connected"  # proven through the application's endpoint
    MEASURED = "measured"
    REDUNDANT = "redundant"  # every server streams again
    SWITCHED_BACK = "switched back"
    COMPARED = "compared"


class DrillEnd(StrEnum):
    """What became of a drill."""

    PASSED = "passed"
    FAILED = "failed"  # it went to its end, and missed what it should prove
    ABORTED = "aborted"  # a person, or the hard limit, stopped it


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """A phase that was reached. `text`: with what, for people."""

    phase: Phase
    at: datetime
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What the ledger says of one change of who takes writes: see `postgres.cluster.loss.Loss`.

    `rto_seconds`: from the injection until another server took writes that survived; None: none
    did. `is_exact` False: its worker was killed meanwhile, and the gap is an upper bound.
    """

    acknowledged: int
    lost: int
    ambiguous: int
    rpo_seconds: float
    heartbeat_seconds: float | None
    write_gap_seconds: float
    rto_seconds: float | None
    is_exact: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A setting that is not as it was. '' where it is missing."""

    name: str
    before: str
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillReport:
    """A drill, as it is stored.

    `victim`: who was lost on purpose, or handed over; '' where nobody was. `primary_before`,
    `primary_after`: who took writes at the beginning and at the end. `missed`: what it should have
    proven and did not, each a sentence; () exactly when it passed. `cost`: None where no ledger
    could tell. `cost_back`: of the switch back, None where there was none. `lag_bytes`: how far
    the candidate was behind right before. `settings`: those that decide how long it takes, such as
    ttl. `connectivity`: what the proof through the endpoint found. `facts`: what the kind has
    besides, such as which backup a restore used.
    """

    version: int = REPORT_VERSION
    database: str
    environment: str
    tier: str
    cluster: str  # patroni, pair
    kind: DrillKind
    request_id: int
    started_at: datetime
    ended_at: datetime
    end: DrillEnd
    missed: tuple[str, ...]
    victim: str
    primary_before: str
    primary_after: str
    moments: tuple[Moment, ...]
    cost: Cost | None
    cost_back: Cost | None = None
    rto_limit_seconds: float
    rpo_limit_seconds: float
    lag_bytes: int | None = None
    connectivity: str = ""
    is_connected: bool = False
    is_redundant: bool = False
    is_switched_back: bool | None = None  # None: there was nothing to switch back
    differences: tuple[Difference, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    facts: tuple[tuple[str, str], ...] = ()

    def at(self, phase: Phase) -> datetime | None:
        """When a phase was reached first; None: it was not."""
        return next((each.at for each in self.moments if each.phase is phase), None)

    @property
    def begun_at(self) -> datetime:
        """When the fault was injected; when it started where none was."""
        return self.at(Phase.INJECTED) or self.started_at


REPORT: Final = TypeAdapter(DrillReport)


def report_json(report: DrillReport) -> dict[str, JsonValue]:
    """As it is stored."""
    told = REPORT.dump_python(report, mode="json")
    assert isinstance(told, dict)  # noqa: S101 - a dataclass is an object
    return told
