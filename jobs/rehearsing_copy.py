"""A proven backup as a running server that reaches nobody and is gone afterwards."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from jobs.engines import engine_of
from jobs.operation import Job, JobError
from jobs.recoverable import what_is_kept
from jobs.rehearsing_choice import check_room, settings_of_copy, way_to
from postgres.binaries import find_binaries
from postgres.dsn import Target, parse_dsn
from postgres.migrate.copies import cut_off
from postgres.restore.folders import remove_scratch
from postgres.restore.light import login_problem
from postgres.restore.recovery import Recovered, recover
from postgres.restore.target import LATEST


@asynccontextmanager
async def restored_copy(
    job: Job, backup_id: str, *, work_bytes: int, settings: Mapping[str, str] | None = None
) -> AsyncIterator[Recovered]:
    """The copy for as long as this lasts, cut off from other servers.

    It has all WAL that the archive has. `work_bytes` will be written there besides. Whatever an
    earlier attempt left in the run's folder is removed first.

    Raises:
        JobError, PostgresError: it could not be made. Nothing is left.
    """
    kept = await what_is_kept(job, LATEST)
    choice = await asyncio.to_thread(way_to, kept, backup_id)
    binaries = await asyncio.to_thread(find_binaries, os.environ, major=choice.backup.major)
    await remove_scratch(job.folder)
    await asyncio.to_thread(check_room, job.folder, choice, work_bytes)
    recovered: Recovered | None = None
    try:
        recovered = await recover(
            engine_of(job.database),
            binaries,
            choice,
            job.folder,
            settings={**settings_of_copy(choice.backup.major), **(settings or {})},
            on_step=job.report,
        )
        await job.report("Cutting the copy off from other servers")
        await cut_off(recovered.dsn)
        yield recovered
    finally:
        if recovered is not None:
            await asyncio.shield(recovered.server.stop("immediate"))
        await asyncio.shield(remove_scratch(job.folder))


async def login_of(job: Job, recovered: Recovered) -> Target:
    """The copy as the role of the inventory.

    Raises:
        JobError: when the backup was taken, that role could not log in.
    """
    wanted = parse_dsn(job.database.dsn.get_secret_value())
    if problem := await login_problem(recovered.dsn, wanted):
        raise JobError(
            f"{job.database.name} as of {recovered.facts.id} cannot be used by the bot: {problem}.",
            next_step=f"Take a new backup (/db backup {job.database.name}), verify it, then"
            " rehearse again.",
        )
    user = wanted.words.get("user") or recovered.facts.superuser
    return parse_dsn(recovered.server.dsn(wanted.database, user))
