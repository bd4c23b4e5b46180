"""`/db backup orders`: a full backup that says what it holds."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, Field, JsonValue

from jobs.operation import (
    Answer,
    Attempt,
    Context,
    Database,
    Job,
    JobError,
    Kind,
    Mode,
    Operation,
    Plan,
    Risk,
)
from jobs.text import count_text, span_text
from postgres.backup.facts import BackupFacts
from postgres.backup.native import read_backup, take_backup
from postgres.backup.progress import Progress
from postgres.errors import PostgresError
from postgres.server import Binaries, find_binaries
from postgres.sizes import pretty_bytes
from store.backups import BackupRecord, Pace, last_pace, record_backup

TIME_LIMIT: Final = timedelta(hours=24)
RECORD_LIMIT: Final = timedelta(minutes=1)
ATTEMPTS: Final = 3

# One row, and always fresh.
LOOK: Final = """
    SELECT current_setting('server_version')                    AS version,
           current_setting('server_version_num')::int / 10000   AS major,
           pg_is_in_recovery()                                  AS standby,
           (SELECT rolreplication OR rolsuper
              FROM pg_roles WHERE rolname = current_user)       AS may_replicate
"""

# PostgreSQL looks at every file for this, so people are shown a size of up to a minute ago.
# What a user may not see of the sizes of others' databases counts as nothing.
SIZE: Final = """
    SELECT sum(pg_database_size(oid))::bigint AS size_bytes
      FROM pg_database
     WHERE has_database_privilege(oid, 'CONNECT')
"""
SIZE_AGE_MAX: Final = timedelta(minutes=1)


class Params(BaseModel, extra="forbid"):
    """What to back up, and how."""

    database: str = Field(description="Database in the inventory", examples=["orders"])
    kind: Literal["full"] = Field(default="full", description="All of it")


async def plan(context: Context, params: Params) -> Plan:
    """Look at the server: is it the one we know, may we, how much is it."""
    seen = await _look(context)
    (size,) = await context.reader.recent_rows(SIZE, age_max=SIZE_AGE_MAX)
    if not seen["may_replicate"]:
        raise JobError(
            f"Twokey's user on {params.database} has no REPLICATION attribute, so it cannot"
            " take a backup.",
            next_step="As a superuser there: ALTER ROLE … REPLICATION, and allow it"
            " replication connections in pg_hba.conf.",
        )
    last = await last_pace(context.store, params.database)
    age = f"{span_text(context.now - last.ended_at)} old" if last else "there is none"
    return Plan(
        title=f"Back up {params.database} ({params.kind})",
        steps=(
            "Copy all files of the cluster and the WAL that belongs to them (pg_basebackup)",
            "Count rows and hash files meanwhile, so that a restored copy can be compared",
            "Enter the backup into the catalogue",
        ),
        facts=(
            ("Server", f"PostgreSQL {seen['version']}{' (standby)' if seen['standby'] else ''}"),
            ("Size", pretty_bytes(size["size_bytes"])),
            ("Goes to", str(context.database.backup_folder)),
            ("Newest backup", age),
        ),
        warnings=tuple(_warnings(seen)),
        estimate_seconds=_estimate(last, size["size_bytes"]),
        undo="Nothing is changed on the server; a backup that fails is removed.",
    )


async def run(job: Job, params: Params, plan: Plan) -> Answer:
    """Take the backup, and enter it into the catalogue."""
    del plan
    database = job.database
    backup_id = await job.step(
        "name", lambda _: _name(params.database, job), mode=Mode.RETRYABLE,
        time_limit=RECORD_LIMIT,
    )  # fmt: skip

    async def copy(attempt: Attempt) -> JsonValue:
        del attempt
        facts = await _take(job, database, str(backup_id))
        return {"seconds": facts.seconds}

    async def record(attempt: Attempt) -> JsonValue:
        del attempt
        facts = await asyncio.to_thread(read_backup, database.backup_folder, str(backup_id))
        async with job.store.begin() as conn:
            await record_backup(conn, _record(database, facts, job.request_id))
        return None

    # Retryable: a second attempt removes what the first one left, or finds it complete.
    await job.step("copy", copy, mode=Mode.RETRYABLE, time_limit=TIME_LIMIT, attempts=ATTEMPTS)
    await job.step("record", record, mode=Mode.RETRYABLE, time_limit=RECORD_LIMIT)
    facts = await asyncio.to_thread(read_backup, database.backup_folder, str(backup_id))
    return _answer(params.database, facts)


async def _look(context: Context) -> Mapping[str, Any]:
    return (await context.reader.rows(LOOK))[0]


def _warnings(seen: Mapping[str, Any]) -> list[str]:
    if seen["standby"]:
        return ["This is a standby: the backup ends when the primary's next WAL arrives."]
    return []


def _estimate(last: Pace | None, size_bytes: int) -> int | None:
    """As fast as the last one, for today's size; None when there is nothing to go by."""
    if last is None or not last.data_bytes:
        return None
    return max(1, round(last.seconds * size_bytes / last.data_bytes))


async def _name(database: str, job: Job) -> JsonValue:
    """Stored as a step, so that every attempt of this run writes the same backup.

    With the request's number in it, as two runs may begin within one second, and the second
    would take the first one's backup for its own.
    """
    return f"{database}-{job.now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{job.request_id}"


async def _take(job: Job, database: Database, backup_id: str) -> BackupFacts:
    async def tell(progress: Progress) -> None:
        total = f" of {pretty_bytes(progress.total_bytes)}" if progress.total_bytes else ""
        await job.report(
            f"{progress.phase}: {pretty_bytes(progress.done_bytes)}{total}",
            fraction=progress.fraction,
        )

    seen = await _look(job)
    binaries = await asyncio.to_thread(_binaries, int(seen["major"]))
    return await take_backup(
        binaries,
        database.dsn,
        Path(database.backup_folder),
        backup_id=backup_id,
        on_progress=tell,
    )


def _binaries(major: int) -> Binaries:
    """Programs of the server's own major version, or newer ones, which can copy it too."""
    try:
        return find_binaries(os.environ, major=major)
    except PostgresError:
        return find_binaries(os.environ)


def _record(database: Database, facts: BackupFacts, request_id: int) -> BackupRecord:
    counts: dict[str, JsonValue] = {
        f"{table.database} {table.table}": list(bounds)
        for table in facts.tables
        if (bounds := table.bounds())
    }
    return BackupRecord(
        id=facts.id,
        database=database.name,
        kind=facts.kind,
        engine=facts.engine,
        state="complete",
        folder=str(database.backup_folder),
        started_at=facts.began_at,
        ended_at=facts.ended_at,
        seconds=facts.seconds,
        size_bytes=facts.size_bytes,
        data_bytes=facts.data_bytes,
        start_lsn=facts.start_lsn,
        end_lsn=facts.end_lsn,
        timeline=facts.timeline,
        system_identifier=facts.system_identifier,
        major=facts.major,
        manifest_sha256=_manifest_hash(facts),
        row_counts=counts,
        request_id=request_id,
    )


def _manifest_hash(facts: BackupFacts) -> str:
    """The SHA-256 of PostgreSQL's manifest, which names every file of the cluster."""
    return next(file.sha256 for file in facts.files if file.name == "backup_manifest")


def _answer(name: str, facts: BackupFacts) -> Answer:
    return Answer(
        title=f"Backup {facts.id} is complete",
        lines=(
            f"It was not restored yet. Prove it: /db verify {name}",
            *((facts.counting_problem,) if facts.counting_problem else ()),
        ),
        facts=(
            ("Took", span_text(timedelta(seconds=facts.seconds))),
            ("Size", f"{pretty_bytes(facts.size_bytes)} for {pretty_bytes(facts.data_bytes)}"),
            ("WAL", f"{facts.start_wal} to {facts.end_wal} (from {facts.start_lsn})"),
            ("Rows", f"{facts.rows:,} in {count_text(len(facts.tables), 'table')}"),
        ),
        numbers={
            "seconds": facts.seconds,
            "size_bytes": facts.size_bytes,
            "data_bytes": facts.data_bytes,
            "backup": facts.id,
        },
    )


OPERATION = Operation(
    name="backup",
    summary="Take a backup of a database's cluster",
    kind=Kind.CHANGE,
    risk=Risk.NONE,
    params=Params,
    example="/db backup orders",
    plan=plan,
    run=run,
    time_limit=TIME_LIMIT,
)
