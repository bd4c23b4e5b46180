"""The first steps of every recovery: the archive has what is needed, and the way is chosen."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from pydantic import JsonValue, TypeAdapter

from jobs.archive_mark import WAIT_MAX, mark_archive, needs_mark
from jobs.engines import engine_of
from jobs.operation import Attempt, Job, Mode
from jobs.recoverable import what_is_kept
from postgres.restore.target import RecoveryTarget
from postgres.restore.window import Choice

CHOICE: Final = TypeAdapter(Choice)
MARK_LIMIT: Final = 2 * WAIT_MAX
CHOOSE_LIMIT: Final = timedelta(minutes=10)


async def choose_way(job: Job, target: RecoveryTarget, *, backup_id: str) -> Choice:
    """How the target is reached from this backup, the same however often the run is resumed.

    As a step of its own: what is kept changes meanwhile, not least by what the run itself does.

    Raises:
        JobError: the archive lags too far behind, or the backup was found damaged.
        PostgresError: no way leads to the target any more.
    """
    if needs_mark(target, job.database.backups.archive.method, now=job.now):

        async def mark(_: Attempt) -> JsonValue:
            return await mark_archive(
                job.store, job.database, engine_of(job.database), say=job.report
            )

        await job.step("mark", mark, mode=Mode.RETRYABLE, time_limit=MARK_LIMIT)

    async def choose(_: Attempt) -> JsonValue:
        kept = await what_is_kept(job, target)
        chosen: JsonValue = CHOICE.dump_python(
            kept.choose(target, backup_id=backup_id), mode="json"
        )
        return chosen

    chosen = await job.step("choose", choose, mode=Mode.RETRYABLE, time_limit=CHOOSE_LIMIT)
    return CHOICE.validate_python(chosen)
