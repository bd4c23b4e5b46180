"""Whom a request waits for: may this person still turn a key here, or review it? Pure.

Nothing is decided here. It asks the deciding code what would become of a vote, so what is
listed for somebody is what a click of theirs would do.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from approvals.events import Facts, Request, Reviewed, Voted
from approvals.machine import decide
from approvals.rules import Rule
from approvals.tally import absent_for, belongs, escalated
from approvals.voting import in_force, tally
from approvals.words import Care, Person, State, Verdict

# What a voter does besides deciding is asked of them when they decide.
_ALL_CARE: Final = frozenset(Care)


def may_turn_key(request: Request, person: Person, facts: Facts) -> bool:
    """Whether an approval by `person` now would take a seat that is still free.

    `facts.people` has the person, and whoever they may stand in for.
    """
    rule = facts.policy.rule_for(request.attributes) if facts.policy else None
    if rule is None or request.state is not State.PENDING:
        return False
    if not _could_sit(request, person, facts, rule):
        return False
    ballot = Voted(by=person, verdict=Verdict.APPROVE, care=_ALL_CARE)
    cast = decide(request, ballot, facts).vote
    if cast is None:
        return False
    after = replace(request, votes=(*request.votes, cast))
    return _taken(after, rule, facts) > _taken(request, rule, facts)


def may_review(request: Request, person: Person, facts: Facts) -> bool:
    """Whether `person` may close what was run behind broken glass."""
    if request.state is not State.NEEDS_REVIEW:
        return False
    outcome = decide(request, Reviewed(by=person, reason="seen"), facts)
    return outcome.refusal is None and not outcome.noop


def _could_sit(request: Request, person: Person, facts: Facts, rule: Rule) -> bool:
    """A quick no for most people and most requests; the decision itself costs more."""
    if person.id in request.authors and not rule.self_approve:
        return False
    if absent_for(in_force(facts), person, facts.at):
        return True
    return any(
        belongs(
            gate,
            person.groups,
            person.identities,
            waited=escalated(gate, asked_at=request.asked_at, at=facts.at),
        )
        for gate in rule.gates
    )


def _taken(request: Request, rule: Rule, facts: Facts) -> int:
    """How many seats are taken, over all gates."""
    return sum(map(len, tally(request, rule, facts).have))
