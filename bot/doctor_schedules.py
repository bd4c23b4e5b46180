"""The doctor looks at what is asked for by the clock: what runs by itself, what needs people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from approvals.by_the_clock import SCHEDULED, YES
from approvals.counting import count_text
from approvals.rules import Policy, Rule
from bot.finding import Finding
from jobs.operation import Database, Operation
from jobs.timetable import Timed, timetable

NAME: Final = "by the clock"
_SHOWN_MAX: Final = 5


def standing_grants(
    databases: Iterable[Database], policy: Policy, operations: Mapping[str, Operation]
) -> Finding:
    """Which schedules the policy grants, which need somebody each time, and which nobody can."""
    ruled = [
        (timed, _rule(timed, database, policy, operations))
        for database in databases
        for timed in timetable(database)
    ]
    if refused := [timed.name for timed, rule in ruled if rule is None]:
        return Finding(
            name=NAME, ok=False,
            says=f"no rule of the policy lets these run, so they never will: {_names(refused)}",
            fix="Give them a rule, such as the one for scheduled work in policy.example.yml.",
        )  # fmt: skip
    if not ruled:
        return Finding(name=NAME, ok=True, says="nothing is scheduled (`backups:` of a database)")
    asking = [timed.name for timed, rule in ruled if rule is not None and rule.gates]
    says = f"{count_text(len(ruled), 'schedule')}, {len(ruled) - len(asking)} by a standing grant"
    if asking:
        says += f"; somebody has to agree each time to {_names(asking)}"
    return Finding(name=NAME, ok=True, says=says)


def _rule(
    timed: Timed, database: Database, policy: Policy, operations: Mapping[str, Operation]
) -> Rule | None:
    operation = operations.get(timed.operation)
    return policy.rule_for(
        {
            "operation": timed.operation,
            "database": database.name,
            "environment": database.environment,
            "tier": str(database.tier),
            "risk": str(operation.risk) if operation else "",
            SCHEDULED: YES,
        }
    )


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN_MAX])
    more = len(names) - _SHOWN_MAX
    return f"{shown} and {more} more" if more > 0 else shown
