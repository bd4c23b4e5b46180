"""Races as others have lost them, many rounds with a common start, and not one wrong outcome.

Rounds run side by side on one store, through two services as two replicas would; each round
has requests of its own. `STRESS=full` plays 600 rounds of each shape, else 60.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from approvals.calls import Decision
from approvals.policy_file import LoadedPolicy
from approvals.service import Approvals
from approvals.words import Door, Person, PersonId, RequestId, State, Verdict
from store.connect import Store
from tests.approvals.support import (
    ANA,
    BEN,
    CLEO,
    Clock,
    a_ballot,
    an_ask,
    approvals_on,
    dba,
    policy_of,
)

pytestmark = pytest.mark.timeout(900)
ROUNDS = 600 if os.environ.get("STRESS") == "full" else 60
AT_ONCE = 6
DI, ELI = dba("di"), dba("eli")
OLE = Person(id=PersonId("ole@acme.example"), name="Ole", groups=frozenset({"oncall"}))
PEOPLE = {person.id: person for person in (ANA, BEN, CLEO, DI, ELI, OLE)}
GLASS = {"groups": ["oncall"], "reviewers": ["dba"], "review_within": "1d"}
Call = Callable[[], Awaitable[Decision]]


class Race:
    """A store with two services on it, and how a round's calls meet."""

    def __init__(self, store: Store, policy: LoadedPolicy) -> None:
        self.store = store
        self.clock = Clock()
        self.here = approvals_on(store, policy, clock=self.clock)
        self.there = approvals_on(store, policy, clock=self.clock)
        self.outcomes: Counter[str] = Counter()

    async def play(self, round_: Callable[[int], Awaitable[str]]) -> None:
        """All rounds, a few at a time; a round returns how it came out, and checks it."""
        turns = asyncio.Semaphore(AT_ONCE)

        async def one(number: int) -> None:
            async with turns, asyncio.timeout(30):
                self.outcomes[await round_(number)] += 1

        async with asyncio.TaskGroup() as group:
            for number in range(ROUNDS):
                group.create_task(one(number))
        assert self.outcomes.total() == ROUNDS
        print(f"{ROUNDS} rounds: {dict(self.outcomes)}, 0 wrong")  # noqa: T201 - shown with -s

    async def meet(self, *calls: Call) -> list[Decision]:
        """The decisions of calls that start together."""
        barrier = asyncio.Barrier(len(calls))

        async def one(call: Call) -> Decision:
            await barrier.wait()
            return await call()

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(call)) for call in calls]
        return [task.result() for task in tasks]

    async def ask(self, number: int, **more: Any) -> Decision:
        """A request on a database of its round's own."""
        asked = await self.here.ask(an_ask(database=f"db{number}", **more))
        assert asked.request
        return asked

    def vote(
        self,
        asked: Decision,
        by: Person,
        verdict: Verdict = Verdict.APPROVE,
        *,
        there: bool = False,
    ) -> Call:
        service = self.there if there else self.here
        return lambda: service.vote(a_ballot(asked, by, verdict))

    def begin(self, request_id: RequestId, *, there: bool = False) -> Call:
        async def begins() -> Decision:
            async with self.store.begin() as conn:
                service = self.there if there else self.here
                return await service.begin(conn, request_id, people=PEOPLE)

        return begins

    async def state(self, asked: Decision) -> State:
        """How the request stands, after the seal of what is stored was looked at."""
        assert asked.request
        record = await self.here.load(asked.request.id)
        assert record
        runs = await self.count("runs", record.id)
        grants = record.state in (State.APPROVED, State.EXECUTING, State.NEEDS_REVIEW)
        assert runs == 1 if grants else runs <= 1
        return record.state

    async def count(self, table: str, request_id: RequestId) -> int:
        query = sa.text(f"SELECT count(*) FROM {table} WHERE request_id = :id")
        async with self.store.begin() as conn:
            return int((await conn.execute(query, {"id": request_id})).scalar_one())


@pytest.fixture
def race(store: Store) -> Race:
    return Race(store, policy_of(2, break_glass=GLASS))


async def test_three_approvers_against_one_denier(race: Race) -> None:
    async def round_(number: int) -> str:
        asked = await race.ask(number)
        *_, denied = await race.meet(
            race.vote(asked, BEN), race.vote(asked, CLEO, there=True), race.vote(asked, ELI),
            race.vote(asked, DI, Verdict.DENY, there=True),
        )  # fmt: skip
        state = await race.state(asked)
        assert state is (State.DENIED if denied.ok else State.APPROVED)
        return str(state)

    await race.play(round_)


async def test_three_voters_for_a_quorum_of_two(race: Race) -> None:
    async def round_(number: int) -> str:
        asked = await race.ask(number)
        votes = await race.meet(
            race.vote(asked, BEN), race.vote(asked, CLEO, there=True), race.vote(asked, DI)
        )
        assert sorted(vote.ok for vote in votes) == [False, True, True]
        assert await race.state(asked) is State.APPROVED
        assert asked.request
        assert await race.count("votes", asked.request.id) == 2
        return "approved"

    await race.play(round_)


async def granted(race: Race, number: int) -> Decision:
    asked = await race.ask(number)
    await race.here.vote(a_ballot(asked, BEN))
    decided = await race.there.vote(a_ballot(asked, CLEO))
    assert decided.ok
    return decided


async def test_a_claim_by_four_workers(race: Race) -> None:
    async def round_(number: int) -> str:
        asked = await granted(race, number)
        assert asked.request
        mine = asked.request.id
        begun = await race.meet(*(race.begin(mine, there=odd) for odd in (True, False) * 2))
        assert [each.ok for each in begun].count(True) == 1
        assert await race.state(asked) is State.EXECUTING
        return "once"

    await race.play(round_)


async def test_cancelling_against_the_deciding_vote(race: Race) -> None:
    async def round_(number: int) -> str:
        asked = await race.ask(number)
        assert asked.request
        mine = asked.request.id
        await race.here.vote(a_ballot(asked, BEN))
        cancelled, voted = await race.meet(
            lambda: race.there.cancel(mine, by=ANA, door=Door.SLACK, delivery=""),
            race.vote(asked, CLEO),
        )
        # A vote may come first; what is granted and has not begun can still be cancelled.
        assert cancelled.ok
        assert await race.state(asked) is State.CANCELLED
        assert not (await race.begin(mine)()).ok
        return "voted first" if voted.ok else "cancelled first"

    await race.play(round_)


async def test_the_end_of_its_time_against_the_deciding_vote(race: Race) -> None:
    late = Clock(now=race.clock.now + timedelta(days=8))
    after = approvals_on(race.store, race.here.policy, clock=late)

    async def round_(number: int) -> str:
        asked = await race.ask(number)
        await race.here.vote(a_ballot(asked, BEN))
        voted, expired = await race.meet(
            race.vote(asked, CLEO), lambda: after.vote(a_ballot(asked, DI))
        )
        # To one clock it is over: whoever comes after that is told so, and nothing is granted.
        assert (expired.ok, expired.why) == (False, "expired")
        assert await race.state(asked) is State.EXPIRED
        assert asked.request
        assert not (await race.begin(asked.request.id)()).ok
        return "voted first" if voted.ok else "expired first"

    await race.play(round_)


async def test_another_plan_against_the_deciding_vote(race: Race) -> None:
    async def round_(number: int) -> str:
        asked = await race.ask(number)
        assert asked.request
        mine = asked.request.id
        await race.here.vote(a_ballot(asked, BEN))
        changed, voted = await race.meet(
            lambda: race.there.change_plan(mine, by=ANA, plan={"title": "Other"}, delivery=""),
            race.vote(asked, CLEO),
        )
        assert changed.ok
        assert await race.state(asked) is State.PENDING
        record = await race.here.load(mine)
        assert record
        assert record.votes == ()
        assert not (await race.begin(mine)()).ok
        return "voted first" if voted.ok else str(voted.why)

    await race.play(round_)


async def test_two_workers_against_somebody_who_breaks_the_glass(race: Race) -> None:
    async def round_(number: int) -> str:
        asked = await granted(race, number)
        assert asked.request
        mine = asked.request.id
        one, two, broken = await race.meet(
            race.begin(mine),
            race.begin(mine, there=True),
            lambda: race.here.break_glass(
                mine, by=OLE, reason="outage", door=Door.SLACK, delivery=""
            ),
        )
        assert one.ok + two.ok <= 1
        if broken.ok and not (one.ok or two.ok):
            assert (await race.begin(mine)()).ok  # its run begins now, once
        assert not (await race.begin(mine)()).ok
        assert await race.state(asked) is State.EXECUTING
        return "broken" if broken.ok else "begun"

    await race.play(round_)


async def test_another_policy_against_the_deciding_vote(race: Race) -> None:
    stricter = approvals_on(race.store, policy_of(3), clock=race.clock)

    async def round_(number: int) -> str:
        asked = await race.ask(number)
        assert asked.request
        mine = asked.request.id
        await race.here.vote(a_ballot(asked, BEN))
        # A replica that knows the new policy looks at the request while one votes by the old.
        seen, voted = await race.meet(
            lambda: stricter.change_attributes(mine, {**_attributes(asked), "looked": 1}),
            race.vote(asked, CLEO),
        )
        assert seen.ok
        begun = await begins(race, stricter, mine)
        assert not begun.ok
        assert await race.state(asked) is State.PENDING
        return "voted first" if voted.ok else str(voted.why)

    await race.play(round_)


async def test_a_vote_taken_back_against_the_deciding_one(race: Race) -> None:
    async def round_(number: int) -> str:
        asked = await race.ask(number)
        await race.here.vote(a_ballot(asked, BEN))
        taken, voted = await race.meet(
            race.vote(asked, BEN, Verdict.WITHDRAWN), race.vote(asked, CLEO, there=True)
        )
        assert voted.ok
        state = await race.state(asked)
        assert state is (State.PENDING if taken.ok else State.APPROVED)
        return str(state)

    await race.play(round_)


async def begins(race: Race, service: Approvals, mine: RequestId) -> Decision:
    async with race.store.begin() as conn:
        return await service.begin(conn, mine, people=PEOPLE)


def _attributes(asked: Decision) -> dict[str, Any]:
    assert asked.request
    return dict(asked.request.attributes)
