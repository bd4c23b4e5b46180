"""A drill by the clock is announced a week and an hour ahead: when, and what is said. Pure.

Who was down announces late, as long as the drill has not begun; from an hour ahead on the second
announcement speaks for both.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from pydantic import TypeAdapter

from jobs.cluster_settings import DrillKind
from jobs.operation import Database
from jobs.schedules import Action, Firing, Schedule
from jobs.timetable import DRILL, Timed, timetable

WEEK: Final = timedelta(days=7)
HOUR: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ahead:
    """One of the two announcements of a drill: `lead` before it, or late until `silent` before."""

    what: str
    timed: Timed
    lead: timedelta
    silent: timedelta

    @property
    def name(self) -> str:
        """The schedule's name, such as `drill-week orders`."""
        return f"{self.what} {self.timed.database}"

    def schedule(self, action: Action) -> Schedule:
        """As something that fires: its moments are the drill's, less the lead.

        Raises:
            BadInputError: the cron text or the zone cannot be used.
        """
        return replace(
            self.timed.schedule(action),
            name=self.name,
            ahead=self.lead,
            # At the very moment when it is silent, nothing is announced any more.
            misfire=self.lead - self.silent - timedelta.resolution,
        )

    def drill_at(self, firing: Firing) -> datetime:
        """When the drill is due that a firing of this announces."""
        return firing.due_at + self.lead


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillNotice:
    """What the channel reads.

    `agree`: whose agreement it takes; '' for nobody's. `hours`: in which it may begin, '' for any.
    `left`: until then, when it was stored. `waits`: for how long it waits for that agreement.
    `problem`: why it will not be asked for as things are, '' when it will.
    """

    database: str
    kind: DrillKind
    at: datetime
    left: timedelta
    agree: str
    rule: str
    hours: str
    waits: timedelta
    rto: timedelta
    rpo: timedelta
    problem: str = ""


NOTICE: Final = TypeAdapter(DrillNotice)


def announcements(databases: Iterable[Database]) -> tuple[Ahead, ...]:
    """Two for each drill that the inventory wants by the clock."""
    drills = [each for one in databases for each in timetable(one) if each.what == DRILL]
    return tuple(
        Ahead(what=what, timed=timed, lead=lead, silent=silent)
        for timed in drills
        for what, lead, silent in (
            (f"{DRILL}-week", WEEK, HOUR),
            (f"{DRILL}-hour", HOUR, timedelta(0)),
        )
    )
