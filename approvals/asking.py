"""Asking, and changing what was asked or the rules it was asked under. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Final, assert_never

from approvals.by_the_clock import SCHEDULED, YES
from approvals.compiling import EXPIRES_AFTER
from approvals.events import (
    Asked,
    AttributesChanged,
    Facts,
    Move,
    Outcome,
    PlanChanged,
    PolicyChanged,
    Request,
)
from approvals.plans import PLAN_BYTES_MAX
from approvals.refusals import Refusal, refuse
from approvals.rules import Attributes, Policy, Rule
from approvals.tally import belongs, could_agree, fit
from approvals.voting import settle, too_long
from approvals.words import Person, PersonId, RequestId, State, Why

# It runs by a standing grant, which is for what the schedule itself planned.
CLOCK_PLANS: Final = "What a schedule asked for is planned by the schedule alone."


def ask(event: Asked, facts: Facts) -> Outcome:
    """The new request. One that no rule allows, or nobody could grant, begins as refused."""
    if event.by is None:
        return Outcome(request=None, refusal=refuse(Why.IDENTITY))
    rule = facts.policy.rule_for(event.attributes) if facts.policy else None
    request = _new(event, event.by, facts, rule)
    if rule is None:
        refusal = _no_way(request.id, facts.policy, event.attributes)
        return Outcome(request=request, refusal=refusal, moves=(Move.REFUSE,))
    objection = too_long(event.reason, rule, None) or _outlives(event, rule)
    if objection:
        return Outcome(request=None, refusal=objection)
    known = event.electorate if rule.check_satisfiable else None
    if known is not None and not could_agree(rule, known, request.authors):
        refusal = refuse(Why.UNSATISFIABLE, request.id)
        return Outcome(request=request, refusal=refusal, moves=(Move.REFUSE,))
    after, moves = settle(request, rule, facts)
    return Outcome(request=after, moves=moves)


def _no_way(number: RequestId, policy: Policy | None, attributes: Attributes) -> Refusal:
    """Nothing is said of it, or a rule refuses it on purpose: whose name says why."""
    found = policy.matching(attributes) if policy else None
    if found is None or not found.refuse:
        return refuse(Why.POLICY, number)
    return refuse(
        Why.POLICY,
        number,
        problem=f"The policy refuses this on purpose: {found.name}.",
        next_step="What the rule asks for is in its name and in the plan: meet it, then ask again.",
    )


def change(
    request: Request, event: PlanChanged | AttributesChanged | PolicyChanged, facts: Facts
) -> Outcome:
    """The request after what it is about, or what it must meet, has changed."""
    match event:
        case PlanChanged():
            return _change_plan(request, event, facts)
        case AttributesChanged():
            return _change_attributes(request, event, facts)
        case PolicyChanged():
            # The votes stay, and count as the policy of today says.
            return _under(replace(request, policy_hash=facts.policy_hash), facts)
        case _:
            assert_never(event)


def policy_change_refused(
    old: Policy, by: Person | None, approved_by: tuple[Person | None, ...]
) -> Refusal | None:
    """Why `by` may not change the policy `old`, or None when they may.

    Under four eyes somebody else must agree who could approve something under `old`.
    """
    if not old.four_eyes:
        return None
    others = [person for person in approved_by if person and by and person.id != by.id]
    if by is not None and any(fit(person) and _approves(old, person) for person in others):
        return None
    return refuse(Why.FOUR_EYES)


def _change_plan(request: Request, event: PlanChanged, facts: Facts) -> Outcome:
    """The request with another plan: no vote so far was for it, and its changer is an author."""
    new = event.attributes or {}
    if YES in {attributes.get(SCHEDULED) for attributes in (request.attributes, new)}:
        return Outcome(request=request, refusal=refuse(Why.IMPERSONATION, problem=CLOCK_PLANS))
    same_attributes = event.attributes is None or event.attributes == request.attributes
    if event.plan_hash == request.plan_hash and same_attributes:
        return Outcome(request=request, noop=True)
    if event.by is None:
        return Outcome(request=request, refusal=refuse(Why.IDENTITY, request.id))
    changed = replace(
        request,
        plan_hash=event.plan_hash,
        attributes=request.attributes if event.attributes is None else event.attributes,
        authors=request.authors | {event.by.id},
        votes=(),
    )
    under = _under(replace(changed, state=State.PENDING), facts)
    return replace(
        under,
        request=replace(under.request or changed, state=request.state),
        moves=(Move.CHANGE, *under.moves),
    )


def _change_attributes(request: Request, event: AttributesChanged, facts: Facts) -> Outcome:
    """The request looked at again, because we know something else about it."""
    if event.attributes == request.attributes:
        return Outcome(request=request, noop=True)
    return _under(replace(request, attributes=event.attributes), facts)


def _approves(policy: Policy, person: Person) -> bool:
    gates = [gate for rule in policy.rules for gate in rule.gates]
    return not gates or any(
        belongs(gate, person.groups, person.identities, waited=False) for gate in gates
    )


def _under(request: Request, facts: Facts) -> Outcome:
    """The request under the rule that it meets now; none: it is refused."""
    rule = facts.policy.rule_for(request.attributes) if facts.policy else None
    if rule is None:
        return Outcome(request=request, moves=(Move.REFUSE,))
    after, moves = settle(request, rule, facts)
    return Outcome(request=after, moves=moves)


def _new(event: Asked, by: Person, facts: Facts, rule: Rule | None) -> Request:
    requesters: frozenset[PersonId] = frozenset(
        {by.id, event.beneficiary.id} if event.beneficiary else {by.id}
    )
    lifetime = event.ttl or (rule.expires_after if rule else EXPIRES_AFTER)
    return Request(
        id=event.request_id,
        state=State.PENDING,
        target=event.target,
        requesters=requesters,
        authors=requesters,
        plan_hash=event.plan_hash,
        policy_hash=facts.policy_hash,
        attributes=event.attributes,
        asked_at=facts.at,
        expires_at=facts.at + lifetime,
    )


def _outlives(event: Asked, rule: Rule) -> Refusal | None:
    if event.ttl is None:
        return None
    limit = rule.max_ttl or rule.expires_after
    return refuse(Why.TTL) if not 0 < event.ttl.total_seconds() <= limit.total_seconds() else None


def oversized(body: str) -> Refusal | None:
    """Why the text of a plan is too long to be read by anybody who must agree, or None."""
    size = len(body.encode())
    if size <= PLAN_BYTES_MAX:
        return None
    return refuse(
        Why.POLICY,
        problem=f"The plan has {size:,} bytes and may have {PLAN_BYTES_MAX:,}: nobody could read "
        "all of what they agree to.",
        next_step="Ask for it in smaller parts.",
    )
