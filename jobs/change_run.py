"""A phase of a declared change, carried out.

What is done stands in the target: a short step leaves its mark in its own transaction, rows are
filled under a ledger that commits with each batch, and whatever runs alone looks first at what is
there. So each step may be repeated, and a second life of the run goes on with the steps that the
first has begun with.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final, assert_never

from pydantic import JsonValue

from jobs.change_aside import keeping
from jobs.change_files import load_change
from jobs.change_look import allowed, look
from jobs.change_words import way_back
from jobs.changing import fill_limits, fill_spec, suggestions, target_of
from jobs.index_run import explained, telling
from jobs.kept_aside import enter_kept, prepare_aside
from jobs.operation import Answer, Attempt, Job, JobError, Mode, Plan
from jobs.text import span_text
from jobs.watch_after import picture_of, watch_after
from postgres.connect import connection
from postgres.dsn import Target, parse_dsn
from postgres.migrate.apply_alone import apply_alone
from postgres.migrate.apply_short import apply_short
from postgres.migrate.apply_words import ApplyLimits
from postgres.migrate.aside_words import Kept
from postgres.migrate.backfill.engine import run_backfill
from postgres.migrate.changes.compile import FILLING
from postgres.migrate.changes.ledger import ensure_marks, read_marks
from postgres.migrate.changes.machine import Phase, State
from postgres.migrate.changes.steps import (
    Alone,
    Check,
    Compare,
    Fill,
    Mark,
    Short,
    Step,
    forget_tokens_sql,
    from_json,
    mark_sql,
    to_json,
    token,
)
from postgres.migrate.changes.verify import CompareLimits, check, compare, compared_of
from postgres.migrate.changes.words import Change
from store.change_phases import PhaseRow, record_phase

RUN_LIMIT: Final = timedelta(hours=48)
LOOK_LIMIT: Final = timedelta(minutes=2)
SHORT_LIMIT: Final = timedelta(minutes=15)
COMPARE_LIMIT: Final = timedelta(hours=24)
CHECK_LIMIT: Final = timedelta(minutes=10)
ATTEMPTS: Final = 3
_PAUSE_LOOK_SECONDS: Final = 0.5
COPY_LIMIT: Final = timedelta(seconds=30)
COMPARING: Final = CompareLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One life of a run of a phase."""

    job: Job
    change: Change
    phase: Phase
    target: Target

    @property
    def limits(self) -> ApplyLimits:
        """As the inventory says."""
        settings = self.job.database.migrations
        limits = ApplyLimits(lock=settings.lock_timeout, tries=settings.lock_tries)
        # The last phase copies what it keeps aside: the plan says how long that may take.
        return replace(limits, additive=COPY_LIMIT) if self.phase is Phase.CONTRACT else limits


async def run_phase(job: Job, name: str, phase: Phase, plan: Plan) -> Answer:
    """Carry a phase out, as it was agreed to.

    Raises:
        JobError: something is not as it was planned, or a step failed. What was done is marked;
            asked for again, the phase goes on from there.
    """
    begun = await _begin(job, name, phase, plan)
    with explained():
        change = await load_change(job.database, name)
    if change.sha256 != begun["sha256"]:
        raise JobError(
            f"{change.file} is no longer the file that was agreed to. No further step was taken.",
            next_step="Put it back as it was, and ask for the phase again.",
        )
    work = Work(job=job, change=change, phase=phase, target=target_of(job.database))
    kept = [Kept.from_json(each) for each in begun["kept"]]
    await _prepare(work, kept)
    found: dict[str, Any] = {}
    steps = from_json(begun["steps"])
    for number, step in enumerate(steps, start=1):
        await _unpaused(job)
        result = await _step(work, step, f"{number}. {step.name}")
        found |= result if isinstance(result, dict) else {}
    await _record(work, found, kept)
    await watch_after(
        job, f"{name} {phase}", before=begun.get("before"), undo=_undo(job, name, phase)
    )
    return _answer(work, State(begun["after"]), found)


def _undo(job: Job, name: str, phase: Phase) -> Mapping[str, Any]:
    """What takes the phase back; the last, and the way back itself, nothing does."""
    if phase in {Phase.CONTRACT, Phase.BACK}:
        return {}
    params = {"database": job.database.name, "change": name, "phase": str(Phase.BACK)}
    return {"operation": "change", "params": params}


async def _begin(job: Job, name: str, phase: Phase, plan: Plan) -> Mapping[str, Any]:
    """Which steps: those that the plan showed, looked up once, whatever they change."""

    async def body(_: Attempt) -> JsonValue:
        with explained():
            outlook = await look(job, name)
            after = await allowed(job, outlook, phase)
            aside = await keeping(job, outlook, phase)
        steps = aside.steps
        if outlook.statements(steps) != tuple(plan.statements):
            raise JobError(
                "The table is not as it was when this was agreed to. Nothing was changed.",
                next_step="Ask for the phase again, and look at what has changed.",
            )
        return {
            "sha256": outlook.change.sha256,
            "after": str(after),
            "steps": to_json(steps),
            "kept": [each.to_json() for each in aside.kept],
            "before": dict(await picture_of(job)),
        }

    found = await job.step(
        "look", body, mode=Mode.RETRYABLE, time_limit=LOOK_LIMIT, attempts=ATTEMPTS
    )
    return found if isinstance(found, dict) else {}


async def _prepare(work: Work, kept: Sequence[Kept]) -> None:
    """Have the table of marks, without what earlier runs have left there, and say that we begin."""
    job, change = work.job, work.change

    async def body(_: Attempt) -> JsonValue:
        with explained():
            async with connection(work.target) as conn:
                await ensure_marks(conn)
                await conn.execute(forget_tokens_sql(change.name, job.run_key))
            if kept:
                await prepare_aside(job.database)
        await _store(work, {"state": "begun"})
        return None

    await job.step("prepare", body, mode=Mode.RETRYABLE, time_limit=LOOK_LIMIT, attempts=ATTEMPTS)


async def _step(work: Work, step: Step, name: str) -> JsonValue:
    async def body(attempt: Attempt) -> JsonValue:
        with explained():
            return await _do(work, step, attempt)

    match step:
        case Short():
            mode, limit, attempts = Mode.RETRYABLE, SHORT_LIMIT, ATTEMPTS
        case Alone():
            mode, limit, attempts = Mode.RETRYABLE, work.limits.alone, 1
        case Fill():
            mode, limit, attempts = Mode.RESUMABLE, RUN_LIMIT, 1
        case Compare():
            mode, limit, attempts = Mode.RESUMABLE, COMPARE_LIMIT, 1
        case Check():
            mode, limit, attempts = Mode.RETRYABLE, CHECK_LIMIT + LOOK_LIMIT, 1
        case _:
            assert_never(step)
    return await work.job.step(name, body, mode=mode, time_limit=limit, attempts=attempts)


async def _do(work: Work, step: Step, attempt: Attempt) -> JsonValue:
    match step:
        case Short():
            return await _short(work, step)
        case Alone():
            return await _alone(work, step)
        case Fill():
            return await _fill(work, step)
        case Compare():
            return await _compare(work, step, attempt)
        case Check():
            await check(work.target, step, limit=CHECK_LIMIT)
            return None
        case _:
            assert_never(step)


async def _short(work: Work, step: Short) -> JsonValue:
    """Unless its mark, or that of this run, says that it was done.

    Whoever was killed meanwhile may still commit: then the mark is there twice, and this one is
    rolled back by the marks' primary key.
    """
    job, change = work.job, work.change
    done = token(job.run_key, step.name)
    if {done, step.mark} & set(await _marks(work)):
        return None
    statements = (*step.statements, mark_sql(change.name, change.sha256, done))
    applied = await apply_short(
        work.target, statements, limits=work.limits, tell=telling(job), what=step.name
    )
    return {"held_ms": round(applied.seconds * 1000, 1), "tries": len(applied.waits) + 1}


async def _alone(work: Work, step: Alone) -> JsonValue:
    if step.unless and step.unless in await _marks(work):
        return None
    await apply_alone(work.target, step.statement, limits=work.limits, tell=telling(work.job))
    return None


async def _fill(work: Work, step: Fill) -> JsonValue:
    job, change = work.job, work.change
    settings = job.database.migrations.backfill
    done = await run_backfill(
        work.target,
        fill_spec(change, step, settings, await _fill_key(work)),
        control=job,
        tell=telling(job),
        limits=fill_limits(change, settings),
        replicas=[parse_dsn(each.dsn.get_secret_value()) for each in job.database.replicas],
    )
    return {
        "rows_filled": done.rows,
        "rows_passed": done.passed,
        "fill_seconds": round(done.seconds, 1),
        "throttled_seconds": round(done.throttled_seconds, 1),
    }


async def _fill_key(work: Work) -> str:
    """What the ledger calls this backfill: a later request goes on with an unfinished one."""
    change, key = work.change, f"change-{work.change.name}-{work.job.run_key}"
    there = (await _marks(work)).get(FILLING)
    if there is not None:
        return str(there.detail["key"])
    async with connection(work.target) as conn:
        await conn.execute(mark_sql(change.name, change.sha256, FILLING, {"key": key}))
    return key


async def _compare(work: Work, step: Compare, attempt: Attempt) -> JsonValue:
    job = work.job
    tell = telling(job)

    async def told(text: str, fraction: float | None) -> None:
        await tell(text, fraction)
        await _unpaused(job)

    done = await compare(
        work.target,
        work.change.schema,
        work.change.table,
        step,
        limits=COMPARING,
        tell=told,
        save=attempt.save,
        begin=compared_of(attempt.checkpoint),
    )
    return {"rows_compared": done.compared, "checksum": f"{done.actual & (2**64 - 1):016x}"}


async def _marks(work: Work) -> Mapping[str, Mark]:
    async with connection(work.target) as conn:
        return (await read_marks(conn)).get(work.change.name, {})


async def _unpaused(job: Job) -> None:
    """Wait while a person has asked for it: between two steps nothing is held."""
    while job.is_paused:  # noqa: ASYNC110 - a row of the store, that the runner looks at
        await asyncio.sleep(_PAUSE_LOOK_SECONDS)


async def _record(work: Work, found: Mapping[str, Any], kept: Sequence[Kept]) -> None:
    async def body(_: Attempt) -> JsonValue:
        with explained():
            await enter_kept(work.job, kept)
        await _store(work, {"state": "done", **found})
        return None

    await work.job.step("record", body, mode=Mode.RETRYABLE, time_limit=LOOK_LIMIT, attempts=3)


async def _store(work: Work, detail: Mapping[str, JsonValue]) -> None:
    job, change = work.job, work.change
    async with job.store.begin() as conn:
        await record_phase(
            conn,
            PhaseRow(
                database=job.database.name,
                change=change.name,
                sha256=change.sha256,
                phase=str(work.phase),
                request_id=job.request_id,
                at=job.now,
                detail=detail,
            ),
        )


def _answer(work: Work, after: State, found: Mapping[str, Any]) -> Answer:
    change, database = work.change, work.job.database.name
    facts: list[tuple[str, str]] = [("Can be taken back", way_back(change, after))]
    if "rows_filled" in found:
        took = span_text(timedelta(seconds=float(found["fill_seconds"])))
        facts.append(("Filled", f"{found['rows_filled']:,} rows in {took}"))
    if "rows_compared" in found:
        facts.append(
            ("Compared", f"{found['rows_compared']:,} rows, checksum {found['checksum']}: the same")
        )
    if "held_ms" in found:
        facts.append(("Locks held", f"{found['held_ms']} ms at the end"))
    return Answer(
        title=f"{change.name} is {after}",
        facts=tuple(facts),
        suggestions=tuple(suggestions(database, change.name, after)),
        numbers={
            "phase": str(work.phase),
            "after": str(after),
            **{name: value for name, value in found.items() if name != "checksum"},
        },
    )
