"""Proof: the people of today can meet every rule, also when one of them asks. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Final

from approvals.events import Asked, Facts, Request, Voted
from approvals.exploring import CAREFUL, NOON, timeless
from approvals.machine import decide
from approvals.proof import Budget, BudgetSpentError, Holds, Proof, unproven
from approvals.rules import Attributes, Policy, Rule
from approvals.spaces import Space, example_of, told
from approvals.tally import belongs, fit
from approvals.voting import tally
from approvals.words import (
    Person,
    PersonId,
    PlanHash,
    PolicyHash,
    RequestId,
    State,
    Verdict,
)

NAME: Final = "every rule can be met"
CLAIM: Final = "the people of today's groups can grant what each rule asks, whoever asks"
NOT_ASKED: Final = (
    "Not proven: the directory was not asked who is in the groups, as SLACK_BOT_TOKEN is not set."
)
_STRANGER: Final = Person(id=PersonId("somebody@else"), name="Somebody in no group")


def can_be_met(
    policy: Policy,
    space: Space,
    people: Sequence[Person] | None,
    budget: Budget,
    *,
    why_not: str = NOT_ASKED,
) -> Proof:
    """Every rule, asked for by an outsider and by one of each kind of member.

    `people` None: it is not known who there is, and `why_not` says why.
    """
    if people is None:
        return unproven(NAME, CLAIM, why=(why_not,))
    before = budget.spent
    plain = timeless(policy)
    says: list[str] = []
    try:
        for rule in [*plain.rules, *([plain.built_in] if plain.built_in else [])]:
            attributes = None if rule.refuse else example_of(space, plain, rule)
            if attributes is None or not rule.gates:
                continue
            able = [person for person in people if _sits(rule, person)]
            late = False
            for requester in [_STRANGER, *_kinds(rule, able)]:
                met, when = _met(plain, rule, attributes, requester, able, budget)
                late = late or when > timedelta(0)
                if not met:
                    return Proof(
                        name=NAME, claim=CLAIM, holds=Holds.BROKEN,
                        story=_story(plain, rule, attributes, requester, able),
                        says=("Name more people or groups, or ask for fewer approvals.",),
                        cases=budget.spent - before,
                    )  # fmt: skip
            if late:
                says.append(f"{rule.name}: for some who ask, only once it has escalated.")
    except BudgetSpentError:
        return unproven(NAME, CLAIM, cases=budget.spent - before)
    return Proof(
        name=NAME, claim=CLAIM, holds=Holds.PROVEN, says=tuple(says), cases=budget.spent - before
    )


def _sits(rule: Rule, person: Person) -> bool:
    return fit(person) and bool(_places(rule, person))


def _places(rule: Rule, person: Person) -> frozenset[int]:
    """Which gates somebody belongs to, once all have escalated."""
    return frozenset(
        number
        for number, gate in enumerate(rule.gates)
        if belongs(gate, person.groups, person.identities, waited=True)
    )


def _kinds(rule: Rule, people: Iterable[Person]) -> list[Person]:
    """One person of each kind: those who sit at the same gates are alike to the rule."""
    found: dict[object, Person] = {}
    for person in people:
        early = frozenset(
            number
            for number, gate in enumerate(rule.gates)
            if belongs(gate, person.groups, person.identities, waited=False)
        )
        found.setdefault((early, _places(rule, person)), person)
    return list(found.values())


def _met(
    policy: Policy,
    rule: Rule,
    attributes: Attributes,
    requester: Person,
    able: Sequence[Person],
    budget: Budget,
) -> tuple[bool, timedelta]:
    """Whether enough can agree when all do, and how long it must have waited for that."""
    spans = sorted({gate.escalate_after for gate in rule.gates if gate.escalate_after})
    for wait in [timedelta(0), *spans]:
        request = _asked(policy, attributes, requester)
        if request is None:
            return False, wait
        if _granted(policy, rule, request, _few(rule, able, requester), wait, budget):
            return True, wait
    return False, timedelta(0)


def _few(rule: Rule, able: Sequence[Person], requester: Person) -> list[Person]:
    """As many of each kind as there are seats: more can add nothing."""
    seats = sum(gate.approve for gate in rule.gates)
    others = [person for person in able if person.id != requester.id or rule.self_approve]
    found: dict[object, list[Person]] = {}
    for person in others:
        alike = found.setdefault((person.groups, _places(rule, person)), [])
        if len(alike) < seats:
            alike.append(person)
    return sorted(
        (person for alike in found.values() for person in alike),
        key=lambda person: len(_places(rule, person)),
    )


def _asked(policy: Policy, attributes: Attributes, requester: Person) -> Request | None:
    event = Asked(
        by=requester,
        request_id=RequestId(1),
        target="a database",
        plan_hash=PlanHash("first"),
        attributes=attributes,
        reason="because",
    )
    return decide(None, event, _facts(policy, timedelta(0), ())).request


def _granted(
    policy: Policy,
    rule: Rule,
    request: Request,
    people: Sequence[Person],
    wait: timedelta,
    budget: Budget,
) -> bool:
    """Whether the request can become approved by votes of `people`.

    Seats are matched, so the order of the votes matters only where gates open in turn:
    there every order is tried, the likeliest first.
    """
    facts = _facts(policy, wait, people)
    if request.state is State.APPROVED:
        return True
    for number, person in enumerate(people):
        budget.spend()
        event = Voted(by=person, verdict=Verdict.APPROVE, reason="because", care=CAREFUL)
        outcome = decide(request, event, facts)
        if outcome.refusal or outcome.noop or outcome.request is None:
            continue
        others = [*people[:number], *people[number + 1 :]]
        if _granted(policy, rule, outcome.request, others, wait, budget):
            return True
        if not rule.ordered:
            return False
    return False


def _facts(policy: Policy, wait: timedelta, people: Sequence[Person]) -> Facts:
    return Facts(
        at=NOON + wait,
        policy=replace(policy, delegations=()),
        policy_hash=PolicyHash(""),
        people={person.id: person for person in people},
    )


def _story(
    policy: Policy,
    rule: Rule,
    attributes: Attributes,
    requester: Person,
    able: Sequence[Person],
) -> tuple[str, ...]:
    """Who asks, who agrees, and whom it lacks."""
    spans = [gate.escalate_after for gate in rule.gates if gate.escalate_after]
    wait = max(spans, default=timedelta(0))
    request = _asked(policy, attributes, requester)
    lines = [f"{requester.name} asks ({told(attributes)}), which is under {rule.name}."]
    people = _few(rule, able, requester)
    if wait:
        lines.append(f"It waits {wait} (h:mm:ss), until it has escalated.")
    for person in people:
        event = Voted(by=person, verdict=Verdict.APPROVE, reason="because", care=CAREFUL)
        outcome = decide(request, event, _facts(policy, wait, people))
        if outcome.refusal is None:
            request = outcome.request
            lines.append(f"{person.name} approves.")
    if request is None or request.state is not State.PENDING:
        return (*lines, "It ends before they can agree.")
    return (*lines, f"Nobody else may: {' and '.join(_lacking(policy, rule, request, wait))}.")


def _lacking(policy: Policy, rule: Rule, request: Request, wait: timedelta) -> Iterator[str]:
    have = tally(request, rule, _facts(policy, wait, ())).have
    for gate, seated in zip(rule.gates, have, strict=True):
        if len(seated) < gate.approve:
            who = " or ".join([*sorted(gate.groups), *sorted(gate.users)]) or gate.id
            yield f"{gate.approve - len(seated)} more of {who} is missing"
