"""The doctor looks at what is asked for by the clock: what runs by itself, what needs people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from approvals.counting import count_text
from approvals.rules import Policy
from bot.finding import Finding
from bot.scheduled_rules import is_by_accident, rule_of
from jobs.operation import Database, Operation
from jobs.timetable import timetable

NAME: Final = "by the clock"
_SHOWN_MAX: Final = 5


def standing_grants(
    databases: Iterable[Database], policy: Policy, operations: Mapping[str, Operation]
) -> Finding:
    """Which schedules the policy grants, which need somebody each time, and which nobody can."""
    ruled = [
        (timed, rule_of(timed, database, policy, operations))
        for database in databases
        for timed in timetable(database)
    ]
    if refused := [timed.name for timed, rule in ruled if rule is None]:
        return Finding(
            name=NAME, ok=False,
            says=f"no rule of the policy lets these run, so they never will: {_names(refused)}",
            fix="Give them a rule, such as the one for scheduled work in policy.example.yml.",
        )  # fmt: skip
    if accidents := [timed.name for timed, rule in ruled if is_by_accident(timed, rule)]:
        return Finding(
            name=NAME, ok=False,
            says="a rule that asks nobody and does not name drills matches, so these are never"
            f" asked for: {_names(accidents)}",
            fix="Put a rule for drills before it, such as those of policy.example.yml.",
        )  # fmt: skip
    if not ruled:
        return Finding(name=NAME, ok=True, says="nothing is scheduled (`backups:` of a database)")
    asking = [timed.name for timed, rule in ruled if rule is not None and rule.gates]
    says = f"{count_text(len(ruled), 'schedule')}, {len(ruled) - len(asking)} by a standing grant"
    if asking:
        says += f"; somebody has to agree each time to {_names(asking)}"
    return Finding(name=NAME, ok=True, says=says)


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN_MAX])
    more = len(names) - _SHOWN_MAX
    return f"{shown} and {more} more" if more > 0 else shown
