"""Removes what a prune was agreed to remove, as far as it still may go.

The catalogue is changed before the disk and after it: what is being removed counts no more
before its first file goes. So a crash leaves no half backup that counts, and of two workers at
one backup both may remove files, and one says that it did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from jobs.keeping import judgement_of, trimming
from jobs.operation import Attempt, Job, JobError
from jobs.reconcile import findings, look, settle
from jobs.retention import Trim
from jobs.text import count_text
from postgres.backup.engine import Engine
from postgres.backup.wal_names import lsn_number
from store.backups import BackupRecord, all_backups, find_backup
from store.keeping import begin_removal, decide_alone, end_removal


async def reconcile_first(job: Job, engine: Engine) -> None:
    """Enter what has lost its files, so that it is not counted on as what stays.

    Raises:
        JobError: nothing of what the catalogue has is there.
        PostgresError: the engine cannot say what is there.
    """
    seen = await look(job.store, job.database, engine, job.now)
    if seen.is_away:
        finding = findings(job.database, seen)[0]
        raise JobError(finding.problem, next_step=finding.next_step)
    await settle(job.store, job.database, seen, job.now)


async def remove_backups(
    job: Job, engine: Engine, named: Sequence[str], attempt: Attempt
) -> JsonValue:
    """Remove one after the other: how many bytes each has freed, or why it stays.

    The checkpoint says what became of each so far.

    Raises:
        PostgresError: one could not be removed. It counts no more; those after it are untouched.
    """
    outcomes: dict[str, JsonValue] = (
        dict(done) if isinstance(done := attempt.checkpoint, dict) else {}
    )
    strays = await _strays(job, engine)
    for number, backup_id in enumerate(named, 1):
        if backup_id in outcomes:
            continue
        outcome = strays.get(backup_id) or await _remove(job, engine, backup_id)
        outcomes[backup_id] = outcome
        await attempt.save(dict(outcomes))
        freed = isinstance(outcome, int)
        text = f"Removed {backup_id}" if freed else f"{backup_id} stays. {outcome}"
        await job.report(text, fraction=number / len(named))
    return outcomes


async def _strays(job: Job, engine: Engine) -> Mapping[str, str]:
    """Why backups stay on which something builds that no catalogue has."""
    async with job.store.begin() as conn:
        known = {each.backup.id for each in await all_backups(conn, job.database.name)}
    return {
        facts.base: f"{facts.id} builds on it, which is not in the catalogue."
        for facts in (await engine.backups()).backups
        if facts.base and facts.id not in known
    }


async def _remove(job: Job, engine: Engine, backup_id: str) -> int | str:
    """Remove one; how many bytes that freed, or why it stays.

    It counts no more before its first file goes, and is called removed when its last is gone:
    whatever stops us in between, the next prune goes on.
    """
    if (why := await _mark(job, backup_id)) is not None:
        return why
    freed = await engine.remove(backup_id)
    async with job.store.begin() as conn:
        ended = await end_removal(conn, backup_id, at=job.now)
        found = await find_backup(conn, job.database.name, backup_id)
    return (freed or found.size_bytes) if ended and found else "Another run has removed it."


async def _mark(job: Job, backup_id: str) -> int | str | None:
    """Mark a backup as going, if it still may; else why it stays. One decision at a time.

    Its size, when this run removed it before a crash.
    """
    async with job.store.begin() as conn:
        await decide_alone(conn, job.database.name)
        judgement = await judgement_of(conn, job.database, job.now)
        each = next((one for one in judgement.judged if one.backup.id == backup_id), None)
        if each is None:
            return _gone(await find_backup(conn, job.database.name, backup_id), job.request_id)
        if each.kept:
            return each.why
        if each.backup.state == "removing":
            return None
        begun = await begin_removal(
            conn, backup_id, why=each.why, request_id=job.request_id, at=job.now
        )
        return None if begun else "It was put on hold, or something came to build on it."


def _gone(backup: BackupRecord | None, request_id: int) -> int | str:
    removal = backup.detail.get("removal") if backup else None
    if backup and isinstance(removal, dict) and removal.get("request") == request_id:
        return backup.size_bytes
    return "It is gone already."


async def trim_wal(job: Job, engine: Engine, planned: Trim | None) -> JsonValue:
    """Remove WAL up to where the plan says, and never further than may go now.

    `before`, `files` and `freed` (bytes), or `why` all of it stays.

    Raises:
        PostgresError: the engine cannot list or remove WAL.
    """
    async with job.store.begin() as conn:
        judgement = await judgement_of(conn, job.database, job.now)
    if planned is None or judgement.trim is None:
        return {"why": judgement.untrimmed or "The plan does not say so."}
    trim = min(planned, judgement.trim, key=lambda each: lsn_number(each.lsn))
    listing, archive = await engine.backups(), await engine.archive()
    found = trimming(archive, trim, listing.backups)
    if isinstance(found, str):
        return {"why": found}
    await job.report(f"Removing {count_text(found.files, 'WAL file')} before {found.before}")
    freed = await engine.trim(found.before)
    return {"before": found.before, "files": found.files, "freed": freed}
