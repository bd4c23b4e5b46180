"""The thin seam to PgQueuer: it delivers, wakes and redelivers.

The truth is in `runs` and `run_steps`. A delivery says no more than "look at this run";
whether there is anything to do is decided by the claim (`jobs.runs`). Another engine
would be another file like this one.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, TypeAlias

import asyncpg
import sqlalchemy as sa
from pgqueuer.adapters.persistence.qb import (
    QueryBuilderEnvironment,
    QueryQueueBuilder,
    QuerySchedulerBuilder,
)
from pgqueuer.db import AsyncpgDriver
from pgqueuer.models import Job as QueueJob
from pgqueuer.queries import EntrypointExecutionParameter, Queries
from pgqueuer.types import QueueEntrypoint, QueueManagerId
from sqlalchemy.ext.asyncio import AsyncConnection

from approvals.words import RequestId, RunId
from jobs.away import is_away, pause_seconds
from store.connect import Store

log: Final = logging.getLogger("twokey.jobs")

ENTRYPOINT: Final = QueueEntrypoint("run")
NOTIFY_CHANNEL: Final = "ch_pgqueuer"
LISTEN_CHECK_SECONDS: Final = 5.0
# A start is what people wait for, and it needs the processor. Taking its delivery out of
# the queue and looking for the next one wait this long for its first step.
GIVE_WAY_SECONDS: Final = 0.05
SETTLE_AFTER_SECONDS: Final = 0.03


@dataclass(frozen=True, slots=True)
class Drop:
    """There is nothing to do for this delivery."""


@dataclass(frozen=True, slots=True)
class Later:
    """Deliver again after `delay`."""

    delay: timedelta


@dataclass(frozen=True, slots=True)
class Start:
    """The run is ours: the delivery is done with, and `body` takes up a place until it ends."""

    body: Callable[[], Awaitable[None]]


Verdict: TypeAlias = Drop | Later | Start
Handler: TypeAlias = Callable[[RunId], Awaitable[Verdict]]


# A grant runs once, so a request has one row. It is taken up again only if it was never
# begun: refused by the worker's own checks and granted anew, or granted anew while queued.
ADD_RUN: Final = sa.text("""
    INSERT INTO runs (request_id, database, operation, state, epoch, worker, queued_at,
                      progress, outcome, beside)
    VALUES (:request_id, :database, :operation, 'queued', 0, '', :now, '{}', '{}',
            (SELECT coalesce(attributes ->> 'beside' = 'yes', false)
               FROM requests
              WHERE id = :request_id))
    ON CONFLICT (request_id) DO UPDATE
       SET state = 'queued', queued_at = :now, ended_at = NULL, cancel_by = '',
           progress = '{}', outcome = '{}'
     WHERE runs.started_at IS NULL
       AND runs.state IN ('queued', 'refused')
    RETURNING id
""")

# The pause that a waiting run took is over: its target has become free.
HURRY: Final = sa.text("""
    WITH hurried AS (
        UPDATE pgqueuer
           SET execute_after = now() - interval '1 millisecond'
         WHERE entrypoint = 'run'
           AND status = 'queued'
           AND dedupe_key = :key
     RETURNING id
    )
    SELECT pg_notify('ch_pgqueuer', json_build_object(
               'channel', 'ch_pgqueuer', 'operation', 'update', 'sent_at', now(),
               'table', 'pgqueuer', 'type', 'table_changed_event')::text)
      FROM hurried
""")


class PgQueue:
    """Runs waiting for a worker, kept by PgQueuer in the store."""

    def __init__(
        self,
        store: Store,
        *,
        poll: timedelta = timedelta(seconds=1),
        redeliver_after: timedelta = timedelta(seconds=30),
    ) -> None:
        self._store = store
        self._poll_seconds = poll.total_seconds()
        # A delivery is settled within its claim, so this only sees workers that died there.
        self._redeliver_after = redeliver_after
        self._manager = QueueManagerId(uuid.uuid4())
        self._woken = asyncio.Event()
        self._stopping = asyncio.Event()

    async def enqueue(
        self,
        conn: AsyncConnection,
        *,
        request_id: RequestId,
        database: str,
        operation: str,
        now: datetime,
    ) -> RunId:
        """The run of a granted request, queued in the caller's transaction.

        Raises:
            RuntimeError: the request's run was begun before, so its grant is used up.
        """
        row = await conn.execute(
            ADD_RUN,
            {"request_id": request_id, "database": database, "operation": operation, "now": now},
        )
        run_id = row.scalar_one_or_none()
        if run_id is None:
            raise RuntimeError(f"The grant of request {request_id} has been used before.")
        await self.redeliver(conn, [RunId(run_id)])
        return RunId(run_id)

    async def redeliver(self, conn: AsyncConnection, run_ids: Sequence[RunId]) -> None:
        """Have each of these runs delivered, in the caller's transaction; no run twice."""
        if not run_ids:
            return
        queries = await _in_transaction(conn)
        await queries.enqueue(
            [ENTRYPOINT] * len(run_ids),
            [str(run_id).encode() for run_id in run_ids],
            [0] * len(run_ids),
            dedupe_key=[dedupe_key(run_id) for run_id in run_ids],
            on_conflict="skip",
        )

    async def hurry(self, conn: AsyncConnection, run_id: RunId) -> None:
        """End the pause of a delivery that was put off."""
        await conn.execute(HURRY, {"key": dedupe_key(run_id)})

    async def consume(self, handler: Handler, stop: asyncio.Event, *, places: int) -> None:
        """Give deliveries to `handler`, at most `places` at a time, until `stop` is set.

        Returns when the last of them has ended. Lives through absences of the store.
        """
        free = asyncio.Semaphore(places)
        self._stopping = stop
        async with asyncio.TaskGroup() as tasks:
            beside = [tasks.create_task(self._listen()), tasks.create_task(self._wake_at(stop))]
            bodies: set[asyncio.Task[None]] = set()
            failures = 0
            while not stop.is_set():
                if free.locked() and not await _before(stop, _is_free(free)):
                    break
                await free.acquire()
                self._woken.clear()
                try:
                    job = await self._next()
                    failures = 0
                except Exception as error:
                    if not is_away(error):
                        raise
                    job, failures = None, failures + 1
                if job is None:
                    free.release()
                    await self._rest(stop, failures)
                    continue
                under_way = asyncio.Event()
                body = tasks.create_task(self._deliver(job, handler, under_way))
                bodies.add(body)
                body.add_done_callback(bodies.discard)
                body.add_done_callback(lambda _: free.release())
                await _at_most(GIVE_WAY_SECONDS, under_way)
            if bodies:
                await asyncio.wait(bodies)
            for task in beside:
                task.cancel()

    async def _wake_at(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._woken.set()

    async def _rest(self, stop: asyncio.Event, failures: int) -> None:
        seconds = pause_seconds(failures) if failures else self._poll_seconds
        if not stop.is_set():
            await _at_most(seconds, self._woken)

    async def _next(self) -> QueueJob | None:
        async with self._store.single() as conn:
            queries = await _pgqueuer(conn)
            jobs = await queries.dequeue(
                batch_size=1,
                entrypoints={ENTRYPOINT: EntrypointExecutionParameter(concurrency_limit=0)},
                queue_manager_id=self._manager,
                global_concurrency_limit=None,
                heartbeat_timeout=self._redeliver_after,
            )
        return jobs[0] if jobs else None

    async def _deliver(self, job: QueueJob, handler: Handler, under_way: asyncio.Event) -> None:
        run_id = RunId(int(job.payload or b"0"))
        verdict: Verdict
        try:
            verdict = await handler(run_id)
        except Exception as error:
            # The runner's edge: one run that cannot be looked at must not end the worker.
            if not is_away(error):
                log.exception("Looking at run %d failed.", run_id)
            verdict = Later(timedelta(seconds=pause_seconds(job.attempts)))
        if not isinstance(verdict, Start):
            under_way.set()
            await self._settle(job, verdict)
            return
        async with asyncio.TaskGroup() as tasks:
            living = tasks.create_task(_live(run_id, verdict))
            await asyncio.wait({living}, timeout=SETTLE_AFTER_SECONDS)
            under_way.set()
            await self._settle(job, verdict)

    async def _settle(self, job: QueueJob, verdict: Verdict) -> None:
        """Take the delivery out of the queue, or put it off.

        While the store is away that is tried again for as long as nobody else may have the
        delivery. If it fails, it is delivered again, and the claim decides again.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + self._redeliver_after.total_seconds() / 2
        failures = 0
        while failures == 0 or (loop.time() < until and not self._stopping.is_set()):
            try:
                async with asyncio.timeout_at(until):
                    await self._take_out(job, verdict)
            except Exception as error:  # noqa: BLE001 - to be delivered again mends all
                if not is_away(error):
                    return
                failures += 1
                await _at_most(pause_seconds(failures), self._stopping)
            else:
                return

    async def _take_out(self, job: QueueJob, verdict: Verdict) -> None:
        async with self._store.single() as conn:
            queries = await _pgqueuer(conn)
            if isinstance(verdict, Later):
                await queries.retry_job(job, verdict.delay, None)
            else:
                await queries.log_jobs([(job, "successful", None)])

    async def _listen(self) -> None:
        """Set `_woken` at each notification; connect again for ever."""
        failures = 0
        while True:
            conn: asyncpg.Connection | None = None
            try:
                conn = await self._store.direct(application_name="twokey listen")
                await conn.add_listener(NOTIFY_CHANNEL, lambda *_: self._woken.set())
                self._woken.set()
                failures = 0
                while True:
                    await asyncio.sleep(LISTEN_CHECK_SECONDS)
                    await self._store.reach.check(conn, seconds_max=LISTEN_CHECK_SECONDS)
            except Exception as error:
                if not is_away(error):
                    raise
                failures += 1
            finally:
                if conn is not None:
                    conn.terminate()
            await asyncio.sleep(pause_seconds(failures))


def dedupe_key(run_id: RunId) -> str:
    """What keeps a run from being queued twice."""
    return f"run-{run_id}"


async def _live(run_id: RunId, start: Start) -> None:
    """Let a run's body live; one that breaks must not end the worker with all others."""
    try:
        await start.body()
    except Exception:
        log.exception("Run %d broke outside its operation; it will be recovered.", run_id)


async def _in_transaction(conn: AsyncConnection) -> Queries:
    """PgQueuer in the caller's transaction.

    SQLAlchemy begins its transaction with the first statement; PgQueuer's statements go
    past it, so without one before them they would commit on their own.
    """
    raw = await conn.get_raw_connection()
    driver: Any = raw.driver_connection
    if not driver.is_in_transaction():
        await conn.execute(sa.text("SELECT 1"))
    return _queries(driver)


async def _pgqueuer(conn: AsyncConnection) -> Queries:
    """PgQueuer on a connection of its own, where each statement commits by itself."""
    raw = await conn.get_raw_connection()
    driver: Any = raw.driver_connection
    return _queries(driver)


def _queries(driver: Any) -> Queries:
    return Queries(AsyncpgDriver(driver), *_builders())


@functools.cache
def _builders() -> tuple[QueryBuilderEnvironment, QueryQueueBuilder, QuerySchedulerBuilder]:
    """They read the environment and remember the statements that they have built."""
    return QueryBuilderEnvironment(), QueryQueueBuilder(), QuerySchedulerBuilder()


async def _is_free(places: asyncio.Semaphore) -> None:
    async with places:
        return


async def _at_most(seconds: float, event: asyncio.Event) -> None:
    """Wait for `event`, but not longer than this."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


async def _before(stop: asyncio.Event, waiting: Awaitable[Any]) -> bool:
    """Whether `waiting` ended well before `stop` was set; it is cancelled otherwise."""
    task = asyncio.ensure_future(waiting)
    halt = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({task, halt}, return_when=asyncio.FIRST_COMPLETED)
        return task.done() and task.exception() is None
    finally:
        for pending in (task, halt):
            pending.cancel()
        await asyncio.gather(task, halt, return_exceptions=True)
