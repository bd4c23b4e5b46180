"""What a rule demands of an approval besides the decision: refused without, not counted without."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import combinations
from typing import Any

import pytest

from approvals.compiling import PolicyError
from approvals.events import Asked, Begun, Facts, GlassBroken, PolicyChanged, Request, Voted
from approvals.machine import decide
from approvals.policy_file import LoadedPolicy, parse_policy
from approvals.rules import Attributes
from approvals.words import Care, Door, Person, PersonId, PlanHash, RequestId, State, Why
from store.connect import Store
from tests.approvals.support import (
    ANA,
    BEN,
    CLEO,
    NOON,
    a_ballot,
    an_ask,
    approvals_on,
    policy_of,
)

ALL = frozenset(Care)
WHYS = {Care.READ: Why.UNREAD, Care.NAMED: Why.NAME, Care.STEP_UP: Why.STEP_UP}
SAID = {Care.READ: "read_all", Care.NAMED: "type_name", Care.STEP_UP: "step_up"}
EVERYTHING = dict.fromkeys(SAID.values(), True)
OLE = Person(id=PersonId("ole@acme.example"), name="Ole", groups=frozenset({"oncall"}))
GLASS = {"groups": ["oncall"], "reviewers": ["dba"]}


def facts_of(policy: LoadedPolicy, **more: Any) -> Facts:
    people = {person.id: person for person in (ANA, BEN, CLEO, OLE)}
    return Facts(at=NOON, policy=policy.values, policy_hash=policy.hash, people=people, **more)


def asked(policy: LoadedPolicy, attributes: Attributes | None = None) -> Request:
    event = Asked(
        by=ANA, request_id=RequestId(7), target="orders", plan_hash=PlanHash("h1"),
        attributes=attributes or {},
    )  # fmt: skip
    outcome = decide(None, event, facts_of(policy))
    assert outcome.request
    return outcome.request


def approval(*care: Care, by: Person = BEN) -> Voted:
    return Voted(by=by, verdict="approve", care=frozenset(care))


@pytest.mark.parametrize("care", list(Care))
def test_an_approval_without_what_the_rule_demands_is_refused(care: Care) -> None:
    policy = policy_of(**{SAID[care]: True})
    refused = decide(asked(policy), approval(*(ALL - {care})), facts_of(policy))
    assert (refused.why, refused.vote) == (WHYS[care], None)
    assert refused.refusal
    assert refused.refusal.next_step
    assert decide(asked(policy), approval(care), facts_of(policy)).why is None


def test_everything_demanded_is_demanded_together() -> None:
    policy = policy_of(**EVERYTHING)
    for size in range(len(ALL)):
        for some in combinations(Care, size):
            assert decide(asked(policy), approval(*some), facts_of(policy)).vote is None
    granted = decide(asked(policy), approval(*Care), facts_of(policy)).request
    assert granted
    assert granted.state is State.APPROVED


def test_where_data_can_be_lost_pages_and_name_are_demanded_unless_the_rule_says_no() -> None:
    silent, mild = policy_of(), policy_of(read_all=False, type_name=False)
    risky = {"risk": "destructive"}
    assert silent.values.rules[0].care(risky) == {Care.READ, Care.NAMED}
    assert silent.values.rules[0].care({"risk": "disruptive"}) == frozenset()
    assert mild.values.rules[0].care(risky) == frozenset()


def test_a_denial_and_a_withdrawal_demand_nothing() -> None:
    policy = policy_of(**EVERYTHING)
    denied = decide(asked(policy), Voted(by=BEN, verdict="deny"), facts_of(policy))
    assert denied.request
    assert denied.request.state is State.DENIED


def test_who_may_not_vote_is_not_told_what_a_vote_would_take() -> None:
    policy = policy_of(**EVERYTHING)
    assert decide(asked(policy), approval(by=OLE), facts_of(policy)).why is Why.NOT_ELIGIBLE
    assert decide(asked(policy), approval(by=ANA), facts_of(policy)).why is Why.SELF


def test_an_approval_given_with_less_care_counts_for_no_worker() -> None:
    policy = policy_of(**EVERYTHING)
    granted = decide(asked(policy), approval(*Care), facts_of(policy)).request
    assert granted
    careless = replace(granted, votes=(replace(granted.votes[0], care=frozenset()),))
    begun = decide(careless, Begun(), facts_of(policy))
    assert begun.why is Why.NOT_APPROVED
    assert begun.request
    assert begun.request.state is State.PENDING


def test_an_own_approval_stops_counting_when_the_policy_stops_allowing_it() -> None:
    lax, strict = policy_of(self_approve=True), policy_of()
    own = replace(ANA, groups=frozenset({"dba"}))
    people = {own.id: own}
    granted = decide(asked(lax), approval(by=own), replace(facts_of(lax), people=people)).request
    assert granted
    assert granted.state is State.APPROVED
    later = decide(granted, PolicyChanged(), replace(facts_of(strict), people=people)).request
    assert later
    assert later.state is State.PENDING


def test_breaking_the_glass_takes_the_code_and_the_name_but_not_the_reading() -> None:
    policy = policy_of(break_glass=GLASS, **EVERYTHING)

    def broken(*care: Care) -> Why | None:
        event = GlassBroken(by=OLE, reason="the site is down", care=frozenset(care))
        return decide(asked(policy), event, facts_of(policy)).why

    assert broken(Care.NAMED) is Why.STEP_UP
    assert broken(Care.STEP_UP) is Why.NAME
    assert broken(Care.NAMED, Care.STEP_UP) is None


@pytest.mark.parametrize(("unreviewed", "why"), [(1, None), (2, Why.POLICY), (3, Why.POLICY)])
def test_only_so_much_broken_glass_may_wait_for_its_review(
    unreviewed: int, why: Why | None
) -> None:
    policy = policy_of(break_glass={**GLASS, "open_max": 2})
    event = GlassBroken(by=OLE, reason="the site is down")
    assert decide(asked(policy), event, facts_of(policy, unreviewed=unreviewed)).why is why


def test_a_limit_below_one_is_no_limit_but_a_mistake() -> None:
    with pytest.raises(PolicyError, match="open_max"):
        policy_of(break_glass={**GLASS, "open_max": 0})


def test_a_freeze_is_called_by_its_name() -> None:
    until = NOON + timedelta(days=1)
    freeze = [{"name": "Christmas", "from": NOON.isoformat(), "to": until.isoformat()}]
    policy = policy_of(freeze=freeze)
    granted = decide(asked(policy), approval(), facts_of(policy)).request
    outcome = decide(granted, Begun(), facts_of(policy))
    assert outcome.why is Why.FROZEN
    assert outcome.refusal
    assert "Christmas" in outcome.refusal.problem
    later = replace(facts_of(policy), at=until)
    assert decide(granted, Begun(), later).why is None


@pytest.mark.parametrize(
    "line",
    [
        {"name": "", "from": "2026-12-24T00:00:00Z", "to": "2026-12-27T00:00:00Z"},
        {"name": "Christmas", "from": "2026-12-27T00:00:00Z", "to": "2026-12-24T00:00:00Z"},
        {"name": "Christmas", "from": "2026-12-24T00:00:00Z", "to": "2027-01-02T00:00:00Z", "x": 1},
        {"name": "Christmas", "from": "2026-12-24T00:00:00Z"},
    ],
)
def test_a_line_of_the_freeze_calendar_that_is_no_line_is_refused(line: object) -> None:
    with pytest.raises(PolicyError, match="freeze"):
        parse_policy({"gates": [], "freeze": [line]})


async def test_what_a_vote_was_given_with_is_signed_with_it_and_read_again(store: Store) -> None:
    approvals = approvals_on(store, policy_of(approve=2, **EVERYTHING))
    asked_for = await approvals.ask(an_ask())
    decision = await approvals.vote(a_ballot(asked_for, BEN, care=ALL))
    assert decision.ok, decision.problem
    record = await approvals.load(RequestId(1))
    assert record
    assert frozenset(record.votes[0].care) == ALL
    assert record.votes[0].groups == ("dba",)
    assert [gate.have for gate in record.gates] == [(BEN.id,)]


async def test_as_many_as_may_wait_are_counted_in_the_store(store: Store) -> None:
    policy = policy_of(break_glass={**GLASS, "open_max": 1})
    approvals = approvals_on(store, policy)

    async def broken(number: int, by: Person) -> Why | None:
        decision = await approvals.break_glass(
            RequestId(number), by=by, reason="down", door=Door.SLACK, delivery=""
        )
        return decision.why

    for database in ("orders", "reports"):
        assert (await approvals.ask(an_ask(database=database))).ok
    assert await broken(1, OLE) is None
    assert await broken(2, OLE) is Why.POLICY  # it runs
    async with store.begin() as conn:
        assert (await approvals.begin(conn, RequestId(1), people={})).ok
        ended = await approvals.finish(conn, RequestId(1), ok=True, summary="", numbers={})
    assert ended.request
    assert ended.request.state is State.NEEDS_REVIEW
    on_call = replace(CLEO, groups=frozenset({"oncall"}))
    assert await broken(2, on_call) is Why.POLICY  # it has ended, and nobody has reviewed it
    reviewed = await approvals.review(
        RequestId(1), by=BEN, reason="needed", door=Door.SLACK, delivery=""
    )
    assert reviewed.ok, reviewed.problem
    assert await broken(2, on_call) is None
