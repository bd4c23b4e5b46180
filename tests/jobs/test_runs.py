"""Who may own a run, and for how long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest
import sqlalchemy as sa
from pydantic import JsonValue

from approvals.words import RequestId, RunId
from jobs import runs
from jobs.away import StoreAwayError
from jobs.folders import private_folder
from jobs.limits import Limits
from jobs.locks import SpareSession, TargetLock
from jobs.operation import Answer, Attempt, JobError, Mode
from jobs.outcome import Conclusion, Ended, GiveBack, Silence, conclude
from jobs.pulse import Interrupt, Leash
from jobs.runs import Claim, FencedError
from jobs.steps import AttentionError, Steps, StuckError
from tests.jobs.support import QUICK, Bench, Step, clock, eventually


@pytest.mark.parametrize(
    ("other", "claims"),
    [
        ("state = 'running', started_at = now()", 0),
        ("state = 'needs_attention', started_at = now()", 0),
        ("state = 'queued', started_at = now()", 0),  # begun before its worker died
        ("state = 'queued'", 1),
        ("state = 'done', started_at = now()", 1),
        ("state = 'running', started_at = now(), database = 'users'", 1),
    ],
)
async def test_a_database_belongs_to_the_run_that_was_begun_on_it(
    bench: Bench, other: str, claims: int
) -> None:
    first = await bench.grant(Step(name="one"))
    second = await bench.grant(Step(name="one"))
    await bench.fetch(f"UPDATE runs SET {other} WHERE id = $1", first)
    async with bench.store.begin() as conn:
        mine = await runs.claim(conn, second, worker="me", now=clock())
    assert (mine is not None) == claims


async def test_of_many_claims_at_once_one_holds(bench: Bench) -> None:
    async def claim(worker: str) -> Claim | None:
        async with bench.store.begin() as conn:
            return await runs.claim(conn, run_id, worker=worker, now=clock())

    run_id = await bench.grant(Step(name="one"))
    claims = await asyncio.gather(*[claim(f"worker {number}") for number in range(8)])
    assert len([mine for mine in claims if mine]) == 1


async def test_a_write_waits_for_whoever_takes_the_run_over_and_is_refused_then(
    bench: Bench,
) -> None:
    async def body(attempt: Attempt) -> JsonValue:
        began.append(attempt.number)
        return None

    began: list[int] = []
    run_id = await bench.grant(Step(name="one"))
    async with bench.store.begin() as conn:
        mine = await runs.claim(conn, run_id, worker="me", now=clock())
    assert mine is not None
    steps = Steps(bench.store, Leash(mine), limits=QUICK, clock=clock)
    async with bench.store.begin() as taking:
        await taking.execute(sa.text("UPDATE runs SET epoch = epoch + 1, state = 'queued'"))
        late = asyncio.create_task(
            steps.step("a", body, mode=Mode.ONCE, time_limit=timedelta(minutes=1))
        )

        while not await bench.one(
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'"
        ):
            await asyncio.sleep(0.02)
    with pytest.raises(FencedError):
        await late
    assert began == []


async def test_a_target_lock_has_one_holder_until_it_is_released(bench: Bench) -> None:
    first, second = (TargetLock(bench.store, "orders", name=name) for name in ("a", "b"))
    other = TargetLock(bench.store, "users", name="c")
    assert await first.acquire()
    assert not await second.acquire()
    assert await other.acquire()
    await first.release()
    assert await second.acquire()
    for lock in (second, other):
        await lock.release()


async def test_a_claim_waits_for_a_vote_that_queues_the_run_again_and_neither_deadlocks(
    bench: Bench,
) -> None:
    async def claim() -> Claim | None:
        async with bench.store.begin() as conn:
            return await runs.claim(conn, run_id, worker="me", now=clock())

    run_id = await bench.grant(Step(name="one"))
    async with bench.store.begin() as voting:
        locked = await voting.execute(sa.text("SELECT id FROM requests FOR UPDATE"))
        claiming = asyncio.create_task(claim())
        while not await bench.one(
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'"
        ):
            await asyncio.sleep(0.02)
        again = await bench.queue.enqueue(
            voting,
            request_id=RequestId(locked.scalar_one()),
            database="orders",
            operation="work",
            now=clock(),
        )
    assert again == run_id
    assert await claiming is not None


@asynccontextmanager
async def spare_of(bench: Bench) -> AsyncIterator[tuple[SpareSession, int]]:
    """A spare session that is open, and its server process."""

    async def there() -> int | None:
        pid: int | None = await owner.fetchval(f"{NAMED} AND state = 'idle'", "twokey spare")
        return pid

    owner = await asyncpg.connect(bench.store.dsn.get_secret_value())
    spare = SpareSession(bench.store)
    keeping = asyncio.create_task(spare.keep())
    yield spare, await eventually(there)
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    await owner.close()


NAMED = """
    SELECT pid FROM pg_stat_activity
     WHERE application_name = $1 AND datname = current_database()
"""


async def test_a_lock_is_held_by_the_session_that_was_kept_open_for_it(bench: Bench) -> None:
    async with spare_of(bench) as (spare, pid):
        lock = TargetLock(bench.store, "orders", name="a", spare=spare)
        assert await lock.acquire()
        assert await bench.one(NAMED, "lock:orders:a") == pid
        assert not await TargetLock(bench.store, "orders", name="b").acquire()
        await lock.release()

        async def gone() -> bool:
            return not await bench.fetch("SELECT FROM pg_stat_activity WHERE pid = $1", pid)

        await eventually(gone)


async def test_a_lock_is_taken_also_when_the_session_kept_for_it_has_died(bench: Bench) -> None:
    async with spare_of(bench) as (spare, pid):
        lock = TargetLock(bench.store, "orders", name="a", spare=spare)
        owner = await asyncpg.connect(bench.store.dsn.get_secret_value())
        await owner.execute("SELECT pg_terminate_backend($1)", pid)
        await owner.close()
        assert await lock.acquire()
        assert await bench.one(NAMED, "lock:orders:a") != pid
        await lock.release()


async def test_a_guard_gives_up_when_the_lock_stays_lost_for_its_grace(bench: Bench) -> None:
    lock, thief = (TargetLock(bench.store, "orders", name=name) for name in ("a", "b"))
    assert await lock.acquire()
    loop = asyncio.get_running_loop()
    guard = asyncio.create_task(
        lock.guard(every=timedelta(seconds=0.05), grace=timedelta(seconds=1.5))
    )
    await asyncio.sleep(1.7)
    assert not guard.done()
    lost = loop.time()
    await lock.release()
    assert await thief.acquire()
    await asyncio.wait_for(guard, 30)
    assert loop.time() - lost > 0.5
    await thief.release()


async def test_a_private_folder_goes_with_its_run_also_after_an_error(tmp_path: Path) -> None:
    mine = Claim(run_id=RunId(7), epoch=2, worker="me")
    with pytest.raises(ZeroDivisionError):
        async with private_folder(tmp_path / "runs", mine) as folder:
            (folder / "deep").mkdir()
            assert folder.name == "run-7-2"
            raise ZeroDivisionError
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.parametrize(
    "broken",
    [
        {"concurrency": 0},
        {"lock_grace": timedelta(seconds=50)},
        {"heartbeat": timedelta(seconds=31)},
    ],
)
def test_limits_that_would_let_two_workers_at_one_target_are_refused(
    broken: dict[str, object],
) -> None:
    with pytest.raises(ValueError, match=r"must be|needs room"):
        Limits(**broken)  # type: ignore[arg-type]


SAID = JobError("It failed.", next_step="Look.")
ASKS = AttentionError("Nobody knows.", next_step="Look.")
STUCK = StuckError("It goes on.", next_step="Restart.")
STOPPED = asyncio.CancelledError()


@pytest.mark.parametrize(
    ("result", "reason", "in_doubt", "expected"),
    [
        (Answer(title="Did it"), None, "", "done"),
        (Answer(title="Did it"), Interrupt.CANCELLED, "", "done"),
        (SAID, None, "", "failed"),
        (ValueError("bug"), None, "", "failed"),
        (ValueError("bug"), None, "promote", "needs_attention"),
        (ASKS, None, "promote", "needs_attention"),
        (STOPPED, Interrupt.CANCELLED, "", "cancelled"),
        (SAID, Interrupt.CANCELLED, "", "cancelled"),
        (Answer(title="Ended in order", is_stopped=True), Interrupt.CANCELLED, "", "cancelled"),
        (STOPPED, Interrupt.CANCELLED, "promote", "needs_attention"),
        (STUCK, Interrupt.CANCELLED, "", "needs_attention"),
        (STOPPED, Interrupt.STOPPING, "promote", GiveBack()),
        (STUCK, Interrupt.STOPPING, "", GiveBack()),
        (STOPPED, Interrupt.LOCK_LOST, "", GiveBack()),
        (STUCK, Interrupt.LOCK_LOST, "", "needs_attention"),
        (StoreAwayError("gone"), None, "", GiveBack()),
        (FencedError("not ours"), None, "", Silence()),
        (STOPPED, Interrupt.FENCED, "promote", Silence()),
    ],
)
def test_how_a_run_ends(
    result: Answer | BaseException,
    reason: Interrupt | None,
    in_doubt: str,
    expected: str | Conclusion,
) -> None:
    leash = Leash(Claim(run_id=RunId(7), epoch=1, worker="me"))
    match reason:
        case None:
            pass
        case Interrupt.CANCELLED:
            leash.cancel("Ana")
        case _:
            leash.pull(reason)
    ended = conclude(result, leash=leash, in_doubt=frozenset({in_doubt} - {""}), bug_id="7f3a")
    assert (str(ended.state) if isinstance(ended, Ended) else ended) == expected
    if isinstance(ended, Ended) and ended.state != "done":
        assert ended.outcome["problem"]
        assert ended.outcome["next_step"]
