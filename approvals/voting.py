"""Votes: who may cast one, and what the request becomes by it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from approvals.events import Facts, Move, Outcome, Request, Voted, VoteWithdrawn
from approvals.refusals import Refusal, refuse
from approvals.rules import Delegation, Gate, Rule
from approvals.tally import (
    Ballots,
    Count,
    Vote,
    absent_for,
    belongs,
    count,
    escalated,
    fit,
    standing_votes,
)
from approvals.words import Care, Person, State, Verdict, Why


def tally(request: Request, rule: Rule, facts: Facts, *, strict: bool = False) -> Count:
    """What the request's votes amount to now."""
    ballots = Ballots(
        votes=request.votes,
        authors=request.authors,
        asked_at=request.asked_at,
        people=facts.people,
        strict=strict,
        care=rule.care(request.attributes),
        delegations=in_force(facts),
    )
    return count(rule, ballots)


def in_force(facts: Facts) -> tuple[Delegation, ...]:
    """The policy's delegations and those that people have given."""
    of_policy = facts.policy.delegations if facts.policy else ()
    return (*of_policy, *facts.delegations)


def settle(
    request: Request, rule: Rule, facts: Facts, *, strict: bool = False
) -> tuple[Request, tuple[Move, ...]]:
    """What follows from the votes alone, after anything has happened: deny, grant, ungrant."""
    result = tally(request, rule, facts, strict=strict)
    settled = replace(request, step=result.step)
    match request.state:
        case State.PENDING | State.APPROVED if result.denied:
            return settled, (Move.DENY,)
        case State.PENDING if result.granted:
            return settled, (Move.GRANT,)
        case State.APPROVED if not result.granted:
            return settled, (Move.UNGRANT,)
        case _:
            return settled, ()


def vote(request: Request, event: Voted, facts: Facts, rule: Rule) -> Outcome:
    """The request after somebody voted."""
    person = event.by
    if person is None:
        return Outcome(request=request, refusal=refuse(Why.IDENTITY, request.id))
    objection = _unreadable(request, event, rule) or _stale(request, event, facts, rule)
    if objection:
        return Outcome(request=request, refusal=objection)
    owner = _seat(request, person, Verdict(event.verdict), facts, rule)
    if isinstance(owner, Refusal):
        return Outcome(request=request, refusal=owner)
    cast = _cast(request, event, person, owner, facts)
    earlier = _earlier(request, cast)
    if earlier and (earlier.person, earlier.verdict) == (cast.person, cast.verdict):
        return Outcome(request=request, noop=True)
    if refusal := _uncountable(request, cast, earlier, rule):
        return Outcome(request=request, refusal=refusal)
    after, moves = settle(replace(request, votes=(*request.votes, cast)), rule, facts)
    return Outcome(request=after, vote=cast, moves=moves)


def withdraw(request: Request, event: VoteWithdrawn, facts: Facts, rule: Rule) -> Outcome:
    """The request after somebody took their vote back."""
    mine = [
        each for each in standing_votes(request.votes) if event.by and each.person == event.by.id
    ]
    if not mine:
        return Outcome(request=request, noop=True)
    taken = replace(
        mine[0],
        verdict=Verdict.WITHDRAWN,
        at=facts.at,
        door=event.door,
        reason="",
        policy_hash=facts.policy_hash,
        step=request.step,
    )
    after, moves = settle(replace(request, votes=(*request.votes, taken)), rule, facts)
    return Outcome(request=after, vote=taken, moves=moves)


def may_veto(person: Person | None, verdict: str, rule: Rule) -> bool:
    """Whether this is a denial by somebody who may always deny."""
    return (
        person is not None
        and verdict == Verdict.DENY
        and bool(person.groups & rule.may_always_deny)
    )


def careless(
    request: Request, care: frozenset[Care], rule: Rule, *, spared: frozenset[Care] = frozenset()
) -> Refusal | None:
    """What the rule demands of an approval and was not given, or None. `spared`: not asked."""
    missing = rule.care(request.attributes) - care - spared
    whys = {Care.READ: Why.UNREAD, Care.NAMED: Why.NAME, Care.STEP_UP: Why.STEP_UP}
    first = next((whys[each] for each in Care if each in missing), None)
    return refuse(first, request.id) if first else None


def _unreadable(request: Request, event: Voted, rule: Rule) -> Refusal | None:
    if event.verdict not in (Verdict.APPROVE, Verdict.DENY):
        return refuse(Why.VERDICT, request.id)
    return too_long(event.reason, rule, request)


def too_long(reason: str, rule: Rule, request: Request | None) -> Refusal | None:
    """Why a reason cannot be taken, or None when it can."""
    if len(reason) <= rule.max_reason:
        return None
    return refuse(
        Why.REASON,
        request.id if request else None,
        problem=f"The reason has {len(reason)} characters and may have {rule.max_reason}.",
        next_step="Say it shorter.",
    )


def _stale(request: Request, event: Voted, facts: Facts, rule: Rule) -> Refusal | None:
    if event.seen_plan is not None and event.seen_plan != request.plan_hash:
        return refuse(Why.STALE_PLAN, request.id)
    if event.seen_policy is not None and event.seen_policy != request.policy_hash:
        return refuse(
            Why.STALE_PLAN,
            request.id,
            problem=f"The rules for request {request.id} have changed since you looked.",
        )
    if event.seen_step is not None and event.seen_step != tally(request, rule, facts).step:
        return refuse(Why.STALE_STEP, request.id)
    if event.seen_card is not None and event.seen_card != facts.shown:
        return refuse(
            Why.STALE_PLAN,
            request.id,
            problem=f"The card of request {request.id} has changed since you looked.",
        )
    return None


def _seat(
    request: Request, person: Person, verdict: Verdict, facts: Facts, rule: Rule
) -> Person | Refusal:
    """Whose seat the person sits in: their own, or that of somebody they stand in for."""
    may_as_author = rule.self_approve if verdict is Verdict.APPROVE else rule.self_deny
    if person.id in request.authors and not may_as_author:
        return refuse(Why.SELF, request.id)
    gates = rule.gates
    if rule.ordered and gates:
        gates = (gates[tally(request, rule, facts).step],)
    if _sits_anywhere(person, gates, request, facts) or may_veto(person, verdict, rule):
        return person
    absent = list(_absent(person, facts))
    for owner in absent:
        if owner.id in request.authors and not may_as_author:
            continue
        if _sits_anywhere(owner, gates, request, facts):
            return owner
    own = any(
        owner.id in request.authors and _sits_anywhere(owner, gates, request, facts)
        for owner in absent
    )
    return refuse(Why.SELF if own else Why.NOT_ELIGIBLE, request.id)


def _sits_anywhere(person: Person, gates: Sequence[Gate], request: Request, facts: Facts) -> bool:
    return any(
        belongs(
            gate,
            person.groups,
            person.identities,
            waited=escalated(gate, asked_at=request.asked_at, at=facts.at),
        )
        for gate in gates
    )


def _absent(person: Person, facts: Facts) -> Iterator[Person]:
    """The people in whose seats `person` may sit now, who are themselves fit."""
    if facts.policy is None:
        return
    names = absent_for(in_force(facts), person, facts.at)
    for other in facts.people.values():
        if names & other.identities and fit(other) and other.id != person.id:
            yield other


def _earlier(request: Request, cast: Vote) -> Vote | None:
    """The vote that this person, or else somebody in the same seat, has already cast."""
    standing = standing_votes(request.votes)
    mine = [each for each in standing if each.person == cast.person]
    same_seat = [each for each in standing if each.seat == cast.seat]
    return next(iter([*mine, *same_seat]), None)


def _uncountable(request: Request, cast: Vote, earlier: Vote | None, rule: Rule) -> Refusal | None:
    """Why a vote of somebody eligible cannot be taken, or None when it can."""
    if cast.verdict is Verdict.DENY and rule.reason_to_deny and not cast.reason.strip():
        return refuse(Why.REASON, request.id)
    if cast.verdict is Verdict.APPROVE and (refusal := careless(request, cast.care, rule)):
        return refusal
    if earlier and (earlier.person != cast.person or not rule.change_vote):
        return refuse(Why.DUPLICATE, request.id)
    return None


def _cast(request: Request, event: Voted, person: Person, owner: Person, facts: Facts) -> Vote:
    return Vote(
        person=person.id,
        seat=owner.id,
        verdict=Verdict(event.verdict),
        at=facts.at,
        plan_hash=request.plan_hash,
        policy_hash=facts.policy_hash,
        step=request.step,
        groups=owner.groups,
        identities=owner.identities,
        reason=event.reason,
        door=event.door,
        care=event.care,
    )
