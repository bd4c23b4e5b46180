"""A run that a person stops, and that brings what it has begun to a safe end by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
from pydantic import JsonValue

from approvals.words import RunId
from jobs import runs
from jobs.operation import Answer, Attempt, Job, JobError, Mode, Plan
from jobs.pulse import Interrupt, Leash
from jobs.recover import Finding, resolve
from jobs.runs import Claim
from jobs.steps import AttentionError
from tests.jobs.nursery import Nursery
from tests.jobs.support import HASTY, QUICK, WORK, Bench, Step, Work, eventually, working

MINUTE = timedelta(minutes=1)
STOPPED = Answer(
    title="Lifted the fault", facts=(("Lifted", "yes"),), numbers={"lifted": 1}, is_stopped=True
)


@dataclass(slots=True)
class Fault:
    """Injects, holds until it is told to lift or to end, and then does what the test says."""

    ends: Callable[[Job], Awaitable[Answer]]
    mode: Mode = Mode.RETRYABLE
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    did: list[str] = field(default_factory=list)
    knew: bool = False  # that somebody wants it to stop, when it began

    async def run(self, job: Job, params: Work, plan: Plan) -> Answer:
        """The body of the operation `work`."""
        del params, plan
        self.knew = job.is_cancelled
        await self.step(job, "inject")
        await self.step(job, "hold", self.held(job), mode=self.mode)
        return await self.ends(job)

    async def step(
        self,
        job: Job,
        name: str,
        body: Callable[[], Awaitable[None]] | None = None,
        *,
        mode: Mode = Mode.RETRYABLE,
    ) -> None:
        """A step that notes its beginning and its end."""

        async def noted(attempt: Attempt) -> JsonValue:
            self.did.append(f"{name} {attempt.number}")
            if body is not None:
                await body()
            self.did.append(f"{name} end")
            return None

        await job.step(name, noted, mode=mode, time_limit=MINUTE)

    def held(self, job: Job) -> Callable[[], Awaitable[None]]:
        """Wait for a person or for the gate."""

        async def body() -> None:
            waits = [asyncio.create_task(job.until_cancelled()), _task(self.gate.wait())]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for each in waits:
                    each.cancel()
            await asyncio.sleep(0)

        return body


def _task(waiting: Any) -> asyncio.Task[Any]:
    return asyncio.ensure_future(waiting)


def orderly(bench: Bench, fault: Fault, *, limit: timedelta = MINUTE) -> None:
    """From here on the bench's workers run this in place of `work`."""
    bench.operations["work"] = replace(WORK, run=fault.run, ends_in_order=True, time_limit=limit)


async def cancel(bench: Bench, run_id: RunId, by: str = "Ana") -> None:
    async with bench.store.begin() as conn:
        assert await runs.request_cancel(conn, run_id, by)


async def begun(fault: Fault, what: str = "hold 1") -> None:
    async def there() -> bool:
        return what in fault.did

    await eventually(there)


async def ended(bench: Bench, run_id: RunId) -> str:
    return await bench.until(run_id, "done", "failed", "cancelled", "needs_attention")


async def lifting(job: Job) -> Answer:
    """Lift in a step that begins after the cancel."""

    async def lift(attempt: Attempt) -> JsonValue:
        return attempt.number

    assert job.is_cancelled
    await job.step("lift", lift, mode=Mode.ONCE, time_limit=MINUTE)
    return STOPPED


async def test_the_body_goes_on_and_what_it_brought_to_an_end_is_kept_and_told(
    bench: Bench,
) -> None:
    fault = Fault(ends=lifting)
    orderly(bench, fault)
    run_id = await bench.grant()
    async with working(bench.worker()):
        await begun(fault)
        await cancel(bench, run_id)
        assert await ended(bench, run_id) == "cancelled"
    assert fault.did == ["inject 1", "inject end", "hold 1", "hold end"]
    steps = await bench.fetch("SELECT name, state FROM run_steps ORDER BY position")
    assert [tuple(row) for row in steps] == [("inject", "done"), ("hold", "done"), ("lift", "done")]
    assert await bench.request_state(run_id) == "failed"
    posted = await bench.one("SELECT payload->'answer' FROM outbox WHERE topic = 'result'")
    assert (posted["lines"], posted["facts"]) == (["Cancelled by Ana."], [["Lifted", "yes"]])
    assert await bench.one("SELECT outcome->>'problem' FROM runs") == "Cancelled by Ana."
    lines = [row["line"] for row in await bench.fetch("SELECT line FROM run_log ORDER BY id")]
    assert lines[-1] == "cancelled: Cancelled by Ana. Lifted the fault"


async def finishing(job: Job) -> Answer:
    assert job.is_cancelled
    return Answer(title="It was over already")


async def failing(job: Job) -> Answer:
    raise JobError(f"{job.cancelled_by} stopped it; the old one is not back.", next_step="Look.")


async def asking(job: Job) -> Answer:
    raise AttentionError("Nobody knows who writes.", next_step=f"Look, {job.cancelled_by}.")


async def breaking(job: Job) -> Answer:
    raise KeyError(job.cancelled_by)


@pytest.mark.parametrize(
    ("ends", "state", "said"),
    [
        (finishing, "done", None),
        (failing, "failed", "Ana stopped it; the old one is not back."),
        (asking, "needs_attention", "Nobody knows who writes."),
        (breaking, "failed", "Something broke in the operation itself"),
    ],
)
async def test_how_it_ends_is_what_its_body_says(
    bench: Bench, ends: Callable[[Job], Awaitable[Answer]], state: str, said: str | None
) -> None:
    fault = Fault(ends=ends)
    orderly(bench, fault)
    run_id = await bench.grant()
    async with working(bench.worker()):
        await begun(fault)
        await cancel(bench, run_id)
        assert await ended(bench, run_id) == state
    problem = await bench.one("SELECT outcome->>'problem' FROM runs")
    assert problem is said if said is None else said in problem


async def test_a_run_cannot_say_that_it_was_stopped_when_nobody_asked(bench: Bench) -> None:
    async def claiming(_: Job) -> Answer:
        return STOPPED

    fault = Fault(ends=claiming)
    fault.gate.set()
    orderly(bench, fault)
    run_id = await bench.grant()
    async with working(bench.worker()):
        assert await ended(bench, run_id) == "failed"


async def test_its_time_limit_still_cuts_it(bench: Bench) -> None:
    async def never(_: Job) -> Answer:
        await asyncio.Event().wait()
        raise AssertionError

    orderly(bench, Fault(ends=never), limit=timedelta(seconds=0.5))
    run_id = await bench.grant()
    await bench.fetch("UPDATE runs SET cancel_by = 'Ana'")
    async with working(bench.worker()):
        assert await ended(bench, run_id) == "failed"
    assert "longer than its limit" in await bench.one("SELECT outcome->>'problem' FROM runs")


async def test_the_next_life_sees_at_once_that_it_was_stopped_in_an_earlier_one(
    bench: Bench, nursery: Nursery
) -> None:
    run_id = await bench.grant(Step(name="inject"), Step(name="hold", gate="never"))
    pid = nursery.start(bench)
    await bench.until_noted("hold begin 0")
    nursery.kill(pid)
    await cancel(bench, run_id)
    fault = Fault(ends=lifting)
    orderly(bench, fault)
    async with working(bench.worker(HASTY)):
        assert await ended(bench, run_id) == "cancelled"
    assert fault.did == ["hold 2", "hold end"]
    assert fault.knew


async def test_a_worker_that_ends_amid_the_orderly_end_leaves_it_to_the_next(
    bench: Bench,
) -> None:
    lifted = asyncio.Event()

    async def slowly(job: Job) -> Answer:
        await fault.step(job, "lift", lambda: asyncio.wait_for(_set(lifted), 60))
        return STOPPED

    fault = Fault(ends=slowly)
    orderly(bench, fault)
    run_id = await bench.grant()
    async with working(bench.worker(replace(QUICK, stop_grace=timedelta(seconds=0.1)))):
        await begun(fault)
        await cancel(bench, run_id)
        await begun(fault, "lift 1")
    assert await bench.state(run_id) == "queued"
    lifted.set()
    async with working(bench.worker()):
        assert await ended(bench, run_id) == "cancelled"
    assert fault.did[-3:] == ["lift 1", "lift 2", "lift end"]


async def _set(event: asyncio.Event) -> None:
    await event.wait()


@pytest.mark.parametrize("finding", [Finding.HAPPENED, Finding.DID_NOT_HAPPEN])
async def test_whoever_says_what_became_of_a_step_does_not_undo_the_stop(
    bench: Bench, finding: Finding
) -> None:
    async def doubting(job: Job) -> Answer:
        if "promote 1" not in fault.did:
            await fault.step(job, "promote", _raise, mode=Mode.ONCE)
        return await lifting(job)

    async def _raise() -> None:
        raise AttentionError("Nobody knows.", next_step="Look.")

    fault = Fault(ends=doubting)
    orderly(bench, fault)
    run_id = await bench.grant()
    worker = bench.worker()
    async with working(worker):
        await begun(fault)
        await cancel(bench, run_id)
        assert await ended(bench, run_id) == "needs_attention"
        assert await resolve(worker.given, run_id, finding, by="Ola")
        assert await bench.until(run_id, "cancelled", "done", "failed") == "cancelled"


@pytest.mark.parametrize("reason", [r for r in Interrupt if r is not Interrupt.CANCELLED])
def test_every_other_reason_pulls_a_leash_that_ends_in_order(reason: Interrupt) -> None:
    leash = Leash(Claim(run_id=RunId(7), epoch=1, worker="me"), ends_in_order=True)
    leash.cancel("Ana")
    leash.cancel("Ben")
    assert (leash.reason, leash.pulled.is_set()) == (None, False)
    assert (leash.cancelled_by, leash.cancelled.is_set()) == ("Ana", True)
    leash.pull(reason)
    assert (leash.reason, leash.pulled.is_set()) == (reason, True)


def test_a_leash_that_does_not_is_pulled_and_remembers_the_first_reason_and_person() -> None:
    leash = Leash(Claim(run_id=RunId(7), epoch=1, worker="me"))
    leash.cancel("Ana")
    leash.cancel("Ben")
    leash.pull(Interrupt.STOPPING)
    assert (leash.reason, leash.cancelled_by) == (Interrupt.CANCELLED, "Ana")
    assert leash.pulled.is_set()
    assert leash.cancelled.is_set()
