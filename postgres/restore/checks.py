"""Is this backup good? Restore it, and look at it from every side.

Every check says what it found, also after others have failed, so that one run tells all that
is wrong. A damaged backup is an answer, not an error; errors are what keeps us from looking.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from postgres.backup.facts import BackupFacts, FileFact, read_facts
from postgres.backup.hashing import hash_file
from postgres.binaries import Binaries
from postgres.errors import PostgresError
from postgres.restore.looks import (
    Query,
    check_integrity,
    check_pages,
    check_queries,
    check_rows,
    complaints,
)
from postgres.restore.report import (
    FILES,
    MANIFEST,
    RESTORE,
    Check,
    OnStep,
    Record,
    VerificationReport,
)
from postgres.restore.scratch import (
    ScratchServer,
    missing_wal,
    pg_verifybackup,
    remove_scratch,
    start_scratch,
    unpack,
)
from postgres.restore.unpack import DamagedError
from postgres.sizes import pretty_bytes
from postgres.together import together

__all__ = [
    "Check",
    "Query",
    "VerificationReport",
    "check_files",
    "run_checks",
    "verify_backup",
]


async def verify_backup(
    binaries: Binaries,
    backup: Path,
    work_folder: Path,
    *,
    critical_queries: Sequence[Query] = (),
    on_step: OnStep | None = None,
    settings: Mapping[str, str] | None = None,
) -> VerificationReport:
    """Restore the backup in the folder `backup` into a scratch server, check it, remove the copy.

    Raises:
        PostgresError: it could not be looked at: no such backup, no room, no PostgreSQL of its
            major version. Nothing is left behind.
    """
    began, record = time.monotonic(), Record(on_step)
    try:
        facts = await asyncio.to_thread(_facts, backup)
    except DamagedError as error:
        record.add(FILES, began, [str(error)], "")
        return _report(backup.name, record, began)
    for name in ("pg_verifybackup", "pg_amcheck", "pg_checksums"):
        binaries.program(name)
    scratch: ScratchServer | None = None
    try:
        scratch = await _restore(binaries, backup, facts, work_folder, record, settings)
        if scratch:
            await _run_checks(scratch, critical_queries, record, facts)
    finally:
        if scratch:
            await asyncio.shield(scratch.server.stop("immediate"))
        await remove_scratch(work_folder)
    return _report(facts.id, record, began, scratch=scratch, data_bytes=facts.data_bytes)


async def run_checks(
    scratch: ScratchServer,
    critical_queries: Sequence[Query],
    on_step: OnStep | None = None,
    *,
    counted: BackupFacts | None = None,
) -> tuple[Check, ...]:
    """Check a running scratch server; it is stopped for the last check.

    `counted` is the backup at whose end it stands: its row counts must hold; None: at none's.
    """
    record = Record(on_step)
    await _run_checks(scratch, critical_queries, record, counted)
    return tuple(record.checks)


def check_files(backup: Path, facts: BackupFacts, read: Sequence[FileFact] = ()) -> list[str]:
    """What is wrong with the files of a backup, by size and SHA-256; nothing for a whole one.

    `read` are files that were hashed already, as by `unpack`.
    """
    known = {file.name: file for file in read}
    findings = []
    for wanted in facts.files:
        try:
            found = known.get(wanted.name) or hash_file(backup / wanted.name)
        except FileNotFoundError:
            findings.append(f"{wanted.name} is missing")
            continue
        if found.size_bytes != wanted.size_bytes:
            findings.append(
                f"{wanted.name} has {found.size_bytes} bytes instead of {wanted.size_bytes}"
            )
        elif found.sha256 != wanted.sha256:
            findings.append(f"{wanted.name} is not what was written: its SHA-256 differs")
    return findings


def _facts(backup: Path) -> BackupFacts:
    try:
        return read_facts(backup)
    except FileNotFoundError as error:
        raise PostgresError(
            f"There is no backup in {backup}.",
            next_step="List the backups, and name one of them.",
        ) from error
    except PostgresError as error:
        raise DamagedError(error.problem) from error


def _report(
    backup_id: str,
    record: Record,
    began: float,
    *,
    scratch: ScratchServer | None = None,
    data_bytes: int = 0,
) -> VerificationReport:
    return VerificationReport(
        backup_id=backup_id,
        ok=all(check.ok for check in record.checks),
        restore_seconds=scratch.restore_seconds if scratch else None,
        seconds=round(time.monotonic() - began, 3),
        data_bytes=data_bytes,
        checks=tuple(record.checks),
    )


async def _restore(
    binaries: Binaries,
    backup: Path,
    facts: BackupFacts,
    work_folder: Path,
    record: Record,
    settings: Mapping[str, str] | None,
) -> ScratchServer | None:
    """A running copy, or None; what was found on the way is in the record."""
    began = await record.step(f"Unpacking {pretty_bytes(facts.data_bytes)}")
    read, problem = await _unpack(binaries, backup, facts, work_folder)
    findings = await asyncio.to_thread(check_files, backup, facts, read)
    record.add(FILES, began, findings, f"{len(facts.files)} files are as they were written")
    if problem:
        record.add(RESTORE, began, [problem], "")
        return None
    unpacked = time.monotonic()
    await record.step("Comparing files with PostgreSQL's manifest")
    proof = await pg_verifybackup(binaries, work_folder)
    wrong = [f"WAL {name} is missing" for name in missing_wal(facts, work_folder)]
    wrong += complaints(proof, "pg_verifybackup")
    record.add(MANIFEST, unpacked, wrong, "pg_verifybackup agrees")
    starting = await record.step("Starting the copy")
    try:
        server = await start_scratch(binaries, facts, work_folder, settings=settings)
    except DamagedError as error:
        record.add(RESTORE, starting, [str(error)], "")
        return None
    seconds = time.monotonic() - began
    fine = (
        f"took connections after {seconds:.1f} s (unpacked in {unpacked - began:.1f} s, "
        f"manifest {starting - unpacked:.1f} s, start {time.monotonic() - starting:.1f} s)"
    )
    record.add(RESTORE, starting, [], fine)
    return ScratchServer(server=server, facts=facts, restore_seconds=round(seconds, 3))


async def _unpack(
    binaries: Binaries, backup: Path, facts: BackupFacts, work_folder: Path
) -> tuple[tuple[FileFact, ...], str]:
    try:
        return await unpack(binaries, backup, facts, work_folder), ""
    except DamagedError as error:
        return (), str(error)


async def _run_checks(
    scratch: ScratchServer,
    critical_queries: Sequence[Query],
    record: Record,
    counted: BackupFacts | None,
) -> None:
    # Side by side: amcheck keeps one processor busy for each table, and large tables are few.
    asking = Record(record.on_step)
    async with together() as group:
        group.create_task(check_integrity(scratch, record))
        group.create_task(_ask(scratch, critical_queries, asking, counted))
    record.checks.extend(asking.checks)
    await check_pages(scratch, record)


async def _ask(
    scratch: ScratchServer,
    critical_queries: Sequence[Query],
    record: Record,
    counted: BackupFacts | None,
) -> None:
    await check_rows(scratch, record, counted)
    await check_queries(scratch, critical_queries, record)
