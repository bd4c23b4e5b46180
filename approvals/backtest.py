"""What a policy would have made of the requests that were decided under another. Pure.

A request is replayed with the votes that stand for its last plan, in their order, by
`approvals.machine.decide`. Groups are those that were stored with each vote, so a gate of a
group that no policy knew then finds nobody in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, assert_never

from approvals.events import Asked, Facts, Request, Voted, VoteWithdrawn
from approvals.machine import decide
from approvals.policy_file import LoadedPolicy
from approvals.rules import Attributes, Delegation, Gate, Rule
from approvals.tally import Vote
from approvals.voting import tally
from approvals.words import Person, PersonId, PlanHash, RequestId, State, Verdict

_DAY = timedelta(days=1)


class Effect(StrEnum):
    """What would have been different."""

    SAME = "same"
    SAME_OTHER_RULE = "same, by another rule"
    EARLIER = "granted earlier"
    LATER = "granted later"
    NEVER = "not granted by these votes"
    REFUSED = "refused"
    ALLOWED = "granted instead"
    DENIED = "denied"
    WAITING = "not refused, still waiting"


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """A stored request with the votes that stand for its last plan, oldest first."""

    id: RequestId
    state: State
    operation: str
    database: str
    requesters: frozenset[PersonId]
    authors: frozenset[PersonId]
    plan_hash: PlanHash
    attributes: Attributes
    rule: str
    asked_at: datetime
    expires_at: datetime
    approved_at: datetime | None
    votes: tuple[Vote, ...]
    broke_glass: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """One request, as it was and as it would have been.

    `who` would have had to agree; `needs` is what the votes that there were lack of that.
    """

    id: RequestId
    operation: str
    database: str
    was: State
    rule_before: str
    rule_after: str
    effect: Effect
    granted_before: datetime | None
    granted_after: datetime | None
    who: str
    needs: str
    notes: tuple[str, ...] = ()

    @property
    def is_change(self) -> bool:
        """Whether the outcome, the rule or who must agree would have been different."""
        return self.effect is not Effect.SAME or bool(self.notes)

    @property
    def text(self) -> str:
        """One line for people."""
        rule = self.rule_after or "no rule"
        if self.rule_before != self.rule_after:
            rule = f"{self.rule_before or 'no rule'} -> {rule}"
        said = [str(self.effect)]
        said += [f"needs {self.needs}"] if self.needs else []
        said += [f"asks {self.who or 'nobody'}"] if self.rule_after else []
        said += self.notes
        where = f"{self.operation} {self.database}".strip()
        return f"{self.id} {where} ({self.was}): {'; '.join(said)} [{rule}]"

    def as_json(self) -> Mapping[str, Any]:
        """The same for scripts."""
        return {
            "request": self.id,
            "operation": self.operation,
            "database": self.database,
            "state": str(self.was),
            "effect": str(self.effect),
            "rule_before": self.rule_before,
            "rule_after": self.rule_after,
            "granted_before": self.granted_before,
            "granted_after": self.granted_after,
            "who": self.who,
            "needs": self.needs,
            "notes": list(self.notes),
        }


@dataclass(slots=True, kw_only=True)
class Summary:
    """All of it in numbers. Lead times are from asking to the deciding vote."""

    looked_at: int = 0
    changed: int = 0
    effects: dict[Effect, int]
    both_granted: int = 0
    before: timedelta = timedelta(0)
    after: timedelta = timedelta(0)

    @staticmethod
    def empty() -> Summary:
        """Of nothing yet."""
        return Summary(effects={})

    def add(self, past: Past, replayed: Replayed) -> None:
        """Count one request."""
        self.looked_at += 1
        self.changed += replayed.is_change
        self.effects[replayed.effect] = self.effects.get(replayed.effect, 0) + 1
        if replayed.granted_before and replayed.granted_after:
            self.both_granted += 1
            self.before += replayed.granted_before - past.asked_at
            self.after += replayed.granted_after - past.asked_at

    @property
    def lead_seconds(self) -> tuple[float, float]:
        """The mean lead time before and after, of what both grant."""
        count = max(self.both_granted, 1)
        return self.before.total_seconds() / count, self.after.total_seconds() / count

    @property
    def lines(self) -> tuple[str, ...]:
        """The numbers for people."""
        counts = [f"{self.effects[each]} {each}" for each in Effect if each in self.effects]
        before, after = self.lead_seconds
        said = f": {', '.join(counts)}." if counts else "."
        many = f"{self.changed} of {self.looked_at} requests would be different{said}"
        if not self.both_granted:
            return (many,)
        both = f"the {self.both_granted} that both grant"
        return (many, f"Mean lead time of {both}: {before:.0f} s before, {after:.0f} s after.")

    def as_json(self) -> Mapping[str, Any]:
        """The numbers for scripts."""
        before, after = self.lead_seconds
        return {
            "looked_at": self.looked_at,
            "changed": self.changed,
            "effects": {str(name): count for name, count in self.effects.items()},
            "both_granted": self.both_granted,
            "lead_seconds_before": before,
            "lead_seconds_after": after,
        }


def replay(past: Past, policy: LoadedPolicy) -> Replayed:
    """One request under `policy`."""
    rule = policy.values.rule_for(past.attributes)
    request, granted = _played(past, policy)
    effect = _effect(past, rule, request, granted)
    if effect is Effect.SAME and rule is not None and rule.name != past.rule:
        effect = Effect.SAME_OTHER_RULE
    is_short = effect in (Effect.NEVER, Effect.WAITING)
    return Replayed(
        id=past.id,
        operation=past.operation,
        database=past.database,
        was=past.state,
        rule_before=past.rule,
        rule_after=rule.name if rule else "",
        effect=effect,
        granted_before=past.approved_at,
        granted_after=granted,
        who=_who(rule) if rule else "",
        needs=_needs(request, rule, policy) if is_short and request and rule else "",
        notes=tuple(_notes(past, rule)),
    )


def backtest(stored: Iterable[Past], policy: LoadedPolicy) -> tuple[Sequence[Replayed], Summary]:
    """Several requests, and what they come to. For as many as fit into memory."""
    summary = Summary.empty()
    found: list[Replayed] = []
    for past in stored:
        replayed = replay(past, policy)
        summary.add(past, replayed)
        found.append(replayed)
    return found, summary


def _played(past: Past, policy: LoadedPolicy) -> tuple[Request | None, datetime | None]:
    """The request at the end, and when it was granted."""
    asker = _author(next(iter(sorted(past.requesters)), PersonId("somebody")))
    asked = Asked(
        by=asker, request_id=past.id, target=past.database, plan_hash=past.plan_hash,
        attributes=past.attributes, reason="",
    )  # fmt: skip
    request = decide(None, asked, _facts(past.asked_at, policy, ())).request
    if request is None:
        return None, None
    request = replace(request, requesters=past.requesters, authors=past.authors)
    granted = past.asked_at if request.state is State.APPROVED else None
    for vote in past.votes:
        if request.state is not State.PENDING:
            break
        voter, seat = _people(vote)
        event = (
            VoteWithdrawn(by=voter, door=vote.door)
            if vote.verdict is Verdict.WITHDRAWN
            else Voted(
                by=voter, verdict=vote.verdict, reason=vote.reason, door=vote.door, care=vote.care
            )
        )
        outcome = decide(request, event, _facts(vote.at, policy, (voter, seat)))
        request = outcome.request or request
        if request.state is State.APPROVED:
            granted = vote.at
    return request, granted


def _effect(
    past: Past, rule: Rule | None, request: Request | None, granted: datetime | None
) -> Effect:
    if rule is None or request is None:
        return Effect.SAME if past.state is State.REFUSED else Effect.REFUSED
    before, denied = past.approved_at, request.state is State.DENIED
    if before is None:
        return _of_none(past, denied=denied) if granted is None else Effect.ALLOWED
    if granted is None:
        return Effect.DENIED if denied else Effect.NEVER
    if granted == before:
        return Effect.SAME
    return Effect.EARLIER if granted < before else Effect.LATER


def _of_none(past: Past, *, denied: bool) -> Effect:
    """Neither policy grants it."""
    match past.state:
        case State.REFUSED:
            return Effect.WAITING
        case State.DENIED:
            return Effect.SAME if denied else Effect.WAITING
        case (
            State.PENDING
            | State.APPROVED
            | State.EXECUTING
            | State.DONE
            | State.FAILED
            | State.CANCELLED
            | State.EXPIRED
            | State.NEEDS_REVIEW
            | State.CLOSED
        ):
            return Effect.DENIED if denied else Effect.SAME
        case _:
            assert_never(past.state)


def _notes(past: Past, rule: Rule | None) -> list[str]:
    if past.broke_glass and rule is not None and rule.break_glass is None:
        return ["nobody could have broken the glass"]
    return []


def _who(rule: Rule) -> str:
    """Such as `2 of dba and 1 of security`."""
    gates = [f"{gate.approve} of {_whose(gate)}" for gate in rule.gates]
    return (" or " if len(rule.ways) > 1 else " and ").join(gates)


def _whose(gate: Gate) -> str:
    return " or ".join([*sorted(gate.groups), *sorted(gate.users)]) or gate.id


def _needs(request: Request, rule: Rule, policy: LoadedPolicy) -> str:
    """Such as `1 more of security`, at the moment of the last vote."""
    have = tally(request, rule, _facts(request.asked_at, policy, ())).have
    lacking = [
        f"{gate.approve - len(seated)} more of {_whose(gate)}"
        for gate, seated in zip(rule.gates, have, strict=True)
        if len(seated) < gate.approve
    ]
    return (" or " if len(rule.ways) > 1 else " and ").join(lacking)


def _facts(at: datetime, policy: LoadedPolicy, people: Sequence[Person]) -> Facts:
    lines: tuple[Delegation, ...] = ()
    if people and people[0].id != people[-1].id:
        voter, seat = people[0], people[-1]
        lines = (Delegation(absent=seat.id, stand_in=voter.id, start=at - _DAY, end=at + _DAY),)
    return Facts(
        at=at,
        policy=policy.values,
        policy_hash=policy.hash,
        people={person.id: person for person in people},
        delegations=lines,
    )


def _people(vote: Vote) -> tuple[Person, Person]:
    """Who voted, and in whose seat: the same person, but for somebody who stood in."""
    seat = Person(
        id=vote.seat, name=vote.seat, groups=vote.groups, aliases=frozenset(vote.identities)
    )
    if vote.person == vote.seat:
        return seat, seat
    return Person(id=vote.person, name=vote.person), seat


def _author(person: PersonId) -> Person:
    return Person(id=person, name=person)
