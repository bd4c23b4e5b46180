"""Workers and the store are killed at any moment; nothing is lost and nothing doubled."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import asyncpg
import pytest
import sqlalchemy as sa

from approvals.words import RunId
from jobs import recover
from jobs.operation import Mode
from postgres.server import Server, create, find_binaries
from store.connect import connect
from store.upgrade import upgrade
from tests.jobs.nursery import Nursery
from tests.jobs.support import HASTY, QUICK, Bench, SmallApprovals, Step, eventually, working

pytestmark = pytest.mark.chaos


async def test_a_killed_worker_s_run_goes_on_at_the_step_that_was_cut(
    bench: Bench, nursery: Nursery
) -> None:
    run_id = await bench.grant(Step(name="one"), Step(name="two", gate="go"))
    pid = nursery.start(bench)
    await bench.until_noted("two begin 0")
    nursery.kill(pid)
    await bench.open("go")
    async with working(bench.worker(HASTY)):
        await bench.until(run_id, "done")
    assert await bench.noted() == [
        "one begin 0",
        "one end",
        "two begin 0",
        "two begin 0",
        "two end",
    ]
    assert await bench.request_state(run_id) == "done"
    assert list((bench.home / "runs").iterdir()) == []


async def test_a_resumable_step_goes_on_from_its_last_checkpoint(
    bench: Bench, nursery: Nursery
) -> None:
    run_id = await bench.grant(
        Step(name="big", mode=Mode.RESUMABLE, seconds=0.2, parts=5, gate="go")
    )
    pid = nursery.start(bench)

    async def saved() -> bool:
        rows = await bench.fetch("SELECT checkpoint::text FROM run_steps")
        return bool(rows) and rows[0]["checkpoint"] in {"2", "3", "4", "5"}

    await eventually(saved)
    nursery.kill(pid)
    await bench.open("go")
    async with working(bench.worker(HASTY)):
        await bench.until(run_id, "done")
    first, again, end = await bench.noted()
    assert (first, end) == ("big begin 0", "big end")
    assert again in {f"big begin {saved}" for saved in range(2, 6)}


async def test_a_once_step_that_was_cut_is_never_begun_again(
    bench: Bench, nursery: Nursery
) -> None:
    run_id = await bench.grant(Step(name="promote", mode=Mode.ONCE, gate="never"))
    pid = nursery.start(bench)
    await bench.until_noted("promote begin 0")
    nursery.kill(pid)
    async with working(bench.worker(HASTY)):
        await bench.until(run_id, "needs_attention")
    assert await bench.noted() == ["promote begin 0"]
    assert await bench.request_state(run_id) == "executing"
    assert "nobody knows" in await bench.one("SELECT outcome->>'problem' FROM runs")


async def test_death_before_any_statement_of_a_run_loses_nothing_and_doubles_no_once_step(
    bench: Bench, nursery: Nursery
) -> None:
    """Of these workers each dies one statement later than the one before."""
    bench.names = tuple(f"db{number}" for number in range(1, 65))
    granted: list[RunId] = []
    for first in range(0, len(bench.names), 8):
        granted += [
            await bench.grant(
                Step(name="once", mode=Mode.ONCE),
                Step(name="parts", mode=Mode.RESUMABLE, parts=2),
                database=name,
            )
            for name in bench.names[first : first + 8]
        ]
        pids = [nursery.start(bench, die_at=first + nth) for nth in range(1, 9)]
        await eventually(partial(_dead_or_idle, bench, pids))
        survivors = [pid for pid in pids if _alive(pid)]
        for pid in survivors:
            nursery.kill(pid)
        if len(survivors) > 4:
            break
    assert survivors, "a run has more statements than there were workers"
    async with working(bench.worker(replace(HASTY, concurrency=8))):
        states = [await bench.until(run_id, "done", "needs_attention") for run_id in granted]
    assert "needs_attention" in states
    for run_id, state in zip(granted, states, strict=True):
        noted = await bench.noted(run_id=run_id)
        assert noted.count("once begin 0") <= 1, (run_id, noted)
        assert (state == "done") == ("parts end" in noted), (run_id, state, noted)
        assert "overlap overlap" not in noted
        assert await bench.request_state(run_id) == ("done" if state == "done" else "executing")


async def test_a_paused_worker_that_wakes_up_is_fenced_and_its_step_stopped(
    bench: Bench, nursery: Nursery
) -> None:
    run_id = await bench.grant(Step(name="slow", seconds=3), Step(name="promote", mode=Mode.ONCE))
    pid = nursery.start(bench)
    await bench.until_noted("slow begin 0")
    await _pause_between_transactions(bench, nursery, pid)
    async with working(bench.worker(HASTY)):

        async def waits_for_the_lock() -> bool:
            return "holds the lock" in (
                await bench.one("SELECT progress ->> 'waiting' FROM runs") or ""
            )

        await eventually(waits_for_the_lock)
        assert await bench.noted() == ["slow begin 0"]
        nursery.kill(pid, signal.SIGCONT)
        await bench.until(run_id, "done")
        nursery.kill(pid)
    # The woken body is stopped; had its time run out meanwhile, its end counts for nothing.
    first, woken, *rest = await bench.noted()
    assert first == "slow begin 0"
    assert woken in {"slow cleaned up", "slow end"}
    assert rest == ["slow begin 0", "slow end", "promote begin 0", "promote end"]


async def test_many_workers_and_deaths_many_runs_few_databases(
    bench: Bench, nursery: Nursery
) -> None:
    """No two runs of a database overlap, every run ends, and no once step begins twice."""
    pids = [nursery.start(bench) for _ in range(3)]
    granted = [
        await bench.grant(
            Step(name="work", seconds=0.01),
            Step(name="once", mode=Mode.ONCE),
            database=bench.names[number % 3],
        )
        for number in range(24)
    ]

    for share in (5, 12):
        await eventually(partial(_at_least, bench, share))
        nursery.kill(pids.pop(0))
        pids.append(nursery.start(bench))
    async with working(bench.worker(HASTY)):
        for run_id in granted:
            await _ended_by_somebody(bench, run_id)
    for pid in pids:
        nursery.kill(pid)
    noted = await bench.noted()
    assert noted.count("overlap overlap") == 0
    for run_id in granted:
        once = await bench.noted(step="once", run_id=run_id)
        assert once.count("once begin 0") <= 1
        assert await bench.state(run_id) in {"done", "failed"}


async def test_two_deliveries_to_two_workers_are_one_run(bench: Bench) -> None:
    run_id = await bench.grant(Step(name="one", seconds=0.3))
    async with bench.store.begin() as conn:
        await conn.execute(
            sa.text(
                "INSERT INTO pgqueuer (priority, status, entrypoint, payload)"
                " SELECT 0, 'queued', 'run', payload FROM pgqueuer, generate_series(1, 5)"
            )
        )
    async with working(bench.worker()), working(bench.worker()):
        await bench.until(run_id, "done")

        async def all_settled() -> bool:
            return await bench.one("SELECT count(*) FROM pgqueuer") == 0

        await eventually(all_settled)
    assert await bench.noted() == ["one begin 0", "one end"]
    assert await bench.one("SELECT count(*) FROM run_steps") == 1


async def test_a_run_whose_delivery_was_lost_is_delivered_again(bench: Bench) -> None:
    run_id = await bench.grant(Step(name="one"))
    await bench.fetch("DELETE FROM pgqueuer")
    worker = bench.worker()
    found = await recover.look(worker.given)
    assert found.undelivered == [run_id]
    async with working(worker):
        await bench.until(run_id, "done")
    assert (await recover.look(worker.given)).undelivered == []


async def test_folders_of_dead_runs_are_removed(bench: Bench, nursery: Nursery) -> None:
    run_id = await bench.grant(Step(name="slow", gate="never"))
    pid = nursery.start(bench)
    await bench.until_noted("slow begin 0")
    nursery.kill(pid)
    left = bench.home / "runs" / f"run-{run_id}-1"
    assert left.is_dir()
    async with working(bench.worker(HASTY)):

        async def removed() -> bool:
            return not left.exists()

        await eventually(removed)


async def test_the_store_goes_down_amid_a_step_and_the_run_ends_well(
    bench: Bench,
) -> None:
    """The step ends while the store is away; its outcome is kept and stored afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    server = await _own_server(folder)
    try:
        own = connect(server.dsn("postgres"), size=5)
        bench = replace(bench, store=own, approvals=SmallApprovals(own))
        limits = replace(
            QUICK,
            lock_grace=timedelta(seconds=60),
            stale=timedelta(seconds=90),
        )
        run_id = await bench.grant(Step(name="slow", seconds=0.8), Step(name="then"))
        async with working(bench.worker(limits)):
            await bench.until_noted("slow begin 0")
            await server.stop("immediate")
            await bench.until_noted("slow end")
            await asyncio.sleep(1)  # the outage goes on for longer than the step
            await server.start()
            await bench.until(run_id, "done")
            # The worker lives: it takes new runs, also by notification.
            later = await bench.grant(Step(name="later"))
            await bench.until(later, "done")
        assert await bench.noted() == [
            "slow begin 0",
            "slow end",
            "then begin 0",
            "then end",
            "later begin 0",
            "later end",
        ]
        await own.close()
    finally:
        await server.stop("immediate")
        shutil.rmtree(folder)


async def _pause_between_transactions(bench: Bench, nursery: Nursery, pid: int) -> None:
    """Pause a worker while it holds no row, as the store would free that only after a minute."""
    admin = await asyncpg.connect(bench.store.dsn.get_secret_value())

    async def paused() -> bool:
        nursery.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(0.1)  # what it has sent is answered
        held = await admin.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND state <> 'idle' AND pid <> pg_backend_pid()"
        )
        if held:
            nursery.kill(pid, signal.SIGCONT)
        return not held

    await eventually(paused)
    await admin.close()


async def _own_server(folder: Path) -> Server:
    folder.chmod(0o755)  # the server may run as another user
    server = await create(find_binaries(os.environ), folder / "data")
    await server.start()
    await upgrade(server.dsn("postgres"))
    return server


async def _ended_by_somebody(bench: Bench, run_id: RunId) -> None:
    """A run that stopped at a `once` step is ended by a person, so that others can follow."""
    state = await bench.until(run_id, "done", "failed", "needs_attention")
    if state == "needs_attention":
        given = bench.worker().given
        await recover.resolve(given, run_id, recover.Finding.ABORT, by="Ola")
        await bench.until(run_id, "failed")


async def _at_least(bench: Bench, share: int) -> bool:
    ended = await bench.one("SELECT count(*) FROM runs WHERE state IN ('done', 'failed')")
    return bool(ended >= share)


async def _dead_or_idle(bench: Bench, pids: list[int]) -> bool:
    """Whether each of these workers is dead or has nothing left to do."""
    for _ in range(3):  # between delivery and claim nobody seems to be at work
        alive = [pid for pid in pids if _alive(pid)]
        if not alive:
            return True
        at_work = await bench.fetch("SELECT worker FROM runs WHERE state = 'running'")
        busy = {row["worker"].split("-")[-2] for row in at_work}
        waiting = await bench.one("SELECT count(*) FROM pgqueuer WHERE status = 'queued'")
        if waiting or busy & {str(pid) for pid in alive}:
            return False
        await asyncio.sleep(0.4)
    return True


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
