"""Runs behind the real approval service: from the deciding vote to the end of the audit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

from approvals.by_the_clock import CLOCK
from approvals.calls import Decision
from approvals.service import Approvals
from approvals.words import Door, Flag, Person, PersonId, RefusedError, RunId, Why
from jobs.engine import PgQueue
from jobs.worker import Worker
from tests.approvals.support import ANA, BEN, CLEO, KEYS, a_ballot, an_ask, policy_of
from tests.jobs.support import QUICK, WORK, Bench, Step, Work, clock, database, working


@dataclass(slots=True)
class Town:
    """The directory; whoever is not in it is unknown."""

    people: dict[PersonId, Person]

    async def by_slack(self, team: str, user: str) -> Person:
        raise NotImplementedError

    async def by_id(self, person: PersonId, slack: str) -> Person:
        if person not in self.people:
            raise RefusedError("Nobody.", next_step="Ask.", why=Why.IDENTITY)
        return self.people[person]


@dataclass(slots=True)
class Office:
    """The real service, a town, and workers on one store."""

    bench: Bench
    town: Town
    approvals: Approvals

    def worker(self) -> Worker:
        return Worker(
            store=self.bench.store,
            approvals=self.approvals,
            directory=self.town,
            operations={"work": WORK},
            databases={"orders": database("orders", self.bench.target_dsn)},
            home=self.bench.home,
            clock=clock,
            limits=QUICK,
        )

    async def ask(self, *steps: Step, **plan: Any) -> Decision:
        params = Work(steps=list(steps)).model_dump(mode="json")
        body = {"title": "Work", "steps": ["one"], **plan}
        return await self.approvals.ask(an_ask(operation="work", params=params, plan=body))

    async def grant(self, *steps: Step, **plan: Any) -> RunId:
        decided = await self.approvals.vote(a_ballot(await self.ask(*steps, **plan), BEN))
        assert decided.request is not None
        assert decided.request.run_id is not None
        return decided.request.run_id

    async def actions(self) -> list[str]:
        rows = await self.bench.fetch("SELECT action FROM audit_log ORDER BY seq")
        return [row["action"] for row in rows]


@pytest.fixture
def office(bench: Bench) -> Office:
    approvals = Approvals(
        store=bench.store,
        keys=KEYS,
        queue=PgQueue(bench.store),
        clock=clock,
        policy=policy_of(1, break_glass={"groups": ["oncall"], "reviewers": ["dba"]}),
    )
    return Office(bench, Town({person.id: person for person in (ANA, BEN, CLEO)}), approvals)


async def test_a_vote_becomes_a_run_and_its_end_closes_the_request(office: Office) -> None:
    async with working(office.worker()):
        run_id = await office.grant(Step(name="one"), pins={"pin": "blue"})
        assert await office.bench.until(run_id, "done", "failed", "refused") == "done"
    assert await office.bench.request_state(run_id) == "done"
    assert await office.bench.noted() == ["one begin 0", "one end"]
    assert await office.actions() == ["ask", "vote", "begin", "finish"]


async def test_what_a_schedule_asked_for_runs_though_no_directory_knows_it(office: Office) -> None:
    ask = an_ask(
        operation="work",
        params=Work(steps=[Step(name="one")]).model_dump(mode="json"),
        plan={"title": "Work", "steps": ["one"]},
        by=CLOCK,
        door=Door.CLOCK,
        attributes={"scheduled": "yes"},
    )
    asked = await office.approvals.ask(ask)
    async with working(office.worker()):
        decided = await office.approvals.vote(a_ballot(asked, BEN))
        assert decided.request is not None
        assert decided.request.run_id is not None
        assert await office.bench.until(decided.request.run_id, "done", "refused") == "done"


async def test_a_failed_run_fails_its_request(office: Office) -> None:
    async with working(office.worker()):
        run_id = await office.grant(Step(name="one", failures=1))
        await office.bench.until(run_id, "failed")
    assert await office.bench.request_state(run_id) == "failed"


@pytest.mark.parametrize("change", ["left", "deactivated", "left the group"])
async def test_a_voter_who_does_not_count_today_turns_the_request_back(
    office: Office, change: str
) -> None:
    run_id = await office.grant(Step(name="one"))
    match change:
        case "left":
            del office.town.people[BEN.id]
        case "deactivated":
            office.town.people[BEN.id] = replace(BEN, flags=frozenset({Flag.DEACTIVATED}))
        case _:
            office.town.people[BEN.id] = replace(BEN, groups=frozenset())
    async with working(office.worker()):
        await office.bench.until(run_id, "refused")
        assert await office.bench.request_state(run_id) == "pending"
        assert await office.bench.noted() == []
        record = await office.approvals.load((await _only_request(office)).id)
        assert record is not None
        asked = Decision(ok=True, noop=False, why=None, problem="", next_step="", request=record)
        decided = await office.approvals.vote(a_ballot(asked, CLEO))
        assert decided.ok, decided.problem
        await office.bench.until(run_id, "done")
    assert await office.bench.noted() == ["one begin 0", "one end"]


async def test_moved_pins_send_the_request_back_with_what_moved(office: Office) -> None:
    async with working(office.worker()):
        run_id = await office.grant(Step(name="one"), pins={"pin": "green"})
        await office.bench.until(run_id, "refused")
    record = await _only_request(office)
    assert record.state == "pending"
    assert record.votes == ()


async def test_a_plan_that_was_altered_in_the_store_does_not_run(office: Office) -> None:
    run_id = await office.grant(Step(name="one"))
    await office.bench.fetch(
        """UPDATE requests SET plan = replace(plan, '"name":"one"', '"name":"two"')"""
    )
    async with working(office.worker()):
        await office.bench.until(run_id, "refused")
    assert await office.bench.noted() == []


async def test_a_broken_glass_runs_without_votes_and_owes_a_review(office: Office) -> None:
    ola = Person(id=PersonId("ole@acme.example"), name="Ole", groups=frozenset({"oncall"}))
    office.town.people[ola.id] = ola
    asked = await office.ask(Step(name="one"))
    assert asked.request is not None
    async with working(office.worker()):
        broken = await office.approvals.break_glass(
            asked.request.id, by=ola, reason="The site is down.", door=Door.CLI, delivery="d1"
        )
        assert broken.ok, broken.problem
        assert broken.request is not None
        assert broken.request.run_id is not None
        await office.bench.until(broken.request.run_id, "done")
    assert await office.bench.request_state(broken.request.run_id) == "needs_review"


async def _only_request(office: Office) -> Any:
    (record,) = await office.approvals.recent()
    return record
