"""Running: may it start now, how it ends, and running it without the votes. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final, assert_never

from approvals.events import (
    Begun,
    Cause,
    Distrusted,
    Facts,
    Finished,
    Glass,
    GlassBroken,
    Move,
    Note,
    NoteKind,
    Outcome,
    Request,
    Reviewed,
    SentBack,
)
from approvals.refusals import Refusal, refuse
from approvals.rules import BreakGlass, Rule
from approvals.tally import escalated, fit
from approvals.times import Span
from approvals.voting import careless, settle, tally, too_long
from approvals.words import Care, State, Why

# Debt does not get quiet by getting old.
REMIND_EVERY: Final = timedelta(days=1)


def begin(request: Request, event: Begun, facts: Facts, rule: Rule) -> Outcome:
    """The request as a worker starts it. Believes no stored state: the votes are counted anew."""
    if refusal := _other_work(request, event):
        return Outcome(request=request, refusal=refusal)
    if request.glass is not None:
        return _begin_behind_glass(request, facts)
    if rule.recheck_voters and rule.gates and not facts.manner.directory_up:
        return Outcome(request=request, refusal=refuse(Why.DIRECTORY, request.id))
    checked, moves = settle(request, rule, facts, strict=True)
    if moves:
        refusal = refuse(
            Why.NOT_APPROVED,
            request.id,
            problem=f"The votes that count today no longer grant request {request.id}.",
            next_step="Whoever may approve must decide again.",
        )
        return Outcome(request=checked, refusal=refusal, moves=moves)
    if refusal := _requester_gone(request, facts, rule) or _not_now(request, facts, rule):
        return Outcome(request=request, refusal=refusal)
    return Outcome(request=replace(checked, begun=True), moves=(Move.START,))


def end(request: Request, event: Finished | SentBack | Distrusted, facts: Facts) -> Outcome:
    """The request after its run, or after a worker could not begin it."""
    match event:
        case Finished():
            return _finish(request, event, facts)
        case SentBack():
            return _send_back(request)
        case Distrusted():
            return _distrust(request, event)
        case _:
            assert_never(event)


def distrusted(request: Request, cause: Cause = Cause.FORGED) -> Refusal:
    """Why nothing that is stored of a request counts."""
    match cause:
        case Cause.UNKNOWN_KEY:
            problem = (
                f"Request {request.id} was stored under a vote key that is not in use here, so"
                " nobody can vouch for it."
            )
            next_step = (
                "Ask anew. If the key was changed lately, keep the one before it"
                " (TWOKEY_VOTE_KEY_PREVIOUS) until what is open has ended; if not, somebody has"
                " written to the bot's tables."
            )
        case Cause.LAPSED_VOTES:
            problem = (
                f"Votes on request {request.id} were signed with a key that is no longer in use,"
                " so they count no more."
            )
            next_step = "Whoever may approve must decide again."
        case Cause.USED:
            problem = (
                f"Request {request.id} has run before, and what is stored says that it has not."
            )
            next_step = "Tell whoever runs the bot: somebody has written to its tables."
        case Cause.FORGED:
            problem = f"What is stored of request {request.id} is not what people agreed to."
            next_step = "Tell whoever runs the bot: somebody has written to its tables."
        case _:
            assert_never(cause)
    return refuse(Why.SIGNATURE, request.id, problem=problem, next_step=next_step)


def _distrust(request: Request, event: Distrusted) -> Outcome:
    """Over; but where nobody else touched the row, it only needs its votes again."""
    refusal = distrusted(request, event.cause)
    if event.cause is Cause.LAPSED_VOTES and request.state is not State.EXECUTING:
        emptied = replace(request, votes=(), step=0)
        return Outcome(request=emptied, refusal=refusal, moves=(Move.SEND_BACK,))
    move = Move.DISTRUST if request.state is State.EXECUTING else Move.REFUSE
    return Outcome(request=request, refusal=refusal, moves=(move,))


def _finish(request: Request, event: Finished, facts: Facts) -> Outcome:
    """Behind broken glass somebody else must look at it now."""
    if request.glass is None:
        return Outcome(request=request, moves=(Move.SUCCEED if event.ok else Move.FAIL,))
    due = facts.at + request.glass.review_within
    owed = replace(request, glass=replace(request.glass, review_by=due))
    return Outcome(request=owed, moves=(Move.OWE_REVIEW,))


def _send_back(request: Request) -> Outcome:
    """Without its votes, as if just asked. Only what has not begun can go back."""
    if request.state is State.PENDING and not request.votes:
        return Outcome(request=request, noop=True)
    if request.begun:
        return Outcome(request=request, refusal=refuse(Why.CLOSED, request.id, state=request.state))
    emptied = replace(request, votes=(), step=0, glass=None)
    return Outcome(request=emptied, moves=(Move.SEND_BACK,))


def break_glass(request: Request, event: GlassBroken, facts: Facts, rule: Rule) -> Outcome:
    """The request as somebody on call runs it without the votes."""
    glass = rule.break_glass
    if event.by is None or glass is None or not event.by.groups & glass.groups:
        refusal = refuse(
            Why.NOT_ELIGIBLE,
            request.id,
            problem=f"You may not run request {request.id} without the votes.",
            next_step="Ask whoever is on call, or somebody who may approve.",
        )
        return Outcome(request=request, refusal=refusal)
    if event.seen_plan is not None and event.seen_plan != request.plan_hash:
        return Outcome(request=request, refusal=refuse(Why.STALE_PLAN, request.id))
    if not event.reason.strip():
        return Outcome(request=request, refusal=refuse(Why.REASON, request.id))
    objection = (
        careless(request, event.care, rule, spared=frozenset({Care.READ}))
        or too_long(event.reason, rule, request)
        or _glass_limits(event, facts, glass)
    )
    if objection:
        return Outcome(request=request, refusal=objection)
    broken = Glass(
        by=event.by.id, at=facts.at, reason=event.reason, review_within=glass.review_within
    )
    text = f"{event.by.id} ran request {request.id} without its votes: {event.reason}"
    return Outcome(
        request=replace(request, glass=broken),
        moves=(Move.BREAK_GLASS,),
        notes=(Note(kind=NoteKind.BREAK_GLASS, text=text),),
    )


def review(request: Request, event: Reviewed, rule: Rule) -> Outcome:
    """The request after somebody else looked at what was done behind broken glass."""
    involved = request.authors | ({request.glass.by} if request.glass else set())
    if event.by is None or event.by.id in involved:
        return Outcome(request=request, refusal=refuse(Why.SELF, request.id))
    if rule.break_glass is None or not event.by.groups & rule.break_glass.reviewers:
        return Outcome(request=request, refusal=refuse(Why.NOT_ELIGIBLE, request.id))
    if refusal := too_long(event.reason, rule, request):
        return Outcome(request=request, refusal=refusal)
    return Outcome(request=request, moves=(Move.REVIEW,))


def sweep(request: Request, facts: Facts, rule: Rule) -> Outcome:
    """What people must be told because time has passed."""
    due = tuple(
        note
        for note in _due(request, facts, rule)
        if note.kind not in request.told or note.kind is NoteKind.REVIEW_OVERDUE
    )
    told = request.told | {note.kind for note in due}
    glass = request.glass
    if glass is not None and any(note.kind is NoteKind.REVIEW_OVERDUE for note in due):
        glass = replace(glass, reminded_at=facts.at)
    after = replace(request, told=told, glass=glass)
    return Outcome(request=after, notes=due, noop=not due)


def next_reminder(glass: Glass) -> datetime | None:
    """When people are told next that the review is overdue: at its end, then every day."""
    if glass.review_by is None or glass.reminded_at is None:
        return glass.review_by
    return glass.reminded_at + REMIND_EVERY


def ends_at(request: Request) -> datetime | None:
    """When the request lapses if nothing happens; None: it does not any more."""
    match request.state:
        case State.PENDING:
            return request.expires_at
        case State.APPROVED:
            return request.approval_expires_at or request.expires_at
        case _:
            return None


def _other_work(request: Request, event: Begun) -> Refusal | None:
    """Why what is about to run is not what was agreed to, or None when it is."""
    agreed = [
        event.plan_hash in (None, request.plan_hash),
        event.artifact in (None, request.plan_hash),
        event.target in (None, request.target),
    ]
    if all(agreed):
        return None
    problem = f"What is about to run is not what was agreed to in request {request.id}."
    return refuse(Why.STALE_PLAN, request.id, problem=problem)


def _begin_behind_glass(request: Request, facts: Facts) -> Outcome:
    if request.begun:
        return Outcome(request=request, refusal=refuse(Why.NOT_APPROVED, request.id))
    if facts.target_busy:
        return Outcome(request=request, refusal=refuse(Why.LOCKED, request.id))
    return Outcome(request=replace(request, begun=True))


def _requester_gone(request: Request, facts: Facts, rule: Rule) -> Refusal | None:
    """Nobody's work runs who has left meanwhile."""
    if not rule.recheck_voters:
        return None
    gone = [
        person
        for person in request.requesters
        if person in facts.people and not fit(facts.people[person], asking=True)
    ]
    if not gone:
        return None
    problem = f"{gone[0]}, for whom request {request.id} was made, may no longer act here."
    return refuse(Why.IDENTITY, request.id, problem=problem)


def _not_now(request: Request, facts: Facts, rule: Rule) -> Refusal | None:
    if rule.not_before is not None and facts.at < rule.not_before:
        return refuse(Why.NOT_YET, request.id)
    frozen = [window for window in rule.freeze if window.holds(facts.at)]
    outside = bool(rule.windows) and not any(window.holds(facts.at) for window in rule.windows)
    if frozen or outside:
        names = [window.name for window in frozen if isinstance(window, Span) and window.name]
        problem = f"Changes are frozen now: {names[0]}." if names else ""
        return refuse(Why.FROZEN, request.id, problem=problem)
    return refuse(Why.LOCKED, request.id) if facts.target_busy else None


def _glass_limits(event: GlassBroken, facts: Facts, glass: BreakGlass) -> Refusal | None:
    if event.by is not None and event.by.id in facts.debtors:
        return refuse(
            Why.POLICY,
            problem="A request that you ran without its votes still waits for its review.",
            next_step="Have it reviewed first, or ask somebody else who is on call.",
        )
    if glass.open_max is not None and facts.unreviewed >= glass.open_max:
        return refuse(
            Why.POLICY,
            problem=f"{facts.unreviewed} requests that ran without their votes wait for a review.",
            next_step="Have them reviewed first: `/db requests` lists them.",
        )
    return refuse(Why.LOCKED) if facts.target_busy else None


def _due(request: Request, facts: Facts, rule: Rule) -> Iterator[Note]:
    end = ends_at(request)
    if end is not None and rule.warn_before is not None and end - rule.warn_before <= facts.at:
        text = f"Request {request.id} expires at {end:%H:%M} UTC."
        yield Note(kind=NoteKind.WARN, text=text)
    if request.state is State.PENDING and _waits_for_escalation(request, facts, rule):
        text = f"Request {request.id} has waited long: others may decide about it too now."
        yield Note(kind=NoteKind.ESCALATED, text=text)
    due = next_reminder(request.glass) if request.glass else None
    if request.state is State.NEEDS_REVIEW and due is not None and due <= facts.at:
        text = (
            f"Request {request.id} ran without its votes and should have been reviewed by now."
            " Until it is, who ran it cannot do so again."
        )
        yield Note(kind=NoteKind.REVIEW_OVERDUE, text=text)


def _waits_for_escalation(request: Request, facts: Facts, rule: Rule) -> bool:
    have = tally(request, rule, facts).have
    return any(
        len(seated) < gate.approve and escalated(gate, asked_at=request.asked_at, at=facts.at)
        for gate, seated in zip(rule.gates, have, strict=True)
    )
