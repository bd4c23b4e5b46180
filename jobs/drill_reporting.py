"""From what a drill went through to its report, which is stored once."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Final

from pydantic import JsonValue

from jobs.drill_audit import store_report
from jobs.drill_beginning import tell_channel
from jobs.drill_report import finished, last_words
from jobs.drill_state import DrillState
from jobs.drill_stored import report_of
from jobs.drill_ways import drill_limits
from jobs.drill_words import DrillEnd, DrillReport
from jobs.operation import Answer, Attempt, Job, Mode
from store.drills import drill_of

_LIMIT: Final = timedelta(minutes=2)


def reported(drill: DrillState) -> DrillReport:
    """The report, with its end. What went wrong on the way stands first."""
    job, order, settings = drill.job, drill.order, drill.settings
    rto, rpo = drill_limits(job.database)
    draft = DrillReport(
        database=job.database.name,
        environment=job.database.environment,
        tier=str(job.database.tier),
        cluster=str(settings.kind),
        kind=order.kind,
        request_id=job.request_id,
        started_at=drill.started_at,
        ended_at=job.now,
        end=DrillEnd.FAILED,
        missed=(),
        victim=order.victim,
        primary_before=order.leader,
        primary_after=drill.primary,
        moments=tuple(drill.moments),
        cost=drill.cost,
        cost_back=drill.cost_back,
        rto_limit_seconds=rto.total_seconds(),
        rpo_limit_seconds=rpo.total_seconds(),
        lag_bytes=drill.lag_bytes,
        connectivity=drill.connectivity,
        is_connected=drill.is_connected,
        is_redundant=drill.is_redundant,
        is_switched_back=drill.is_back,
        differences=drill.differences,
        settings=drill.timings,
    )
    return with_trouble(finished(draft, stopped=drill.stopped), tuple(drill.trouble))


def with_trouble(report: DrillReport, trouble: tuple[str, ...]) -> DrillReport:
    """A report of a drill in which something went wrong: it has not passed. Pure."""
    if not trouble:
        return report
    end = DrillEnd.FAILED if report.end is DrillEnd.PASSED else report.end
    told = (*report.missed, *trouble) if end is DrillEnd.ABORTED else (*trouble, *report.missed)
    return replace(report, end=end, missed=tuple(dict.fromkeys(told)))


async def keep(job: Job, report: DrillReport) -> DrillReport:
    """Store it as a step of the run; what stands there, also when an earlier life stored it."""

    async def body(_: Attempt) -> JsonValue:
        async with job.store.begin() as conn:
            known = await drill_of(conn, job.request_id)
            if known is not None and known.ended_at is None:
                await tell_channel(
                    conn,
                    job,
                    Answer(
                        title=f"A drill of {report.database} has ended", lines=(last_words(report),)
                    ),
                    job.now,
                )
            return await store_report(conn, report, now=job.now)

    await job.step("report", body, mode=Mode.RETRYABLE, time_limit=_LIMIT, attempts=3)
    async with job.store.begin() as conn:
        stored = await drill_of(conn, job.request_id)
    return (report_of(stored) if stored else None) or report
