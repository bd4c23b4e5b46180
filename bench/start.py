"""From the deciding vote to the first step of the run, and what the queue alone takes of it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from approvals.service import Approvals, Seen
from approvals.words import RunId
from bench.places import Place, place
from bench.table import Result, percentile
from bench.town import DBAS, Probe, Town, approvals_on, ask_for, ballot, database_of
from bot.app import utc_now
from jobs.engine import Drop, PgQueue, Verdict
from jobs.worker import Worker
from store.connect import Store, connect

RUNS = 150
WARM_UP = 10
WAIT_SECONDS_MAX = 30


async def measure() -> list[Result]:
    """p50 and p99 of both."""
    async with place() as where:
        store = connect(where.store_dsn, size=20)
        try:
            queue = await _queue_alone(store, where)
            whole = await _votes_to_steps(store, where)
        finally:
            await store.close()
    return [
        Result(
            what="deciding vote to first step: p50 / p99",
            ours=f"{percentile(whole, 0.5):.1f} / {percentile(whole, 0.99):.1f} ms",
            floor=f"{percentile(queue, 0.5):.1f} / {percentile(queue, 0.99):.1f} ms",
            ratio=f"{percentile(whole, 0.5) / percentile(queue, 0.5):.1f}",
            aim="p50 < 30 ms",
        )
    ]


async def _votes_to_steps(store: Store, where: Place) -> list[float]:
    probe = Probe()
    approvals = approvals_on(store, where)
    waited: list[float] = []
    async with _working(store, where, approvals, probe):
        for _ in range(RUNS + WARM_UP):
            voted = await _decide(approvals)
            async with asyncio.timeout(WAIT_SECONDS_MAX):
                waited.append((await probe.began.get() - voted) * 1000)
                await _ended(store)
    return waited[WARM_UP:]


async def _queue_alone(store: Store, where: Place) -> list[float]:
    """The same votes, with nothing behind the queue but a look at the clock."""
    approvals = approvals_on(store, where)
    delivered: asyncio.Queue[float] = asyncio.Queue()

    async def handler(run_id: RunId) -> Verdict:
        del run_id
        delivered.put_nowait(time.perf_counter())
        return Drop()

    stop = asyncio.Event()
    consumer = asyncio.create_task(PgQueue(store).consume(handler, stop, places=1))
    waited: list[float] = []
    for _ in range(RUNS + WARM_UP):
        voted = await _decide(approvals)
        async with asyncio.timeout(WAIT_SECONDS_MAX):
            waited.append((await delivered.get() - voted) * 1000)
    stop.set()
    await consumer
    # No worker of the other measurement shall find these.
    conn = await store.direct()
    await conn.execute("UPDATE runs SET state = 'done', ended_at = now()")
    await conn.execute("UPDATE requests SET state = 'cancelled' WHERE state = 'approved'")
    await conn.close()
    return waited[WARM_UP:]


async def _decide(approvals: Approvals) -> float:
    """A request with its two votes; when the deciding one was sent."""
    asked = await approvals.ask(ask_for("backup"))
    assert asked.request is not None, asked.problem
    request = asked.request
    seen = Seen(plan_hash=request.plan_hash, policy_hash=request.policy_hash, step=request.step)
    await approvals.vote(ballot(request.id, DBAS[0], seen))
    sent = time.perf_counter()
    decided = await approvals.vote(ballot(request.id, DBAS[1], seen))
    assert decided.ok, decided.problem
    return sent


async def _ended(store: Store) -> None:
    """Wait until nothing runs, so that the next one does not wait for its target."""
    conn = await store.direct()
    try:
        while await conn.fetchval("SELECT count(*) FROM runs WHERE ended_at IS NULL"):
            await asyncio.sleep(0.002)
    finally:
        await conn.close()


@asynccontextmanager
async def _working(
    store: Store, where: Place, approvals: Approvals, probe: Probe
) -> AsyncIterator[None]:
    worker = Worker(
        store=store,
        approvals=approvals,
        directory=Town(),
        operations={"backup": probe.operation()},
        databases={"orders": database_of(where)},
        home=where.folder / "home",
        clock=utc_now,
    )
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run(stop))
    try:
        yield
    finally:
        stop.set()
        with contextlib.suppress(asyncio.CancelledError):
            await running
