"""Whatever is proven of a policy, no walk through the deciding code breaks.

The walks share nothing with the search but `decide`: they draw people, doors, times and plans
at random, and keep their own account of who had a hand in what.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from approvals.alone import nobody_alone
from approvals.events import (
    Asked,
    Begun,
    Event,
    Facts,
    Finished,
    GlassBroken,
    PlanChanged,
    Request,
    Reviewed,
    Voted,
    VoteWithdrawn,
)
from approvals.machine import decide
from approvals.own_hand import no_self_approval
from approvals.policy_file import parse_policy
from approvals.proof import Budget, Holds
from approvals.rules import Attributes, Delegation, Policy
from approvals.spaces import Known, folded, space_of
from approvals.tally import standing_votes
from approvals.words import (
    Care,
    Door,
    Person,
    PersonId,
    PlanHash,
    PolicyHash,
    RequestId,
    State,
    Verdict,
)

GROUPS = ["dba", "security", "oncall"]
START = datetime(2031, 5, 5, 9, tzinfo=UTC)
CRITICAL = {
    "operation": "restore",
    "into": "place",
    "environment": "production",
    "risk": "destructive",
}
HARMLESS = {"operation": "backup", "environment": "staging", "risk": "none"}
REST = {
    "fallback": True,
    "gates": [{"groups": ["dba"]}],
    "break_glass": {"groups": ["oncall"], "reviewers": GROUPS, "alone": True},
}
KNOWN = Known(operations={"restore": ("destructive",), "backup": ("none",)})

some_groups = st.lists(st.sampled_from(GROUPS), min_size=1, max_size=2, unique=True)
gates = st.builds(
    lambda number, groups, approve, escalates: {
        "id": f"g{number}",
        "groups": groups,
        "approve": approve,
        **({"escalate_after": "1h", "escalate_groups": ["oncall"]} if escalates else {}),
    },
    st.integers(0, 10**6),
    some_groups,
    st.integers(1, 2),
    st.booleans(),
)
whens = st.sampled_from(
    [
        {},
        {"operation": "restore"},
        {"environment": "production"},
        {"environment": "staging"},
        {"risk": "destructive"},
        {"operation": "restore", "into": "place"},
    ]
)
glass = st.one_of(
    st.just(False),
    st.builds(
        lambda groups, alone: {"groups": groups, "reviewers": ["security"], "alone": alone},
        some_groups,
        st.booleans(),
    ),
)
rules = st.fixed_dictionaries(
    {
        "when": whens,
        # An open rule now and then: most policies should have something to prove.
        "gates": st.one_of(st.lists(gates, min_size=1, max_size=2), st.just([])),
    },
    optional={
        "self_approve": st.booleans(),
        "distinct": st.booleans(),
        "ordered": st.booleans(),
        "change_vote": st.booleans(),
        "break_glass": glass,
        "recheck_voters": st.booleans(),
    },
)
policies = st.lists(rules, min_size=1, max_size=3)


def parsed(drawn: list[dict[str, Any]]) -> Policy:
    # Ids of gates must differ within a rule, and everything meets some rule.
    numbered = [
        {**rule, "gates": [{**gate, "id": str(n)} for n, gate in enumerate(rule["gates"])]}
        for rule in [*drawn, REST]
    ]
    return parse_policy({"rules": numbered}).values


def proven_alone(policy: Policy) -> bool:
    space = space_of(policy, KNOWN)
    return all(each.holds is Holds.PROVEN for each in nobody_alone(policy, space, Budget()))


def proven_own(policy: Policy) -> bool:
    space = space_of(policy, KNOWN)
    return no_self_approval(policy, space, Budget()).holds is Holds.PROVEN


def person(name: str, groups: frozenset[str], account: str = "") -> Person:
    return Person(
        id=PersonId(f"{name}@w"),
        name=name,
        slack_team="T9",
        slack_user=f"U9{name.upper()}{account}",
        groups=groups,
    )


WALKS = 6
MOVES = ["vote", "vote", "vote", "begin", "begin", "wait", "change", "deny", "back", "glass"]


def step(draw: st.DataObject, move: str, who: Person) -> Event:
    door = draw.draw(st.sampled_from(list(Door)))
    care = frozenset(Care)
    if move == "change":
        plan = PlanHash(f"plan {draw.draw(st.integers(0, 3))}")
        attributes = draw.draw(st.sampled_from([CRITICAL, HARMLESS]))
        return PlanChanged(by=who, plan_hash=plan, attributes=attributes)
    verdict = Verdict.DENY if move == "deny" else Verdict.APPROVE
    vote = Voted(by=who, verdict=verdict, reason="r", door=door, care=care)
    known: dict[str, Event] = {
        "vote": vote,
        "deny": vote,
        "back": VoteWithdrawn(by=who, door=door),
        "glass": GlassBroken(by=who, reason="r", care=care),
        "finish": Finished(ok=True),
        "review": Reviewed(by=who, reason="r"),
    }
    return known.get(move, Begun())


def asked(draw: st.DataObject, who: Person) -> Event:
    return Asked(
        by=who,
        request_id=RequestId(3),
        target="t",
        plan_hash=PlanHash("plan 0"),
        attributes=draw.draw(st.sampled_from([CRITICAL, CRITICAL, HARMLESS])),
    )


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn=policies, groups=st.frozensets(st.sampled_from(GROUPS), min_size=1), draw=st.data())
def test_what_nobody_can_do_alone_no_walk_of_one_person_does(
    drawn: list[dict[str, Any]], groups: frozenset[str], draw: st.DataObject
) -> None:
    policy = parsed(drawn)
    proven = proven_alone(policy)
    event(f"alone, proven: {proven}")
    if not proven:
        return
    for _ in range(WALKS):
        request = walk_alone(policy, groups, draw)
        if request is None or not request.begun:
            continue
        rule = policy.rule_for(request.attributes)
        said = rule and rule.break_glass and rule.break_glass.alone and request.glass
        critical = all(request.attributes.get(n) == v for n, v in CRITICAL.items())
        event(f"ran, critical {critical}, glass {bool(request.glass)}")
        assert not critical or said, (drawn, request)


def walk_alone(policy: Policy, groups: frozenset[str], draw: st.DataObject) -> Request | None:
    """What one person with two accounts and somebody's seat makes of a request."""
    accounts = [person("solo", groups), person("solo", groups, "2")]
    away = person("away", frozenset(GROUPS))
    lines = (stands_in(away, accounts[0]),)
    at, request = START, None
    for move in ["ask", *draw.draw(st.lists(st.sampled_from(MOVES), max_size=7)), "begin"]:
        who = draw.draw(st.sampled_from(accounts))
        if move == "wait":
            at += timedelta(hours=draw.draw(st.integers(1, 30)))
        happening = asked(draw, who) if move == "ask" else step(draw, move, who)
        facts = Facts(
            at=at,
            policy=policy,
            policy_hash=PolicyHash("w"),
            people={accounts[0].id: accounts[0], away.id: away},
            delegations=lines,
        )
        request = decide(request, happening, facts).request or request
        if request is not None and request.begun:
            break
    return request


def stands_in(absent: Person, stand_in: Person) -> Delegation:
    return Delegation(
        absent=absent.id,
        stand_in=stand_in.id,
        start=START - timedelta(days=1),
        end=START + timedelta(days=9),
    )


PEOPLE_MOVES = [*MOVES, "glass", "finish", "review", "review"]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn=policies, draw=st.data())
def test_where_nobody_approves_their_own_no_walk_of_many_does(
    drawn: list[dict[str, Any]], draw: st.DataObject
) -> None:
    policy = parsed(drawn)
    proven = proven_own(policy)
    event(f"own, proven: {proven}")
    for _ in range(WALKS if proven else 0):
        walk_together(policy, draw)


def walk_together(policy: Policy, draw: st.DataObject) -> None:
    """Three people, who stand in for one another, each with two accounts."""
    names = ["ana", "bea", "cat"]
    most = st.one_of(st.just(frozenset(GROUPS)), st.frozensets(st.sampled_from(GROUPS)))
    people = {name: person(name, draw.draw(most)) for name in names}
    facts = Facts(
        at=START,
        policy=policy,
        policy_hash=PolicyHash("w"),
        people={each.id: each for each in people.values()},
        delegations=(
            stands_in(people["ana"], people["bea"]),
            stands_in(people["bea"], people["cat"]),
        ),
    )
    request: Request | None = None
    authors: set[PersonId] = set()
    story = draw.draw(
        st.one_of(
            st.lists(st.sampled_from(PEOPLE_MOVES), max_size=10),
            st.just(["glass", "begin", "finish", "review", "review", "review"]),
            st.just(["vote", "change", "vote", "vote", "vote", "begin"]),
            st.just(["deny", "vote", "vote", "vote", "begin"]),
        )
    )
    for move in ["ask", *story]:
        who = people[draw.draw(st.sampled_from(names))]
        if draw.draw(st.booleans()):
            who = replace(who, slack_user=f"{who.slack_user}2")
        happening = asked(draw, who) if move == "ask" else step(draw, move, who)
        outcome = decide(request, happening, facts)
        before, request = request, outcome.request or request
        if outcome.refusal or outcome.noop or request is None:
            continue
        if move in ("ask", "change"):
            authors.add(who.id)
        if outcome.vote and outcome.vote.verdict is Verdict.APPROVE:
            assert not {outcome.vote.person, outcome.vote.seat} & authors
        if before and before.state is State.PENDING and request.state is State.APPROVED:
            granted(policy, request, authors)
        if request.state is State.CLOSED:
            assert request.glass is not None
            event("reviewed")
            assert who.id not in authors | {request.glass.by}


def granted(policy: Policy, request: Request, authors: set[PersonId]) -> None:
    """It was granted by others, or by nobody where nobody has to agree."""
    others = [
        vote
        for vote in standing_votes(request.votes)
        if vote.verdict is Verdict.APPROVE and not {vote.person, vote.seat} & authors
    ]
    rule = policy.rule_for(request.attributes)
    event(f"granted by {len(others)} others")
    assert others or (rule and not rule.gates)


VALUES = ("a", "b", "c")
NAMES = ("operation", "kind", "phase", "checklist")


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(NAMES),
            st.lists(st.sampled_from(VALUES), min_size=1, max_size=2, unique=True),
            max_size=4,
        ),
        min_size=1,
        max_size=6,
    )
)
def test_parts_that_are_folded_into_one_meet_the_same_rules(
    whens: list[dict[str, list[str]]],
) -> None:
    rules = [
        {"name": f"r{number}", "when": when, "gates": [], **({} if when else {"fallback": True})}
        for number, when in enumerate(whens)
    ]
    policy = parse_policy({"rules": rules}).values
    parts: list[list[Attributes]] = [
        [*({name: value} for value in VALUES), {}] for name in NAMES
    ]  # fmt: skip

    def met(attributes: Attributes) -> tuple[bool, ...]:
        return tuple(rule.matches(attributes) for rule in policy.rules)

    whole = {met(joined(place)) for place in product(*parts)}
    kinds = folded(parts, policy.rules)
    assert kinds is not None
    assert {met(kind.first) for kind in kinds} == whole
    assert len(kinds) == len(whole)
    for kind in kinds:
        assert {met(value) for value in kind.values} == {met(kind.first)}


def joined(place: Iterable[Attributes]) -> Attributes:
    return {name: value for part in place for name, value in part.items()}
