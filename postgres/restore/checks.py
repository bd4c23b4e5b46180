"""All checks of a running copy, and that of a backup's files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from postgres.backup.facts import BackupFacts
from postgres.backup.hashing import hash_file
from postgres.restore.looks import (
    Query,
    check_integrity,
    check_pages,
    check_queries,
    check_rows,
)
from postgres.restore.report import Check, OnStep, Record
from postgres.restore.scratch import ScratchServer
from postgres.together import together


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
    # Side by side: amcheck keeps one processor busy for each table, and large tables are few.
    asking = Record(on_step)
    async with together() as group:
        group.create_task(check_integrity(scratch, record))
        group.create_task(_ask(scratch, critical_queries, asking, counted))
    record.checks.extend(asking.checks)
    await check_pages(scratch, record)
    return tuple(record.checks)


def check_files(backup: Path, facts: BackupFacts) -> list[str]:
    """What is wrong with the files of a backup, by size and SHA-256; nothing for a whole one."""
    findings = []
    for wanted in facts.files:
        try:
            found = hash_file(backup / wanted.name)
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


async def _ask(
    scratch: ScratchServer,
    critical_queries: Sequence[Query],
    record: Record,
    counted: BackupFacts | None,
) -> None:
    await check_rows(scratch, record, counted)
    await check_queries(scratch, critical_queries, record)
