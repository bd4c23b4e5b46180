"""The store's primary dies amid the work, or only an answer is lost: nothing twice, or gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from jobs.locks import TargetLock
from jobs.operation import Mode
from sandbox.ha import PairSandbox
from store.connect import connect
from tests.jobs.support import QUICK, Bench, SmallApprovals, Step, eventually, working
from tests.own_store import PairStore, losing, store_on

ENDS = b"SET state = $1, ended_at = $2, outcome"
# It was looked at, put off, and is due again.
WAITS = """
    SELECT count(*) > 0 FROM runs r JOIN pgqueuer q ON q.dedupe_key = 'run-' || r.id
     WHERE r.id = $1 AND r.progress ->> 'waiting' <> '' AND q.status = 'queued'
"""


@pytest.fixture
async def own(pair: PairSandbox) -> AsyncIterator[PairStore]:
    async with store_on(pair) as made:
        yield made


@pytest.fixture
def moved(bench: Bench, own: PairStore) -> Bench:
    """A bench whose store is on the pair."""
    return replace(bench, store=own.store, approvals=SmallApprovals(own.store))


async def test_a_run_outlives_the_failover_of_the_store_and_each_step_happens_once(
    moved: Bench, own: PairStore
) -> None:
    await own.is_synchronous()
    other = own.another()
    beside = replace(moved, store=other, approvals=SmallApprovals(other))
    first = await moved.grant(
        Step(name="one"),
        Step(name="promote", mode=Mode.ONCE, gate="go"),
        Step(name="parts", mode=Mode.RESUMABLE, parts=3),
    )
    async with working(moved.worker()), working(beside.worker()):
        await moved.until_noted("promote begin 0")
        following = await moved.grant(Step(name="next", mode=Mode.ONCE))
        await eventually(lambda: moved.one(WAITS, following))
        await own.lose_the_primary()
        await moved.open("go")
        await moved.until_noted("promote end")  # and nobody there to tell it to
        await own.promote()
        await moved.until(first, "done", seconds=60)
        await moved.until(following, "done", seconds=60)
    noted = await moved.noted()
    assert noted == [
        "one begin 0", "one end", "promote begin 0", "promote end",
        "parts begin 0", "parts end", "next begin 0", "next end",
    ]  # fmt: skip
    for run_id in (first, following):
        assert await moved.request_state(run_id) == "done"
    told = await moved.fetch("SELECT request_id FROM outbox WHERE topic = 'result'")
    assert sorted(row["request_id"] for row in told) == sorted({row["request_id"] for row in told})
    assert len(told) == 2


async def test_a_step_whose_beginning_the_failover_lost_is_not_begun_again(
    moved: Bench, own: PairStore
) -> None:
    """Without a synchronous standby what was acknowledged may be gone: its outcome is kept."""
    run_id = await moved.grant(Step(name="promote", mode=Mode.ONCE, gate="go"), Step(name="then"))
    async with working(moved.worker()):
        await moved.until_noted("promote begin 0")
        # As after a failover that lost it.
        await own.at(own.old, "DELETE FROM run_steps RETURNING name")
        await moved.open("go")
        await moved.until(run_id, "done")
    assert await moved.noted(step="promote") == ["promote begin 0", "promote end"]
    rows = await moved.fetch("SELECT name, mode, state, attempt FROM run_steps ORDER BY position")
    assert [tuple(row) for row in rows] == [
        ("promote", "once", "done", 1), ("then", "retryable", "done", 1),
    ]  # fmt: skip


async def test_a_lock_on_a_primary_that_was_left_behind_is_no_lock(
    own: PairStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.reach.LOOK_SECONDS", 0.2)
    lock = TargetLock(own.store, "orders", name="a")
    assert await lock.acquire()
    guard = asyncio.create_task(
        lock.guard(every=timedelta(seconds=0.05), grace=timedelta(seconds=2))
    )
    await own.promote()  # and the old primary answers on
    thief = TargetLock(own.another(), "orders", name="b")

    async def is_taken() -> bool:
        return await thief.acquire()

    await eventually(is_taken)
    await asyncio.wait_for(guard, 30)  # it could not take it back
    await thief.release()
    await lock.release()


async def test_a_lock_is_taken_again_on_the_new_primary_by_who_holds_it(own: PairStore) -> None:
    lock = TargetLock(own.store, "orders", name="a")
    assert await lock.acquire()
    guard = asyncio.create_task(
        lock.guard(every=timedelta(seconds=0.05), grace=timedelta(seconds=60))
    )
    await own.lose_the_primary()
    await own.promote()

    async def is_held() -> bool:
        return bool(
            await own.at(own.new, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
        )

    await eventually(is_held)
    assert not await TargetLock(own.another(), "orders", name="b").acquire()
    assert not guard.done()
    guard.cancel()
    await asyncio.gather(guard, return_exceptions=True)
    await lock.release()


async def test_no_lock_is_taken_from_a_standby(own: PairStore) -> None:
    """It has advisory locks of its own, which keep nobody out."""
    standby = connect(own.pair.dsn(own.new, own.name))
    await own.at(own.old, "SELECT pg_switch_wal()")

    async def is_there() -> bool:
        return bool(
            await own.pair.says(
                own.new, "SELECT count(*) FROM pg_database WHERE datname = $1", own.name
            )
        )

    await eventually(is_there)
    assert not await TargetLock(standby, "orders", name="a").acquire()
    await standby.close()


async def test_a_body_whose_pulse_is_acknowledged_by_nobody_is_stopped_before_it_is_taken_over(
    moved: Bench, own: PairStore
) -> None:
    """As on an old primary that was parted from its synchronous standby: it answers, no more."""
    limits = replace(
        QUICK,
        stale=timedelta(seconds=4),
        cleanup=timedelta(seconds=1),
        lock_grace=timedelta(seconds=1.5),
    )
    await moved.grant(Step(name="slow", gate="never"))
    async with working(moved.worker(limits)):
        await moved.until_noted("slow begin 0")
        await own.pair.query(own.old, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        await own.pair.query(own.old, "SELECT pg_reload_conf()")
        await moved.until_noted("slow cleaned up")
        await own.pair.query(own.old, "ALTER SYSTEM RESET synchronous_standby_names")
        await own.pair.query(own.old, "SELECT pg_reload_conf()")


async def test_an_end_whose_commit_was_not_heard_of_is_stored_once(
    bench: Bench, tmp_path: Path
) -> None:
    async with losing(bench.store, tmp_path, after=ENDS) as (way, lossy):
        through = replace(bench, store=lossy, approvals=SmallApprovals(lossy))
        run_id = await bench.grant(Step(name="one", mode=Mode.ONCE))
        async with working(through.worker()):
            await bench.until(run_id, "done")
            await asyncio.wait_for(way.lost.wait(), 30)
            later = await bench.grant(Step(name="later"))
            await bench.until(later, "done")
    assert await bench.noted(run_id=run_id) == ["one begin 0", "one end"]
    assert await bench.request_state(run_id) == "done"
    assert await bench.one("SELECT version FROM requests WHERE id = 1") == 3  # begun, and ended
    assert await bench.one(
        "SELECT count(*) FROM outbox WHERE topic = 'result' AND request_id = 1"
    ) == 1  # fmt: skip


@pytest.mark.parametrize("statement", [b"INSERT INTO run_steps", b"SET checkpoint = "])
async def test_a_step_that_was_stored_without_an_answer_goes_on(
    bench: Bench, tmp_path: Path, statement: bytes
) -> None:
    async with losing(bench.store, tmp_path, alone=statement) as (way, lossy):
        through = replace(bench, store=lossy, approvals=SmallApprovals(lossy))
        run_id = await bench.grant(
            Step(name="once", mode=Mode.ONCE), Step(name="parts", mode=Mode.RESUMABLE, parts=3)
        )
        async with working(through.worker()):
            await bench.until(run_id, "done")
        assert way.lost.is_set()
    noted = await bench.noted()
    assert noted == ["once begin 0", "once end", "parts begin 0", "parts end"]


async def test_a_claim_whose_commit_was_not_heard_of_is_carried_out_once(
    bench: Bench, tmp_path: Path
) -> None:
    limits = replace(
        QUICK,
        stale=timedelta(seconds=3),
        cleanup=timedelta(seconds=1),
        lock_grace=timedelta(seconds=1.5),
    )
    async with losing(bench.store, tmp_path, after=b"SET state = 'running'") as (way, lossy):
        through = replace(bench, store=lossy, approvals=SmallApprovals(lossy))
        run_id = await bench.grant(Step(name="one", mode=Mode.ONCE))
        async with working(through.worker(limits)):
            await bench.until(run_id, "done")
        assert way.lost.is_set()
    assert await bench.noted() == ["one begin 0", "one end"]
    assert await bench.one("SELECT version FROM requests WHERE id = 1") == 3
