"""What holds for every policy, whether it says so or not. Pure.

A policy under four eyes that has no rule of its own for its change gets one from here:
two different people of those whom its gates name, and never who proposed it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from types import MappingProxyType
from typing import Final

from approvals.rules import (
    POLICY_CHANGE,
    RISKIEST,
    Attributes,
    Compare,
    Condition,
    Gate,
    Rule,
)
from approvals.words import GateId

# What no single person may bring to run, under any policy.
NEVER_ALONE: Final[tuple[Attributes, ...]] = (
    MappingProxyType(
        {
            "operation": "restore",
            "into": "place",
            "environment": "production",
            "risk": RISKIEST,
        }
    ),
)
NAME: Final = "a change of this policy (built in)"
_EXPIRES_AFTER: Final = timedelta(days=7)
_REASON_CHARS_MAX: Final = 4000


def policy_change_rule(rules: Sequence[Rule]) -> Rule:
    """Who must agree to another policy where the rules do not say.

    Where they name nobody at all, nobody can agree, and the policy cannot be changed so.
    """
    gates = [gate for rule in rules for gate in rule.gates]
    everybody = Gate(
        id=GateId("two others"),
        groups=frozenset(group for gate in gates for group in gate.groups),
        users=frozenset(user for gate in gates for user in gate.users),
        approve=2,
    )
    return Rule(
        name=NAME,
        when=(Condition(name="operation", compare=Compare.IN, values=(POLICY_CHANGE,)),),
        fallback=True,
        gates=(everybody,),
        ways=(frozenset({0}),),
        ordered=False,
        distinct=True,
        self_approve=False,
        self_deny=True,
        may_always_deny=frozenset(),
        change_vote=False,
        reason_to_deny=True,
        recheck_voters=True,
        check_satisfiable=False,
        expires_after=_EXPIRES_AFTER,
        warn_before=None,
        approval_valid_for=timedelta(days=1),
        not_before=None,
        windows=(),
        freeze=(),
        break_glass=None,
        max_reason=_REASON_CHARS_MAX,
        max_ttl=None,
        read_all=True,
        type_name=False,
        step_up=False,
        remind_every=None,
    )
