"""Full backups with PostgreSQL's own `pg_basebackup`.

It writes into `<folder>/<id>.partial`, which gets its name `<folder>/<id>` only when all is
complete and on disk: a crash at any moment leaves nothing that could be taken for a backup.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal

import asyncpg
from pydantic import SecretStr

from postgres.backup.counts import Side, compare, count_all, databases, is_quiet, snapshot
from postgres.backup.facts import (
    PARTIAL,
    BackupFacts,
    FileFact,
    Listing,
    TableCount,
    backup_folder,
    complete,
    list_backups,
    read_backup,
)
from postgres.backup.hashing import hash_while_written
from postgres.backup.progress import OnProgress, watch
from postgres.backup.source import (
    FIRST_WITH_SERVER_COMPRESSION,
    Manifest,
    Source,
    look_at,
    read_manifest,
    wal_file,
)
from postgres.binaries import Binaries
from postgres.dsn import Target, parse_dsn
from postgres.errors import PostgresError
from postgres.programs import Finished, run_program
from postgres.sizes import pretty_bytes
from postgres.together import together

__all__ = ["BackupFacts", "Listing", "list_backups", "read_backup", "remove_partial", "take_backup"]

Compression = Literal["auto", "zstd", "gzip", "none"]

TIME_LIMIT: Final = timedelta(hours=24)
COUNTING_LIMIT: Final = timedelta(minutes=10)
_WORKERS_MAX: Final = 4
_STATISTICS_SECONDS: Final = 1.1
_NO_SPACE: Final = "No space left on device"
_QUOTA: Final = "Disk quota exceeded"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counted:
    """The rows of all databases in one snapshot each, or why there are none."""

    sides: tuple[Side, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """Everything that one attempt goes by."""

    binaries: Binaries
    target: Target
    source: Source
    id: str
    partial: Path
    compression: Literal["zstd", "gzip", "none"]
    counting_limit: timedelta


async def take_backup(
    binaries: Binaries,
    dsn: SecretStr,
    folder: Path,
    *,
    backup_id: str,
    compress: Compression = "auto",
    on_progress: OnProgress | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    counting_limit: timedelta = COUNTING_LIMIT,
) -> BackupFacts:
    """Take a full backup into `<folder>/<backup_id>`, and say what is known about it.

    A backup of that name that is complete already is given back as it is, so a retry after
    a crash is safe; what a dead attempt left behind is removed first. Rows are counted for
    as long as `counting_limit`; tables that are left over are compared with nothing later.

    Raises:
        PostgresError: it failed, and nothing of it is left.
    """
    place = backup_folder(folder, backup_id)
    if place.exists():
        return read_backup(folder, backup_id)
    began, started = clock(), time.monotonic()
    plan = await _plan(
        binaries, parse_dsn(dsn.get_secret_value()), folder, backup_id, compress, counting_limit
    )
    try:
        files, counted = await _copy(plan, on_progress)
        tables = await _second_look(plan, counted)
        manifest = await asyncio.to_thread(read_manifest, plan.partial / "backup_manifest")
        facts = BackupFacts(
            **_described(plan),
            **_measured(manifest, plan.source.segment_bytes),
            files=files,
            tables=tables,
            counting_problem=counted.problem,
            began_at=began,
            ended_at=clock(),
            seconds=round(time.monotonic() - started, 3),
            size_bytes=sum(file.size_bytes for file in files),
        )
        await asyncio.to_thread(complete, plan.partial, facts)
    except OSError as error:
        remove_partial(folder, backup_id)
        raise _disk_error(folder, error) from error
    except BaseException:
        remove_partial(folder, backup_id)
        raise
    return facts


def remove_partial(folder: Path, backup_id: str) -> None:
    """Remove what an attempt left that did not end, if anything."""
    shutil.rmtree(partial_folder(folder, backup_id), ignore_errors=True)


def partial_folder(folder: Path, backup_id: str) -> Path:
    """Where a backup is while it is taken."""
    place = backup_folder(folder, backup_id)
    return place.with_name(place.name + PARTIAL)


async def _plan(
    binaries: Binaries,
    target: Target,
    folder: Path,
    backup_id: str,
    compress: Compression,
    counting_limit: timedelta,
) -> _Plan:
    source = await look_at(target)
    if binaries.major < source.major:
        raise PostgresError(
            f"{target.place} runs PostgreSQL {source.version}, which the programs in "
            f"{binaries.folder} ({binaries.version}) cannot back up.",
            next_step=f"Install PostgreSQL {source.major} here, or name it in TWOKEY_PG_BIN.",
        )
    partial = partial_folder(folder, backup_id)
    try:
        await asyncio.to_thread(_make_way, partial)
    except OSError as error:
        raise _disk_error(folder, error) from error
    return _Plan(
        binaries=binaries,
        target=target,
        source=source,
        id=backup_id,
        partial=partial,
        compression=_compression(compress, binaries, source),
        counting_limit=counting_limit,
    )


def _make_way(partial: Path) -> None:
    partial.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if partial.exists():
        shutil.rmtree(partial)


def _compression(
    wish: Compression, binaries: Binaries, source: Source
) -> Literal["zstd", "gzip", "none"]:
    """What both sides can do: zstd on the server costs the least time."""
    if wish != "auto":
        return wish
    new = min(binaries.major, source.major) >= FIRST_WITH_SERVER_COMPRESSION
    return "zstd" if new and binaries.zstd and source.zstd else "gzip"


async def _copy(
    plan: _Plan, on_progress: OnProgress | None
) -> tuple[tuple[FileFact, ...], _Counted]:
    """Run pg_basebackup, and beside it count rows, hash its files and tell how far it is."""
    counts_began, done = asyncio.Event(), asyncio.Event()
    name = f"twokey backup {plan.id}"[:63]
    async with together() as group:
        counting = group.create_task(_count(plan, counts_began))
        await counts_began.wait()
        hashing = group.create_task(hash_while_written(plan.partial, done))
        if on_progress:
            group.create_task(watch(plan.target, name, on_progress, done))
        try:
            finished = await _pg_basebackup(plan, name)
        finally:
            done.set()
    if finished.code:
        raise _failure(plan, finished)
    return hashing.result(), counting.result()


async def _pg_basebackup(plan: _Plan, name: str) -> Finished:
    workers = min(_WORKERS_MAX, os.cpu_count() or 1)
    finished = await _attempt(plan, name, f"server-zstd:level=1,workers={workers}")
    if finished.code and "compression worker" in finished.stderr:  # a library without threads
        await asyncio.to_thread(shutil.rmtree, plan.partial, ignore_errors=True)
        finished = await _attempt(plan, name, "server-zstd:level=1")
    return finished


async def _attempt(plan: _Plan, name: str, zstd: str) -> Finished:
    method = {"zstd": [f"--compress={zstd}"], "gzip": ["--gzip", "--compress=1"], "none": []}
    return await run_program(
        [
            plan.binaries.program("pg_basebackup"),
            "--pgdata",
            plan.partial,
            "--format=tar",
            "--wal-method=stream",
            "--checkpoint=fast",
            "--manifest-checksums=SHA256",
            "--no-password",
            f"--label=twokey {plan.id}",
            *method[plan.compression],
        ],
        time_limit=TIME_LIMIT,
        as_server=False,  # the backup belongs to us, out of reach of the servers' account
        environ=plan.target.environ(application_name=name),
    )


async def _count(plan: _Plan, began: asyncio.Event) -> _Counted:
    """Count, or say why not: a backup without counts is still a backup."""
    try:
        names = await databases(plan.target)
        sides = await count_all(
            plan.target, names, seconds_max=plan.counting_limit.total_seconds(), began=began
        )
        return _Counted(sides=sides)
    except (PostgresError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        return _Counted(problem=f"Rows were not counted: {error}")
    finally:
        began.set()


async def _second_look(plan: _Plan, counted: _Counted) -> tuple[TableCount, ...]:
    """The counts of before and after; see `postgres.backup.counts`."""
    if counted.problem or not counted.sides:
        return ()
    if is_quiet(counted.sides, [await snapshot(plan.target)]):
        return compare(counted.sides, counted.sides)
    # Busy sessions hand in their statistics once a second; `TableCount.bounds` needs them.
    await asyncio.sleep(_STATISTICS_SECONDS)
    again = await _count(plan, asyncio.Event())
    return () if again.problem else compare(counted.sides, again.sides)


def _described(plan: _Plan) -> dict[str, Any]:
    source = plan.source
    return {
        "id": plan.id,
        "compression": plan.compression,
        "major": source.major,
        "server_version": source.version,
        "system_identifier": source.system_identifier,
        "page_checksums": source.page_checksums,
        "database": plan.target.database,
        "superuser": source.superuser,
        "settings": source.settings,
    }


def _measured(manifest: Manifest, segment_bytes: int) -> dict[str, Any]:
    return {
        "data_bytes": manifest.data_bytes,
        "timeline": manifest.timeline,
        "start_lsn": manifest.start_lsn,
        "end_lsn": manifest.end_lsn,
        "start_wal": wal_file(manifest.timeline, manifest.start_lsn, segment_bytes),
        "end_wal": wal_file(manifest.timeline, manifest.end_lsn, segment_bytes, is_end=True),
        "wal_segment_bytes": segment_bytes,
    }


def _failure(plan: _Plan, finished: Finished) -> PostgresError:
    said = finished.stderr
    if _NO_SPACE in said or _QUOTA in said:
        return _disk_error(plan.partial.parent, OSError(_NO_SPACE if _NO_SPACE in said else _QUOTA))
    if "checksum" in said:
        damaged = [line for line in said.splitlines() if "checksum verification failed" in line]
        first = (damaged or [finished.last_words])[0].removeprefix("WARNING:").strip()
        return PostgresError(
            f"The server has damaged pages, so the backup was not kept: {first}",
            next_step="Find out what is damaged (`/db integrity`, the disk's health), and keep "
            "the older backups until it is mended.",
        )
    if "max_wal_senders" in said:
        return PostgresError(
            f"{plan.target.place} has no replication connection left for a backup.",
            next_step="Wait for another backup to end, or raise max_wal_senders.",
        )
    return PostgresError(
        f"pg_basebackup on {plan.target.place} failed: {finished.last_words}",
        next_step="The user needs the REPLICATION attribute and a line for replication in "
        "pg_hba.conf; see also the server's log.",
    )


def _disk_error(folder: Path, error: OSError) -> PostgresError:
    free = shutil.disk_usage(folder).free if folder.exists() else 0
    return PostgresError(
        f"The backup could not be written to {folder}: {error.strerror or error}. "
        f"{pretty_bytes(free)} are free there.",
        next_step="Free some space or name another folder, then ask for the backup again.",
    )
