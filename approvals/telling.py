"""Who is to be told what about a request, and when to look again. Pure.

What a person was told before is a log that only grows; a message stands until an `over`
follows it. From the request, its rule, the people as they are today and that log follows
what to send now, so any number of processes come to the same, and a restart changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, time, timedelta
from enum import StrEnum
from typing import Final
from zoneinfo import ZoneInfo

from approvals.events import Facts, Request
from approvals.rules import Gate, Rule
from approvals.running import ends_at
from approvals.tally import absent_for, belongs, escalated, fit, standing_votes
from approvals.voting import in_force, tally
from approvals.words import Person, PersonId, PlanHash, State

REMINDERS_MAX: Final = 5
OVERDUE_MAX: Final = 60
DAY_STARTS: Final = time(9)
DAY_ENDS: Final = time(18)
_WEEKDAYS: Final = range(5)
_EVERY_DAY: Final = range(7)
_DAILY: Final = timedelta(days=1)
# Members come and go without a word to us.
LOOK_AGAIN: Final = timedelta(minutes=5)


class Kind(StrEnum):
    """What somebody is told directly."""

    ASK = "ask"
    ESCALATED = "escalated"
    REMIND = "remind"
    EXPIRING = "expiring"
    GLASS = "glass"
    OVERDUE = "overdue"
    OVER = "over"  # what was asked of them is no longer asked: earlier messages are redrawn


class _Mode(StrEnum):
    VOTE = "vote"
    REVIEW = "review"


_MODES: Final[Mapping[Kind, _Mode | None]] = {
    Kind.ASK: _Mode.VOTE,
    Kind.ESCALATED: _Mode.VOTE,
    Kind.REMIND: _Mode.VOTE,
    Kind.EXPIRING: _Mode.VOTE,
    Kind.GLASS: _Mode.REVIEW,
    Kind.OVERDUE: _Mode.REVIEW,
    Kind.OVER: None,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Somebody:
    """A person who could be told, and the zone that they live in."""

    person: Person
    zone: ZoneInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """What one person is told, or was. `number` counts for this person and request.

    `slack`: `TEAM/USER` that gets it. `absent`: in whose place they may vote, or ''.
    """

    person: PersonId
    slack: str
    kind: Kind
    number: int
    plan_hash: PlanHash
    step: int
    at: datetime
    absent: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Telling:
    """What to send now, and when to look again; None: not before something happens."""

    notices: tuple[Notice, ...]
    look_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    """What is wanted of somebody now. `escalated`: only because others waited too long."""

    mode: _Mode
    escalated: bool = False
    absent: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    request: Request
    rule: Rule
    facts: Facts
    step: int
    open_gates: tuple[Gate, ...]

    @property
    def at(self) -> datetime:
        return self.facts.at

    @property
    def warns_at(self) -> datetime | None:
        end = ends_at(self.request)
        return None if end is None or not self.rule.warn_before else end - self.rule.warn_before


def telling(
    request: Request, rule: Rule, facts: Facts, people: Sequence[Somebody], told: Sequence[Notice]
) -> Telling:
    """What to send at `facts.at`. `told` is the whole log of this request, the oldest first."""
    case = _case(request, rule, facts)
    logs: dict[PersonId, list[Notice]] = {}
    for notice in told:
        logs.setdefault(notice.person, []).append(notice)
    found: list[Notice] = []
    moments: list[datetime] = list(_moments(case))
    known = _by_person(case, people)
    for name in sorted({*logs, *known}):
        somebody, wish = known.get(name, (None, None))
        log = logs.get(name, [])
        fresh = list(_for(case, somebody, wish, log))
        found += fresh
        moments += _next(case, somebody, wish, [*log, *fresh])
    later = [moment for moment in moments if moment > case.at]
    return Telling(notices=tuple(found), look_at=min(later, default=None))


def standing(told: Sequence[Notice]) -> Sequence[Notice]:
    """Of one person's log, the messages that no `over` has followed yet."""
    last = max((place for place, each in enumerate(told) if each.kind is Kind.OVER), default=-1)
    return told[last + 1 :]


def in_hours(at: datetime, zone: ZoneInfo, *, days: range = _WEEKDAYS) -> bool:
    """Whether people in `zone` are at work at `at`."""
    local = at.astimezone(zone)
    return local.weekday() in days and DAY_STARTS <= local.time() < DAY_ENDS


def next_in_hours(at: datetime, zone: ZoneInfo, *, days: range = _WEEKDAYS) -> datetime:
    """`at`, or the next moment when people in `zone` are at work."""
    if in_hours(at, zone, days=days):
        return at
    local = at.astimezone(zone)
    day = local.date() + timedelta(days=int(local.time() >= DAY_STARTS))
    while day.weekday() not in days:
        day += _DAILY
    return datetime.combine(day, DAY_STARTS, tzinfo=zone).astimezone(at.tzinfo)


def _case(request: Request, rule: Rule, facts: Facts) -> _Case:
    counted = tally(request, rule, facts)
    open_gates = tuple(
        gate
        for number, gate in enumerate(rule.gates)
        if len(counted.have[number]) < gate.approve and (not rule.ordered or number == counted.step)
    )
    return _Case(
        request=request,
        rule=rule,
        facts=facts,
        step=counted.step,
        open_gates=open_gates,
    )


def _by_person(
    case: _Case, people: Sequence[Somebody]
) -> dict[PersonId, tuple[Somebody, _Wish | None]]:
    """Each person once, by an account of theirs of which something is wanted, if there is one."""
    found: dict[PersonId, tuple[Somebody, _Wish | None]] = {}
    for somebody in sorted(people, key=lambda each: each.person.slack):
        wish = _wish(case, somebody.person)
        if somebody.person.id not in found or (wish and not found[somebody.person.id][1]):
            found[somebody.person.id] = (somebody, wish)
    return found


def _wish(case: _Case, person: Person) -> _Wish | None:
    request = case.request
    if not fit(person):
        return None
    if request.state is State.PENDING:
        return _vote_wish(case, person)
    if request.glass is None or request.state not in (State.EXECUTING, State.NEEDS_REVIEW):
        return None
    glass = case.rule.break_glass
    reviews = bool(glass and person.groups & glass.reviewers) and person.id not in request.authors
    owes = person.id == request.glass.by
    return _Wish(mode=_Mode.REVIEW) if owes or reviews else None


def _vote_wish(case: _Case, person: Person) -> _Wish | None:
    """Whether somebody could approve at an open gate, in their own seat or another's."""
    request, rule = case.request, case.rule
    standing_now = standing_votes(request.votes)
    if person.id in {vote.person for vote in standing_now}:
        return None
    taken = {vote.seat for vote in standing_now}
    if person.id in request.authors and not rule.self_approve:
        return None
    for seat in (person, *_absent(case, person)):
        if seat.id in taken or (seat.id in request.authors and not rule.self_approve):
            continue
        for waited in (False, True):
            if _may(case, seat, waited=waited):
                absent = "" if seat is person else seat.slack or seat.id
                return _Wish(mode=_Mode.VOTE, escalated=waited, absent=absent)
    return None


def _may(case: _Case, seat: Person, *, waited: bool) -> bool:
    request = case.request
    return any(
        belongs(
            gate,
            seat.groups,
            seat.identities,
            waited=waited and escalated(gate, asked_at=request.asked_at, at=case.at),
        )
        for gate in case.open_gates
    )


def _absent(case: _Case, person: Person) -> Iterator[Person]:
    names = absent_for(in_force(case.facts), person, case.at)
    for other in case.facts.people.values():
        if names & other.identities and fit(other) and other.id != person.id:
            yield other


def _for(
    case: _Case, somebody: Somebody | None, wish: _Wish | None, log: Sequence[Notice]
) -> Iterator[Notice]:
    """What one person is told now."""
    live = standing(log)
    mode = _MODES[live[-1].kind] if live else None
    if mode is not None and (wish is None or wish.mode is not mode):
        over = replace(live[-1], kind=Kind.OVER, number=len(log), at=case.at)
        yield over
        log, live = [*log, over], ()
    if somebody is None or wish is None:
        return
    if kind := _due(case, somebody, wish, log, live):
        yield Notice(
            person=somebody.person.id,
            slack=somebody.person.slack,
            kind=kind,
            number=len(log),
            plan_hash=case.request.plan_hash,
            step=case.step,
            at=case.at,
            absent=wish.absent,
        )


def _due(
    case: _Case, somebody: Somebody, wish: _Wish, log: Sequence[Notice], live: Sequence[Notice]
) -> Kind | None:
    now = _asked(case, live)
    if wish.mode is _Mode.REVIEW:
        if not now:
            return Kind.GLASS
        return Kind.OVERDUE if _is_due(_overdue_at(case, somebody, log, now), case.at) else None
    if not now:
        return Kind.ESCALATED if wish.escalated else Kind.ASK
    if _is_due(_expiring_at(case, now), case.at):
        return Kind.EXPIRING
    return Kind.REMIND if _is_due(_reminder_at(case, somebody, log, now), case.at) else None


def _asked(case: _Case, live: Sequence[Notice]) -> Sequence[Notice]:
    """What somebody was told about what is wanted of them now: this plan, this step."""
    request = case.request
    return [
        each
        for each in live
        if each.plan_hash == request.plan_hash
        and (_MODES[each.kind] is _Mode.REVIEW or not case.rule.ordered or each.step == case.step)
    ]


def _expiring_at(case: _Case, now: Sequence[Notice]) -> datetime | None:
    """Before the end always, whatever the hour: afterwards it is too late."""
    warns_at = case.warns_at
    if warns_at is None or now[0].at >= warns_at or Kind.EXPIRING in {each.kind for each in now}:
        return None
    return warns_at


def _reminder_at(
    case: _Case, somebody: Somebody, log: Sequence[Notice], now: Sequence[Notice]
) -> datetime | None:
    every = case.rule.remind_every
    if every is None or sum(each.kind is Kind.REMIND for each in log) >= REMINDERS_MAX:
        return None
    if _is_away(case, somebody.person):
        return None
    return next_in_hours(max(now[-1].at + every, case.at), somebody.zone)


def _overdue_at(
    case: _Case, somebody: Somebody, log: Sequence[Notice], now: Sequence[Notice]
) -> datetime | None:
    due = case.request.glass.review_by if case.request.glass else None
    if due is None or sum(each.kind is Kind.OVERDUE for each in log) >= OVERDUE_MAX:
        return None
    last = [each.at for each in now if each.kind is Kind.OVERDUE]
    wanted = max([due, case.at, *(at + _DAILY for at in last)])
    return next_in_hours(wanted, somebody.zone, days=_EVERY_DAY)


def _is_away(case: _Case, person: Person) -> bool:
    """Whether somebody has a stand-in today: they are not reminded, the other one is."""
    return any(
        line.absent in person.identities and line.start <= case.at < line.end
        for line in in_force(case.facts)
    )


def _is_due(moment: datetime | None, at: datetime) -> bool:
    return moment is not None and moment <= at


def _next(
    case: _Case, somebody: Somebody | None, wish: _Wish | None, log: Sequence[Notice]
) -> Iterator[datetime]:
    """When something could be due for one person, with what they are told now."""
    now = _asked(case, standing(log))
    if somebody is None or wish is None or not now:
        return
    if wish.mode is _Mode.REVIEW:
        moments = [_overdue_at(case, somebody, log, now)]
    else:
        moments = [_expiring_at(case, now), _reminder_at(case, somebody, log, now)]
    yield from (moment for moment in moments if moment is not None)


def _moments(case: _Case) -> Iterator[datetime]:
    """When something could change for everybody."""
    if case.request.state is State.PENDING:
        yield case.at + LOOK_AGAIN
        for gate in case.open_gates:
            if gate.escalate_after is not None:
                yield case.request.asked_at + gate.escalate_after
    elif case.request.glass and case.request.state in (State.EXECUTING, State.NEEDS_REVIEW):
        yield case.at + 12 * LOOK_AGAIN
