"""Has a database watched after a change: what was before is looked up before it begins."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from pydantic import JsonValue

from jobs.alert_readings import servers_of
from jobs.operation import Attempt, Context, Job, Mode
from jobs.watching import LEAST, averages
from store.samples import nodes_of, series
from store.watches import WatchRow, open_watch

LIMIT: Final = timedelta(minutes=2)
ATTEMPTS: Final = 3


async def picture_of(context: Context) -> Mapping[str, float]:
    """What the watched metrics were on average, as long until now as is watched afterwards."""
    database, span = context.database, context.database.migrations.watch
    async with context.store.begin() as conn:
        rows = await nodes_of(conn, [database.name])
        primary = servers_of(database, rows, context.now).primary
        points = await series(
            conn, database.name, primary, list(LEAST), since=context.now - span,
            until=context.now, width=None,
        )  # fmt: skip
    return averages(points)


async def watch_after(job: Job, subject: str, *, before: object, undo: Mapping[str, Any]) -> bool:
    """A step of the run that has it watched from now on; False: there is nothing to compare.

    `before`: of `picture_of`, as a step has kept it. `undo`: operation and params, or nothing.
    """
    if not job.database.monitoring.is_on or not isinstance(before, Mapping) or not before:
        return False

    async def body(_: Attempt) -> JsonValue:
        row = WatchRow(
            database=job.database.name,
            request_id=job.request_id,
            subject=subject,
            state="watching",
            at=job.now,
            until=job.now + job.database.migrations.watch,
            before=before,
            undo=undo,
        )
        async with job.store.begin() as conn:
            await open_watch(conn, row)
        return True

    await job.step("watch", body, mode=Mode.RETRYABLE, time_limit=LIMIT, attempts=ATTEMPTS)
    return True
