"""`/db cancel-backend` and `/db terminate-backend`: the very session, or none."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from commands import cancel_backend, terminate_backend
from jobs import ending
from jobs.ending import Signal, signalled
from jobs.operation import JobError, Mode, Plan, Risk
from jobs.pinned import planned, what_moved
from postgres.server import Server
from tests.commands.conftest import Attempt, DirectJob, facts
from tests.commands.sessions import blocked, ended, job_on
from tests.postgres.health.explaining import connected, shop_of

LONG = "SELECT pg_sleep(600), 'secret-text'"
RUNS = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND state = 'active' AND query = $2"


@pytest.fixture(scope="module", params=[17, 15])
def busy(request: pytest.FixtureRequest) -> Iterator[Server]:
    with shop_of(request.param) as made:
        yield made


def to_end(conn: Any) -> terminate_backend.Params:
    return terminate_backend.Params(database="shop", pid=conn.get_server_pid())


def to_cancel(conn: Any) -> cancel_backend.Params:
    return cancel_backend.Params(database="shop", pid=conn.get_server_pid())


async def started(watch: Any, conn: Any, text: str = LONG) -> asyncio.Task[Any]:
    """A statement at work, as the server says."""
    task = asyncio.create_task(conn.execute(text))
    async with asyncio.timeout(30):
        while not await watch.fetchval(RUNS, conn.get_server_pid(), text):
            await asyncio.sleep(0.01)
    return task


async def is_there(watch: Any, conn: Any) -> bool:
    query = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1"
    return bool(await watch.fetchval(query, conn.get_server_pid()))


async def test_a_session_that_holds_up_others_is_ended(busy: Server, tmp_path: Path) -> None:
    async with (
        job_on(busy, tmp_path, user="signaller") as job,
        connected(busy) as watch,
        blocked(busy, waiting=2) as (blocker, _),
    ):
        params = to_end(blocker)
        plan = await planned(terminate_backend.OPERATION, job, params)
        seen = facts(plan)
        assert seen["Who"] == "app (web)"
        assert seen["Holds up"].startswith("2 sessions: ")
        assert seen["Will be rolled back"].startswith("all that its transaction wrote")
        assert seen["Does"].startswith("idle in transaction for ")
        assert "secret" not in str(plan)
        assert await what_moved(terminate_backend.OPERATION, job, params, plan) is None

        answer = await terminate_backend.run(job, params, plan)
        assert answer.title == f"Session {params.pid} is ended"
        assert "2 sessions that waited can go on." in answer.lines
        assert job.steps == [("terminate", Mode.RESUMABLE)]
        assert not await is_there(watch, blocker)
        assert await watch.fetchval("SELECT note FROM orders WHERE id = 1") != "secret-note"


async def test_a_session_that_ended_by_itself_is_nothing_to_do(
    busy: Server, tmp_path: Path
) -> None:
    async with job_on(busy, tmp_path) as job, connected(busy) as watch:
        async with connected(busy, "app") as conn:
            params = to_end(conn)
            plan = await planned(terminate_backend.OPERATION, job, params)
            await ended(watch, [conn])
            async with asyncio.timeout(30):
                while await is_there(watch, conn):
                    await asyncio.sleep(0.01)
        assert await what_moved(terminate_backend.OPERATION, job, params, plan) is None
        answer = await terminate_backend.run(job, params, plan)
        assert "had ended by itself: nothing was done" in answer.title
        with pytest.raises(JobError, match="it has ended"):
            await terminate_backend.plan(job, params)


async def test_another_session_with_the_same_pid_is_never_hit(busy: Server, tmp_path: Path) -> None:
    async with job_on(busy, tmp_path) as job, connected(busy, "app") as conn:
        params = to_end(conn)
        plan = await planned(terminate_backend.OPERATION, job, params)
        # As if the planned one had been an earlier owner of the pid.
        old = replace(plan, pins={**plan.pins, "session": earlier(plan.pins["session"])})
        moved = await what_moved(terminate_backend.OPERATION, job, params, old)
        assert moved is not None
        assert "session was" in moved
        answer = await terminate_backend.run(job, params, old)
        assert "nothing was done" in answer.title
        assert await conn.fetchval("SELECT 1") == 1


def earlier(pin: str) -> str:
    head, since, moment = pin.rpartition("since ")
    at = ending.datetime.fromisoformat(moment) - timedelta(microseconds=1)
    return f"{head}{since}{at.isoformat()}"


async def test_a_statement_is_cancelled_and_its_session_stays(busy: Server, tmp_path: Path) -> None:
    async with (
        job_on(busy, tmp_path, user="signaller") as job,
        connected(busy) as watch,
        connected(busy, "app") as conn,
    ):
        task = await started(watch, conn)
        params = to_cancel(conn)
        plan = await planned(cancel_backend.OPERATION, job, params)
        assert "secret" not in str(plan)
        assert facts(plan)["Will be rolled back"].startswith("nothing")
        answer = await cancel_backend.run(job, params, plan)
        assert answer.title == f"What {params.pid} ran is cancelled"
        with pytest.raises(asyncpg.QueryCanceledError):
            await task
        assert await conn.fetchval("SELECT 1") == 1


async def test_a_later_statement_of_the_session_is_never_cancelled(
    busy: Server, tmp_path: Path
) -> None:
    async with (
        job_on(busy, tmp_path) as job,
        connected(busy) as watch,
        connected(busy, "app") as conn,
    ):
        first = await started(watch, conn)
        params = to_cancel(conn)
        plan = await planned(cancel_backend.OPERATION, job, params)
        await watch.fetch("SELECT pg_cancel_backend($1)", params.pid)
        await asyncio.gather(first, return_exceptions=True)
        # It runs nothing now: nothing to do, and nothing to look at again.
        assert await what_moved(cancel_backend.OPERATION, job, params, plan) is None

        second = await started(watch, conn)
        moved = await what_moved(cancel_backend.OPERATION, job, params, plan)
        assert moved is not None
        assert "statement was" in moved
        answer = await cancel_backend.run(job, params, plan)
        assert "nothing was cancelled" in answer.title
        assert not second.done()
        await ended(watch, [conn])
        await asyncio.gather(second, return_exceptions=True)


async def test_without_the_right_it_says_which_grant(busy: Server, tmp_path: Path) -> None:
    async with connected(busy, "app") as conn, connected(busy) as superuser:
        async with job_on(busy, tmp_path, user="watcher") as job:
            with pytest.raises(JobError) as refusal:
                await terminate_backend.plan(job, to_end(conn))
            assert "GRANT pg_signal_backend TO watcher" in refusal.value.next_step
        async with job_on(busy, tmp_path, user="signaller") as job:
            with pytest.raises(JobError, match="only a superuser may end"):
                await terminate_backend.plan(job, to_end(superuser))
            await terminate_backend.plan(job, to_end(conn))


async def test_a_right_that_was_taken_away_meanwhile_ends_the_run(
    busy: Server, tmp_path: Path
) -> None:
    async with connected(busy, "app") as conn:
        async with job_on(busy, tmp_path) as job:
            plan = await terminate_backend.plan(job, to_end(conn))
        async with job_on(busy, tmp_path, user="watcher") as job:
            with pytest.raises(JobError, match="may not end session"):
                await terminate_backend.run(job, to_end(conn), plan)
        assert await conn.fetchval("SELECT 1") == 1


async def test_our_own_and_the_servers_own_processes_are_refused(
    busy: Server, tmp_path: Path
) -> None:
    async with (
        job_on(busy, tmp_path) as job,
        connected(busy, application_name="twokey-monitor") as ours,
        connected(busy, "app", application_name="twokey-monitor") as theirs,
    ):
        with pytest.raises(JobError, match="Twokey itself"):
            await terminate_backend.plan(job, to_end(ours))
        await terminate_backend.plan(job, to_end(theirs))  # a name that anybody may take
        pid = await ours.fetchval(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'"
        )
        with pytest.raises(JobError, match=r"the server itself \(checkpointer\)"):
            await terminate_backend.plan(job, terminate_backend.Params(database="shop", pid=pid))


async def test_a_run_that_died_after_the_signal_says_that_it_was_sent(
    busy: Server, tmp_path: Path
) -> None:
    async with job_on(busy, tmp_path) as job, connected(busy, "app") as conn:
        plan = await terminate_backend.plan(job, to_end(conn))
        first = Attempt()
        await once(job, first, conn, plan)
        assert first.checkpoint == "sending"
        again = await once(job, Attempt(number=2, checkpoint="sending"), conn, plan)
        assert ending.outcome_of(again).sent
        nothing = await once(job, Attempt(), conn, plan)
        assert not ending.outcome_of(nothing).sent


async def once(job: DirectJob, attempt: Attempt, conn: Any, plan: Plan) -> Any:
    return await signalled(job, attempt, conn.get_server_pid(), Signal.TERMINATE, plan)


async def test_a_session_that_does_not_end_is_told_of(
    busy: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ending, "GONE_WITHIN", timedelta(milliseconds=300))
    async with job_on(busy, tmp_path) as job, connected(busy, "app") as conn:
        params = to_end(conn)
        plan = await terminate_backend.plan(job, params)
        os.kill(params.pid, signal.SIGSTOP)  # as if it hung in the kernel
        try:
            with pytest.raises(JobError, match="has not within") as refusal:
                await terminate_backend.run(job, params, plan)
        finally:
            os.kill(params.pid, signal.SIGCONT)
        assert "Never kill -9" in refusal.value.next_step


def test_the_risks() -> None:
    assert cancel_backend.OPERATION.risk is Risk.RECOVERABLE
    assert terminate_backend.OPERATION.risk is Risk.DISRUPTIVE
