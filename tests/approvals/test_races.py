"""Simultaneous decisions on a real PostgreSQL, many rounds with a common start."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import sqlalchemy as sa

from approvals.calls import Decision
from approvals.machine import FINAL
from approvals.words import Door, RequestId, State, Verdict, Why
from store.connect import Store
from tests.approvals.support import ANA, BEN, CLEO, a_ballot, an_ask, approvals_on, dba, policy_of

DI = dba("di")
ROUNDS = 25


async def at_once(*calls: Callable[[], Awaitable[Decision]]) -> list[Decision]:
    """The decisions of calls that start together."""
    barrier = asyncio.Barrier(len(calls))

    async def one(call: Callable[[], Awaitable[Decision]]) -> Decision:
        await barrier.wait()
        return await call()

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(call)) for call in calls]
    return [task.result() for task in tasks]


async def count(store: Store, query: str) -> int:
    async with store.begin() as conn:
        return int((await conn.execute(sa.text(query))).scalar_one())


async def test_no_simultaneous_vote_is_lost(store: Store) -> None:
    here, there = approvals_on(store, policy_of(2)), approvals_on(store, policy_of(2))
    for _ in range(ROUNDS):
        asked = await here.ask(an_ask())
        votes = await at_once(
            lambda a=asked: here.vote(a_ballot(a, BEN)),  # type: ignore[misc]
            lambda a=asked: there.vote(a_ballot(a, CLEO)),  # type: ignore[misc]
        )
        assert all(vote.ok for vote in votes)
        assert asked.request
        record = await here.load(asked.request.id)
        assert record
        assert record.state is State.APPROVED
    assert await count(store, "SELECT count(*) FROM runs") == ROUNDS


async def test_approvals_against_a_denial_end_in_one_state_that_stays(store: Store) -> None:
    approvals = approvals_on(store, policy_of(2))
    ends: set[State] = set()
    for _ in range(ROUNDS):
        asked = await approvals.ask(an_ask())
        calls = [
            lambda a=asked, p=person: approvals.vote(a_ballot(a, p))  # type: ignore[misc]
            for person in (BEN, CLEO, dba("eli"))
        ]
        deny = lambda a=asked: approvals.vote(a_ballot(a, DI, Verdict.DENY))  # type: ignore[misc] # noqa: E731
        votes = await at_once(*calls, deny)
        assert asked.request
        record = await approvals.load(asked.request.id)
        assert record
        ends.add(record.state)
        if votes[3].ok:
            assert record.state is State.DENIED
        else:
            assert (record.state, votes[3].why) == (State.APPROVED, Why.CLOSED)
        queued = f"SELECT count(*) FROM runs WHERE request_id = {record.id}"
        assert await count(store, queued) == (record.state is State.APPROVED)
    assert ends <= {State.DENIED, State.APPROVED}


async def test_one_of_two_workers_begins_a_grant(store: Store) -> None:
    approvals = approvals_on(store, policy_of())
    for _ in range(ROUNDS):
        asked = await approvals.ask(an_ask())
        await approvals.vote(a_ballot(asked, BEN))
        assert asked.request
        number = asked.request.id

        async def begin(number: RequestId = number) -> Decision:
            async with store.begin() as conn:
                return await approvals.begin(conn, number, people={ANA.id: ANA, BEN.id: BEN})

        results = await at_once(begin, begin, begin)
        assert sorted(result.ok for result in results) == [False, False, True]
        async with store.begin() as conn:
            await approvals.finish(conn, number, ok=True, summary="", numbers={})


async def test_one_of_two_grants_of_a_database_begins(store: Store) -> None:
    approvals = approvals_on(store, policy_of(rules=[{"gates": []}]))
    for round_ in range(ROUNDS):
        database = f"db{round_}"
        asked = [await approvals.ask(an_ask(database=database)) for _ in range(2)]

        async def begin(which: Decision) -> Decision:
            assert which.request
            async with store.begin() as conn:
                return await approvals.begin(conn, which.request.id, people={ANA.id: ANA})

        results = await at_once(*[lambda d=d: begin(d) for d in asked])  # type: ignore[misc]
        assert sorted(_said(results)) == ["locked", "ok"]


async def test_a_double_click_and_its_redelivery_are_one_vote(store: Store) -> None:
    here, there = approvals_on(store, policy_of(2)), approvals_on(store, policy_of(2))
    for _ in range(ROUNDS):
        asked = await here.ask(an_ask())
        votes = await at_once(
            lambda a=asked: here.vote(a_ballot(a, BEN, delivery="d")),  # type: ignore[misc]
            lambda a=asked: there.vote(a_ballot(a, BEN, delivery="d")),  # type: ignore[misc]
            lambda a=asked: there.vote(a_ballot(a, BEN, delivery="other")),  # type: ignore[misc]
        )
        assert all(vote.ok for vote in votes)
        assert sorted(vote.noop for vote in votes) == [False, True, True]
    assert await count(store, "SELECT count(*) FROM votes") == ROUNDS


async def test_a_command_delivered_twice_at_once_is_one_request(store: Store) -> None:
    here, there = approvals_on(store, policy_of()), approvals_on(store, policy_of())
    for round_ in range(ROUNDS):
        ask = an_ask(delivery=f"e{round_}")
        asked = await at_once(lambda a=ask: here.ask(a), lambda a=ask: there.ask(a))  # type: ignore[misc]
        assert len({one.request.id for one in asked if one.request}) == 1
        assert sorted(one.noop for one in asked) == [False, True]
    assert await count(store, "SELECT count(*) FROM requests") == ROUNDS


async def test_cancelling_against_beginning_has_one_winner(store: Store) -> None:
    approvals = approvals_on(store, policy_of(rules=[{"gates": []}]))
    for round_ in range(ROUNDS):
        asked = await approvals.ask(an_ask(database=f"db{round_}"))
        assert asked.request
        number = asked.request.id

        async def begin(number: RequestId = number) -> Decision:
            async with store.begin() as conn:
                return await approvals.begin(conn, number, people={ANA.id: ANA})

        async def cancel(number: RequestId = number) -> Decision:
            return await approvals.cancel(number, by=ANA, door=Door.SLACK, delivery="")

        begun, cancelled = await at_once(begin, cancel)
        assert begun.ok != cancelled.ok
        record = await approvals.load(number)
        assert record
        assert (record.state in FINAL) == cancelled.ok


def _said(decisions: Sequence[Decision]) -> list[str]:
    return ["ok" if decision.ok else str(decision.why) for decision in decisions]
