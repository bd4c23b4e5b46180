"""Physical backups with PostgreSQL's own `pg_basebackup`, full and incremental.

It writes into `<folder>/<id>.partial`, which gets its name `<folder>/<id>` only when all is
complete and on disk: a crash at any moment leaves nothing that could be taken for a backup.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from postgres.backup.basebackup import Copying, copy, failure, method_of
from postgres.backup.counting import count_around
from postgres.backup.facts import (
    BackupFacts,
    FileFact,
    Listing,
    backup_folder,
    complete,
    list_backups,
    read_backup,
)
from postgres.backup.hashing import Writing, keep_while_written
from postgres.backup.incremental import (
    MANIFEST,
    check_manifest,
    read_chain,
    refusal,
    restored_bytes,
)
from postgres.backup.manner import COUNTING_LIMIT, Compression, Manner
from postgres.backup.partial import begun, partial_folder, remove_partial
from postgres.backup.progress import OnProgress, Progress, watch
from postgres.backup.sealing import check_recipient
from postgres.backup.source import Manifest, Source, look_at, read_manifest, wal_file
from postgres.binaries import Binaries
from postgres.dsn import Target, parse_dsn
from postgres.errors import PostgresError
from postgres.together import together

__all__ = [
    "COUNTING_LIMIT",
    "BackupFacts",
    "Compression",
    "Listing",
    "Manner",
    "list_backups",
    "partial_folder",
    "read_backup",
    "remove_partial",
    "take_backup",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """Everything that one attempt goes by. `chain`: what an incremental builds on."""

    binaries: Binaries
    target: Target
    source: Source
    id: str
    folder: Path
    manner: Manner
    chain: tuple[BackupFacts, ...]

    @property
    def base(self) -> BackupFacts | None:
        """The backup that an incremental builds on; None for a full one."""
        return self.chain[-1] if self.chain else None


async def take_backup(
    binaries: Binaries,
    dsn: SecretStr,
    folder: Path,
    *,
    backup_id: str,
    manner: Manner = Manner(),  # noqa: B008  (it is frozen)
    base: str | None = None,
    on_progress: OnProgress | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> BackupFacts:
    """Take a backup into `<folder>/<backup_id>`, and say what is known about it.

    A full one, or an incremental on the backup `base` of that folder. A backup of that name
    that is complete already is given back as it is, so a retry after a crash is safe; what a
    dead attempt left behind is removed first.

    Raises:
        PostgresError: it failed, and nothing of it is left.
    """
    place = backup_folder(folder, backup_id)
    if place.exists():
        return read_backup(folder, backup_id)
    began, started = clock(), time.monotonic()
    plan = await _plan(binaries, dsn, folder, backup_id, manner, base)
    with begun(folder, backup_id) as partial:
        if place.exists():  # another process was quicker
            return read_backup(folder, backup_id)
        counted = await count_around(
            plan.target,
            lambda: _copy(plan, partial, on_progress),
            limit=plan.manner.counting_limit,
        )
        files = counted.result
        facts = BackupFacts(
            **_described(plan),
            **await asyncio.to_thread(_measured, plan, partial),
            files=files,
            tables=counted.tables,
            counting_problem=counted.problem,
            began_at=began,
            ended_at=clock(),
            seconds=round(time.monotonic() - started, 3),
            size_bytes=sum(file.size_bytes for file in files),
        )
        await asyncio.to_thread(complete, partial, facts)
    return facts


async def _plan(
    binaries: Binaries,
    dsn: SecretStr,
    folder: Path,
    backup_id: str,
    manner: Manner,
    base: str | None,
) -> _Plan:
    if manner.recipient is not None:
        check_recipient(manner.recipient)
    target = parse_dsn(dsn.get_secret_value())
    source = await look_at(target)
    if binaries.major < source.major:
        raise PostgresError(
            f"{target.place} runs PostgreSQL {source.version}, which the programs in "
            f"{binaries.folder} ({binaries.version}) cannot back up.",
            next_step=f"Install PostgreSQL {source.major} here, or name it in TWOKEY_PG_BIN.",
        )
    chain = await asyncio.to_thread(read_chain, folder, base) if base else ()
    if chain and (refused := refusal(source, chain)):
        raise refused
    return _Plan(
        binaries=binaries,
        target=target,
        source=source,
        id=backup_id,
        folder=folder,
        manner=manner,
        chain=chain,
    )


async def _copy(plan: _Plan, partial: Path, on_progress: OnProgress | None) -> tuple[FileFact, ...]:
    """Run pg_basebackup, and beside it keep its files and tell how far it is."""
    copying = Copying(
        binaries=plan.binaries,
        target=plan.target,
        backup_id=plan.id,
        goal=partial,
        method=method_of(plan.manner.compression, plan.binaries, plan.source),
        manner=plan.manner,
        manifest=check_manifest(plan.folder, plan.base) if plan.base else None,
    )
    writing = Writing(partial)
    async with together() as group:
        keeping = group.create_task(
            keep_while_written(
                writing, recipient=plan.manner.recipient, pack_wal=copying.method != "none"
            )
        )
        if on_progress:
            tell = _untotalled(on_progress) if plan.base else on_progress
            group.create_task(watch(plan.target, copying.name, tell, writing.done))
        try:
            finished = await copy(copying)
            writing.well = not finished.code
        finally:
            writing.done.set()
    if finished.code:
        raise failure(copying, finished)
    return keeping.result()


def _untotalled(on_progress: OnProgress) -> OnProgress:
    """The server's total is that of a full backup; how much has changed nobody knows before."""

    async def tell(progress: Progress) -> None:
        await on_progress(replace(progress, total_bytes=None))

    return tell


def _described(plan: _Plan) -> dict[str, Any]:
    source, recipient = plan.source, plan.manner.recipient
    method = method_of(plan.manner.compression, plan.binaries, source)
    return {
        "id": plan.id,
        "kind": "incremental" if plan.base else "full",
        "base": plan.base.id if plan.base else None,
        "encryption": "age" if recipient else "none",
        "recipient": recipient or "",
        "compression": method.removeprefix("server-").removeprefix("client-"),
        "major": source.major,
        "server_version": source.version,
        "system_identifier": source.system_identifier,
        "page_checksums": source.page_checksums,
        "database": plan.target.database,
        "superuser": source.superuser,
        "settings": source.settings,
    }


def _measured(plan: _Plan, partial: Path) -> dict[str, Any]:
    manifest: Manifest = read_manifest(partial / MANIFEST)
    segment_bytes = plan.source.segment_bytes
    older = [plan.folder / facts.id / MANIFEST for facts in reversed(plan.chain)]
    return {
        "data_bytes": restored_bytes([partial / MANIFEST, *older]),
        "timeline": manifest.timeline,
        "start_lsn": manifest.start_lsn,
        "end_lsn": manifest.end_lsn,
        "start_wal": wal_file(manifest.timeline, manifest.start_lsn, segment_bytes),
        "end_wal": wal_file(manifest.timeline, manifest.end_lsn, segment_bytes, is_end=True),
        "wal_segment_bytes": segment_bytes,
    }
