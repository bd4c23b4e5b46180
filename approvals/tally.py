"""Counting: who may vote where, and what the votes amount to. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from approvals.rules import Delegation, Gate, Rule
from approvals.seats import Bench, assign, filled
from approvals.words import Care, Door, Flag, Person, PersonId, PlanHash, PolicyHash, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """One vote for one plan hash. Votes are only ever added; the last of a person counts.

    `seat` is who the voter sat for: themselves, or somebody they stand in for. `groups`
    and `identities` are the seat's when the vote was cast.
    """

    person: PersonId
    seat: PersonId
    verdict: Verdict
    at: datetime
    plan_hash: PlanHash
    policy_hash: PolicyHash
    step: int
    groups: frozenset[str]
    identities: frozenset[str]
    reason: str
    door: Door
    care: frozenset[Care] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ballots:
    """What a count looks at. `care` is what an approval must have been given with.

    `people` are those whom the directory has been asked about just now. With `strict`
    no vote of anybody else counts, and a vote in somebody else's seat needs a delegation
    that held when it was cast; without it, such a vote counts as it was cast.
    """

    votes: Sequence[Vote]
    authors: frozenset[PersonId]
    asked_at: datetime
    people: Mapping[PersonId, Person]
    strict: bool
    care: frozenset[Care] = frozenset()
    delegations: Sequence[Delegation] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """What the votes amount to. `step` is the gate that is open when gates are ordered."""

    granted: bool
    denied: bool
    step: int
    have: tuple[tuple[PersonId, ...], ...]
    denials: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Voter:
    vote: Vote
    groups: frozenset[str]
    identities: frozenset[str]


def standing_votes(votes: Iterable[Vote]) -> tuple[Vote, ...]:
    """The last vote of each person, without those taken back, in the order cast."""
    latest: dict[PersonId, Vote] = {}
    for vote in votes:
        latest.pop(vote.person, None)
        latest[vote.person] = vote
    return tuple(vote for vote in latest.values() if vote.verdict is not Verdict.WITHDRAWN)


def count(rule: Rule, ballots: Ballots) -> Count:
    """What the votes amount to under `rule`."""
    voters = list(_voters(rule, ballots))
    benches = [_bench(gate, voters, ballots.asked_at) for gate in rule.gates]
    denials = tuple(_denials(gate, voters, ballots.asked_at) for gate in rule.gates)
    vetoed = any(
        voter.vote.verdict is Verdict.DENY and voter.groups & rule.may_always_deny
        for voter in voters
    )
    enough = any(0 < gate.deny <= no for gate, no in zip(rule.gates, denials, strict=True))
    return Count(
        granted=any(_met(rule, benches, way) for way in rule.ways),
        denied=vetoed or enough,
        step=_step(rule, benches),
        have=_seated(rule, benches),
        denials=denials,
    )


def belongs(
    gate: Gate, groups: frozenset[str], identities: frozenset[str], *, waited: bool
) -> bool:
    """Whether somebody with these groups and identities may decide at `gate`."""
    return bool(
        gate.groups & groups
        or gate.users & identities
        or (waited and gate.escalate_groups & groups)
    )


def escalated(gate: Gate, *, asked_at: datetime, at: datetime) -> bool:
    """Whether the gate has waited so long that its escalation groups may decide too."""
    return gate.escalate_after is not None and at - asked_at >= gate.escalate_after


def absent_for(delegations: Iterable[Delegation], person: Person, at: datetime) -> frozenset[str]:
    """The identities in whose seats `person` may sit at `at`."""
    return frozenset(
        line.absent
        for line in delegations
        if line.stand_in in person.identities and line.start <= at < line.end
    )


def fit(person: Person | None, *, asking: bool = False) -> bool:
    """Whether this is somebody who may act. A bot may ask for a person, and no more."""
    unfit = person.flags - {Flag.BOT} if person and asking else person.flags if person else {None}
    return not unfit


def could_agree(rule: Rule, people: Iterable[Person], authors: frozenset[PersonId]) -> bool:
    """Whether the people there are could meet the gates at all."""
    able = [
        person
        for person in people
        if fit(person) and (rule.self_approve or person.id not in authors)
    ]
    benches = [
        Bench(
            seats=gate.approve,
            people=[p.id for p in able if belongs(gate, p.groups, p.identities, waited=True)],
        )
        for gate in rule.gates
    ]
    return any(_met(rule, benches, way) for way in rule.ways)


def _voters(rule: Rule, ballots: Ballots) -> Iterator[_Voter]:
    """The votes that count, each with the groups that count."""
    for vote in standing_votes(ballots.votes):
        own = vote.person in ballots.authors or vote.seat in ballots.authors
        if own and vote.verdict is Verdict.APPROVE and not rule.self_approve:
            continue
        if vote.verdict is Verdict.APPROVE and not ballots.care <= vote.care:
            continue
        if not rule.recheck_voters:
            yield _Voter(vote=vote, groups=vote.groups, identities=vote.identities)
            continue
        voter, seat = ballots.people.get(vote.person), ballots.people.get(vote.seat)
        if ballots.strict and (voter is None or not _stood_in(vote, voter, seat, ballots)):
            continue
        if (voter and not fit(voter)) or (seat and not fit(seat)):
            continue
        yield _Voter(
            vote=vote,
            groups=seat.groups if seat else vote.groups,
            identities=seat.identities if seat else vote.identities,
        )


def _stood_in(vote: Vote, voter: Person, seat: Person | None, ballots: Ballots) -> bool:
    """Whether the vote was in the voter's own seat, or in one that was theirs when cast."""
    if vote.seat == vote.person:
        return True
    names = absent_for(ballots.delegations, voter, vote.at)
    return seat is not None and bool(names & seat.identities)


def _sits(gate: Gate, voter: _Voter, asked_at: datetime) -> bool:
    waited = escalated(gate, asked_at=asked_at, at=voter.vote.at)
    return belongs(gate, voter.groups, voter.identities, waited=waited)


def _bench(gate: Gate, voters: Sequence[_Voter], asked_at: datetime) -> Bench[PersonId]:
    seats = [
        voter.vote.seat
        for voter in voters
        if voter.vote.verdict is Verdict.APPROVE and _sits(gate, voter, asked_at)
    ]
    return Bench(seats=gate.approve, people=list(dict.fromkeys(seats)))


def _denials(gate: Gate, voters: Sequence[_Voter], asked_at: datetime) -> int:
    return len(
        {
            voter.vote.seat
            for voter in voters
            if voter.vote.verdict is Verdict.DENY and _sits(gate, voter, asked_at)
        }
    )


def _met(rule: Rule, benches: Sequence[Bench[PersonId]], way: Iterable[int]) -> bool:
    chosen = [benches[number] for number in sorted(way)]
    if rule.distinct:
        return filled(chosen)
    return all(len(bench.people) >= bench.seats for bench in chosen)


def _step(rule: Rule, benches: Sequence[Bench[PersonId]]) -> int:
    """The first gate that is not met; 0 always when the order does not matter."""
    if not rule.ordered:
        return 0
    last = max(len(benches) - 1, 0)
    open_ = (number for number in range(len(benches)) if not _met(rule, benches, range(number + 1)))
    return next(open_, last)


def _seated(rule: Rule, benches: Sequence[Bench[PersonId]]) -> tuple[tuple[PersonId, ...], ...]:
    if rule.distinct:
        return assign(benches)
    return tuple(tuple(bench.people[: bench.seats]) for bench in benches)
