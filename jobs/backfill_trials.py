"""A backfill tried on a restored copy: made as production is where that decides the pace."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from jobs.backfill_paces import Tried, row_of
from jobs.backfilling import Wanted, with_own_names
from jobs.migration_settings import BackfillSettings
from jobs.operation import Context, Job, JobError
from jobs.rehearsing_copy import login_of, restored_copy
from postgres.connect import connection
from postgres.migrate.backfill.spec import BackfillLimits
from postgres.migrate.backfill.trial import DISPOSABLE, try_backfill
from postgres.restore.recovery import Recovered
from store.rehearsals import record_rehearsal

# A copy waits for its disk only where production does, and keeps as many pages in memory, as far
# as the worker's has room: else it would write a page out and read it again for each batch.
_LIKE: Final = """
    SELECT pg_size_bytes(current_setting('shared_buffers')) AS buffers,
           current_setting('fsync') AS fsync, current_setting('full_page_writes') AS pages,
           CASE current_setting('synchronous_commit') WHEN 'off' THEN 'off' ELSE 'on' END AS commits
"""
_COLUMNS: Final = """
    SELECT a.attname::text AS name FROM pg_attribute a
     WHERE a.attrelid = to_regclass(format('%I.%I', $1::text, $2::text))
       AND a.attnum > 0 AND NOT a.attisdropped
"""
_BUFFERS_MIN: Final = 128 * 2**20
_SHARE_OF_MEMORY: Final = 0.25
_SECONDS_MAX: Final = 60.0


def settings_like(production: Mapping[str, str | int], memory_bytes: int) -> dict[str, str]:
    """Settings of the copy, from a row of `_LIKE` and the worker's memory. Pure."""
    room = max(int(memory_bytes * _SHARE_OF_MEMORY), _BUFFERS_MIN)
    buffers = max(_BUFFERS_MIN, min(int(production["buffers"]), room))
    return {
        "shared_buffers": f"{buffers // 2**20}MB",
        "fsync": str(production["fsync"]),
        "full_page_writes": str(production["pages"]),
        "synchronous_commit": str(production["commits"]),
        DISPOSABLE: "on",
    }


def work_bytes_of(wanted: Wanted) -> int:
    """How much a trial may write into the copy at most, besides its WAL: all that grows."""
    return wanted.bloat_bytes


async def try_on_copy(job: Job, wanted: Wanted, backup_id: str) -> Tried:
    """Restore that backup, try the backfill there, and store its pace for plans to go by.

    The body of a retryable step.

    Raises:
        JobError, PostgresError: there is no copy, or the backfill cannot be done there. Nothing
            is left.
    """
    settings = await _like_production(job)
    async with restored_copy(
        job, backup_id, work_bytes=work_bytes_of(wanted), settings=settings
    ) as recovered:
        login = with_own_names(await login_of(job, recovered))
        await _must_have_columns(job, wanted, recovered)
        await job.report(f"Trying the backfill of {wanted.text} on the copy")
        trial = await try_backfill(
            login, wanted.spec("trial"), _limits(job.database.migrations.backfill)
        )
        tried = Tried(
            trial=trial,
            backup_id=recovered.facts.id,
            reached_at=recovered.reached_at or recovered.facts.ended_at,
            data_bytes=recovered.facts.data_bytes,
        )
    row = row_of(
        tried, database=job.database.name, subject=wanted.subject, at=job.now,
        request_id=job.request_id,
    )  # fmt: skip
    async with job.store.begin() as conn:
        await record_rehearsal(conn, row)
    return tried


def _limits(settings: BackfillSettings) -> BackfillLimits:
    return BackfillLimits(rows=settings.rows, batch=settings.batch, retries=settings.retries)


async def _like_production(context: Context) -> dict[str, str]:
    (row,) = await context.reader.rows(_LIKE)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return settings_like(row, memory)


async def _must_have_columns(job: Job, wanted: Wanted, recovered: Recovered) -> None:
    """See that the copy is young enough for what is asked for."""
    async with connection(recovered.dsn) as conn:
        rows = await conn.fetch(_COLUMNS, wanted.schema, wanted.name, timeout=_SECONDS_MAX)
    there = {row["name"] for row in rows}
    missing = sorted((wanted.terms.columns | set(wanted.terms.assigned)) - there)
    if not missing:
        return
    what = f"column {', '.join(missing)} of {wanted.text}" if there else f"table {wanted.text}"
    name = job.database.name
    raise JobError(
        f"The {what} is not in what can be restored from {recovered.facts.id}.",
        next_step=f"Take a new backup (/db backup {name}), verify it (/db verify {name}), then"
        " rehearse again.",
    )
