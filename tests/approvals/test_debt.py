"""Broken glass is a debt: who owes waits, who is involved does not review, and it nags daily."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from approvals.detail import Ending
from approvals.service import Approvals, Decision
from approvals.words import Door, Person, RequestId, State, Why
from store.connect import Store
from tests.approvals.support import ANA, BEN, Clock, an_ask, approvals_on, dba, policy_of

OLE = replace(dba("ole"), groups=frozenset({"oncall", "security"}))
PIA = replace(dba("pia"), groups=frozenset({"oncall"}))
DORA = replace(dba("dora"), groups=frozenset({"security"}))
GLASS = {"groups": ["oncall"], "reviewers": ["security"], "review_within": "1d"}


def world(store: Store, clock: Clock, **glass: Any) -> Approvals:
    return approvals_on(store, policy_of(2, break_glass={**GLASS, **glass}), clock=clock)


async def broken(
    approvals: Approvals, by: Person = OLE, database: str = "orders", asked_by: Person = ANA
) -> Decision:
    """A request that `by` ran without its votes."""
    asked = await approvals.ask(an_ask(asked_by, database=database))
    assert asked.request is not None
    return await approvals.break_glass(
        asked.request.id, by=by, reason="the site is down", door=Door.SLACK, delivery=""
    )


async def ended(store: Store, approvals: Approvals, decision: Decision) -> RequestId:
    """Its run has ended, so its review is owed."""
    assert decision.ok, decision
    assert decision.request is not None
    number = decision.request.id
    async with store.begin() as conn:
        begun = await approvals.begin(conn, number, people={})
        assert begun.ok, begun
    async with store.begin() as conn:
        await approvals.finish(conn, number, ok=True, summary="done", numbers={})
    return number


async def reviewed(approvals: Approvals, number: RequestId, by: Person) -> Decision:
    return await approvals.review(
        number, by=by, reason="it was right", door=Door.SLACK, delivery=""
    )


async def test_whoever_owes_an_overdue_review_cannot_break_the_glass_again(store: Store) -> None:
    clock = Clock()
    approvals = world(store, clock)
    number = await ended(store, approvals, await broken(approvals))
    clock.forward(hours=25)
    refused = await broken(approvals)
    assert (refused.ok, refused.why) == (False, Why.POLICY)
    assert "still waits for its review" in refused.problem
    # Somebody else on call can, and whoever owes can again after the review.
    assert (await broken(approvals, PIA, "reports")).ok
    assert (await reviewed(approvals, number, DORA)).ok
    assert (await broken(approvals)).ok


async def test_a_review_that_is_not_overdue_stops_nobody(store: Store) -> None:
    clock = Clock()
    approvals = world(store, clock)
    await ended(store, approvals, await broken(approvals))
    clock.forward(hours=23)
    assert (await broken(approvals)).ok


async def test_no_more_glass_is_broken_than_may_wait_for_a_review(store: Store) -> None:
    clock = Clock()
    approvals = world(store, clock, open_max=2)
    await ended(store, approvals, await broken(approvals))
    await ended(store, approvals, await broken(approvals, PIA))
    refused = await broken(approvals, PIA)
    assert (refused.ok, refused.why) == (False, Why.POLICY)
    assert "2 requests that ran without their votes wait for a review" in refused.problem


async def test_what_still_runs_behind_broken_glass_counts_as_open(store: Store) -> None:
    approvals = world(store, Clock(), open_max=1)
    assert (await broken(approvals)).ok
    assert (await broken(approvals, PIA, "reports")).why is Why.POLICY


async def test_many_who_break_the_glass_at_once_keep_to_the_limit(store: Store) -> None:
    approvals = world(store, Clock(), open_max=1)
    asked = [await approvals.ask(an_ask(database=f"db{number}")) for number in range(6)]
    found = await asyncio.gather(
        *(
            approvals.break_glass(
                each.request.id, by=OLE, reason="down", door=Door.SLACK, delivery=""
            )
            for each in asked
            if each.request
        )
    )
    assert sum(each.ok for each in found) == 1


@pytest.mark.parametrize("who", ["breaker", "author"])
async def test_nobody_involved_reviews_it(store: Store, who: str) -> None:
    approvals = world(store, Clock())
    author = replace(ANA, groups=frozenset({"security"}))
    number = await ended(store, approvals, await broken(approvals, asked_by=author))
    refused = await reviewed(approvals, number, {"breaker": OLE, "author": author}[who])
    assert (refused.ok, refused.why) == (False, Why.SELF)
    assert (await reviewed(approvals, number, DORA)).ok


async def test_a_second_account_of_who_broke_it_reviews_nothing(store: Store) -> None:
    approvals = world(store, Clock())
    number = await ended(store, approvals, await broken(approvals))
    assert (await reviewed(approvals, number, replace(OLE, slack_user="U0OLE2"))).why is Why.SELF


async def test_only_reviewers_review(store: Store) -> None:
    approvals = world(store, Clock())
    number = await ended(store, approvals, await broken(approvals))
    assert (await reviewed(approvals, number, BEN)).why is Why.NOT_ELIGIBLE


async def notes(store: Store) -> list[str]:
    async with store.begin() as conn:
        rows = await conn.execute(
            sa.text("SELECT payload ->> 'kind' FROM outbox WHERE topic = 'note' ORDER BY id")
        )
        return [kind for kind in rows.scalars() if kind == "review_overdue"]


async def test_an_overdue_review_is_reminded_of_every_day_until_it_is_done(store: Store) -> None:
    clock = Clock()
    approvals = world(store, clock)
    number = await ended(store, approvals, await broken(approvals))
    told = []
    for _ in range(5):
        clock.forward(hours=12)
        await approvals.sweep()
        await approvals.sweep()
        told.append(len(await notes(store)))
    # Due after 24 h, then each 24 h.
    assert told == [0, 1, 1, 2, 2]
    assert (await reviewed(approvals, number, DORA)).ok
    clock.forward(days=3)
    await approvals.sweep()
    assert len(await notes(store)) == 2
    record = await approvals.load(number)
    assert record is not None
    assert (record.state, record.detail.review) == (
        State.CLOSED,
        Ending(by=DORA.id, text="it was right", next_step="slack"),
    )


async def test_a_reminder_leaves_what_is_stored_ours(store: Store) -> None:
    clock = Clock()
    approvals = world(store, clock)
    number = await ended(store, approvals, await broken(approvals))
    clock.now += timedelta(days=2)
    await approvals.sweep()
    assert (await reviewed(approvals, number, DORA)).ok
