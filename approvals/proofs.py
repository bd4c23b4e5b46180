"""What can be proven about a policy before anybody trusts it. Pure.

Everything is tried in small worlds through `approvals.machine.decide`, the code that decides
for the bot and for the worker. A promise that is broken comes with its shortest story.
"""

from __future__ import annotations

from collections.abc import Sequence

from approvals.alone import nobody_alone
from approvals.coverage import no_dead_rule, nothing_falls_through
from approvals.own_hand import no_self_approval
from approvals.policy import problems
from approvals.proof import DECISIONS_MAX, Budget, Holds, Proof
from approvals.reaching import NOT_ASKED, can_be_met
from approvals.rules import Policy
from approvals.spaces import Known, space_of
from approvals.words import Person

__all__ = ["Budget", "Holds", "Known", "Proof", "prove", "remarks"]


def prove(
    policy: Policy,
    known: Known,
    *,
    people: Sequence[Person] | None = None,
    why_nobody: str = NOT_ASKED,
    decisions_max: int = DECISIONS_MAX,
) -> list[Proof]:
    """Every proof, in the order in which people read them.

    `people`: everybody in the policy's groups; None where the directory was not asked, and
    then `why_nobody` says why. After `decisions_max` decisions the rest is not proven.
    """
    space = space_of(policy, known)
    budget = Budget(decisions=decisions_max)
    return [
        no_self_approval(policy, space, budget),
        *nobody_alone(policy, space, budget),
        can_be_met(policy, space, people, budget, why_not=why_nobody),
        no_dead_rule(policy, space),
        nothing_falls_through(policy, space),
    ]


def remarks(policy: Policy, known_groups: Sequence[str]) -> list[str]:
    """What else is odd: groups that nobody is in, reviewers who are those on call."""
    proven = ("is never reached", "can never match", "lets people approve", "match no request")
    return [
        str(problem)
        for problem in problems(policy, known_groups)
        if not problem.problem.startswith(proven)
    ]
