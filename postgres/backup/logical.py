"""Logical backups: `pg_dump -Fd -j` of every database, and the roles of the cluster.

    globals.sql            roles and their settings, without passwords (pg_dumpall)
    databases.json         which archive is of which database
    database-<oid>.tar     a database's folder, as pg_dump -Fd wrote it

Each database is dumped in one snapshot, in which its rows are counted too: the counts of a
logical backup are exact. Two databases are of two moments.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import asyncpg
from pydantic import BaseModel, ConfigDict, SecretStr

from postgres.backup.basebackup import TIME_LIMIT
from postgres.backup.counts import Side, compare, count_in
from postgres.backup.dumping import DumpProgress, tell_of_dumps
from postgres.backup.facts import (
    BackupFacts,
    FileFact,
    TableCount,
    backup_folder,
    complete,
    read_backup,
)
from postgres.backup.hashing import keep_file
from postgres.backup.manner import Manner
from postgres.backup.packing import pack_folder
from postgres.backup.partial import begun, disk_error
from postgres.backup.progress import OnProgress
from postgres.backup.sealing import check_recipient
from postgres.backup.source import Source, look_at, wal_file
from postgres.binaries import Binaries
from postgres.connect import connection
from postgres.dsn import Target, parse_dsn
from postgres.errors import PostgresError
from postgres.programs import Finished, run_program
from postgres.together import together

GLOBALS: Final = "globals.sql"
INDEX: Final = "databases.json"
# A table that somebody has locked for longer would hold up all who come after us.
_LOCK_WAIT: Final = timedelta(minutes=5)
_FIRST_WITH_ZSTD: Final = 16
_NO_SPACE: Final = "No space left on device"

# Also those that we may not connect to: a dump that leaves one out is none of the cluster.
DATABASES: Final = """
    SELECT datname                                      AS name,
           oid::bigint                                  AS oid,
           has_database_privilege(oid, 'CONNECT')       AS open
      FROM pg_database
     WHERE datallowconn
       AND NOT datistemplate
  ORDER BY datname
"""
SIZES: Final = """
    SELECT n.nspname || '.' || c.relname AS name,
           pg_table_size(c.oid)          AS size_bytes
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'm')
       AND n.nspname <> 'information_schema'
       AND n.nspname !~ '^pg_'
"""
SIZE: Final = "SELECT pg_database_size(current_database())"
LSN: Final = """
    SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                ELSE pg_current_wal_lsn() END::text
"""


class DumpedDatabase(BaseModel):
    """One database of a logical backup, and its archive."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    archive: str


class DumpIndex(BaseModel):
    """What `databases.json` says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dumped_by: str
    databases: tuple[DumpedDatabase, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    binaries: Binaries
    target: Target
    source: Source
    id: str
    manner: Manner
    databases: Mapping[str, int]
    progress: DumpProgress


@dataclass(frozen=True, slots=True, kw_only=True)
class _Dumped:
    """One database: its archive, its rows in the dump's own snapshot, its size in bytes."""

    file: FileFact
    side: Side | None
    size_bytes: int
    problem: str = ""


async def take_logical(
    binaries: Binaries,
    dsn: SecretStr,
    folder: Path,
    *,
    backup_id: str,
    manner: Manner = Manner(),  # noqa: B008  (it is frozen)
    on_progress: OnProgress | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> BackupFacts:
    """Dump all databases into `<folder>/<backup_id>`; as `native.take_backup` otherwise.

    Raises:
        PostgresError: it failed, and nothing of it is left.
    """
    place = backup_folder(folder, backup_id)
    if place.exists():
        return read_backup(folder, backup_id)
    began, started = clock(), time.monotonic()
    plan = await _plan(binaries, dsn, backup_id, manner)
    with begun(folder, backup_id) as partial:
        if place.exists():
            return read_backup(folder, backup_id)
        start_lsn = await _lsn(plan.target)
        files, dumped = await _dump_all(plan, partial, on_progress)
        facts = BackupFacts(
            **_described(plan),
            **_measured(plan, start_lsn, await _lsn(plan.target)),
            data_bytes=sum(one.size_bytes for one in dumped),
            files=tuple(sorted(files, key=lambda file: file.name)),
            tables=_tables(dumped),
            counting_problem=next((one.problem for one in dumped if one.problem), ""),
            began_at=began,
            ended_at=clock(),
            seconds=round(time.monotonic() - started, 3),
            size_bytes=sum(file.size_bytes for file in files),
        )
        await asyncio.to_thread(complete, partial, facts)
    return facts


async def _plan(binaries: Binaries, dsn: SecretStr, backup_id: str, manner: Manner) -> _Plan:
    if manner.recipient is not None:
        check_recipient(manner.recipient)
    target = parse_dsn(dsn.get_secret_value())
    source = await look_at(target)
    if binaries.major != source.major:
        raise PostgresError(
            f"A logical backup of PostgreSQL {source.version} needs the programs of PostgreSQL"
            f" {source.major}, with which it is restored too; here are those of {binaries.major}.",
            next_step=f"Install PostgreSQL {source.major} here, or name it in TWOKEY_PG_BIN.",
        )
    async with connection(target) as conn:
        rows = await conn.fetch(DATABASES)
    if closed := [row["name"] for row in rows if not row["open"]]:
        raise PostgresError(
            f"Twokey's user may not connect to {', '.join(closed)}, so a logical backup would"
            " leave it out.",
            next_step="GRANT CONNECT ON DATABASE to it, and pg_read_all_data; or take a full"
            " backup.",
        )
    return _Plan(
        binaries=binaries,
        target=target,
        source=source,
        id=backup_id,
        manner=manner,
        databases={row["name"]: row["oid"] for row in rows},
        progress=DumpProgress(jobs=_jobs(manner)),
    )


async def _dump_all(
    plan: _Plan, partial: Path, on_progress: OnProgress | None
) -> tuple[list[FileFact], list[_Dumped]]:
    recipient, done = plan.manner.recipient, asyncio.Event()
    async with together() as group:
        if on_progress:
            group.create_task(tell_of_dumps(plan.progress, on_progress, done))
        try:
            await _dump_globals(plan, partial / GLOBALS)
            dumped = [await _dump(plan, partial, name) for name in plan.databases]
        finally:
            done.set()
    index = DumpIndex(
        dumped_by=plan.binaries.version,
        databases=tuple(
            DumpedDatabase(name=name, archive=one.file.name)
            for name, one in zip(plan.databases, dumped, strict=True)
        ),
    )
    (partial / INDEX).write_text(index.model_dump_json(indent=1))
    kept = [
        await asyncio.to_thread(keep_file, partial / name, recipient) for name in (GLOBALS, INDEX)
    ]
    return [*kept, *(one.file for one in dumped)], dumped


async def _dump_globals(plan: _Plan, path: Path) -> None:
    done = await run_program(
        [
            plan.binaries.program("pg_dumpall"),
            *("--globals-only", "--no-role-passwords", "--no-tablespaces", "--no-password"),
            *("--database", plan.target.database, "--file", path),
        ],
        time_limit=_LOCK_WAIT,
        as_server=False,
        environ=_environ(plan, plan.target.database),
    )
    if done.code:
        raise _failure(plan, path.parent, "pg_dumpall", done)


async def _dump(plan: _Plan, partial: Path, name: str) -> _Dumped:
    """One database in one snapshot: dumped, counted, and packed into its archive."""
    goal = partial / f"dump-{plan.databases[name]}"
    async with connection(plan.target, name) as conn:
        try:
            await conn.execute("SET idle_in_transaction_session_timeout = 0")
            async with conn.transaction(isolation="repeatable_read", readonly=True):
                snapshot = str(await conn.fetchval("SELECT pg_export_snapshot()"))
                size_bytes = int(await conn.fetchval(SIZE))
                tables = await conn.fetch(SIZES)
                plan.progress.begin(name, {row["name"]: row["size_bytes"] for row in tables})
                async with together() as group:
                    counting = group.create_task(_count(plan, conn, name))
                    finished = await _pg_dump(plan, name, goal, snapshot)
                    if finished.code:
                        counting.cancel()
        except (asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
            raise PostgresError(
                f"The database {name} on {plan.target.place} broke off its dump: {error}.",
                next_step="See in the server's log why, then ask for the backup again.",
            ) from error
    if finished.code:
        raise _failure(plan, partial, "pg_dump", finished)
    plan.progress.end()
    archive = partial / f"database-{plan.databases[name]}.tar"
    file = await asyncio.to_thread(pack_folder, goal, archive, plan.manner.recipient)
    side, problem = counting.result()
    return _Dumped(file=file, side=side, size_bytes=size_bytes, problem=problem)


async def _count(plan: _Plan, conn: Any, name: str) -> tuple[Side | None, str]:
    """Count, or say why not: a backup without counts is still a backup."""
    limit = plan.manner.counting_limit.total_seconds()
    try:
        return await count_in(conn, name, seconds_max=limit), ""
    except (asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError, OSError) as error:
        return None, f"Rows of {name} were not counted: {error}"


async def _pg_dump(plan: _Plan, name: str, goal: Path, snapshot: str) -> Finished:
    return await run_program(
        [
            plan.binaries.program("pg_dump"),
            *("--format=directory", f"--jobs={_jobs(plan.manner)}", "--file", goal),
            *("--no-tablespaces", "--no-password", "--verbose", f"--snapshot={snapshot}"),
            f"--lock-wait-timeout={int(_LOCK_WAIT.total_seconds() * 1000)}",
            f"--compress={_compression(plan)[1]}",
        ],
        time_limit=TIME_LIMIT,
        as_server=False,
        environ=_environ(plan, name),
        on_line=plan.progress.line,
    )


def _environ(plan: _Plan, database: str) -> Mapping[str, str]:
    return plan.target.environ(application_name=f"twokey backup {plan.id}"[:63], dbname=database)


def _jobs(manner: Manner) -> int:
    return max(1, min(manner.workers, os.cpu_count() or 1))


def _compression(plan: _Plan) -> tuple[str, str]:
    """Its name, and how pg_dump wants to hear it."""
    wish, binaries = plan.manner.compression, plan.binaries
    if wish == "none":
        return "none", "0"
    able = binaries.major >= _FIRST_WITH_ZSTD and binaries.zstd
    if wish == "zstd" and not able:
        raise PostgresError(
            f"pg_dump {binaries.version} here cannot compress with zstd.",
            next_step="Set `compression: auto` or `gzip` in the inventory.",
        )
    return ("zstd", "zstd:level=1") if able and wish != "gzip" else ("gzip", "1")


def _failure(plan: _Plan, partial: Path, program: str, done: Finished) -> PostgresError:
    if _NO_SPACE in done.stderr:
        return disk_error(partial.parent, OSError(_NO_SPACE))
    if "permission denied" in done.stderr:
        return PostgresError(
            f"{program} of {plan.target.place} may not read everything: {done.last_words}",
            next_step="GRANT pg_read_all_data to Twokey's user, or take a full backup.",
        )
    if done.code < 0:
        return PostgresError(
            f"{program} of {plan.target.place} was ended by signal {-done.code}.",
            next_step="See who ended it (the kernel's log names a lack of memory), then ask for"
            " the backup again.",
        )
    return PostgresError(
        f"{program} of {plan.target.place} failed: {done.last_words}",
        next_step="See also the server's log, then ask for the backup again.",
    )


async def _lsn(target: Target) -> str:
    async with connection(target) as conn:
        return str(await conn.fetchval(LSN))


def _tables(dumped: Sequence[_Dumped]) -> tuple[TableCount, ...]:
    """Both sides are the one snapshot that was dumped."""
    sides = [one.side for one in dumped if one.side]
    return compare(sides, sides)


def _measured(plan: _Plan, start_lsn: str, end_lsn: str) -> dict[str, Any]:
    size, timeline = plan.source.segment_bytes, plan.source.timeline
    return {
        "timeline": timeline,
        "start_lsn": start_lsn,
        "end_lsn": end_lsn,
        "start_wal": wal_file(timeline, start_lsn, size),
        "end_wal": wal_file(timeline, end_lsn, size, is_end=True),
        "wal_segment_bytes": size,
    }


def _described(plan: _Plan) -> dict[str, Any]:
    source, recipient = plan.source, plan.manner.recipient
    return {
        "id": plan.id,
        "kind": "logical",
        "encryption": "age" if recipient else "none",
        "recipient": recipient or "",
        "compression": _compression(plan)[0],
        "major": source.major,
        "server_version": source.version,
        "system_identifier": source.system_identifier,
        "page_checksums": source.page_checksums,
        "database": plan.target.database,
        "superuser": source.superuser,
        "settings": source.settings,
    }
