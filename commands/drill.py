"""`/db drill orders primary-crash`: a disaster is rehearsed, measured, and put back as it was.

It says how many acknowledged rows were lost, how long writes were impossible, which part took how
long, and whether the configuration is back as it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from pydantic import BaseModel, Field

from jobs.cluster_settings import DrillKind
from jobs.drill_beginning import begin
from jobs.drill_hands import DrillOrder
from jobs.drill_planning import drill_plan, kind_of, look_ahead
from jobs.drill_report import answer_of
from jobs.drill_reporting import keep, reported
from jobs.drill_restoring import rehearse_restore, restore_pins, restore_plan
from jobs.drill_stored import earlier_reports
from jobs.drill_ways import LESSER_RISKS
from jobs.drill_words import DrillEnd, DrillReport
from jobs.drilling import Drill
from jobs.failing_over import settings_of
from jobs.operation import Answer, Context, Job, Kind, Operation, Plan, Risk

# The hard limit of a drill is the inventory's, six hours at most; what brings it to a safe end
# comes after that.
TIME_LIMIT: Final = timedelta(hours=8)


class Params(BaseModel, extra="forbid"):
    """Which disaster, and whether the old primary is the primary again afterwards."""

    database: str = Field(description="Database in the inventory", examples=["orders"])
    kind: DrillKind | None = Field(
        default=None,
        description="Which disaster; left out, the inventory's usual one",
        examples=["primary-crash"],
    )
    back: bool = Field(
        default=True, description="Switch back at the end: one more short time without writes"
    )


async def plan(context: Context, params: Params) -> Plan:
    """Look at every server, check what must hold, and say what will be broken.

    Raises:
        JobError: it may not be done here, or not now; says what to do.
    """
    kind = kind_of(context.database, params.kind)
    if kind is DrillKind.RESTORE:
        return await restore_plan(context)
    return await drill_plan(context, kind=kind, back=params.back)


async def pins(context: Context, params: Params, plan: Plan) -> Mapping[str, str]:
    """Who is the primary now, and whether the same ones would be hit and take over."""
    kind = DrillKind(plan.pins["kind"])
    if kind is DrillKind.RESTORE:
        return await restore_pins(context, plan)
    seen = await look_ahead(context, kind=kind, to=plan.pins["candidate"], back=params.back)
    return seen.pins


async def run(job: Job, params: Params, plan: Plan) -> Answer:
    """Rehearse it, and bring it to a safe end whatever happens.

    Raises:
        JobError: nothing was broken, or what was could not be brought to a safe end.
        PostgresError: the same.
    """
    kind = DrillKind(plan.pins["kind"])
    started_at = await begin(job, kind)
    if kind is DrillKind.RESTORE:
        report = await rehearse_restore(job, plan, started_at)
        return await _answer(job, report)
    return await _on_servers(job, params, plan, started_at)


async def _on_servers(job: Job, params: Params, plan: Plan, started_at: datetime) -> Answer:
    order = DrillOrder(
        kind=DrillKind(plan.pins["kind"]),
        leader=plan.pins["leader"],
        candidate=plan.pins["candidate"],
        victim=plan.pins["victim"],
        back=params.back,
    )
    drill = Drill(job=job, order=order, settings=settings_of(job), started_at=started_at)
    await drill.perform()
    report = await keep(job, reported(drill))
    if drill.unsafe is not None:
        raise drill.unsafe
    await drill.ledger.clear(drill.spec(drill.primary).target)
    if drill.error is not None and not drill.may_be_broken:
        raise drill.error
    return await _answer(job, report)


async def _answer(job: Job, report: DrillReport) -> Answer:
    async with job.store.begin() as conn:
        earlier = await earlier_reports(conn, report.database, report.kind)
    answer = answer_of(report, earlier)
    return replace(answer, is_stopped=report.end is DrillEnd.ABORTED and job.is_cancelled)


OPERATION = Operation(
    name="drill",
    summary="A disaster is rehearsed: rows lost, time without writes, and everything put back",
    kind=Kind.CHANGE,
    risk=Risk.DESTRUCTIVE,
    lesser_risks=LESSER_RISKS,
    params=Params,
    example="/db drill orders primary-crash",
    plan=plan,
    run=run,
    pins=pins,
    # Its own, read from every node.
    pinned=frozenset(),
    # It looks at each server itself; a next life must begin also while nobody takes writes.
    is_routed=False,
    time_limit=TIME_LIMIT,
    ends_in_order=True,
    abort_words=(
        "Before anything is broken, nothing happens. After that, the old primary is brought back"
        " only if nobody else takes writes. Once another server was promoted, it goes forward: all"
        " servers follow the new primary, and it is not switched back."
    ),
)
