"""Small worlds, and the shortest way in one of them to what must not be. Pure.

Every step is decided by `approvals.machine.decide`: what a world allows is what the bot and
the worker allow.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from approvals.events import (
    Asked,
    Event,
    Facts,
    GlassBroken,
    Outcome,
    PlanChanged,
    Request,
    Reviewed,
    Voted,
    VoteWithdrawn,
)
from approvals.machine import decide
from approvals.proof import Budget
from approvals.rules import Attributes, Delegation, Policy, Rule
from approvals.spaces import told
from approvals.tally import standing_votes
from approvals.words import (
    Care,
    Door,
    Person,
    PersonId,
    PlanHash,
    PolicyHash,
    RequestId,
    Verdict,
)

NOON: Final = datetime(2030, 1, 1, 12, 0, tzinfo=UTC)
# Whoever is careful counts for more: worlds are peopled with the careful.
CAREFUL: Final = frozenset(Care)
_NUMBER: Final = RequestId(1)
_HASH: Final = PolicyHash("")


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """Something that can happen. `event` None: only time passes, until `wait` after asking."""

    text: str
    event: Event | None
    wait: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Who there is, how it begins, and what can happen then, up to so many acts in a row."""

    policy: Policy
    people: Mapping[PersonId, Person]
    asks: tuple[Act, ...]
    acts: tuple[Act, ...]
    acts_max: int
    delegations: tuple[Delegation, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened:
    """One act, and what came of it. `before` None: it was asked for.

    `authors` have shaped the request, by our own account of what has happened.
    """

    before: Request | None
    act: Act
    outcome: Outcome
    facts: Facts
    authors: frozenset[PersonId]


Broken = Callable[[Happened], bool]


@dataclass(frozen=True, slots=True)
class _Place:
    request: Request | None
    at: datetime
    story: tuple[str, ...] = field(default=())
    authors: frozenset[PersonId] = field(default=frozenset())


def search(world: World, is_broken: Broken, budget: Budget) -> tuple[str, ...] | None:
    """The shortest story in which `is_broken`; None: there is none in this world.

    Raises:
        BudgetSpentError: not everything was looked at.
    """
    waiting = deque([_Place(None, NOON)])
    seen: set[object] = set()
    while waiting:
        place = waiting.popleft()
        for happened, after in _nexts(world, place, budget):
            if is_broken(happened):
                return after.story
            if after.request is None or len(after.story) > world.acts_max:
                continue
            key = (after.authors, _key(after.request, after.at))
            if key not in seen:
                seen.add(key)
                waiting.append(after)
    return None


def _nexts(world: World, place: _Place, budget: Budget) -> Iterator[tuple[Happened, _Place]]:
    """What can happen at a place, without what changes nothing."""
    for act in world.acts if place.request else world.asks:
        at, authors = place.at, place.authors
        if act.event is None:
            at = max(place.at, NOON + act.wait)
            outcome = Outcome(request=place.request, noop=at == place.at)
        else:
            budget.spend()
            outcome = decide(place.request, act.event, _facts(world, at))
        done = outcome.refusal is None and not outcome.noop
        if not done and outcome.request == place.request:
            continue  # a refusal can move a request: it was found expired
        authors |= _shaped_by(act.event) if done else frozenset()
        happened = Happened(
            before=place.request, act=act, outcome=outcome, facts=_facts(world, at), authors=authors
        )
        yield happened, _Place(outcome.request, at, (*place.story, act.text), authors)


def _shaped_by(event: Event | None) -> frozenset[PersonId]:
    """Who becomes an author by this."""
    match event:
        case Asked():
            people = (event.by, event.beneficiary)
        case PlanChanged():
            people = (event.by, None)
        case _:
            return frozenset()
    return frozenset(person.id for person in people if person is not None)


def _facts(world: World, at: datetime) -> Facts:
    return Facts(
        at=at,
        policy=world.policy,
        policy_hash=_HASH,
        people=world.people,
        delegations=world.delegations,
    )


def _key(request: Request, at: datetime) -> object:
    """What of a request matters to what can follow."""
    votes = sorted(
        (vote.person, vote.seat, vote.verdict, vote.at) for vote in standing_votes(request.votes)
    )
    return (
        request.state,
        request.authors,
        request.plan_hash,
        tuple(request.attributes.items()),
        request.begun,
        request.glass,
        request.approval_expires_at,
        tuple(votes),
        at,
    )


def timeless(policy: Policy) -> Policy:
    """The policy without hours and dates: a promise must not hang on the calendar."""
    rules = tuple(
        replace(rule, windows=(), freeze=(), not_before=None, check_satisfiable=False)
        for rule in policy.rules
    )
    return replace(policy, rules=rules, delegations=())


def narrowed(policy: Policy, asked: Sequence[Attributes]) -> Policy:
    """The policy with the rules that any of these attributes can meet, which is quicker."""
    rules = tuple(rule for rule in policy.rules if any(rule.matches(each) for each in asked))
    return replace(policy, rules=rules)


def always(absent: Person, stand_in: Person) -> Delegation:
    """`stand_in` may sit in the seat of `absent`, whenever."""
    return Delegation(
        absent=absent.id,
        stand_in=stand_in.id,
        start=NOON - timedelta(days=1),
        end=NOON + timedelta(days=3650),
    )


def asks(who: str, by: Person, attributes: Attributes, *, beneficiary: Person | None = None) -> Act:
    """Somebody asks."""
    event = Asked(
        by=by,
        request_id=_NUMBER,
        target="a database",
        plan_hash=PlanHash("first"),
        attributes=attributes,
        reason="because",
        beneficiary=beneficiary,
    )
    return Act(text=f"{who} ({told(attributes)})", event=event)


def votes(
    who: str, by: Person, *, verdict: Verdict = Verdict.APPROVE, doors: Sequence[Door] = tuple(Door)
) -> list[Act]:
    """Somebody decides, through each of these doors."""
    word = "approves" if verdict is Verdict.APPROVE else "denies"
    return [
        Act(
            text=f"{who} {word} through {door}",
            event=Voted(by=by, verdict=verdict, reason="because", door=door, care=CAREFUL),
        )
        for door in doors
    ]


def takes_back(who: str, by: Person) -> Act:
    """Somebody takes a vote back."""
    return Act(text=f"{who} takes the vote back", event=VoteWithdrawn(by=by))


def changes_plan(who: str, by: Person, attributes: Attributes) -> Act:
    """Somebody changes what would be done."""
    event = PlanChanged(by=by, plan_hash=PlanHash("second"), attributes=attributes)
    return Act(text=f"{who} changes the plan", event=event)


def breaks_glass(who: str, by: Person) -> Act:
    """Somebody runs it without the votes."""
    event = GlassBroken(by=by, reason="because", care=CAREFUL)
    return Act(text=f"{who} breaks the glass", event=event)


def reviews(who: str, by: Person) -> Act:
    """Somebody closes what ran without its votes."""
    return Act(text=f"{who} reviews it", event=Reviewed(by=by, reason="because"))


def waits(rule: Rule) -> list[Act]:
    """Time passes until a gate of `rule` lets others decide too."""
    spans = {gate.escalate_after for gate in rule.gates if gate.escalate_after is not None}
    return [
        Act(text=f"{span} (h:mm:ss) pass since the request", event=None, wait=span)
        for span in sorted(spans)
    ]
