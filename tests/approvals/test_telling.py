"""Who is told what, and when: examples, and that no history ever tells too much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from approvals.events import Facts, Glass, Request
from approvals.policy_file import parse_policy
from approvals.rules import Delegation
from approvals.tally import Vote
from approvals.telling import (
    OVERDUE_MAX,
    REMINDERS_MAX,
    Kind,
    Notice,
    Somebody,
    Telling,
    in_hours,
    next_in_hours,
    standing,
    telling,
)
from approvals.words import (
    Door,
    Flag,
    Person,
    PersonId,
    PlanHash,
    PolicyHash,
    RequestId,
    State,
    Verdict,
)

LONDON, TOKYO, YORK = (
    ZoneInfo(name) for name in ("Europe/London", "Asia/Tokyo", "America/New_York")
)
# A Wednesday.
NOON = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
PLAN, POLICY_HASH = PlanHash("p1"), PolicyHash("r1")


def somebody(name: str, *groups: str, zone: ZoneInfo = LONDON, flags: Any = ()) -> Somebody:
    person = Person(
        id=PersonId(f"{name}@acme.example"),
        name=name,
        slack_team="T0DEMO",
        slack_user=f"U0{name.upper()}",
        groups=frozenset(groups),
        flags=frozenset(flags),
    )
    return Somebody(person=person, zone=zone)


ANA = somebody("ana")
BEN = somebody("ben", "dba")
CLEO = somebody("cleo", "dba", "security", zone=TOKYO)
DORA = somebody("dora", "security", zone=YORK)
OLE = somebody("ole", "oncall", zone=YORK)
GUS = somebody("gus", "dba", flags=[Flag.GUEST])
EVERYBODY = (ANA, BEN, CLEO, DORA, OLE, GUS)
TWO_GATES = [{"id": "dba", "groups": ["dba"]}, {"id": "security", "groups": ["security"]}]


def request_of(**more: Any) -> Request:
    return replace(
        Request(
            id=RequestId(1),
            state=State.PENDING,
            target="orders",
            requesters=frozenset({ANA.person.id}),
            authors=frozenset({ANA.person.id}),
            plan_hash=PLAN,
            policy_hash=POLICY_HASH,
            attributes={},
            asked_at=NOON,
            expires_at=NOON + 7 * DAY,
        ),
        **more,
    )


def vote_of(who: Somebody, at: datetime = NOON, **more: Any) -> Vote:
    person = who.person
    vote = Vote(
        person=person.id,
        seat=person.id,
        verdict=Verdict.APPROVE,
        at=at,
        plan_hash=PLAN,
        policy_hash=POLICY_HASH,
        step=0,
        groups=person.groups,
        identities=person.identities,
        reason="",
        door=Door.SLACK,
    )
    return replace(vote, **more)


@dataclass(slots=True)
class Play:
    """A request over time: looks at it, and keeps the log as the store does."""

    policy: dict[str, Any]
    request: Request = field(default_factory=request_of)
    people: Sequence[Somebody] = EVERYBODY
    delegations: Sequence[Delegation] = ()
    log: list[Notice] = field(default_factory=list)

    def look(self, at: datetime = NOON) -> Telling:
        policy = parse_policy(self.policy, epoch=NOON).values
        rule = policy.rule_for({})
        assert rule
        facts = Facts(
            at=at,
            policy=policy,
            policy_hash=POLICY_HASH,
            people={each.person.id: each.person for each in self.people},
            delegations=self.delegations,
        )
        result = telling(self.request, rule, facts, self.people, self.log)
        self.log += result.notices
        return result

    def told(self, at: datetime = NOON) -> list[tuple[str, str]]:
        notices = self.look(at).notices
        return sorted((each.person.partition("@")[0], str(each.kind)) for each in notices)


def one_gate(**more: Any) -> dict[str, Any]:
    return {"gates": [{"id": "dba", "groups": ["dba"], **more.pop("gate", {})}], **more}


def test_the_fit_members_of_an_open_gate_are_asked_once() -> None:
    play = Play(one_gate())
    assert play.told() == [("ben", "ask"), ("cleo", "ask")]
    assert play.told(NOON + HOUR) == []


def test_an_author_is_not_asked_about_their_own() -> None:
    play = Play(one_gate(), request=request_of(authors=frozenset({BEN.person.id})))
    assert play.told() == [("cleo", "ask")]


def test_named_people_are_asked() -> None:
    gates = [{"id": "one", "users": ["Dora@acme.example"]}]
    assert Play({"gates": gates}).told() == [("dora", "ask")]


def test_ordered_gates_ask_one_after_the_other() -> None:
    play = Play({"gates": TWO_GATES, "ordered": True})
    assert play.told() == [("ben", "ask"), ("cleo", "ask")]
    play.request = replace(play.request, votes=(vote_of(BEN),), step=1)
    assert play.told(NOON + HOUR) == [("ben", "over"), ("cleo", "ask"), ("dora", "ask")]


def test_unordered_gates_ask_all_at_once_and_a_met_one_asks_nobody() -> None:
    play = Play({"gates": TWO_GATES})
    assert [name for name, _ in play.told()] == ["ben", "cleo", "dora"]
    play.request = replace(play.request, votes=(vote_of(BEN),))
    assert play.told(NOON + HOUR) == [("ben", "over")]


def test_escalation_asks_those_whom_it_lets_in() -> None:
    gate = {"escalate_after": "2h", "escalate_groups": ["oncall"]}
    play = Play(one_gate(gate=gate))
    first = play.look()
    assert [each.person for each in first.notices] == [BEN.person.id, CLEO.person.id]
    assert play.told(NOON + 2 * HOUR - timedelta(seconds=1)) == []
    assert play.told(NOON + 2 * HOUR) == [("ole", "escalated")]


def test_a_new_plan_is_asked_about_anew() -> None:
    play = Play(one_gate())
    play.look()
    play.request = replace(play.request, plan_hash=PlanHash("p2"))
    assert play.told(NOON + HOUR) == [("ben", "ask"), ("cleo", "ask")]


def test_what_was_sent_back_is_asked_about_anew() -> None:
    play = Play(one_gate())
    play.look()
    play.request = replace(play.request, state=State.APPROVED, votes=(vote_of(BEN),))
    assert play.told(NOON + HOUR) == [("ben", "over"), ("cleo", "over")]
    play.request = replace(play.request, state=State.PENDING, votes=())
    assert play.told(NOON + 2 * HOUR) == [("ben", "ask"), ("cleo", "ask")]


def test_a_stand_in_is_asked_in_the_place_of_somebody() -> None:
    line = Delegation(
        absent="ben@acme.example", stand_in="ole@acme.example", start=NOON, end=NOON + DAY
    )
    play = Play(one_gate(), delegations=[line])
    assert play.told() == [("ben", "ask"), ("cleo", "ask"), ("ole", "ask")]
    assert [each.absent for each in play.log if each.person == OLE.person.id] == ["T0DEMO/U0BEN"]
    play.request = replace(play.request, authors=frozenset({BEN.person.id}))
    assert ("ole", "over") in play.told(NOON + HOUR)


def test_an_author_who_stands_in_for_somebody_is_not_asked() -> None:
    line = Delegation(
        absent="ben@acme.example", stand_in="ana@acme.example", start=NOON, end=NOON + DAY
    )
    assert Play(one_gate(), delegations=[line]).told() == [("ben", "ask"), ("cleo", "ask")]


def test_who_is_away_is_not_reminded_but_their_stand_in_is() -> None:
    line = Delegation(
        absent="ben@acme.example", stand_in="ole@acme.example", start=NOON, end=NOON + 5 * DAY
    )
    play = Play(one_gate(remind_every="1h"), delegations=[line], people=(BEN, OLE))
    play.look()
    assert play.told(NOON + 3 * HOUR) == [("ole", "remind")]


@pytest.mark.parametrize(
    ("at", "reminded"),
    [
        (NOON + 3 * HOUR, ["ben"]),  # 15:00 in London, midnight in Tokyo
        (NOON + 12 * HOUR, ["cleo"]),  # 09:00 in Tokyo
        (datetime(2026, 11, 28, 12, 0, tzinfo=UTC), []),  # a Saturday
        (datetime(2026, 11, 30, 8, 59, 59, tzinfo=UTC), ["cleo"]),
        (datetime(2026, 11, 30, 9, 0, tzinfo=UTC), ["ben"]),  # 18:00 in Tokyo
    ],
)
def test_reminders_keep_to_working_hours_where_each_person_lives(
    at: datetime, reminded: list[str]
) -> None:
    play = Play(one_gate(remind_every="3h"), people=(BEN, CLEO))
    play.look()
    assert [name for name, _ in play.told(at)] == reminded


def test_there_is_no_reminder_unless_the_rule_wants_it() -> None:
    play = Play(one_gate())
    play.look()
    assert play.told(NOON + 6 * DAY + HOUR) == []


def test_before_the_end_everybody_who_has_not_voted_is_warned_at_any_hour() -> None:
    play = Play(one_gate(warn_before="1h"))
    assert play.look().look_at == NOON + timedelta(minutes=5)
    end = play.request.expires_at
    assert play.told(end - HOUR) == [("ben", "expiring"), ("cleo", "expiring")]
    assert play.told(end - HOUR / 2) == []


def test_who_is_asked_when_it_is_late_already_is_not_warned_as_well() -> None:
    play = Play(one_gate(warn_before="2d"))
    late = play.request.expires_at - DAY
    assert play.told(late) == [("ben", "ask"), ("cleo", "ask")]
    assert play.told(late + HOUR) == []


def test_whoever_is_no_longer_a_member_is_told_nothing_more() -> None:
    play = Play(one_gate(remind_every="1h"))
    play.look()
    left = replace(BEN, person=replace(BEN.person, groups=frozenset()))
    play.people = (left, CLEO)
    assert play.told(NOON + 2 * HOUR) == [("ben", "over")]
    assert play.told(NOON + 3 * HOUR) == []


def test_two_accounts_of_one_person_get_one_message() -> None:
    second = replace(BEN, person=replace(BEN.person, slack_user="U0BEN2"))
    assert Play(one_gate(), people=(second, BEN)).told() == [("ben", "ask")]


def test_broken_glass_is_told_to_reviewers_and_to_whoever_broke_it() -> None:
    glass = Glass(by=OLE.person.id, at=NOON, reason="down", review_within=DAY)
    broken = request_of(state=State.EXECUTING, glass=glass)
    play = Play(
        one_gate(break_glass={"groups": ["oncall"], "reviewers": ["dba"]}), request=request_of()
    )
    play.look()
    play.request = broken
    assert play.told(NOON + HOUR) == [
        ("ben", "glass"), ("ben", "over"), ("cleo", "glass"), ("cleo", "over"), ("ole", "glass"),
    ]  # fmt: skip
    due = NOON + 3 * DAY
    play.request = replace(broken, state=State.NEEDS_REVIEW, glass=replace(glass, review_by=due))
    assert play.told(due - HOUR) == []
    # 12:00 in London is 21:00 in Tokyo and 07:00 in New York, and a Saturday.
    assert play.told(due) == [("ben", "overdue")]
    assert play.told(due + HOUR) == []
    assert play.told(due + DAY) == [("ben", "overdue")]
    play.request = replace(play.request, state=State.CLOSED)
    assert play.told(due + DAY) == [("ben", "over"), ("cleo", "over"), ("ole", "over")]
    assert play.look(due + DAY).look_at is None


@pytest.mark.parametrize("zone", [LONDON, TOKYO, YORK, ZoneInfo("Pacific/Apia")])
def test_the_next_working_hour_is_one(zone: ZoneInfo) -> None:
    for minutes in range(0, 8 * 24 * 60, 37):
        at = NOON + timedelta(minutes=minutes)
        found = next_in_hours(at, zone)
        assert in_hours(found, zone)
        assert at <= found <= at + 3 * DAY
        assert found == at or not in_hours(found - timedelta(seconds=1), zone)


VOTING = {Kind.ASK, Kind.ESCALATED, Kind.REMIND, Kind.EXPIRING}
_gaps = st.integers(min_value=0, max_value=60 * 60 * 30).map(lambda s: timedelta(seconds=s))
_happenings = st.sampled_from(
    [
        *("look", "look", "look", "look", "vote", "guest", "leave", "back", "plan"),
        *("sent back", "approve", "close", "author"),
    ]
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(
    history=st.lists(st.tuples(_gaps, _happenings, st.sampled_from([1, 2, 3])), max_size=30),
    rule=st.fixed_dictionaries(
        {"remind_every": st.sampled_from(["30m", "1h", "1d"]), "ordered": st.booleans()}
    ),
)
def test_no_history_tells_too_much(
    history: list[tuple[timedelta, str, int]], rule: dict[str, Any]
) -> None:
    play, at = Play({"gates": TWO_GATES, "warn_before": "1d", **rule}), NOON
    closed = False
    for gap, what, whom in [*history, (HOUR, "close", 1), (DAY, "look", 1)]:
        at += gap
        closed = _happens(play, what, whom, at) or closed
        _check(play, play.look(at), at, closed=closed, zones={p.person.id: p for p in play.people})
        # Whoever looks next, now or on another host, finds it told.
        assert play.look(at).notices == ()
    for person in {each.person for each in play.log}:
        mine = [each for each in play.log if each.person == person]
        assert [each.number for each in mine] == list(range(len(mine)))
        assert sum(each.kind is Kind.REMIND for each in mine) <= REMINDERS_MAX
        assert sum(each.kind is Kind.OVERDUE for each in mine) <= OVERDUE_MAX
        assert not standing(mine)


def _happens(play: Play, what: str, whom: int, at: datetime) -> bool:
    """Let something happen; True once the request is closed."""
    request, who = play.request, EVERYBODY[whom]
    votes = (*request.votes, vote_of(who, at))
    changes: dict[str, dict[str, Any]] = {
        "vote": {"votes": votes} if who.person.id not in request.authors else {},
        "plan": {"plan_hash": PlanHash(f"p{at}"), "votes": (), "state": State.PENDING},
        "sent back": {"votes": (), "state": State.PENDING},
        "approve": {"state": State.APPROVED},
        "author": {"authors": request.authors | {who.person.id}},
        "close": {"state": State.CANCELLED},
    }
    todays = {
        "guest": replace(who.person, flags=frozenset({Flag.GUEST})),
        "leave": replace(who.person, groups=frozenset()),
        "back": who.person,
    }
    if what in todays:
        changed = replace(who, person=todays[what])
        others = [each for each in play.people if each.person.id != who.person.id]
        play.people = [*others, changed]
    if request.state is not State.CANCELLED:
        play.request = replace(request, **changes.get(what, {}))
    return play.request.state is State.CANCELLED


def _check(
    play: Play, result: Telling, at: datetime, *, closed: bool, zones: dict[PersonId, Somebody]
) -> None:
    assert result.look_at is None or result.look_at > at
    for notice in result.notices:
        if notice.kind is Kind.OVER:
            continue
        assert notice.kind in VOTING
        assert not closed
        assert play.request.state is State.PENDING
        assert notice.person not in play.request.authors
        assert notice.person not in {vote.person for vote in play.request.votes}
        told = zones[notice.person]
        assert not told.person.flags
        assert told.person.groups & {"dba", "security"}
        if notice.kind is Kind.REMIND:
            assert in_hours(at, told.zone)
