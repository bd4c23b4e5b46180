"""Is a database ready for the day when things go wrong? The guide's ten checks. Pure.

Each check has its evidence, how old that is, and what would mend it. What nobody knows counts
as not met: a checklist that takes silence for a yes is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from jobs.alerts import Alert, findings
from jobs.backup_state import DatabaseState
from jobs.health_state import HealthState
from jobs.readiness_backups import Item, backup_items
from jobs.readiness_checks import Check, Verdict, checks
from jobs.readiness_facts import Facts
from jobs.timetable import timetable, upcoming


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """The ten checks, what stands behind the first two, and what the clock does next."""

    database: str
    checks: tuple[Check, ...]
    items: tuple[Item, ...]
    alerts: tuple[Alert, ...]
    has_backup: bool
    next: tuple[tuple[str, datetime], ...]

    @property
    def met(self) -> int:
        """How many checks are as they should be."""
        return sum(check.verdict is Verdict.MET for check in self.checks)

    @property
    def missing(self) -> tuple[Check, ...]:
        """Those that are not, or of which nobody knows."""
        return tuple(check for check in self.checks if check.verdict is not Verdict.MET)

    @property
    def score(self) -> str:
        """Such as "7 of 10"."""
        return f"{self.met} of {len(self.checks)}"

    @property
    def order(self) -> tuple[int, str]:
        """The worst first."""
        return self.met, self.database


def readiness(state: DatabaseState, health: HealthState, facts: Facts, now: datetime) -> Readiness:
    """How ready a database is, by what the store knows."""
    alerts = findings(state, now)
    items = backup_items(state, alerts, now)
    return Readiness(
        database=state.database.name,
        checks=checks(state, health, facts, items=items, alerts=alerts, now=now),
        items=items,
        alerts=alerts,
        has_backup=any(line.is_usable for line in state.backups),
        next=tuple(upcoming(timetable(state.database), now)),
    )


def worst_first(found: Iterable[Readiness]) -> Sequence[Readiness]:
    """Those that need somebody, before those that do not."""
    return sorted(found, key=lambda each: each.order)
