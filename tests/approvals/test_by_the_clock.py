"""What a schedule may: ask, under a rule that says so, and nothing else; and nobody is it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from approvals import intake
from approvals.by_the_clock import CLOCK, SCHEDULED, YES, pretence, scheduled_by
from approvals.calls import Ask, Decision
from approvals.policy_file import LoadedPolicy, parse_policy
from approvals.proofs import Known, prove
from approvals.service import Approvals
from approvals.words import Door, State, Verdict, Why
from store.connect import Store
from tests.approvals.support import ANA, BEN, NOON, a_ballot, an_ask, approvals_on

RULES: list[dict[str, Any]] = [
    {"name": "standing", "when": {"scheduled": "yes", "operation": "backup"}, "gates": []},
    {
        "name": "the rest",
        "fallback": True,
        "gates": [{"id": "dba", "groups": ["dba"], "users": [CLOCK.id]}],
        "self_approve": True,
        "break_glass": {"groups": ["dba"], "reviewers": ["dba"]},
    },
]
PEOPLE = [ANA, BEN]
OTHER_DOORS = [door for door in Door if door is not Door.CLOCK]


def policy(*, grant: bool = True) -> LoadedPolicy:
    return parse_policy({"rules": RULES if grant else RULES[1:]}, epoch=NOON)


def scheduled(**more: Any) -> Ask:
    attributes = {"environment": "production", SCHEDULED: YES}
    return an_ask(**{"by": CLOCK, "door": Door.CLOCK, "attributes": attributes, **more})


async def begun(store: Store, approvals: Approvals, asked: Decision) -> Decision:
    assert asked.request
    async with store.begin() as conn:
        people = {CLOCK.id: CLOCK, BEN.id: BEN}
        return await approvals.begin(conn, asked.request.id, people=people)


async def test_a_standing_grant_lets_what_the_clock_asks_for_run_at_once(store: Store) -> None:
    approvals = approvals_on(store, policy())
    asked = await approvals.ask(scheduled(delivery="schedule:backup-daily orders:2026"))
    assert asked.request
    assert (asked.request.state, asked.request.rule) == (State.APPROVED, "standing")
    assert asked.request.asked_by == CLOCK.id
    ruling = await begun(store, approvals, asked)
    assert ruling.ok, ruling.problem


async def test_without_a_standing_grant_people_are_asked_each_time(store: Store) -> None:
    approvals = approvals_on(store, policy(grant=False))
    asked = await approvals.ask(scheduled())
    assert asked.request
    assert asked.request.state is State.PENDING
    assert (await approvals.vote(a_ballot(asked, BEN))).ok
    ruling = await begun(store, approvals, asked)
    assert ruling.ok, ruling.problem


async def test_a_grant_for_backups_is_none_for_another_operation(store: Store) -> None:
    asked = await approvals_on(store, policy()).ask(scheduled(operation="restore"))
    assert asked.request
    assert asked.request.state is State.PENDING


async def test_one_firing_asks_once_however_often_it_is_brought(store: Store) -> None:
    first = await approvals_on(store, policy()).ask(scheduled(delivery="schedule:one"))
    second = await approvals_on(store, policy()).ask(scheduled(delivery="schedule:one"))
    assert first.request
    assert second.request
    assert (second.noop, second.request.id) == (True, first.request.id)


@pytest.mark.parametrize("door", OTHER_DOORS)
async def test_nobody_is_the_schedule_at_another_door(store: Store, door: Door) -> None:
    approvals = approvals_on(store, policy())
    for ask in (
        scheduled(door=door),
        an_ask(ANA, door=door, attributes={SCHEDULED: YES}),
        an_ask(ANA, door=door, attributes={SCHEDULED: "no"}),
        an_ask(CLOCK, door=door),
    ):
        asked = await approvals.ask(ask)
        assert (asked.ok, asked.why, asked.request) == (False, Why.IMPERSONATION, None)


async def test_at_the_clocks_door_nobody_else_asks(store: Store) -> None:
    approvals = approvals_on(store, policy())
    for ask in (
        scheduled(by=ANA),
        scheduled(attributes={}),
    ):
        assert (await approvals.ask(ask)).why is Why.IMPERSONATION
    # Whoever had its id alone is not it, and it asks for nobody.
    for ask in (scheduled(by=replace(ANA, id=CLOCK.id)), scheduled(beneficiary=BEN)):
        assert (await approvals.ask(ask)).why is Why.IDENTITY


async def test_the_schedule_votes_for_nothing_and_ends_nothing(store: Store) -> None:
    approvals = approvals_on(store, policy())
    asked = await approvals.ask(an_ask())
    assert asked.request
    number = asked.request.id
    for verdict in Verdict:
        assert (await approvals.vote(a_ballot(asked, CLOCK, verdict))).why is Why.IDENTITY
    told: dict[str, Any] = {"by": CLOCK, "door": Door.CLOCK, "delivery": ""}
    assert (await approvals.break_glass(number, reason="x", **told)).why is Why.IDENTITY
    assert (await approvals.cancel(number, **told)).why is Why.IDENTITY
    assert (await approvals.review(number, reason="x", **told)).ok is False


async def test_nobody_votes_through_the_clocks_door(store: Store) -> None:
    approvals = approvals_on(store, policy())
    asked = await approvals.ask(an_ask())
    ballot = replace(a_ballot(asked, BEN), door=Door.CLOCK)
    assert (await approvals.vote(ballot)).why is Why.IDENTITY
    assert (await approvals.vote(a_ballot(asked, BEN))).ok


async def test_nobody_puts_another_plan_under_the_schedules_grant(store: Store) -> None:
    approvals = approvals_on(store, policy(grant=False))
    theirs = await approvals.ask(scheduled())
    assert theirs.request
    changed = await approvals.change_plan(
        theirs.request.id, by=BEN, plan={"title": "Another"}, delivery=""
    )
    assert changed.why is Why.IMPERSONATION
    own = await approvals.ask(an_ask())
    assert own.request
    changed = await approvals.change_plan(
        own.request.id, by=ANA, plan={"title": "Another"}, attributes={SCHEDULED: YES}, delivery=""
    )
    assert changed.why is Why.IMPERSONATION


@pytest.mark.parametrize("how", ["door", "attributes"])
async def test_a_row_that_only_says_to_be_the_schedules_does_not_start(
    store: Store, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even one that we had sealed: the worker's check does not lean on the first one."""
    monkeypatch.setattr(intake, "pretence", lambda *_: None)
    approvals = approvals_on(store, policy())
    more = {"door": Door.API} if how == "door" else {"attributes": {"risk": "none"}}
    asked = await approvals.ask(scheduled(**more))
    if asked.request and asked.request.state is State.PENDING:
        assert (await approvals.vote(a_ballot(asked, BEN))).ok
    ruling = await begun(store, approvals, asked)
    assert (ruling.ok, ruling.why) == (False, Why.IDENTITY)
    async with store.begin() as conn:
        state = (await conn.execute(sa.text("SELECT state FROM requests"))).scalar_one()
    assert state != "executing"


def test_only_the_clocks_door_brings_the_attribute() -> None:
    assert scheduled_by(Door.CLOCK) == {"scheduled": "yes"}
    for door in OTHER_DOORS:
        assert scheduled_by(door) == {}
        assert pretence(ANA.id, door, {}) is None


def test_the_proofs_know_the_attribute_and_its_one_value() -> None:
    rules = [
        {"name": "yes", "when": {"scheduled": "yes"}, "gates": []},
        {"name": "never", "when": {"scheduled": "maybe"}, "gates": []},
        *RULES[1:],
    ]
    loaded = parse_policy(
        {"rules": rules, "never_alone": [{"operation": "failover"}], "policy_four_eyes": True}
    )
    found = prove(loaded.values, Known(operations={"failover": ("disruptive",)}))
    broken = {proof.name: "\n".join(proof.story) for proof in found if proof.is_broken}
    assert "never" in broken["no dead rule"]
    assert "yes:" not in broken["no dead rule"]
    # A grant that does not say for what is one for everything, as far as is known.
    assert any("failover" in proof.claim for proof in found if proof.is_broken)
