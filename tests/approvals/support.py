"""What several tests of the approvals need: people, a queue, and a world in our store."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from approvals.calls import Ask, Ballot, Decision, Seen
from approvals.machine import inadmissible
from approvals.memory import DEFAULT_PLAN, DEFAULT_TARGET, Report, loaded, verdict_of
from approvals.plans import plan_body, plan_hash
from approvals.policy_file import LoadedPolicy, parse_policy
from approvals.refusals import Refusal, refuse
from approvals.scenario_file import EventModel, Scenario, merged
from approvals.service import Approvals
from approvals.signing import VoteKeys
from approvals.tally import fit
from approvals.town import Town
from approvals.words import Door, Person, PersonId, RequestId, RunId, State, Verdict, Why
from store.connect import Store

KEYS = VoteKeys(current=b"the key of the tests, 32 bytes!!")
NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
ANA = Person(id=PersonId("ana@acme.example"), name="Ana", slack_team="T0DEMO", slack_user="U0ANA")


def dba(name: str) -> Person:
    """Somebody of the group dba."""
    return Person(
        id=PersonId(f"{name}@acme.example"),
        name=name,
        slack_team="T0DEMO",
        slack_user=f"U0{name.upper()}",
        groups=frozenset({"dba"}),
    )


BEN, CLEO = dba("ben"), dba("cleo")


def policy_of(approve: int = 1, **more: Any) -> LoadedPolicy:
    """One gate of dba."""
    gates = [{"id": "dba", "groups": ["dba"], "approve": approve}]
    return parse_policy({"gates": gates, **more}, epoch=NOON)


class Queue:
    """Inserts the run's row as the real queue does, and nothing that wakes a worker."""

    async def enqueue(
        self,
        conn: AsyncConnection,
        *,
        request_id: RequestId,
        database: str,
        operation: str,
        now: datetime,
    ) -> RunId:
        row = await conn.execute(
            sa.text(
                "INSERT INTO runs (request_id, database, operation, state, epoch, worker,"
                " queued_at, progress, outcome)"
                " VALUES (:id, :database, :operation, 'queued', 0, '', :now, '{}', '{}')"
                " ON CONFLICT (request_id) DO UPDATE SET queued_at = :now RETURNING id"
            ),
            {"id": request_id, "database": database, "operation": operation, "now": now},
        )
        return RunId(row.scalar_one())


@dataclass(slots=True)
class Clock:
    """A clock that a test moves."""

    now: datetime = NOON

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **by: int) -> None:
        self.now += timedelta(**by)


def approvals_on(
    store: Store, policy: LoadedPolicy, *, clock: Clock | None = None, keys: VoteKeys = KEYS
) -> Approvals:
    """A service such as each replica has one."""
    return Approvals(store=store, keys=keys, queue=Queue(), clock=clock or Clock(), policy=policy)


def an_ask(by: Person = ANA, delivery: str = "", **more: Any) -> Ask:
    """Ana asks for a backup of orders."""
    values: dict[str, Any] = {
        "operation": "backup",
        "database": "orders",
        "params": {"kind": "full"},
        "plan": {"title": "Back up orders"},
        "attributes": {"environment": "production"},
        "by": by,
        "door": Door.SLACK,
        "reason": "",
        "channel": "C0ORDERS",
        "delivery": delivery,
    }
    return Ask(**{**values, **more})


def a_ballot(
    asked: Decision, by: Person, verdict: Verdict = Verdict.APPROVE, delivery: str = "", **more: Any
) -> Ballot:
    """A vote on what was just shown."""
    record = asked.request
    assert record is not None
    seen = Seen(plan_hash=record.plan_hash, policy_hash=record.policy_hash, step=record.step)
    values: dict[str, Any] = {"reason": "looks right", "seen": seen, **more}
    return Ballot(
        request_id=record.id, by=by, verdict=verdict, door=Door.SLACK, delivery=delivery, **values
    )


_worlds = itertools.count(1)


@dataclass(slots=True, kw_only=True)
class StoreWorld:
    """A world in which scenarios are played through the service, on PostgreSQL.

    It stands where the shell stands: it knows people, and passes on what they do.
    """

    store: Store
    town: Town
    text: Mapping[str, Any]
    number: int
    clock: Clock = field(default_factory=Clock)
    service: Approvals | None = None
    ids: dict[str, RequestId] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    executions_count: int = 0

    @staticmethod
    def on(store: Store, scenario: Scenario) -> StoreWorld:
        world = StoreWorld(
            store=store,
            town=Town.of(scenario.people),
            text=scenario.policy,
            number=next(_worlds),
        )
        world.restart()
        return world

    def restart(self) -> None:
        """As a new process: nothing is left but what is stored."""
        policy = loaded(self.text)
        self.service = approvals_on(self.store, policy, clock=self.clock) if policy else None

    async def play(self, event: EventModel, at: datetime) -> str:
        self.clock.now = at
        match event.do:
            case "restart":
                self.restart()
            case "directory":
                self.town.up = event.up
            case "people_change":
                self.town.change(event)
            case "tick":
                if self.service:
                    await self.service.sweep()
            case "policy_change":
                return await self._change_policy(event)
            case _:
                return await self._decide(event)
        return "ok"

    async def report(self) -> Report:
        states = dict.fromkeys(self.refused - self.ids.keys(), State.REFUSED)
        voters: dict[str, tuple[tuple[str, str], ...]] = {}
        for label, request_id in self.ids.items():
            assert self.service
            record = await self.service.load(request_id)
            assert record
            states[label] = record.state
            voters[label] = tuple((self.town.name(v.person), str(v.verdict)) for v in record.votes)
        return Report(
            states=states,
            voters=voters,
            executions_count=self.executions_count,
            notes=tuple(await self._notes()),
        )

    async def _notes(self) -> list[str]:
        async with self.store.begin() as conn:
            found = await conn.execute(
                sa.text(
                    "SELECT payload ->> 'kind' FROM outbox WHERE topic = 'note'"
                    " AND request_id = ANY(:ids) ORDER BY id"
                ),
                {"ids": list(self.ids.values())},
            )
            return list(found.scalars())

    async def _decide(self, event: EventModel) -> str:  # noqa: PLR0911
        manner, by = self.town.manner(event), self.town.find(event.by)
        if manner.reading:
            return "noop"
        if not manner.signed:
            return "no:signature"
        if event.do not in ("execute", "finish", "attrs_change"):
            may_act = fit(by) or (event.do == "request" and event.beneficiary is not None)
            if refusal := inadmissible(by, manner, may_act=may_act):
                if event.do == "request":
                    self.refused.add(event.req)
                return f"no:{refusal.why}"
        if event.do == "request":
            return await self._ask(event, by)
        if self.service is None or event.req not in self.ids:
            return "no:not_approved" if event.do == "execute" else "no:closed"
        decision = await self._happen(self.service, event, by, self.ids[event.req])
        if isinstance(decision, Refusal):
            return f"no:{decision.why}"
        result = _result(decision)
        self.executions_count += event.do in ("execute", "break_glass") and result == "ok"
        return result

    async def _ask(self, event: EventModel, by: Person | None) -> str:
        if self.service is None or by is None:
            self.refused.add(event.req)
            return "no:policy"
        target = self._target(event.target)
        decision = await self.service.ask(
            an_ask(
                by,
                event.delivery or "",
                database=target,
                params=self._params(target),
                plan=self._stored_plan(event.plan or DEFAULT_PLAN),
                attributes=dict(event.attrs or {}),
                reason=event.reason,
                ttl=None if event.ttl is None else timedelta(seconds=event.ttl),
                beneficiary=self.town.beneficiary(event),
                electorate=tuple(self.town.people.values()),
                channel=f"C{self.number}",
            )
        )
        if decision.request:
            self.ids[event.req] = decision.request.id
        else:
            self.refused.add(event.req)
        return _result(decision)

    async def _happen(  # noqa: C901, PLR0911
        self, service: Approvals, event: EventModel, by: Person | None, request_id: RequestId
    ) -> Decision | Refusal:
        delivery = event.delivery or ""
        match event.do:
            case "attrs_change":
                record = await service.load(request_id)
                assert record
                changes = event.attrs or event.set or {}
                return await service.change_attributes(
                    request_id, {**record.attributes, **dict(changes)}
                )
            case "execute":
                return await self._execute(service, event, request_id)
            case "finish":
                async with self.store.begin() as conn:
                    return await service.finish(
                        conn, request_id, ok=event.succeeded, summary="played", numbers={}
                    )
        assert by
        door = Door(event.channel)
        match event.do:
            case "approve" | "deny" | "vote":
                return await self._vote(service, event, by, request_id)
            case "withdraw_vote":
                seen = await self._seen(service, event, request_id)
                return await service.vote(
                    Ballot(
                        request_id=request_id,
                        by=by,
                        verdict=Verdict.WITHDRAWN,
                        reason="",
                        door=door,
                        seen=seen,
                        delivery=delivery,
                        others=self.town.all(),
                    )
                )
            case "cancel":
                return await service.cancel(request_id, by=by, door=door, delivery=delivery)
            case "reopen":
                return await service.reopen(request_id, by=by, delivery=delivery)
            case "plan_change":
                return await service.change_plan(
                    request_id,
                    by=by,
                    plan=self._stored_plan(event.plan or DEFAULT_PLAN),
                    attributes=dict(event.attrs) if event.attrs else None,
                    delivery=delivery,
                )
            case "break_glass":
                return await service.break_glass(
                    request_id, by=by, reason=event.reason, door=door, delivery=delivery
                )
            case "review":
                return await service.review(
                    request_id, by=by, reason=event.reason, door=door, delivery=delivery
                )
        raise AssertionError(event.do)

    async def _vote(
        self, service: Approvals, event: EventModel, by: Person, request_id: RequestId
    ) -> Decision | Refusal:
        word = verdict_of(event)
        if word not in ("approve", "deny"):
            return refuse(Why.VERDICT)  # a door that cannot read it, asks nobody
        return await service.vote(
            Ballot(
                request_id=request_id,
                by=by,
                verdict=Verdict(word),
                reason=event.reason,
                door=Door(event.channel),
                seen=await self._seen(service, event, request_id),
                delivery=event.delivery or "",
                others=self.town.all(),
            )
        )

    async def _seen(self, service: Approvals, event: EventModel, request_id: RequestId) -> Seen:
        """What the card showed; where the scenario does not say, what is current."""
        record = await service.load(request_id)
        assert record
        return Seen(
            plan_hash=self._hash(event.seen, record.database) if event.seen else record.plan_hash,
            policy_hash=record.policy_hash,
            step=record.step if event.seen_step is None else event.seen_step,
        )

    async def _execute(
        self, service: Approvals, event: EventModel, request_id: RequestId
    ) -> Decision | Refusal:
        record = await service.load(request_id)
        assert record
        if not self.town.up and record.state is State.APPROVED and service.policy:
            return refuse(Why.DIRECTORY)  # a worker that cannot look voters up puts it off
        agreed = (event.plan, event.artifact)
        other = any(h and self._hash(h, record.database) != record.plan_hash for h in agreed)
        target = event.target and self._target(event.target) != record.database
        if (other or target) and record.state is State.APPROVED:
            return refuse(Why.STALE_PLAN)  # the runner compares what it holds with the record
        async with self.store.begin() as conn:
            return await service.begin(conn, request_id, people=self.town.all())

    async def _change_policy(self, event: EventModel) -> str:
        by = self.town.find(event.by)
        if refusal := inadmissible(by, self.town.manner(event), may_act=fit(by)):
            return f"no:{refusal.why}"
        assert self.service
        assert by
        text = merged(self.text, event.set or {})
        policy = loaded(text)
        if policy is None:
            return "no:policy"
        others = [self.town.find(name) for name in event.approved_by]
        decision = await self.service.change_policy(policy, by=by, approved_by=others)
        if decision.ok:
            self.text = text
        return _result(decision)

    def _hash(self, plan: str, database: str) -> str:
        params = self._params(database)
        return plan_hash(
            plan_body(self._stored_plan(plan), operation="backup", database=database, params=params)
        )

    def _stored_plan(self, title: str) -> Mapping[str, Any]:
        return {"title": title}

    def _params(self, database: str) -> Mapping[str, Any]:
        return {}

    def _target(self, name: str | None) -> str:
        return f"w{self.number}_{name or DEFAULT_TARGET}"


def _result(decision: Decision) -> str:
    if decision.noop:
        return "noop"
    return "ok" if decision.ok else f"no:{decision.why}"
