"""The life of a request: one table, and one function that decides. Pure.

`decide` serves every door, the scenarios and the worker. It takes values and the time and
returns what is to be stored; whoever calls it has locked the request first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final, assert_never

from approvals import asking, running, voting
from approvals.by_the_clock import CLOCK
from approvals.events import (
    Asked,
    AttributesChanged,
    Begun,
    ByPerson,
    Cancelled,
    Distrusted,
    Event,
    Facts,
    Finished,
    GlassBroken,
    Happening,
    Manner,
    Move,
    Note,
    NoteKind,
    Outcome,
    PlanChanged,
    PolicyChanged,
    Reopened,
    Request,
    Reviewed,
    Ruled,
    SentBack,
    Swept,
    Voted,
    VoteWithdrawn,
)
from approvals.refusals import Refusal, refuse
from approvals.rules import Rule
from approvals.tally import fit
from approvals.words import Door, Person, State, Why

# Every state has a row, and a final state's row is empty: what is not here cannot happen.
# A vote leaves a request pending; `voting.settle` adds the grant or the denial that follows
# from the votes. Executing goes back only if no worker has begun (`running.send_back`), and
# is distrusted only by the worker that would begin it.
TRANSITIONS: Final[Mapping[State, Mapping[Move, State]]] = MappingProxyType(
    {
        State.PENDING: MappingProxyType(
            {
                Move.VOTE: State.PENDING,
                Move.CHANGE: State.PENDING,
                Move.SEND_BACK: State.PENDING,
                Move.GRANT: State.APPROVED,
                Move.DENY: State.DENIED,
                Move.CANCEL: State.CANCELLED,
                Move.LAPSE: State.EXPIRED,
                Move.REFUSE: State.REFUSED,
                Move.BREAK_GLASS: State.EXECUTING,
            }
        ),
        State.APPROVED: MappingProxyType(
            {
                Move.CHANGE: State.PENDING,
                Move.UNGRANT: State.PENDING,
                Move.SEND_BACK: State.PENDING,
                Move.DENY: State.DENIED,
                Move.CANCEL: State.CANCELLED,
                Move.LAPSE: State.EXPIRED,
                Move.REFUSE: State.REFUSED,
                Move.START: State.EXECUTING,
                Move.BREAK_GLASS: State.EXECUTING,
            }
        ),
        State.EXECUTING: MappingProxyType(
            {
                Move.SUCCEED: State.DONE,
                Move.FAIL: State.FAILED,
                Move.OWE_REVIEW: State.NEEDS_REVIEW,
                Move.SEND_BACK: State.PENDING,
                Move.DISTRUST: State.REFUSED,
            }
        ),
        State.NEEDS_REVIEW: MappingProxyType({Move.REVIEW: State.CLOSED}),
        State.DONE: MappingProxyType({}),
        State.FAILED: MappingProxyType({}),
        State.DENIED: MappingProxyType({}),
        State.CANCELLED: MappingProxyType({}),
        State.EXPIRED: MappingProxyType({}),
        State.REFUSED: MappingProxyType({}),
        State.CLOSED: MappingProxyType({}),
    }
)

FINAL: Final = frozenset(state for state, moves in TRANSITIONS.items() if not moves)

# The move without which an event makes no sense in a state.
_NEEDS: Final[Mapping[type[Event], Move]] = MappingProxyType(
    {
        Voted: Move.VOTE,
        VoteWithdrawn: Move.VOTE,
        Cancelled: Move.CANCEL,
        Reopened: Move.VOTE,
        PlanChanged: Move.CHANGE,
        AttributesChanged: Move.REFUSE,
        PolicyChanged: Move.REFUSE,
        Begun: Move.START,
        Finished: Move.SUCCEED,
        SentBack: Move.SEND_BACK,
        Distrusted: Move.REFUSE,
        GlassBroken: Move.BREAK_GLASS,
        Reviewed: Move.REVIEW,
    }
)


def decide(request: Request | None, event: Event, facts: Facts) -> Outcome:
    """What becomes of `request` by `event`. Nothing else in the program decides this.

    A refusal leaves the request as it was, with two exceptions that are to be stored: time
    has run out meanwhile, or a worker found that today's votes no longer suffice.
    """
    if facts.manner.reading:
        return Outcome(request=request, noop=True)
    if refusal := _inadmissible(event, facts):
        return Outcome(request=request, refusal=refusal)
    if isinstance(event, Asked):
        return _moved(asking.ask(event, facts), facts)
    if request is None:
        why = Why.NOT_APPROVED if isinstance(event, Begun) else Why.CLOSED
        problem = "There is no such request."
        return Outcome(request=None, refusal=refuse(why, problem=problem))
    return _moved(_of_request(request, event, facts), facts)


def diagram() -> str:
    """The table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {State.PENDING}"]
    for state, moves in TRANSITIONS.items():
        lines += [f"    {state} --> {after}: {move}" for move, after in moves.items()]
    lines += [f"    {state} --> [*]" for state in TRANSITIONS if state in FINAL]
    return "\n".join(lines) + "\n"


_OURS: Final = (AttributesChanged, PolicyChanged, Begun, Finished, SentBack, Distrusted, Swept)


def inadmissible(by: Person | None, manner: Manner, *, may_act: bool) -> Refusal | None:
    """Why nobody may decide in this manner, or None. `may_act`: the person is fit to."""
    named = manner.as_person
    own_name = named is None or bool(by and named.strip().casefold() in by.identities)
    checks = (
        (manner.signed, Why.SIGNATURE),
        (manner.directory_up, Why.DIRECTORY),
        (may_act, Why.IDENTITY),
        (own_name, Why.IMPERSONATION),
    )
    failed = next((why for passed, why in checks if not passed), None)
    if failed:
        return refuse(failed)
    if not manner.sets_policy:
        return None
    problem = "A decision cannot change the rules that it is made under."
    return refuse(Why.POLICY, problem=problem, next_step="Decide without changing them.")


def _inadmissible(event: Event, facts: Facts) -> Refusal | None:
    if isinstance(event, _OURS):
        return None if facts.manner.signed else refuse(Why.SIGNATURE)
    return inadmissible(event.by, facts.manner, may_act=_may_act(event))


def _may_act(event: ByPerson) -> bool:
    if isinstance(event, Asked) and event.by is not None and event.by.id == CLOCK.id:
        return event.by == CLOCK and event.beneficiary is None
    if isinstance(event, Asked) and event.beneficiary is not None:
        # A bot may ask, for a person who then counts as having asked.
        return fit(event.by, asking=True) and fit(event.beneficiary)
    if isinstance(event, Voted | VoteWithdrawn) and event.door is Door.CLOCK:
        return False
    return fit(event.by)


def _of_request(request: Request, event: Happening, facts: Facts) -> Outcome:
    end = running.ends_at(request)
    if end is not None and end <= facts.at:
        return _lapsed(request, event)
    rule = facts.policy.rule_for(request.attributes) if facts.policy else None
    if refusal := _impossible(request, event, rule):
        return Outcome(request=request, refusal=refusal)
    return _handled(request, event, facts, rule)


def _lapsed(request: Request, event: Happening) -> Outcome:
    note = Note(kind=NoteKind.EXPIRED, text=f"Request {request.id} has expired.")
    refusal = None if isinstance(event, Swept) else refuse(Why.EXPIRED, request.id)
    return Outcome(request=request, refusal=refusal, moves=(Move.LAPSE,), notes=(note,))


def _impossible(request: Request, event: Happening, rule: Rule | None) -> Refusal | None:
    """Why this cannot happen to a request in this state, or None."""
    possible = TRANSITIONS[request.state]
    if isinstance(event, Swept) or _NEEDS[type(event)] in possible:
        return None
    match event:
        case Voted() if rule and Move.DENY in possible:
            if voting.may_veto(event.by, event.verdict, rule):
                return None
        case Begun() if request.glass is not None and request.state is State.EXECUTING:
            return None  # breaking the glass made it executing; a worker begins it once
        case Reviewed() if request.glass is not None and request.state is State.EXECUTING:
            return refuse(Why.NOT_YET, request.id, next_step="Review it when its run has ended.")
        case Distrusted():
            # It may say that it executes, and nothing has begun.
            over = event.starting and Move.DISTRUST in possible
            return None if over else running.distrusted(request, event.cause)
        case _:
            pass
    why = Why.NOT_APPROVED if isinstance(event, Begun) else Why.CLOSED
    why = Why.EXPIRED if request.state is State.EXPIRED else why
    return refuse(why, request.id, state=request.state)


def _handled(request: Request, event: Happening, facts: Facts, rule: Rule | None) -> Outcome:
    match event:
        case PlanChanged() | AttributesChanged() | PolicyChanged():
            return asking.change(request, event, facts)
        case Cancelled() | Reopened():
            return _cancel(request, event)
        case Finished() | SentBack() | Distrusted():
            return running.end(request, event, facts)
        case _ if rule is None:
            return Outcome(request=request, refusal=refuse(Why.POLICY, request.id))
        case _:
            return _ruled(request, event, facts, rule)


def _ruled(request: Request, event: Ruled, facts: Facts, rule: Rule) -> Outcome:
    match event:
        case Voted():
            return voting.vote(request, event, facts, rule)
        case VoteWithdrawn():
            return voting.withdraw(request, event, facts, rule)
        case Begun():
            return running.begin(request, event, facts, rule)
        case GlassBroken():
            return running.break_glass(request, event, facts, rule)
        case Reviewed():
            return running.review(request, event, rule)
        case Swept():
            return running.sweep(request, facts, rule)
        case _:
            assert_never(event)


def _cancel(request: Request, event: Cancelled | Reopened) -> Outcome:
    if isinstance(event, Reopened):
        return Outcome(request=request, noop=True)  # it is open
    if event.by is None or event.by.id not in request.requesters:
        return Outcome(request=request, refusal=refuse(Why.NOT_REQUESTER, request.id))
    return Outcome(request=request, moves=(Move.CANCEL,))


def _moved(outcome: Outcome, facts: Facts) -> Outcome:
    """The outcome with its request taken through its moves, each looked up in the table."""
    request = outcome.request
    for move in outcome.moves:
        if request is not None:
            request = _move(request, move, facts)
    return replace(outcome, request=request)


def _move(request: Request, move: Move, facts: Facts) -> Request:
    moved = replace(request, state=TRANSITIONS[request.state][move])
    if move is Move.GRANT:
        rule = facts.policy.rule_for(request.attributes) if facts.policy else None
        lasts = rule.approval_valid_for if rule else None
        ends = facts.at + lasts if lasts else None
        return replace(moved, approved_at=facts.at, approval_expires_at=ends)
    if moved.state is State.PENDING:
        return replace(moved, approved_at=None, approval_expires_at=None)
    return moved
