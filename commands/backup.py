"""`/db backup orders`: a backup that says what it holds; full, incremental or logical."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, timedelta
from typing import Any, Final, Literal

from pydantic import BaseModel, Field, JsonValue

from jobs.backup_settings import BackupTier, Engine
from jobs.bases import newest_base
from jobs.engines import engine_of
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
from postgres.backup.engine import TakeOrder
from postgres.backup.facts import BackupFacts, BackupKind
from postgres.backup.incremental import server_refusal
from postgres.backup.progress import OnProgress, Progress
from postgres.sizes import pretty_bytes
from store.backups import BackupRecord, Pace, all_backups, last_pace, record_backup

TIME_LIMIT: Final = timedelta(hours=24)
RECORD_LIMIT: Final = timedelta(minutes=1)
ATTEMPTS: Final = 3
# The first seconds say little about the others.
GUESS_AFTER_SECONDS: Final = 2.0
BY_ENGINE: Final = "Have the engine take a backup, with the WAL that belongs to it"
STEPS: Final[Mapping[BackupKind, str]] = {
    "full": "Copy all files of the cluster and the WAL that belongs to them (pg_basebackup)",
    "incremental": "Copy the blocks that changed since the backup it builds on, and the WAL that"
    " belongs to them (pg_basebackup)",
    "logical": "Dump every database in a snapshot of its own, and the roles (pg_dump)",
}

# One row, and always fresh.
LOOK: Final = """
    SELECT current_setting('server_version')                    AS version,
           current_setting('server_version_num')::int / 10000   AS major,
           (SELECT system_identifier::text FROM pg_control_system()) AS system_identifier,
           coalesce(current_setting('summarize_wal', true) = 'on', false) AS summarizes_wal,
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
    kind: BackupKind = Field(
        default="full",
        description="All files of the cluster; what changed since the last backup; or a dump",
    )
    tier: Literal["", "daily", "weekly", "monthly"] = Field(
        default="", description="What it is kept for; kept as a daily one when left out"
    )


async def plan(context: Context, params: Params) -> Plan:
    """Look at the server: is it the one we know, may we, how much is it."""
    seen = await _look(context)
    (size,) = await context.reader.recent_rows(SIZE, age_max=SIZE_AGE_MAX)
    _may(context.database, params, seen)
    base = await _base(context, params, seen)
    last = await last_pace(context.store, params.database)
    same = last if last and last.kind == params.kind else None
    pace = same or await last_pace(context.store, params.database, kind=params.kind)
    age = f"{span_text(context.now - last.ended_at)} old" if last else "there is none"
    return Plan(
        title=f"Back up {params.database} ({params.kind})",
        steps=(
            STEPS[params.kind] if _is_native(context.database) else BY_ENGINE,
            "Count rows and hash files, so that a restored copy can be compared",
            "Enter the backup into the catalogue",
        ),
        facts=(
            ("Server", f"PostgreSQL {seen['version']}{' (standby)' if seen['standby'] else ''}"),
            ("Size", pretty_bytes(size["size_bytes"])),
            ("Goes to", _place(context.database)),
            *((("Builds on", base.id),) if base else ()),
            ("Kept for", _kept_for(context.database, params)),
            *_manner(context.database),
            ("Newest backup", age),
        ),
        warnings=tuple(_warnings(context.database, params, seen)),
        estimate_seconds=_estimate(pace, size["size_bytes"]),
        undo="Nothing is changed on the server; a backup that fails is removed.",
    )


async def run(job: Job, params: Params, plan: Plan) -> Answer:
    """Take the backup, and enter it into the catalogue."""
    del plan
    database = job.database

    async def choose(attempt: Attempt) -> JsonValue:
        del attempt
        base = await _base(job, params, await _look(job))
        return base.id if base else None

    # Stored, so that every attempt of this run takes the same backup.
    backup_id = await job.step(
        "name", lambda _: _name(params.database, job), mode=Mode.RETRYABLE,
        time_limit=RECORD_LIMIT,
    )  # fmt: skip
    base_id = None
    if params.kind == "incremental":
        base_id = await job.step("base", choose, mode=Mode.RETRYABLE, time_limit=RECORD_LIMIT)
    order = TakeOrder(
        backup_id=str(backup_id), kind=params.kind, base=str(base_id) if base_id else None
    )

    async def copy(attempt: Attempt) -> JsonValue:
        del attempt
        facts = await engine_of(database).take(order, on_progress=_teller(job))
        return facts.model_dump(mode="json")

    # Retryable: a second attempt removes what the first one left, or finds it complete.
    taken = await job.step(
        "copy", copy, mode=Mode.RETRYABLE, time_limit=TIME_LIMIT, attempts=ATTEMPTS
    )
    facts = BackupFacts.model_validate(taken)

    async def record(attempt: Attempt) -> JsonValue:
        del attempt
        async with job.store.begin() as conn:
            await record_backup(conn, _record(database, params, facts, job.request_id))
        return None

    await job.step("record", record, mode=Mode.RETRYABLE, time_limit=RECORD_LIMIT)
    return _answer(params.database, facts)


def _may(database: Database, params: Params, seen: Mapping[str, Any]) -> None:
    """Refuse what the server would refuse later."""
    if not _is_native(database):
        return
    if params.kind != "logical" and not seen["may_replicate"]:
        raise JobError(
            f"Twokey's user on {params.database} has no REPLICATION attribute, so it cannot"
            " take a backup.",
            next_step="As a superuser there: ALTER ROLE … REPLICATION, and allow it"
            " replication connections in pg_hba.conf.",
        )
    if params.kind == "incremental" and (
        refused := server_refusal(
            major=seen["major"], version=seen["version"], summarizes_wal=seen["summarizes_wal"]
        )
    ):
        raise JobError(refused.problem, next_step=refused.next_step)


async def _base(context: Context, params: Params, seen: Mapping[str, Any]) -> BackupRecord | None:
    """What an incremental builds on; other engines choose by themselves."""
    if params.kind != "incremental" or not _is_native(context.database):
        return None
    async with context.store.begin() as conn:
        known = [listed.backup for listed in await all_backups(conn, params.database)]
    return newest_base(
        known,
        database=params.database,
        engine=context.database.backups.engine,
        system_identifier=seen["system_identifier"],
        major=seen["major"],
    )


def _is_native(database: Database) -> bool:
    return database.backups.engine is Engine.NATIVE


def _place(database: Database) -> str:
    repository = database.backups.repository
    if repository and not _is_native(database):
        return f"{database.backups.engine} {repository.name} ({repository.config})"
    return str(database.backup_folder)


def _kept_for(database: Database, params: Params) -> str:
    keep = span_text(database.backups.keep_of(BackupTier(params.tier or "daily")))
    return f"{params.tier}: {keep}" if params.tier else f"{keep}, as daily ones are"


def _manner(database: Database) -> Sequence[tuple[str, str]]:
    """How it is taken, as far as it is not as always."""
    settings = database.backups
    rate = settings.rate_max_bytes
    keys = settings.encryption
    return (
        *((("Throttle", f"{pretty_bytes(rate)} per second, compressed"),) if rate else ()),
        *((("Encrypted for", keys.recipient),) if keys else ()),
    )


async def _look(context: Context) -> Mapping[str, Any]:
    return (await context.reader.rows(LOOK))[0]


def _warnings(database: Database, params: Params, seen: Mapping[str, Any]) -> Iterator[str]:
    if seen["standby"] and params.kind != "logical":
        yield "This is a standby: the backup ends when the primary's next WAL arrives."
    if params.kind != "logical":
        return
    yield (
        "A dump has no WAL: it can be restored to its own moment alone. Each database is of a"
        " moment of its own; passwords of roles are left out."
    )
    if database.backups.rate_max_bytes:
        yield "The throttle does not apply: pg_dump has none."


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


def _teller(job: Job) -> OnProgress:
    began: list[float] = []

    async def tell(progress: Progress) -> None:
        now = time.monotonic()
        if not began and progress.done_bytes:
            began.append(now)
        since = now - began[0] if began else 0.0
        await job.report(progress_text(progress, since), fraction=progress.fraction)

    return tell


def progress_text(progress: Progress, seconds: float) -> str:
    """How far it is: "12.3 MB of 93 MB, about 4 s left". `seconds`: since its first byte."""
    total = f" of {pretty_bytes(progress.total_bytes)}" if progress.total_bytes else ""
    left = progress.seconds_left(seconds) if seconds >= GUESS_AFTER_SECONDS else None
    about = f", about {span_text(timedelta(seconds=round(left)))} left" if left else ""
    return f"{progress.phase}: {pretty_bytes(progress.done_bytes)}{total}{about}"


def _record(
    database: Database, params: Params, facts: BackupFacts, request_id: int
) -> BackupRecord:
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
        manifest_sha256=facts.fingerprint,
        row_counts=counts,
        request_id=request_id,
        tiers=[params.tier] if params.tier else [],
        base=facts.base,
        label=facts.label,
        encryption=facts.encryption,
    )


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
            *((("Builds on", facts.base),) if facts.base else ()),
            _reach(facts),
            ("Rows", f"{facts.rows:,} in {count_text(len(facts.tables), 'table')}"),
        ),
        numbers={
            "seconds": facts.seconds,
            "size_bytes": facts.size_bytes,
            "data_bytes": facts.data_bytes,
            "backup": facts.id,
        },
    )


def _reach(facts: BackupFacts) -> tuple[str, str]:
    if facts.kind == "logical":
        return "Server stood at", f"{facts.start_lsn} to {facts.end_lsn}"
    return "WAL", f"{facts.start_wal} to {facts.end_wal} (from {facts.start_lsn})"


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
