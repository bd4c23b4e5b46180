"""From a delivery to an end: look, lock, check, claim, run, and store what came of it."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final, assert_never

from sqlalchemy.ext.asyncio import AsyncConnection

from approvals.words import RunId
from jobs import attention, claims, runs
from jobs.away import StoreAwayError, is_away, patiently
from jobs.claims import Call, PutOffError
from jobs.engine import Drop, Start, Verdict
from jobs.folders import private_folder
from jobs.grants import Grant
from jobs.job import LiveJob
from jobs.limits import Limits
from jobs.locks import SpareSession, TargetLock
from jobs.operation import Answer
from jobs.outcome import Conclusion, Ended, GiveBack, Silence, conclude, is_bug
from jobs.progress import Progress
from jobs.pulse import Interrupt, Leash, Pulse
from jobs.runs import Claim, FencedError, Run, RunState
from jobs.steps import Steps, StuckError
from jobs.surroundings import Surroundings
from store import outbox

log: Final = logging.getLogger("twokey.jobs")


class Runner:
    """Takes deliveries and runs what they name."""

    def __init__(
        self, given: Surroundings, pulse: Pulse, *, spare: SpareSession | None = None
    ) -> None:
        self._given = given
        self._pulse = pulse
        self._spare = spare

    async def deliver(self, run_id: RunId) -> Verdict:
        """Look at a run: nothing to do, later, or the body of a run that is ours now."""
        given = self._given
        run, held_by = await runs.look_with_holder(given.store, run_id)
        if run is None or run.state is not RunState.QUEUED:
            return Drop()
        lock = TargetLock(given.store, run.database, name=given.worker, spare=self._spare)
        verdict: Verdict = Drop()
        try:
            verdict = await self._consider(run, lock, held_by)
        finally:
            if not isinstance(verdict, Start):
                await lock.release()
        return verdict

    async def _consider(self, run: Run, lock: TargetLock, held_by: Run | None) -> Verdict:
        given = self._given
        grant, is_ours = await self._load_and_lock(run, None if held_by else lock)
        if grant is None:
            return Drop()
        if held_by is not None:
            return await claims.put_off(given, run, grant, claims.busy(held_by))
        if not is_ours:
            return await claims.put_off(given, run, grant, claims.locked(run.database))
        try:
            return await self._claim(run, grant, lock)
        except PutOffError as later:
            return await claims.put_off(given, run, grant, later)
        except claims.UnfitError as unfit:
            await claims.give_up(given, run, grant, unfit.problem)
            return Drop()

    async def _load_and_lock(self, run: Run, lock: TargetLock | None) -> tuple[Grant | None, bool]:
        """The request, and whether the lock was free; side by side, as each takes a while."""
        acquiring = asyncio.create_task(lock.acquire()) if lock and _needs_lock(run) else None
        try:
            grant = await self._given.approvals.load(run.request_id)
            return grant, acquiring is None or await acquiring
        finally:
            if acquiring is not None and not acquiring.done():
                acquiring.cancel()
                await asyncio.gather(acquiring, return_exceptions=True)

    async def _claim(self, run: Run, grant: Grant, lock: TargetLock) -> Verdict:
        call = await claims.led(self._given, claims.call_of(self._given, run, grant))
        mine = await claims.claim(self._given, run, grant, call)
        if mine is None:
            return Drop()

        async def body() -> None:
            try:
                await self._live(run, grant, call, mine, lock)
            finally:
                await lock.release()
                await self._free(run)

        return Start(body)

    async def _live(
        self, run: Run, grant: Grant, call: Call, mine: Claim, lock: TargetLock
    ) -> None:
        """One life of a run: its body, and the storing of its end."""
        leash = Leash(mine, ends_in_order=call.operation.ends_in_order)
        if run.cancel_by:
            leash.cancel(run.cancel_by)
        with self._pulse.holding(leash):
            async with _guarded(lock, leash, self._given.limits, needed=_needs_lock(run)):
                conclusion = await self._perform(run, grant, call, leash)
                try:
                    await self._conclude(run, grant, leash, conclusion)
                except FencedError:
                    log.warning("Run %d has another owner; its outcome was not stored.", run.id)
                except StoreAwayError as error:
                    log.warning("Run %d is left to be recovered: %s", run.id, error)

    async def _perform(self, run: Run, grant: Grant, call: Call, leash: Leash) -> Conclusion:
        given = self._given
        steps = Steps(
            given.store,
            leash,
            limits=given.limits,
            clock=given.clock,
            is_first_life=not run.begun,
        )
        progress = Progress(
            given.store,
            leash.claim,
            request_id=run.request_id,
            channel=grant.channel,
            every=given.limits.report,
            clock=given.clock,
        )
        result: Answer | BaseException
        try:
            async with private_folder(given.home, leash.claim) as folder, _kept(progress):
                job = LiveJob(
                    target=call.database,
                    readers=given.readers,
                    store=given.store,
                    clock=given.clock,
                    in_force=given.policies,
                    databases=given.databases,
                    folder=folder,
                    request_id=run.request_id,
                    run_key=f"run-{run.id}",
                    steps=steps,
                    progress=progress,
                    leash=leash,
                )
                result = await self._run(call, job, leash)
        except asyncio.CancelledError as stopped:
            if leash.reason is None:
                raise  # not the body was cancelled, but we
            result = stopped
        except Exception as error:  # noqa: BLE001 - the runner's edge: every end is stored
            result = error
        bug_id = uuid.uuid4().hex[:8]
        if isinstance(result, BaseException) and is_bug(result, leash):
            log.error("Run %d broke (id %s).", run.id, bug_id, exc_info=result)
        return conclude(result, leash=leash, in_doubt=frozenset(steps.in_doubt), bug_id=bug_id)

    async def _run(self, call: Call, job: LiveJob, leash: Leash) -> Answer:
        """What the operation answers, unless it is stopped: its clean-up has a limit too."""
        limits = self._given.limits
        task = asyncio.ensure_future(call.run(job, call.params, call.plan))
        pulled = asyncio.create_task(leash.pulled.wait())
        try:
            await asyncio.wait(
                {task, pulled},
                timeout=call.operation.time_limit.total_seconds(),
                return_when=asyncio.FIRST_COMPLETED,
            )
            if not task.done():
                task.cancel()
                # The body's own limit, and then the storing of what it still finished.
                await asyncio.wait({task}, timeout=2 * limits.cleanup.total_seconds())
        except asyncio.CancelledError:
            leash.pull(Interrupt.STOPPING)
            task.cancel()
            await asyncio.wait({task}, timeout=limits.cleanup.total_seconds())
            raise
        finally:
            pulled.cancel()
        if not task.done():
            raise StuckError(
                "The run was told to stop and did not, so it may still be at work.",
                next_step="Restart this worker, and look at what the run was doing.",
            )
        if task.cancelled() and leash.reason is None:
            raise claims.too_long(call.operation.time_limit)
        answer = task.result()
        if answer.is_stopped and not leash.cancelled_by:
            raise RuntimeError("The operation says that it was stopped, and nobody asked for that.")
        return answer

    async def _conclude(self, run: Run, grant: Grant, leash: Leash, conclusion: Conclusion) -> None:
        limits = self._given.limits

        def patience() -> timedelta:
            return limits.cleanup if leash.pulled.is_set() else limits.patience

        async def once() -> None:
            async with self._given.store.begin() as conn:
                match conclusion:
                    case Ended():
                        await self._end(conn, run, grant, leash.claim, conclusion)
                    case GiveBack():
                        if await runs.put_back(conn, leash.claim):
                            await self._given.queue.redeliver(conn, [run.id])
                    case Silence():
                        pass
                    case _:
                        assert_never(conclusion)

        await patiently(once, patience=patience, what=f"store the end of run {run.id}")

    async def _end(
        self, conn: AsyncConnection, run: Run, grant: Grant, mine: Claim, ended: Ended
    ) -> None:
        """Run, request, audit and what people are told, together."""
        now = self._given.clock()
        await runs.end(conn, mine, state=ended.state, outcome=ended.outcome, now=now)
        await runs.write_line(conn, run.id, f"{ended.state}: {ended.summary}", now=now)
        if ended.state is not RunState.NEEDS_ATTENTION:
            ruling = await self._given.approvals.finish(
                conn,
                run.request_id,
                ok=ended.state is RunState.DONE,
                summary=ended.summary,
                numbers=ended.numbers,
            )
            if not ruling.ok:
                log.error("Request %d did not end with its run: %s", run.request_id, ruling.problem)
        await outbox.post(
            conn,
            topic="result",
            request_id=run.request_id,
            channel=grant.channel,
            payload=ended.outcome,
            now=now,
        )
        if ended.state is RunState.NEEDS_ATTENTION:
            await attention.note(
                conn, run, worker=self._given.worker, problem=ended.summary, now=now
            )

    async def _free(self, run: Run) -> None:
        """Have the next run of this database looked at now instead of soon."""
        try:
            async with self._given.store.begin() as conn:
                following = await runs.next_of(conn, run.database)
                if following is not None:
                    await self._given.queue.hurry(conn, following)
        except Exception as error:
            if not is_away(error):
                raise


def _needs_lock(run: Run) -> bool:
    """One beside others must not even take the lock to guard it: it would hold them up."""
    return bool(run.database) and not run.is_beside


@asynccontextmanager
async def _kept(progress: Progress) -> AsyncIterator[None]:
    """Store progress within the block, and its last word at the end."""
    task = asyncio.create_task(progress.keep())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await progress.flush()


@asynccontextmanager
async def _guarded(
    lock: TargetLock, leash: Leash, limits: Limits, *, needed: bool
) -> AsyncIterator[None]:
    """Pull the leash when the lock is lost for longer than its grace."""

    async def watch() -> None:
        try:
            await lock.guard(every=limits.lock_ping, grace=limits.lock_grace)
        finally:
            leash.pull(Interrupt.LOCK_LOST)

    task = asyncio.create_task(watch()) if needed else None
    try:
        yield
    finally:
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
