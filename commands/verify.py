"""`/db verify orders`: restore a backup into a scratch server, and look at it from every side."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Final

from pydantic import BaseModel, Field, JsonValue

from jobs.operation import (
    RTO,
    Answer,
    Attempt,
    Context,
    Job,
    JobError,
    Kind,
    Mode,
    Operation,
    Plan,
    Risk,
    Table,
)
from jobs.text import span_text
from postgres.restore.checks import VerificationReport, verify_backup
from postgres.server import find_binaries
from postgres.sizes import pretty_bytes
from store.backups import (
    BackupRecord,
    Verification,
    find_backup,
    list_backups,
    newest_backup,
    record_verification,
)

TIME_LIMIT: Final = timedelta(hours=24)
RECORD_LIMIT: Final = timedelta(minutes=1)


class Params(BaseModel, extra="forbid"):
    """Which backup to restore."""

    database: str = Field(description="Database in the inventory", examples=["orders"])
    backup: str = Field(
        default="", description="A backup's id; the newest when left out", examples=[""]
    )


async def plan(context: Context, params: Params) -> Plan:
    """Choose the backup, and say what will be done to a copy of it."""
    backup = await _chosen(context, params)
    rto = RTO[context.database.tier]
    queries = context.database.critical_queries
    return Plan(
        title=f"Verify backup {backup.id}",
        steps=(
            "Check every file of the backup against the SHA-256 written when it was taken",
            f"Restore it into a scratch server of PostgreSQL {backup.major} that nobody can reach",
            "pg_verifybackup, amcheck, page checksums, row counts",
            f"Ask {len(queries)} critical queries" if queries else "No critical query is defined",
            "Remove the scratch server, whatever was found",
        ),
        facts=(
            ("Backup", f"{backup.id}, {span_text(context.now - backup.ended_at)} old"),
            ("Size", pretty_bytes(backup.size_bytes)),
            ("Restored", pretty_bytes(backup.data_bytes)),
            ("To be restored within", f"{span_text(rto)} (tier {context.database.tier})"),
        ),
        warnings=() if queries else ("Without critical queries nobody asks the copy for its use.",),
        estimate_seconds=await _estimate(context, params.database),
        undo="Production is not touched.",
        pins=_pins(backup),
    )


async def pins(context: Context, params: Params, plan: Plan) -> Mapping[str, str]:
    """The backup that the plan names, with its manifest. A newer one changes nothing."""
    return _pins(await _chosen(context, _named(params, plan)))


async def run(job: Job, params: Params, plan: Plan) -> Answer:
    """Prove the backup that the plan names, and store what was found."""
    backup = await _chosen(job, _named(params, plan))

    async def prove(attempt: Attempt) -> JsonValue:
        del attempt
        report = await _verify(job, backup)
        return report.model_dump(mode="json")

    # Retryable: what a dead attempt left stands in the run's folder and is removed first.
    found = await job.step("prove", prove, mode=Mode.RETRYABLE, time_limit=TIME_LIMIT)
    report = VerificationReport.model_validate(found)

    async def record(attempt: Attempt) -> JsonValue:
        del attempt
        async with job.store.begin() as conn:
            await record_verification(conn, _verification(job, report))
        return None

    await job.step("record", record, mode=Mode.RETRYABLE, time_limit=RECORD_LIMIT)
    if not report.ok:
        raise JobError(
            f"Backup {backup.id} is damaged. {' '.join(f'{text}.' for text in report.problems)}",
            next_step=f"Take a new backup at once (/db backup {params.database}), verify it, and"
            " find out what damaged this one before its older siblings are needed.",
        )
    return _answer(job, report)


async def _chosen(context: Context, params: Params) -> BackupRecord:
    async with context.store.begin() as conn:
        if params.backup:
            backup = await find_backup(conn, params.database, params.backup)
        else:
            backup = await newest_backup(conn, params.database)
    if backup is None or backup.state == "removed":
        what = f"no backup {params.backup}" if params.backup else "no usable backup"
        raise JobError(
            f"There is {what} of {params.database}.",
            next_step=f"See /db backups {params.database}, or take one: /db backup"
            f" {params.database}",
        )
    return backup


def _named(params: Params, plan: Plan) -> Params:
    return params.model_copy(update={"backup": plan.pins["backup"]})


def _pins(backup: BackupRecord) -> Mapping[str, str]:
    return {"backup": backup.id, "manifest": backup.manifest_sha256}


async def _estimate(context: Context, database: str) -> int | None:
    """As long as the last verification of this database took."""
    async with context.store.begin() as conn:
        listed = await list_backups(conn, database)
    took = [item.verified.total_seconds for item in listed if item.verified]
    return max(1, round(took[0])) if took else None


async def _verify(job: Job, backup: BackupRecord) -> VerificationReport:
    binaries = await asyncio.to_thread(find_binaries, os.environ, major=backup.major)
    return await verify_backup(
        binaries,
        Path(backup.folder) / backup.id,
        job.folder,
        critical_queries=[(q.name, q.sql, q.expect) for q in job.database.critical_queries],
        on_step=job.report,
    )


def _verification(job: Job, report: VerificationReport) -> Verification:
    return Verification(
        backup_id=report.backup_id,
        at=job.now,
        ok=report.ok,
        restore_seconds=report.restore_seconds or 0.0,
        total_seconds=report.seconds,
        checks=[(check.name, check.ok, check.detail) for check in report.checks],
        request_id=job.request_id,
    )


def _answer(job: Job, report: VerificationReport) -> Answer:
    rto = RTO[job.database.tier]
    took = timedelta(seconds=report.restore_seconds or 0)
    within = took <= rto
    verdict = "within" if within else "LONGER than"
    allowed = f"the {span_text(rto)} of tier {job.database.tier}"
    return Answer(
        title=f"Backup {report.backup_id} is proven",
        lines=(
            f"Restored in {span_text(took)}, {verdict} {allowed}.",
            *(() if within else ("Restore onto faster disks, or agree on another tier.",)),
        ),
        facts=(("All checks took", span_text(timedelta(seconds=report.seconds))),),
        table=Table(
            columns=("Check", "Found", "Took"),
            rows=tuple(
                (check.name, check.detail, span_text(timedelta(seconds=check.seconds)))
                for check in report.checks
            ),
        ),
        numbers={
            "restore_seconds": report.restore_seconds or 0.0,
            "seconds": report.seconds,
            "backup": report.backup_id,
            "within_rto": "yes" if within else "no",
        },
    )


OPERATION = Operation(
    name="verify",
    summary="Restore a backup into a scratch server and prove it",
    kind=Kind.CHANGE,
    risk=Risk.NONE,
    params=Params,
    example="/db verify orders",
    plan=plan,
    run=run,
    pinned=frozenset(),  # it works on a copy: what must hold is the backup
    pins=pins,
    time_limit=TIME_LIMIT,
)
