"""What the tests of runs share: a small approval service, an operation made of steps, waiting."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import sqlalchemy as sa
from pydantic import BaseModel, JsonValue, SecretStr
from sqlalchemy.ext.asyncio import AsyncConnection

from approvals.plans import plan_body, plan_hash
from approvals.words import (
    DirectoryDownError,
    Person,
    PersonId,
    RefusedError,
    RequestId,
    RunId,
    State,
    Why,
)
from jobs.engine import PgQueue
from jobs.health_settings import MonitoringSettings
from jobs.limits import Limits
from jobs.operation import (
    Answer,
    Attempt,
    Database,
    Job,
    JobError,
    Kind,
    Mode,
    Operation,
    Plan,
    Risk,
    Tier,
)
from jobs.worker import Worker
from store.connect import Store

ANA = PersonId("ana@acme.example")
BEN = PersonId("ben@acme.example")

QUICK = Limits(
    concurrency=4,
    pulse=timedelta(seconds=0.1),
    heartbeat=timedelta(seconds=0.3),
    stale=timedelta(seconds=20),
    reap=timedelta(seconds=0.2),
    poll=timedelta(seconds=0.2),
    lock_ping=timedelta(seconds=0.1),
    lock_grace=timedelta(seconds=8),
    lock_wait=timedelta(seconds=30),
    cleanup=timedelta(seconds=8),
    stop_grace=timedelta(seconds=0.5),
    patience=timedelta(seconds=60),
    backoff=timedelta(seconds=0.05),
    report=timedelta(seconds=0.1),
)
# For tests that wait until a worker is taken for dead, or a lock for lost. To others it may
# happen on a busy machine, where a worker is not heard of for a second or two.
HASTY = replace(
    QUICK,
    stale=timedelta(seconds=2.5),
    lock_grace=timedelta(seconds=1),
    cleanup=timedelta(seconds=1),
)


def clock() -> datetime:
    """The time, for a worker."""
    return datetime.now(UTC)


BESIDE = sa.text("""
    UPDATE requests SET attributes = attributes || '{"beside": "yes"}' WHERE id = :id
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    person: PersonId
    slack: str

    @property
    def seat(self) -> PersonId:
        return self.person

    @property
    def seat_slack(self) -> str:
        return self.slack


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    state: State
    plan: str
    asked_by: PersonId
    asked_by_slack: str
    channel: str
    votes: tuple[Vote, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    ok: bool
    why: Why | None = None
    problem: str = ""
    next_step: str = ""


@dataclass(slots=True)
class SmallApprovals:
    """Keeps the worker's part of the approval service's contract over `requests`.

    `refusals` are given by `begin`, one after the other, before it agrees.
    """

    store: Store
    refusals: list[Decision] = field(default_factory=list)
    begun_with: list[Mapping[PersonId, Person]] = field(default_factory=list)

    async def begin(
        self, conn: AsyncConnection, request_id: RequestId, *, people: Mapping[PersonId, Person]
    ) -> Decision:
        self.begun_with.append(people)
        if self.refusals:
            return self.refusals.pop(0)
        if await self._move(conn, request_id, "approved", "executing"):
            return Decision(ok=True)
        return Decision(ok=False, why=Why.NOT_APPROVED, problem="It is not approved.")

    async def resume(self, conn: AsyncConnection, request_id: RequestId) -> Decision:
        found = await conn.execute(
            sa.text("SELECT state FROM requests WHERE id = :id"), {"id": request_id}
        )
        ok = found.scalar_one() == "executing"
        return Decision(ok=ok, why=None if ok else Why.NOT_APPROVED, problem="It is not at work.")

    async def finish(
        self,
        conn: AsyncConnection,
        request_id: RequestId,
        *,
        ok: bool,
        summary: str,
        numbers: Mapping[str, int | float | str],
    ) -> Decision:
        moved = await self._move(conn, request_id, "executing", "done" if ok else "failed")
        return Decision(ok=moved)

    async def send_back(
        self, conn: AsyncConnection, request_id: RequestId, *, problem: str
    ) -> Decision:
        return Decision(ok=await self._move(conn, request_id, "approved", "pending"))

    async def load(self, request_id: RequestId) -> Request | None:
        async with self.store.begin() as conn:
            found = await conn.execute(
                sa.text("SELECT state, plan, channel FROM requests WHERE id = :id"),
                {"id": request_id},
            )
            row = found.one_or_none()
        return row and Request(
            state=State(row.state),
            plan=row.plan,
            asked_by=ANA,
            asked_by_slack="T0DEMO/U0ANA",
            channel=row.channel,
            votes=(Vote(person=BEN, slack="T0DEMO/U0BEN"),),
        )

    async def _move(self, conn: AsyncConnection, request_id: int, old: str, new: str) -> bool:
        moved = await conn.execute(
            sa.text(
                "UPDATE requests SET state = :new, version = version + 1"
                " WHERE id = :id AND state = :old RETURNING id"
            ),
            {"id": request_id, "old": old, "new": new},
        )
        return moved.one_or_none() is not None


@dataclass(slots=True)
class People:
    """A directory; `gone` are known no more, and `down` times it cannot be read."""

    gone: set[PersonId] = field(default_factory=set)
    down: int = 0

    async def by_slack(self, team: str, user: str) -> Person:
        raise NotImplementedError

    async def by_id(self, person: PersonId, slack: str) -> Person:
        if self.down:
            self.down -= 1
            raise DirectoryDownError("Slack does not answer.", next_step="Wait.")
        if person in self.gone:
            raise RefusedError("Nobody.", next_step="Ask.", why=Why.IDENTITY)
        return Person(id=person, name=person.split("@")[0])


class Step(BaseModel):
    """What a step of the operation `work` does."""

    name: str
    mode: Mode = Mode.RETRYABLE
    seconds: float = 0.0
    gate: str = ""  # it does not end before this gate is open
    parts: int = 1  # checkpoints of a resumable step; `seconds` is of each
    failures: int = 0
    attempts: int = 1
    limit: float = 60.0
    cleanup: float = 0.0
    deaf: bool = False  # goes on when it is cancelled


class Work(BaseModel):
    steps: list[Step]
    pin: str = ""


async def run_work(job: Job, params: Work, plan: Plan) -> Answer:
    """Do the steps, and note in the target what begins and what ends."""
    conn = await asyncpg.connect(job.database.dsn.get_secret_value())
    try:
        alone = await conn.fetchval(
            "SELECT pg_try_advisory_lock(hashtext($1))", f"work:{job.database.name}"
        )
        if not alone:
            await _note(conn, job, "overlap", "overlap")
        done: list[JsonValue] = []
        for step in params.steps:
            done.append(
                await job.step(
                    step.name,
                    _body(conn, job, step),
                    mode=step.mode,
                    time_limit=timedelta(seconds=step.limit),
                    attempts=step.attempts,
                )
            )
            await job.report(f"{step.name} is done", fraction=len(done) / len(params.steps))
        (job.folder / "kept").write_text("while the run lives")
        return Answer(title=f"Did {len(done)} steps", numbers={"steps": len(done)})
    finally:
        await asyncio.shield(conn.close(timeout=30))


def _body(conn: asyncpg.Connection, job: Job, step: Step) -> Callable[[Attempt], Any]:
    async def body(attempt: Attempt) -> JsonValue:
        first = int(str(attempt.checkpoint or 0))
        await _note(conn, job, step.name, f"begin {first}")
        try:
            for part in range(first, step.parts):
                await _sleep(step)
                if step.parts > 1:
                    await attempt.save(part + 1)
            await _gate(conn, step)
        except asyncio.CancelledError:
            await asyncio.sleep(step.cleanup)
            await _note(conn, job, step.name, "cleaned up")
            raise
        if attempt.number <= step.failures:
            raise JobError(f"attempt {attempt.number} failed", next_step="Try again.")
        await _note(conn, job, step.name, "end")
        return {"number": attempt.number}

    return body


async def _sleep(step: Step) -> None:
    deadline = asyncio.get_running_loop().time() + step.seconds
    while (left := deadline - asyncio.get_running_loop().time()) > 0:
        try:
            await asyncio.sleep(left)
        except asyncio.CancelledError:
            if not step.deaf:
                raise


async def _gate(conn: asyncpg.Connection, step: Step) -> None:
    while step.gate and not await conn.fetchval("SELECT true FROM gate WHERE name = $1", step.gate):
        await asyncio.sleep(0.02)


async def _note(conn: asyncpg.Connection, job: Job, step: str, what: str) -> None:
    await conn.execute(
        "INSERT INTO work (run, step, what) VALUES ($1, $2, $3)", job.run_key, step, what
    )


async def _pins(context: Any, params: Work, plan: Plan) -> Mapping[str, str]:
    del params, plan
    rows = await context.reader.rows("SELECT value FROM pin")
    return {"pin": rows[0]["value"]}


WORK = Operation(
    name="work",
    summary="Do the steps that it is given",
    kind=Kind.CHANGE,
    risk=Risk.NONE,
    params=Work,
    example="/db work orders",
    plan=None,
    run=run_work,
    pinned=frozenset(),
    pins=_pins,
)

TABLES = """
    CREATE TABLE work (id bigserial, at timestamptz DEFAULT clock_timestamp(),
                       run text, step text, what text);
    CREATE TABLE gate (name text);
    CREATE TABLE pin (value text);
    INSERT INTO pin VALUES ('blue');
"""

# A worker that was just killed may still hold a lock on the tables for a moment.
EMPTY = "TRUNCATE work, gate RESTART IDENTITY"


def database(name: str, dsn: str, *, every: float | None = None) -> Database:
    """A target of the inventory, looked at every so many seconds if any."""
    looks = MonitoringSettings(every=timedelta(seconds=every)) if every else None
    return Database(
        name=name,
        dsn=SecretStr(dsn),
        environment="test",
        tier=Tier.STANDARD,
        channel="C0ORDERS",
        backup_folder=Path("/nonexistent"),
        monitoring=looks or MonitoringSettings(is_on=False),
    )


@dataclass(slots=True)
class Bench:
    """A store, a target with tables to note work in, and what a worker needs besides."""

    store: Store
    target_dsn: str
    home: Path
    approvals: SmallApprovals
    people: People = field(default_factory=People)
    target: asyncpg.Connection | None = None
    names: tuple[str, ...] = ("orders", "users", "stock")
    operations: dict[str, Operation] = field(default_factory=lambda: {"work": WORK})
    every: float | None = None  # seconds between two looks at a target; None: none

    @property
    def queue(self) -> PgQueue:
        return PgQueue(self.store)

    def worker(self, limits: Limits = QUICK) -> Worker:
        return Worker(
            store=self.store,
            approvals=self.approvals,
            directory=self.people,
            operations=self.operations,
            databases={
                name: database(name, self.target_dsn, every=self.every) for name in self.names
            },
            home=self.home,
            clock=clock,
            limits=limits,
        )

    async def grant(
        self,
        *steps: Step,
        database: str = "orders",
        pins: Mapping[str, str] | None = None,
        beside: bool = False,
    ) -> RunId:
        """A request that was agreed to, and its queued run."""
        params = Work(steps=list(steps)).model_dump(mode="json")
        plan = {"title": "Work", "steps": [], "pins": dict(pins or {})}
        body = plan_body(plan, operation="work", database=database, params=params)
        now = clock()
        async with self.store.begin() as conn:
            added = await conn.execute(
                ADD_REQUEST,
                {
                    "database": database,
                    "params": json.dumps(params),
                    "plan": body,
                    "plan_hash": plan_hash(body),
                    "now": now,
                },
            )
            number = added.scalar_one()
            if beside:
                await conn.execute(BESIDE, {"id": number})
            return await self.queue.enqueue(
                conn,
                request_id=RequestId(number),
                database=database,
                operation="work",
                now=now,
            )

    async def fetch(self, query: str, *args: object) -> list[asyncpg.Record]:
        """Rows of the store, with a connection of its pool."""
        async with self.store.engine.connect() as conn:
            raw = await conn.get_raw_connection()
            return list(await raw.driver_connection.fetch(query, *args))  # type: ignore[union-attr]

    async def one(self, query: str, *args: object) -> Any:
        """The first column of the first row of the store."""
        return (await self.fetch(query, *args))[0][0]

    async def state(self, run_id: RunId) -> str:
        return str(await self.one("SELECT state FROM runs WHERE id = $1", run_id))

    async def request_state(self, run_id: RunId) -> str:
        return str(
            await self.one(
                "SELECT q.state FROM requests q JOIN runs r ON r.request_id = q.id WHERE r.id = $1",
                run_id,
            )
        )

    async def open(self, gate: str) -> None:
        """Let the steps end that wait at this gate."""
        await (await self._to_target()).execute("INSERT INTO gate VALUES ($1)", gate)

    async def _to_target(self) -> asyncpg.Connection:
        if self.target is None or self.target.is_closed():
            self.target = await asyncpg.connect(self.target_dsn)
        return self.target

    async def noted(self, *, step: str | None = None, run_id: RunId | None = None) -> list[str]:
        """What was noted in the target, in order: 'step what'."""
        rows = await (await self._to_target()).fetch(
            "SELECT step || ' ' || what AS noted FROM work"
            " WHERE ($1::text IS NULL OR step = $1) AND ($2::text IS NULL OR run = $2)"
            " ORDER BY id",
            step,
            None if run_id is None else f"run-{run_id}",
        )
        return [row["noted"] for row in rows]

    async def until(self, run_id: RunId, *states: str, seconds: float = 30) -> str:
        """The state of a run, once it is one of these."""

        async def reached() -> str | None:
            state = await self.state(run_id)
            return state if state in states else None

        return str(await eventually(reached, seconds=seconds))

    async def until_noted(self, noted: str, *, seconds: float = 30) -> None:
        """Return once the target has this note."""

        async def there() -> bool:
            return noted in await self.noted()

        await eventually(there, seconds=seconds)


ADD_REQUEST = sa.text("""
    INSERT INTO requests (state, version, operation, database, asked_by, asked_by_slack, authors,
                          door, reason, params, plan, plan_hash, policy_hash, attributes, rule,
                          step, asked_at, expires_at, detail, channel)
    VALUES ('approved', 1, 'work', :database, 'ana@acme.example', 'T0DEMO/U0ANA', ARRAY['ana'],
            'slack', '', CAST(:params AS jsonb), :plan, :plan_hash, 'p', '{}', 'r', 0, :now,
            CAST(:now AS timestamptz) + interval '1 hour', '{}', 'C0ORDERS')
    RETURNING id
""")


async def eventually(probe: Callable[[], Any], *, seconds: float = 30) -> Any:
    """What `probe` returns once it is true; an error after `seconds`."""
    async with asyncio.timeout(seconds):
        while not (found := await probe()):
            await asyncio.sleep(0.02)
        return found


@asynccontextmanager
async def working(worker: Worker) -> AsyncIterator[Worker]:
    """A worker at work within the block, stopped in good order at its end."""
    stop = asyncio.Event()
    task = asyncio.create_task(worker.run(stop))
    try:
        yield worker
    finally:
        stop.set()
        async with asyncio.timeout(30):
            await task
