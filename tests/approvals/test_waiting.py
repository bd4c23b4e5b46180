"""Whom a request waits for: what is listed for somebody is what a click of theirs would do."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from approvals.events import Facts, Glass, Request, Voted
from approvals.machine import decide
from approvals.policy_file import parse_policy
from approvals.rules import Delegation
from approvals.waiting import may_review, may_turn_key
from approvals.words import (
    Care,
    Flag,
    Person,
    PersonId,
    PlanHash,
    PolicyHash,
    RequestId,
    State,
    Verdict,
)
from tests.approvals.support import ANA, BEN, CLEO, NOON

SEC = Person(id=PersonId("sam@acme.example"), name="Sam", groups=frozenset({"security"}))
BOTH = Person(id=PersonId("kim@acme.example"), name="Kim", groups=frozenset({"dba", "security"}))
DBA = {"id": "dba", "groups": ["dba"]}
SECURITY = {"id": "security", "groups": ["security"]}
EVERYBODY = (ANA, BEN, CLEO, SEC, BOTH)


def facts_of(*people: Person, gates: Any = (DBA,), **more: Any) -> Facts:
    given_later = {name: more.pop(name) for name in ("at", "delegations") if name in more}
    policy = parse_policy({"gates": list(gates), **more}, epoch=NOON)
    return Facts(
        at=given_later.get("at", NOON),
        policy=policy.values,
        policy_hash=policy.hash,
        people={person.id: person for person in people},
        delegations=given_later.get("delegations", ()),
    )


def request(**more: Any) -> Request:
    values: dict[str, Any] = {
        "id": RequestId(1),
        "state": State.PENDING,
        "target": "orders",
        "requesters": frozenset({ANA.id}),
        "authors": frozenset({ANA.id}),
        "plan_hash": PlanHash("h1"),
        "policy_hash": PolicyHash("p"),
        "attributes": {},
        "asked_at": NOON,
        "expires_at": NOON + timedelta(hours=4),
    }
    return Request(**{**values, **more})


def voted(before: Request, person: Person, facts: Facts, verdict: str = "approve") -> Request:
    ballot = Voted(by=person, verdict=verdict, reason="r", care=frozenset(Care))
    after = decide(before, ballot, facts).request
    assert after is not None
    return after


def test_whoever_may_agree_and_has_not_is_waited_for() -> None:
    two = ({**DBA, "approve": 2},)
    facts = facts_of(BEN, CLEO, SEC, gates=two)
    assert may_turn_key(request(), BEN, facts)
    assert not may_turn_key(request(), SEC, facts)
    after = voted(request(), BEN, facts)
    assert not may_turn_key(after, BEN, facts)
    assert may_turn_key(after, CLEO, facts)


def test_nobody_is_waited_for_at_their_own_request() -> None:
    mine = request(authors=frozenset({BEN.id}), requesters=frozenset({BEN.id}))
    assert not may_turn_key(mine, BEN, facts_of(BEN))
    assert may_turn_key(mine, BEN, facts_of(BEN, self_approve=True))


@pytest.mark.parametrize("flag", Flag)
def test_the_unfit_are_not_waited_for(flag: Flag) -> None:
    unfit = replace(BEN, flags=frozenset({flag}))
    assert not may_turn_key(request(), unfit, facts_of(unfit))


@pytest.mark.parametrize("state", [state for state in State if state is not State.PENDING])
def test_only_what_is_pending_waits(state: State) -> None:
    assert not may_turn_key(request(state=state), BEN, facts_of(BEN))


def test_what_has_expired_does_not_wait() -> None:
    late = facts_of(BEN, at=NOON + timedelta(hours=4))
    assert not may_turn_key(request(), BEN, late)


def test_no_rule_means_that_nobody_is_waited_for() -> None:
    rules = [{"when": {"operation": "x"}, "gates": [DBA]}]
    policy = parse_policy({"rules": rules}, epoch=NOON)
    facts = replace(facts_of(BEN), policy=policy.values)
    assert not may_turn_key(request(), BEN, facts)
    assert not may_turn_key(request(), BEN, replace(facts, policy=None))


def test_gates_in_order_wait_for_one_group_after_the_other() -> None:
    facts = facts_of(BEN, SEC, gates=(DBA, SECURITY), ordered=True)
    assert may_turn_key(request(), BEN, facts)
    assert not may_turn_key(request(), SEC, facts)
    after = voted(request(), BEN, facts)
    assert may_turn_key(after, SEC, facts)


def test_a_seat_that_is_taken_waits_for_nobody() -> None:
    facts = facts_of(BEN, CLEO, SEC, BOTH, gates=(DBA, SECURITY))
    after = voted(request(), BEN, facts)
    assert not may_turn_key(after, CLEO, facts)
    assert may_turn_key(after, SEC, facts)
    # Somebody of both groups takes the seat that is free, whoever came first.
    by_both = voted(request(), BOTH, facts)
    assert may_turn_key(by_both, CLEO, facts)
    assert may_turn_key(by_both, SEC, facts)


def test_a_stand_in_is_waited_for_while_it_lasts() -> None:
    line = Delegation(absent=BEN.id, stand_in=SEC.id, start=NOON, end=NOON + timedelta(hours=1))
    assert may_turn_key(request(), SEC, facts_of(SEC, BEN, delegations=(line,)))
    later = facts_of(SEC, BEN, delegations=(line,), at=NOON + timedelta(hours=1))
    assert not may_turn_key(request(), SEC, later)


def test_an_escalated_gate_waits_for_others_too() -> None:
    gate = {**DBA, "escalate_after": 60, "escalate_groups": ["security"]}
    assert not may_turn_key(request(), SEC, facts_of(SEC, gates=(gate,)))
    later = facts_of(SEC, gates=(gate,), at=NOON + timedelta(minutes=1))
    assert may_turn_key(request(), SEC, later)


def test_a_review_waits_for_reviewers_who_had_no_part_in_it() -> None:
    glass = {"groups": ["dba"], "reviewers": ["security", "dba"], "review_within": 60}
    facts = facts_of(BEN, CLEO, SEC, break_glass=glass)
    broken = Glass(by=BEN.id, at=NOON, reason="r", review_within=timedelta(minutes=1))
    owed = request(state=State.NEEDS_REVIEW, glass=broken, begun=True)
    assert may_review(owed, SEC, facts)
    assert may_review(owed, CLEO, facts)
    assert not may_review(owed, BEN, facts)
    assert not may_review(owed, ANA, facts)
    assert not may_review(request(), SEC, facts)


GATES = st.lists(
    st.builds(
        lambda number, groups, approve: {
            "id": f"g{number}", "groups": sorted(groups), "approve": approve,
        },
        st.integers(0, 10**6),
        st.sets(st.sampled_from(["dba", "security"]), min_size=1),
        st.integers(1, 2),
    ),
    min_size=1, max_size=3, unique_by=lambda gate: str(gate["id"]),
)  # fmt: skip


@given(
    gates=GATES,
    ordered=st.booleans(),
    distinct=st.booleans(),
    change=st.booleans(),
    order=st.lists(st.tuples(st.sampled_from(EVERYBODY), st.sampled_from(Verdict)), max_size=6),
)
def test_who_is_waited_for_may_vote_and_only_they_bring_it_further(
    *,
    gates: list[Any],
    ordered: bool,
    distinct: bool,
    change: bool,
    order: list[tuple[Person, Verdict]],
) -> None:
    facts = facts_of(
        *EVERYBODY,
        gates=[{**gate, "deny": 0} for gate in gates],
        ordered=ordered,
        distinct=distinct,
        change_vote=change,
    )
    now = request()
    for person, verdict in order:
        now = voted(now, person, facts, str(verdict))
    waited = {person.id for person in EVERYBODY if may_turn_key(now, person, facts)}
    for person in EVERYBODY:
        outcome = decide(
            now, Voted(by=person, verdict="approve", reason="r", care=frozenset(Care)), facts
        )
        if person.id in waited:
            assert str(outcome) == "ok"
        elif now.state is State.PENDING and str(outcome) == "ok":
            assert outcome.request is not None
            assert outcome.request.state is State.PENDING, "a vote that grants was not waited for"
