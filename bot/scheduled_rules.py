"""Which rule of the policy meets what a schedule asks for, and when that is too little. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from approvals.by_the_clock import SCHEDULED, YES
from approvals.rules import Policy, Rule
from approvals.words import BadInputError
from bot.explain import who
from jobs.drill_ways import risk_of
from jobs.operation import Database, Operation
from jobs.timetable import DRILL, Timed


def rule_of(
    timed: Timed, database: Database, policy: Policy, operations: Mapping[str, Operation]
) -> Rule | None:
    """The rule that a schedule's request meets, by what is known before it is planned."""
    operation = operations.get(timed.operation)
    attributes = {
        "operation": timed.operation,
        "database": database.name,
        "environment": database.environment,
        "tier": str(database.tier),
        "risk": str(operation.risk) if operation else "",
        SCHEDULED: YES,
    }
    return policy.rule_for({**attributes, **_of_drill(timed, database)})


def is_by_accident(timed: Timed, rule: Rule | None) -> bool:
    """Whether a drill would begin with nobody agreeing, by a rule that does not name drills.

    Whoever wrote `{scheduled: "yes"}` for backups has not agreed to the loss of a primary.
    """
    if timed.operation != DRILL or rule is None or rule.gates:
        return False
    named = (condition for condition in rule.when if condition.name == "operation")
    return not any(DRILL in condition.values for condition in named)


def refuse_accident(timed: Timed, rule: Rule | None) -> None:
    """Ask for no drill that nobody has agreed to, neither now nor in the policy.

    Raises:
        BadInputError: the rule that it meets was not made for drills, and asks nobody.
    """
    if rule is not None and is_by_accident(timed, rule):
        raise BadInputError(
            f"The rule {rule.name!r} would let this drill begin with nobody agreeing, and does"
            " not name drills.",
            next_step="Put a rule for drills before it, such as those of policy.example.yml.",
        )


def agreement(rule: Rule) -> str:
    """Whose agreement a rule takes, such as "2 of dba and 1 of owners"; '' for nobody's."""
    asked = [f"{gate.approve} of {who(gate)}" for gate in rule.gates]
    ways = [" and ".join(asked[place] for place in sorted(way)) for way in rule.ways]
    return ", or ".join(ways)


def _of_drill(timed: Timed, database: Database) -> Mapping[str, str]:
    """What a drill's plan adds: its kind, and the risk that the kind has here."""
    if timed.operation != DRILL or database.cluster is None:
        return {}
    cluster = database.cluster
    risk = risk_of(cluster.drills.kind, database.environment, is_synchronous=cluster.is_synchronous)
    return {"kind": str(cluster.drills.kind), "risk": str(risk)}
