"""What becomes of a step: after success, failure, a crash, too much time, another owner."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import pytest
import sqlalchemy as sa
from pydantic import JsonValue

from approvals.words import RunId
from jobs import runs
from jobs.limits import Limits
from jobs.operation import Attempt, JobError, Mode
from jobs.pulse import Leash
from jobs.runs import Claim, FencedError
from jobs.steps import Ask, AttentionError, Begin, Fail, Return, Steps, Stored, StuckError, decide
from tests.jobs.support import QUICK, Bench, Step, clock

MINUTE = timedelta(minutes=1)


def stored(state: str, *, attempt: int = 1, error: str = "", checkpoint: JsonValue = 7) -> Stored:
    return Stored(state=state, attempt=attempt, checkpoint=checkpoint, result=42, error=error)


@pytest.mark.parametrize(
    ("before", "mode", "attempts", "expected"),
    [
        (None, Mode.ONCE, 1, Begin(1, None)),
        (stored("done"), Mode.ONCE, 1, Return(42)),
        (stored("done"), Mode.RETRYABLE, 1, Return(42)),
        (stored("started"), Mode.RETRYABLE, 1, Begin(2, None)),
        (stored("started"), Mode.RESUMABLE, 1, Begin(2, 7)),
        (stored("started"), Mode.ONCE, 1, Ask()),
        (stored("failed", error="no"), Mode.RETRYABLE, 3, Begin(2, None)),
        (stored("failed", error="no", attempt=3), Mode.RETRYABLE, 3, Fail("no")),
        (stored("failed", error="no"), Mode.ONCE, 9, Fail("no")),
        (stored("failed"), Mode.ONCE, 1, Begin(2, 7)),
    ],
)
def test_what_an_earlier_life_means_for_a_step(
    before: Stored | None, mode: Mode, attempts: int, expected: object
) -> None:
    assert decide(before, mode=mode, attempts=attempts) == expected


async def claimed(bench: Bench, *, worker: str = "me") -> Leash:
    """A run that is ours."""
    run_id = await bench.grant(Step(name="unused"))
    return Leash(await claim(bench, run_id, worker=worker))


async def claim(bench: Bench, run_id: RunId, *, worker: str) -> Claim:
    async with bench.store.begin() as conn:
        mine = await runs.claim(conn, run_id, worker=worker, now=clock())
    assert mine is not None
    return mine


def steps_of(bench: Bench, leash: Leash, limits: Limits = QUICK) -> Steps:
    return Steps(bench.store, leash, limits=limits, clock=clock)


async def test_a_step_returns_what_its_body_returned_and_stores_it(bench: Bench) -> None:
    async def body(attempt: Attempt) -> JsonValue:
        return {"number": attempt.number, "from": attempt.checkpoint}

    leash = await claimed(bench)
    result = await steps_of(bench, leash).step("a", body, mode=Mode.ONCE, time_limit=MINUTE)
    assert result == {"number": 1, "from": None}
    row = (await bench.fetch("SELECT state, attempt, position FROM run_steps"))[0]
    assert tuple(row) == ("done", 1, 1)


async def test_a_done_step_gives_its_result_back_without_running(bench: Bench) -> None:
    async def body(attempt: Attempt) -> JsonValue:
        calls.append(attempt.number)
        return "x"

    calls: list[int] = []
    leash = await claimed(bench)
    for _ in range(2):
        result = await steps_of(bench, leash).step("a", body, mode=Mode.ONCE, time_limit=MINUTE)
        assert result == "x"
    assert calls == [1]


async def test_a_run_that_takes_its_second_life_for_its_first_overwrites_no_step(
    bench: Bench,
) -> None:
    async def body(attempt: Attempt) -> JsonValue:
        calls.append(attempt.number)
        return "x"

    calls: list[int] = []
    leash = await claimed(bench)
    await steps_of(bench, leash).step("a", body, mode=Mode.ONCE, time_limit=MINUTE)
    for state in ("done", "started"):
        await bench.fetch("UPDATE run_steps SET state = $1, epoch = 0", state)
        steps = Steps(bench.store, leash, limits=QUICK, clock=clock, is_first_life=True)
        with pytest.raises(FencedError):
            await steps.step("a", body, mode=Mode.ONCE, time_limit=MINUTE)
    assert calls == [1]


async def test_the_intent_is_stored_before_the_body_begins(bench: Bench) -> None:
    async def body(attempt: Attempt) -> JsonValue:
        return str(await bench.one("SELECT state FROM run_steps"))

    leash = await claimed(bench)
    result = await steps_of(bench, leash).step("a", body, mode=Mode.ONCE, time_limit=MINUTE)
    assert result == "started"


async def test_a_failing_step_is_tried_again_with_growing_pauses(bench: Bench) -> None:
    async def body(attempt: Attempt) -> JsonValue:
        began.append(asyncio.get_running_loop().time())
        if attempt.number < 4:
            raise JobError("not yet", next_step="Wait.")
        return attempt.number

    began: list[float] = []
    limits = replace(QUICK, backoff=timedelta(seconds=0.2))
    leash = await claimed(bench)
    steps = steps_of(bench, leash, limits)
    assert await steps.step("a", body, mode=Mode.RETRYABLE, time_limit=MINUTE, attempts=5) == 4
    gaps = [late - early for early, late in pairwise(began)]
    # Half to all of 0.2, 0.4 and 0.8 s, and what the store takes.
    assert [gap >= least for gap, least in zip(gaps, (0.1, 0.2, 0.4), strict=True)] == [True] * 3


async def test_attempts_end_with_the_last_error(bench: Bench) -> None:
    async def body(attempt: Attempt) -> JsonValue:
        raise JobError(f"attempt {attempt.number}", next_step="Look.")

    leash = await claimed(bench)
    with pytest.raises(JobError, match="attempt 2"):
        await steps_of(bench, leash).step(
            "a", body, mode=Mode.RETRYABLE, time_limit=MINUTE, attempts=2
        )
    with pytest.raises(JobError, match="attempt 2") as again:
        await steps_of(bench, leash).step(
            "a", body, mode=Mode.RETRYABLE, time_limit=MINUTE, attempts=2
        )
    assert again.value.next_step == "Look."


async def test_a_once_step_is_not_tried_again_after_a_failure(bench: Bench) -> None:
    async def body(attempt: Attempt) -> JsonValue:
        calls.append(attempt.number)
        raise JobError("no", next_step="Look.")

    calls: list[int] = []
    leash = await claimed(bench)
    for _ in range(2):
        with pytest.raises(JobError, match="no"):
            await steps_of(bench, leash).step(
                "a", body, mode=Mode.ONCE, time_limit=MINUTE, attempts=9
            )
    assert calls == [1]


async def test_a_step_beyond_its_limit_is_cancelled_and_cleans_up(bench: Bench) -> None:
    async def body(attempt: Attempt) -> JsonValue:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.05)
            cleaned.append(True)
        return None

    cleaned: list[bool] = []
    leash = await claimed(bench)
    with pytest.raises(JobError, match=r"longer than its limit of 0:00:00\.1"):
        await steps_of(bench, leash).step(
            "a", body, mode=Mode.RETRYABLE, time_limit=timedelta(seconds=0.1)
        )
    assert cleaned == [True]


async def test_a_once_step_beyond_its_limit_has_an_unknown_outcome(bench: Bench) -> None:
    async def body(attempt: Attempt) -> JsonValue:
        await asyncio.sleep(60)
        return None

    leash = await claimed(bench)
    for _ in range(2):
        with pytest.raises(AttentionError, match="nobody knows"):
            await steps_of(bench, leash).step(
                "a", body, mode=Mode.ONCE, time_limit=timedelta(seconds=0.1)
            )


async def test_a_body_that_does_not_stop_is_reported_as_stuck(bench: Bench) -> None:
    async def body(attempt: Attempt) -> JsonValue:
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                continue
        return None

    released = asyncio.Event()
    leash = await claimed(bench)
    limits = replace(QUICK, cleanup=timedelta(seconds=0.1))
    with pytest.raises(StuckError, match="may still be at work"):
        await steps_of(bench, leash, limits).step(
            "a", body, mode=Mode.RETRYABLE, time_limit=timedelta(seconds=0.1)
        )
    released.set()


async def test_what_a_cancelled_body_still_finished_is_stored(bench: Bench) -> None:
    async def body(attempt: Attempt) -> JsonValue:
        begun.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "made it"
        return None

    begun = asyncio.Event()
    leash = await claimed(bench)
    steps = steps_of(bench, leash)
    task = asyncio.create_task(steps.step("a", body, mode=Mode.ONCE, time_limit=MINUTE))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await bench.one("SELECT result::text FROM run_steps WHERE state = 'done'") == (
        '"made it"'
    )
    assert steps.in_doubt == set()


@pytest.mark.parametrize("taken", ["epoch = epoch + 1", "worker = 'other'", "state = 'queued'"])
async def test_an_owner_that_was_replaced_writes_nothing(bench: Bench, taken: str) -> None:
    async def body(attempt: Attempt) -> JsonValue:
        async with bench.store.begin() as conn:
            await conn.execute(sa.text(f"UPDATE runs SET {taken}"))
        with pytest.raises(FencedError):
            await attempt.save(1)
        return "done"

    leash = await claimed(bench)
    steps = steps_of(bench, leash)
    with pytest.raises(FencedError):
        await steps.step("a", body, mode=Mode.RETRYABLE, time_limit=MINUTE)
    with pytest.raises(FencedError):
        await steps.step("b", body, mode=Mode.RETRYABLE, time_limit=MINUTE)
    rows = await bench.fetch("SELECT name, state, checkpoint::text FROM run_steps")
    assert [tuple(row) for row in rows] == [("a", "started", "null")]
    with pytest.raises(FencedError):
        async with bench.store.begin() as conn:
            await runs.end(conn, leash.claim, state=runs.RunState.DONE, outcome={}, now=clock())


async def test_no_step_begins_once_the_run_was_told_to_stop(bench: Bench) -> None:
    async def body(attempt: Attempt) -> JsonValue:
        raise AssertionError

    leash = await claimed(bench)
    leash.cancel("Ana")
    with pytest.raises(asyncio.CancelledError):
        await steps_of(bench, leash).step("a", body, mode=Mode.ONCE, time_limit=MINUTE)
    assert await bench.fetch("SELECT * FROM run_steps") == []


async def test_two_steps_of_one_name_are_a_mistake_of_the_operation(bench: Bench) -> None:
    async def body(attempt: Attempt) -> JsonValue:
        return None

    steps = steps_of(bench, await claimed(bench))
    await steps.step("a", body, mode=Mode.ONCE, time_limit=MINUTE)
    with pytest.raises(RuntimeError, match="two steps with the name 'a'"):
        await steps.step("a", body, mode=Mode.ONCE, time_limit=MINUTE)
