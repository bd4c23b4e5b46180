"""Is this backup good, at its own end or at any moment after it? Recover it, and look.

Every check says what it found, also after others have failed, so that one run tells all that
is wrong. A damaged backup is an answer, not an error; errors are what keeps us from looking.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from postgres.backup.engine import Engine
from postgres.backup.facts import BackupFacts
from postgres.binaries import Binaries, find_binaries
from postgres.errors import DamagedError
from postgres.restore.checks import run_checks
from postgres.restore.ending import UnreachedError
from postgres.restore.folders import remove_scratch, scratch_folder
from postgres.restore.laying import missing_wal
from postgres.restore.looks import Query, complaints
from postgres.restore.recovery import Laid, Recovered, lay_out, start
from postgres.restore.report import (
    FILES,
    MANIFEST,
    RESTORE,
    WAL,
    OnStep,
    Record,
    VerificationReport,
)
from postgres.restore.scratch import pg_verifybackup
from postgres.restore.target import END, RecoveryTarget
from postgres.restore.window import Choice, HoleError, Mark, choose
from postgres.sizes import pretty_bytes
from postgres.together import together

_PROGRAMS: Final = ("pg_verifybackup", "pg_amcheck", "pg_checksums")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """What is looked at, and what with."""

    engine: Engine
    facts: BackupFacts
    target: RecoveryTarget
    work_folder: Path
    binaries: Binaries
    record: Record


async def verify_backup(
    engine: Engine,
    facts: BackupFacts,
    work_folder: Path,
    *,
    environ: Mapping[str, str],
    target: RecoveryTarget | None = None,
    marks: Sequence[Mark] = (),
    critical_queries: Sequence[Query] = (),
    settings: Mapping[str, str] | None = None,
    on_step: OnStep | None = None,
) -> VerificationReport:
    """Recover a backup to `target` in a scratch server, check it from every side, remove it.

    Without a target to its own end. Marks are in the order of time; `settings` override those
    of the scratch server.

    Raises:
        PostgresError: it could not be looked at: no room, no key, no PostgreSQL of its major
            version, or the target is not one that its WAL could lead to. Nothing is left behind.
    """
    began = time.monotonic()
    binaries = await asyncio.to_thread(find_binaries, environ, major=facts.major)
    for name in _PROGRAMS:
        binaries.program(name)
    task = _Task(
        engine=engine,
        facts=facts,
        target=target or END,
        work_folder=work_folder,
        binaries=binaries,
        record=Record(on_step),
    )
    recovered: Recovered | None = None
    try:
        choice, counted = await _choose(task, marks)
        laid = await _lay_out(task, choice) if choice else None
        recovered = await _start(task, laid, settings) if laid else None
        if recovered:
            found = await run_checks(recovered.scratch, critical_queries, on_step, counted=counted)
            task.record.checks.extend(found)
    finally:
        if recovered:
            await asyncio.shield(recovered.server.stop("immediate"))
        await asyncio.shield(remove_scratch(work_folder))
    return _report(task, began, recovered)


def _report(task: _Task, began: float, recovered: Recovered | None) -> VerificationReport:
    checks = tuple(task.record.checks)
    return VerificationReport(
        backup_id=task.facts.id,
        ok=all(check.ok for check in checks),
        restore_seconds=recovered.seconds if recovered else None,
        seconds=round(time.monotonic() - began, 3),
        data_bytes=task.facts.data_bytes,
        checks=checks,
        target=str(task.target),
        reached_at=recovered.reached_at if recovered else None,
        wal_bytes=recovered.wal_bytes if recovered else 0,
    )


async def _choose(task: _Task, marks: Sequence[Mark]) -> tuple[Choice | None, BackupFacts | None]:
    """The way to the target, and the backup whose row counts hold there."""
    facts, target = task.facts, task.target
    if target.kind == "end":
        return Choice(target=target, backup=facts, timeline=facts.timeline), facts
    began = await task.record.step(f"Looking for the WAL to {target}")
    async with together() as group:
        listing = group.create_task(task.engine.backups())
        archive = group.create_task(task.engine.archive())
    known = listing.result().backups
    try:
        choice = choose(known, archive.result(), target, marks=marks, backup_id=facts.id)
    except HoleError as error:
        task.record.add(WAL, began, [error.problem], "")
        return None, None
    fine = f"{len(choice.wal)} files lead from the backup to {target} without a hole"
    task.record.add(WAL, began, [], fine)
    there = [other for other in known if target.kind == "lsn" and other.end_lsn == target.value]
    return choice, next(iter(there), None)


async def _lay_out(task: _Task, choice: Choice) -> Laid | None:
    """What was laid out, or None; what was found on the way is in the record."""
    record, facts = task.record, task.facts
    began = await record.step(f"Unpacking {pretty_bytes(facts.data_bytes)}")
    async with together() as group:
        inspecting = group.create_task(_inspect(task))
        laying = group.create_task(_laid(task, choice))
    laid = laying.result()
    record.add(FILES, began, inspecting.result(), "all files are as they were written")
    if isinstance(laid, str):
        record.add(RESTORE, began, [laid], "")
        return None
    await _check_manifest(task, laid)
    return laid


async def _inspect(task: _Task) -> Sequence[str]:
    try:
        return await task.engine.inspect(task.facts.id)
    except DamagedError as error:
        return [str(error)]


async def _laid(task: _Task, choice: Choice) -> Laid | str:
    """What was laid out, or what is damaged."""
    try:
        return await lay_out(task.engine, choice, task.work_folder)
    except DamagedError as error:
        return str(error)


async def _check_manifest(task: _Task, laid: Laid) -> None:
    """PostgreSQL's own list of files, as far as the backup has one."""
    if not (scratch_folder(task.work_folder) / "data" / "backup_manifest").exists():
        return
    began = await task.record.step("Comparing files with PostgreSQL's manifest")
    proof = await pg_verifybackup(task.binaries, task.work_folder)
    gone = [] if laid.has_command else missing_wal(task.facts, task.work_folder)
    wrong = [f"WAL {name} is missing" for name in gone]
    wrong += complaints(proof, "pg_verifybackup")
    task.record.add(MANIFEST, began, wrong, "pg_verifybackup agrees")


async def _start(task: _Task, laid: Laid, settings: Mapping[str, str] | None) -> Recovered | None:
    """A running copy at the target, or None; what was found is in the record."""
    record = task.record
    began = time.monotonic()
    try:
        recovered = await start(
            task.binaries, laid, task.work_folder, settings=settings, on_step=record.on_step
        )
    except DamagedError as error:
        record.add(RESTORE, began, [str(error)], "")
        return None
    except UnreachedError as error:
        record.add(RESTORE, began, [error.problem], "")
        return None
    fine = (
        f"took connections after {recovered.seconds:.1f} s (laid out in "
        f"{recovered.lay_out_seconds:.1f} s, {pretty_bytes(recovered.wal_bytes)} of WAL replayed "
        f"in {recovered.replay_seconds:.1f} s, promoted in {recovered.promote_seconds:.1f} s)"
    )
    record.add(RESTORE, began, [], f"{fine}. {recovered.note}".removesuffix(". "))
    return recovered
