"""Nobody has rehearsed a disaster for too long, as a signal of the same machine. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from jobs.alert_machine import Limits, Memory, Reading, Severity
from jobs.alert_readings import runbook
from jobs.alert_signal import Signal, Words
from jobs.cluster_settings import DrillSettings
from jobs.operation import Database, Suggestion
from jobs.text import span_text

DRILL_OVERDUE: Final = "DrillOverdue"
# The drill of the quarter waits for people, who may have a holiday: a warning that comes four times
# a year by itself is none.
LATE: Final = timedelta(days=7)
_LIMITS: Final = Limits(
    fire=0.5, clear=0.5, hold=timedelta(minutes=1), repeat=timedelta(days=7), escalate=None
)


def drill_signals(
    database: Database,
    node: str,
    *,
    passed_at: datetime | None,
    begun_at: datetime | None,
    now: datetime,
) -> Iterator[Signal]:
    """Whether its drill is overdue; nothing where the inventory allows no kind of drill.

    `passed_at`: when one passed last. `begun_at`: since when a bot has looked at its schedule,
    None where there is none, or nobody has. `node`: the server that it is of.
    """
    drills = database.cluster.drills if database.cluster else None
    if drills is None or not drills.kinds:
        return
    found = is_overdue(drills, passed_at=passed_at, begun_at=begun_at, now=now)
    yield Signal(
        name=DRILL_OVERDUE,
        label="",
        node=node,
        severity=Severity.WARNING,
        limits=_LIMITS,
        reading=Reading(value=float(found), at=now),
        say=partial(_words, database, drills, passed_at, now),
        subject=DRILL_OVERDUE,
        # Whatever is down or at work: it is owed all the same.
        is_of_server=False,
        is_measured=False,
        is_found=found,
    )


def is_overdue(
    drills: DrillSettings,
    *,
    passed_at: datetime | None,
    begun_at: datetime | None,
    now: datetime,
) -> bool:
    """Whether none has passed for as long as is allowed, and some days more.

    Where none ever has, its schedule's own age counts; without a schedule nobody will ask for one.
    """
    since = passed_at or begun_at
    if since is None:
        return not drills.schedule
    return now - since > drills.every + LATE


def _words(
    database: Database,
    drills: DrillSettings,
    passed_at: datetime | None,
    now: datetime,
    memory: Memory,
) -> Words:
    del memory
    name = database.name
    last = (
        "has ever passed" if passed_at is None else f"has passed for {span_text(now - passed_at)}"
    )
    problem = (
        f"No drill of {name} {last}: whether it can lose its primary is a guess. One is due at"
        f" least every {span_text(drills.every)}."
    )
    return Words(
        problem=problem,
        next_step=f"Ask for one: /db drill {name} {drills.kind}. What became of the last ones:"
        f" /db drills {name}",
        suggestions=(
            Suggestion(
                text=f"Drill: {drills.kind}",
                operation="drill",
                params={"database": name, "kind": str(drills.kind)},
                reason=f"{DRILL_OVERDUE}: {problem}",
            ),
        ),
        runbook=runbook(DRILL_OVERDUE, database),
    )
