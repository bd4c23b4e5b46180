"""How long a granted run waits for its first step: `python -m tests.jobs.measure [RUNS]`.

One run at a time, from the commit of the grant in this process to the note that the first
step's body makes in the target, with a worker in another process. Beside it the queue
alone: from the commit to PgQueuer's delivery. `waits` is what `bench/` may call.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

import asyncpg

from approvals.words import RunId
from jobs.engine import Drop, PgQueue, Verdict
from postgres.server import create, find_binaries
from store.connect import connect
from store.upgrade import upgrade
from tests.jobs.nursery import Nursery
from tests.jobs.support import TABLES, Bench, SmallApprovals, Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """Milliseconds per run, sorted."""

    queue: list[float]
    first_step: list[float]


async def waits(bench: Bench, *, runs: int) -> Waits:
    """Measure the queue alone, and a whole start, `runs` times each, one after the other."""
    nursery = Nursery()
    try:
        queue = await _queue_alone(bench, runs)
        nursery.start(bench)
        first_step = [await _whole_start(bench) for _ in range(runs + 5)][5:]
    finally:
        nursery.close()
    return Waits(queue=sorted(queue), first_step=sorted(first_step))


async def _queue_alone(bench: Bench, runs: int) -> list[float]:
    delivered: asyncio.Queue[float] = asyncio.Queue()

    async def handler(run_id: RunId) -> Verdict:
        delivered.put_nowait(time.perf_counter())
        return Drop()

    stop = asyncio.Event()
    consumer = asyncio.create_task(PgQueue(bench.store).consume(handler, stop, places=1))
    waited = []
    for _ in range(runs + 5):
        await bench.grant(Step(name="one"))
        committed = time.perf_counter()
        waited.append((await delivered.get() - committed) * 1000)
    stop.set()
    await consumer
    await bench.fetch("UPDATE runs SET state = 'done'")
    return waited[5:]


async def _whole_start(bench: Bench) -> float:
    run_id = await bench.grant(Step(name="one"), pins={"pin": "blue"})
    committed = time.time()
    await bench.until(run_id, "done")
    assert bench.target is not None
    began = await bench.target.fetchval(
        "SELECT extract(epoch FROM min(at)) FROM work WHERE run = $1", f"run-{run_id}"
    )
    return (float(began) - committed) * 1000


async def measure(runs: int) -> Waits:
    """On a server of its own, with durability as in production."""
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    folder.chmod(0o755)
    server = await create(find_binaries(os.environ), folder / "data")
    await server.start()
    try:
        await upgrade(server.dsn("postgres"))
        target = await asyncpg.connect(server.dsn("template1"))
        await target.execute(TABLES)
        store = connect(server.dsn("postgres"), size=5)
        bench = Bench(
            store=store,
            target_dsn=server.dsn("template1"),
            target=target,
            home=folder / "home",
            approvals=SmallApprovals(store),
        )
        return await waits(bench, runs=runs)
    finally:
        await server.stop("immediate")
        shutil.rmtree(folder)


def _line(name: str, values: list[float]) -> str:
    cuts = quantiles(values, n=100)
    return f"{name:<22} p50 {cuts[49]:6.1f} ms   p99 {cuts[98]:6.1f} ms   n {len(values)}"


if __name__ == "__main__":
    found = asyncio.run(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 200))
    sys.stdout.write(f"{_line('queue alone', found.queue)}\n")
    sys.stdout.write(f"{_line('to the first step', found.first_step)}\n")
