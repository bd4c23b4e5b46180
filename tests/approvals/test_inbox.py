"""What waits for somebody, what they asked for, what runs: right, bounded and quick."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import sqlalchemy as sa

from approvals.inbox import Inbox
from approvals.service import Approvals
from approvals.words import State
from store.connect import Store
from tests.approvals.support import (
    ANA,
    BEN,
    CLEO,
    KEYS,
    Clock,
    a_ballot,
    an_ask,
    approvals_on,
    policy_of,
)


def inbox_of(
    store: Store, service: Approvals, clock: Clock | None = None, most: int = 2000
) -> Inbox:
    return Inbox(
        store=store, keys=KEYS, approvals=service, clock=clock or Clock(), looked_at_max=most
    )


async def test_what_waits_for_me_is_what_i_may_agree_to(store: Store) -> None:
    service = approvals_on(store, policy_of(2))
    inbox = inbox_of(store, service)
    first = await service.ask(an_ask())
    await service.ask(an_ask(BEN, database="billing"))
    assert [r.database for r in (await inbox.waiting_for(BEN)).records] == ["orders"]
    assert [r.database for r in (await inbox.waiting_for(CLEO)).records] == ["orders", "billing"]
    assert (await inbox.waiting_for(ANA)).records == ()
    await service.vote(a_ballot(first, CLEO))
    waiting = await inbox.waiting_for(CLEO)
    assert [r.database for r in waiting.records] == ["billing"]
    assert (waiting.total, waiting.complete) == (1, True)
    only = await inbox.waiting_for(CLEO, database="orders")
    assert only.records == ()


async def test_what_has_expired_is_not_listed_though_no_sweep_has_come(store: Store) -> None:
    clock = Clock()
    service = approvals_on(store, policy_of(), clock=clock)
    await service.ask(an_ask())
    inbox = inbox_of(store, service, clock)
    assert (await inbox.waiting_for(BEN)).total == 1
    clock.forward(days=30)
    assert (await inbox.waiting_for(BEN)).total == 0


async def test_what_i_asked_for_stands_newest_first_whatever_became_of_it(store: Store) -> None:
    service = approvals_on(store, policy_of())
    for database in ("a", "b", "c"):
        await service.ask(an_ask(database=database))
    await service.ask(an_ask(BEN))
    inbox = inbox_of(store, service)
    assert [r.database for r in await inbox.asked_by(ANA)] == ["c", "b", "a"]
    assert [r.database for r in await inbox.asked_by(ANA, limit=1)] == ["c"]
    assert [r.database for r in await inbox.asked_by(ANA, database="a")] == ["a"]


async def test_what_runs_is_listed_with_how_far_it_is(store: Store) -> None:
    service = approvals_on(store, policy_of())
    asked = await service.ask(an_ask())
    granted = await service.vote(a_ballot(asked, BEN))
    assert granted.request
    assert granted.request.run_id is not None
    async with store.begin() as conn:
        people = {BEN.id: BEN, ANA.id: ANA}
        assert (await service.begin(conn, granted.request.id, people=people)).ok
        await conn.execute(
            sa.text("""UPDATE runs SET progress = '{"text": "Copying", "fraction": 0.4}'""")
        )
    inbox = inbox_of(store, service)
    [running] = await inbox.running()
    assert (running.text, running.fraction) == ("Copying", 0.4)
    assert running.record.state is State.EXECUTING
    assert await inbox.running(database="billing") == []


async def test_owed_reviews_are_listed_for_those_who_may_give_them(store: Store) -> None:
    glass = {"groups": ["dba"], "reviewers": ["dba"], "review_within": 60}
    service = approvals_on(store, policy_of(2, break_glass=glass))
    asked = await service.ask(an_ask())
    assert asked.request
    broken = await service.break_glass(
        asked.request.id, by=BEN, reason="down", door=asked.request.door, delivery=""
    )
    assert broken.ok
    async with store.begin() as conn:
        assert (await service.begin(conn, asked.request.id, people={})).ok
        await service.finish(conn, asked.request.id, ok=True, summary="done", numbers={})
    inbox = inbox_of(store, service)
    assert [r.id for r in (await inbox.owed_by(CLEO)).records] == [asked.request.id]
    assert (await inbox.owed_by(BEN)).total == 0
    assert (await inbox.owed_by(ANA)).total == 0


async def test_a_thousand_open_requests_are_looked_through_in_time_for_an_ack(
    store: Store,
) -> None:
    service = approvals_on(store, policy_of(2))
    asked = await service.ask(an_ask(plan={"title": "x", "statements": ["y" * 20_000]}))
    assert asked.request
    await service.vote(a_ballot(asked, CLEO))
    columns = [
        "state", "version", "operation", "database", "asked_by", "asked_by_slack", "authors",
        "door", "reason", "params", "plan", "plan_hash", "policy_hash", "attributes", "rule",
        "step", "asked_at", "expires_at", "detail", "channel",
    ]  # fmt: skip
    names = ", ".join(f'"{name}"' for name in columns)
    async with store.begin() as conn:
        await conn.execute(
            sa.text(
                f"INSERT INTO requests ({names}) SELECT {names}"
                " FROM requests, generate_series(2, 1000)"
            )
        )
    inbox = inbox_of(store, service)
    await inbox.waiting_for(BEN, limit=1)
    took: list[float] = []
    for _ in range(3):
        started = time.perf_counter()
        waiting = await inbox.waiting_for(BEN)
        took.append(time.perf_counter() - started)
    assert (waiting.total, len(waiting.records), waiting.complete) == (1000, 20, True)
    assert min(took) < 10  # shows only a plan gone wrong
    few = await inbox_of(store, service, most=10).waiting_for(BEN)
    assert (few.total, few.complete) == (10, False)
    someone = replace(BEN, groups=frozenset())
    assert (await inbox.waiting_for(someone)).total == 0


async def test_the_lists_stand_on_indexes(store: Store) -> None:
    async with store.begin() as conn:
        found = await conn.execute(
            sa.text("SELECT indexname FROM pg_indexes WHERE tablename = 'requests'")
        )
        assert {"requests_open", "requests_asked_by"} <= set(found.scalars())


async def test_lists_are_read_while_votes_are_cast(store: Store) -> None:
    service = approvals_on(store, policy_of(2))
    inbox = inbox_of(store, service)
    asked = [await service.ask(an_ask(database=f"d{n}")) for n in range(5)]
    async with asyncio.timeout(30):
        await asyncio.gather(
            *(service.vote(a_ballot(one, BEN)) for one in asked),
            *(inbox.waiting_for(CLEO) for _ in range(5)),
        )
    assert (await inbox.waiting_for(CLEO)).total == 5
    assert (await inbox.waiting_for(BEN)).total == 0
