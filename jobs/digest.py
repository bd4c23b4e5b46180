"""What a manager should know of a day or a week, as facts. Pure.

`jobs.digest_facts` reads them, `jobs.digest_words` says them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from jobs.health_status import Status
from jobs.operation import Chart
from jobs.text import count_text

_NAMED_MAX: Final = 3


class Period(StrEnum):
    """How long a digest looks back."""

    DAILY = "daily"
    WEEKLY = "weekly"

    @property
    def length(self) -> timedelta:
        """A day or a week."""
        return timedelta(days=1 if self is Period.DAILY else 7)

    @property
    def before(self) -> str:
        """What it is compared with."""
        return "the day before" if self is Period.DAILY else "the week before"


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseDigest:
    """One database. Percent, bytes, days; None: nobody knows.

    `up_pct`: share of the samples in which it answered; `seen`: share of the hours that have
    samples at all, 0 to 1. `problem`: why it is not healthy.
    """

    name: str
    status: Status
    problem: str = ""
    ready: int = 0
    ready_of: int = 10
    backups: int = 0
    verified: int = 0
    failed_proofs: int = 0
    has_backup: bool = False
    is_proven: bool = False
    alerts: int = 0
    up_pct: float | None = None
    up_pct_before: float | None = None
    seen: float = 0.0
    bytes: float | None = None
    growth: float | None = None
    days_until_full: float | None = None
    p95_ms: float | None = None
    p95_ms_before: float | None = None
    qps: float | None = None
    qps_before: float | None = None

    @property
    def order(self) -> tuple[int, int, str]:
        """The worst first."""
        return self.status.rank, self.ready, self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertSum:
    """Alerts that began in a period. `resolve_seconds`: the median, of those that are over."""

    fired: int = 0
    acked: int = 0
    resolve_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalSum:
    """Requests of a period. `lead_seconds`: the median from asking to the decision."""

    asked: int = 0
    denied: int = 0
    lapsed: int = 0
    overdue: int = 0
    lead_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What waits for somebody now."""

    requests: int = 0
    longest_seconds: float = 0.0
    unacked: tuple[str, ...] = ()  # critical alerts that nobody has taken, such as "X on orders"


@dataclass(frozen=True, slots=True, kw_only=True)
class Digest:
    """Everything of a period that ended at `until`. `noisiest`: names and how often, most first."""

    period: Period
    since: datetime
    until: datetime
    databases: tuple[DatabaseDigest, ...]
    alerts: AlertSum = AlertSum()
    alerts_before: AlertSum = AlertSum()
    noisiest: tuple[tuple[str, int], ...] = ()
    approvals: ApprovalSum = ApprovalSum()
    approvals_before: ApprovalSum = ApprovalSum()
    waiting: Waiting = Waiting()
    charts: tuple[Chart, ...] = ()

    @property
    def status(self) -> Status:
        """That of the worst."""
        return min((each.status for each in self.databases), key=lambda status: status.rank)

    @property
    def title(self) -> str:
        """Such as "Weekly digest: orders, billing"."""
        names = [each.name for each in self.databases]
        shown = ", ".join(names) if len(names) <= _NAMED_MAX else count_text(len(names), "database")
        return f"{str(self.period).capitalize()} digest: {shown}"

    @property
    def span(self) -> str:
        """From when to when, in UTC."""
        return f"{self.since:%Y-%m-%d %H:%M} to {self.until:%Y-%m-%d %H:%M} UTC"
