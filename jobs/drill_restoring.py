"""The drill `restore` as a run: one step that is measured, and a report as any other drill has."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from pydantic import JsonValue, TypeAdapter

from jobs.cluster_settings import DrillKind
from jobs.drill_ledger import folder_of
from jobs.drill_planning import refuse_beside_another
from jobs.drill_report import finished
from jobs.drill_reporting import keep, with_trouble
from jobs.drill_restore_words import DRILLED, RestoreDrilled, drilled_json
from jobs.drill_telling import tell_phase, why_stopped
from jobs.drill_ways import allowed, drill_limits, risk_of
from jobs.drill_words import DrillEnd, DrillReport, Moment, Phase
from jobs.drilling_restore import LIMIT, RestoreOrder, rehearse
from jobs.drilling_restore_plan import RestorePlan, pins_of, plan_restore
from jobs.failing_over import refuse_failed
from jobs.operation import Attempt, Context, Job, JobError, Mode, Plan
from jobs.text import span_text
from postgres.errors import PostgresError

# A database without `cluster:` has no limit of its own.
HARD_LIMIT: Final = timedelta(hours=6)
_STOP_SECONDS_MAX: Final = 60
_MOMENTS: Final = TypeAdapter(tuple[Moment, ...])


async def restore_plan(context: Context) -> Plan:
    """The plan of a restore elsewhere.

    Raises:
        JobError: it may not be rehearsed here, there is no backup, or another drill is under way.
    """
    database = context.database
    if database.cluster is not None:
        refuse_failed((allowed(database.cluster, DrillKind.RESTORE),))
    await refuse_beside_another(context)
    found = await plan_restore(context)
    rto, rpo = drill_limits(database)
    return Plan(
        title=f"Drill restore: {database.name} rebuilt from {found.backup.id} elsewhere",
        steps=("Tell the channel", *found.steps, "Report"),
        facts=(
            *found.facts(context.now),
            ("Passes when", f"it is usable within {span_text(rto)}, RPO below {span_text(rpo)}"),
        ),
        warnings=tuple(found.warnings(rto=rto, has_queries=bool(database.critical_queries))),
        estimate_seconds=_estimate(found),
        undo="Production is not touched, but for the ledger's rows, which are removed.",
        pins={**found.pins, "kind": str(DrillKind.RESTORE)},
        attributes={"kind": str(DrillKind.RESTORE)},
        risk=risk_of(DrillKind.RESTORE, database.environment, is_synchronous=False),
    )


async def restore_pins(context: Context, plan: Plan) -> Mapping[str, str]:
    """The backup that the plan names, and its manifest."""
    found = await pins_of(context, plan.pins["backup"])
    return {**found, "kind": str(DrillKind.RESTORE)}


async def rehearse_restore(job: Job, plan: Plan, started_at: datetime) -> DrillReport:
    """Go through it and report.

    Raises:
        JobError, PostgresError: it could not be tried; that is reported too. Nothing was harmed.
    """
    drills = job.database.cluster.drills if job.database.cluster else None
    limit = drills.hard_limit if drills else HARD_LIMIT
    left = max(started_at + limit - job.now, timedelta(0))

    async def body(attempt: Attempt) -> JsonValue:
        return await _stoppable(job, attempt, plan.pins["backup"], limit=limit, left=left)

    try:
        done = await job.step("restore", body, mode=Mode.RESUMABLE, time_limit=LIMIT)
    except (JobError, PostgresError) as error:
        draft = _draft(job, started_at, None, ())
        await keep(job, with_trouble(finished(draft), (error.problem,)))
        raise
    assert isinstance(done, dict)  # noqa: S101 - what the body above returns
    moments = _MOMENTS.validate_python(done["moments"])
    drilled = DRILLED.validate_python(done["drilled"]) if done["drilled"] else None
    stopped = str(done["stopped"])
    draft = _draft(job, started_at, drilled, moments)
    return await keep(job, finished(draft, stopped=stopped))


async def _stoppable(
    job: Job, attempt: Attempt, backup: str, *, limit: timedelta, left: timedelta
) -> JsonValue:
    """Rehearse until it is done, somebody stops it, or its time is up: nothing is to be mended."""
    moments: list[Moment] = []

    async def note(phase: Phase, text: str) -> None:
        moments.append(Moment(phase=phase, at=job.now, text=text))
        await tell_phase(job, phase, text)

    order = RestoreOrder(backup_id=backup, key=job.run_key, folder=folder_of(job))
    work = asyncio.ensure_future(rehearse(job, attempt, order, clock=lambda: job.now, note=note))
    stop = asyncio.ensure_future(job.until_cancelled())
    try:
        await asyncio.wait(
            {work, stop}, timeout=left.total_seconds(), return_when=asyncio.FIRST_COMPLETED
        )
        why = "" if work.done() else why_stopped(job, limit, is_over=True)
    finally:
        stop.cancel()
        work.cancel()
        await asyncio.wait({work}, timeout=_STOP_SECONDS_MAX)
    if why:
        await asyncio.to_thread(shutil.rmtree, order.folder, ignore_errors=True)
    drilled = None if why else work.result()
    if drilled is not None and all(each.phase is not Phase.INJECTED for each in moments):
        # An earlier life declared it.
        moments.append(Moment(phase=Phase.INJECTED, at=drilled.at, text="Declared, not done"))
    return {
        "stopped": why,
        "drilled": drilled_json(drilled) if drilled else None,
        "moments": _MOMENTS.dump_python(
            tuple(sorted(moments, key=lambda each: each.at)), mode="json"
        ),
    }


def _draft(
    job: Job, started_at: datetime, drilled: RestoreDrilled | None, moments: tuple[Moment, ...]
) -> DrillReport:
    rto, rpo = drill_limits(job.database)
    cluster = job.database.cluster
    return DrillReport(
        database=job.database.name,
        environment=job.database.environment,
        tier=str(job.database.tier),
        cluster=str(cluster.kind) if cluster else "one server",
        kind=DrillKind.RESTORE,
        request_id=job.request_id,
        started_at=started_at,
        ended_at=job.now,
        end=DrillEnd.FAILED,
        missed=(),
        victim="",
        primary_before="",
        primary_after="",
        moments=moments,
        cost=drilled.cost if drilled else None,
        rto_limit_seconds=rto.total_seconds(),
        rpo_limit_seconds=rpo.total_seconds(),
        connectivity=drilled.connectivity if drilled else "",
        is_connected=bool(drilled and drilled.is_connected),
        facts=drilled.facts if drilled else (),
    )


def _estimate(found: RestorePlan) -> int | None:
    return None if found.seconds is None else max(1, round(found.seconds))
