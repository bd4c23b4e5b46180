"""`/db restore-confirm orders 17`: the server that a restore had put aside is removed."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Final

from pydantic import BaseModel, Field, JsonValue

from jobs.aside import age_text, still_aside
from jobs.operation import (
    Answer,
    Attempt,
    Context,
    Job,
    JobError,
    Kind,
    Mode,
    Operation,
    Plan,
    Risk,
)
from jobs.place_look import host, size_of
from jobs.place_run import alone_at
from postgres.restore.control import standing
from postgres.restore.exchange import inode_of
from postgres.restore.ways import beside, ways_of_restore
from postgres.sizes import pretty_bytes
from store.backups import newest_backup
from store.replaced import ReplacedServer, end_replaced, find_replaced

REMOVE_LIMIT: Final = timedelta(hours=6)
RECORD_LIMIT: Final = timedelta(minutes=1)


class Params(BaseModel, extra="forbid"):
    """Which restore to confirm."""

    database: str = Field(description="Database in the inventory", examples=["orders"])
    request: int = Field(description="Number of the restore --into place", examples=[17], ge=1)


async def plan(context: Context, params: Params) -> Plan:
    """Say what is removed, how old and how large it is."""
    server = await _removable(context, params)
    size = await asyncio.to_thread(size_of, Path(server.aside))
    return Plan(
        title=f"Confirm restore #{params.request} of {params.database}",
        steps=(f"Remove {server.aside} on {server.host}, for good",),
        facts=(
            ("Removes", server.aside),
            ("Size", pretty_bytes(size)),
            ("Put aside", age_text(context, server)),
            ("Restored from", f"{server.detail['backup']} to {server.detail['target']}"),
        ),
        warnings=tuple(await _warnings(context, server)),
        pins=_pins(server),
        attributes={"into": "place"},
    )


async def pins(context: Context, params: Params, plan: Plan) -> Mapping[str, str]:
    """That it still is the folder that the plan showed."""
    del plan
    return _pins(await _removable(context, params))


async def run(job: Job, params: Params, plan: Plan) -> Answer:
    """Remove it, and enter that."""
    del plan
    async with job.store.begin() as conn:
        server = await find_replaced(conn, params.database, params.request)
    if server is None:
        raise JobError("What was put aside is unknown.", next_step="Ask again.")
    data, aside = Path(server.data), Path(server.aside)
    gone = beside(data, f"gone-{params.request}")

    async def remove(attempt: Attempt) -> JsonValue:
        del attempt
        if inode_of(gone) is None:
            await _removable(job, params)
            await asyncio.to_thread(aside.rename, gone)  # no half of it is ever put back
        size = await asyncio.to_thread(size_of, gone)
        await asyncio.to_thread(shutil.rmtree, gone)
        return size

    async def enter(attempt: Attempt) -> JsonValue:
        del attempt
        ways_of_restore(data, params.request).note.unlink(missing_ok=True)
        async with job.store.begin() as conn:
            await end_replaced(
                conn, params.request, state="confirmed", at=job.now, detail={"by": job.request_id}
            )
        return None

    async with alone_at(data):
        # Retryable: what is renamed is on its way out, and only that is removed.
        freed = await job.step("remove it", remove, mode=Mode.RETRYABLE, time_limit=REMOVE_LIMIT)
        await job.step("enter it", enter, mode=Mode.RETRYABLE, time_limit=RECORD_LIMIT)
    size = int(str(freed))
    return Answer(
        title=f"Restore #{params.request} of {params.database} is confirmed",
        lines=(f"{server.aside} is removed; it can no longer be undone.",),
        facts=(("Freed", pretty_bytes(size)),),
        numbers={"freed_bytes": size, "request": params.request},
    )


async def _removable(context: Context, params: Params) -> ReplacedServer:
    server = await still_aside(context, params.database, params.request)
    aside = Path(server.aside)
    if aside == Path(server.data) or standing(aside) != "down":
        raise JobError(
            f"A server runs on {server.aside}.",
            next_step="Somebody started it: see who uses it, and stop it first.",
        )
    return server


async def _warnings(context: Context, server: ReplacedServer) -> list[str]:
    found = ["The restore can no longer be undone."]
    async with context.store.begin() as conn:
        newest = await newest_backup(conn, server.database)
    if newest is None or newest.started_at < server.at:
        found.append("No backup was taken since the restore: take one first.")
    return found


def _pins(server: ReplacedServer) -> Mapping[str, str]:
    inode = inode_of(Path(server.aside))
    return {"aside": f"{server.aside} on {host()} (inode {inode})"}


OPERATION = Operation(
    name="restore-confirm",
    summary="Remove the server that a restore into place had replaced",
    kind=Kind.CHANGE,
    risk=Risk.DESTRUCTIVE,
    params=Params,
    example="/db restore-confirm orders 17",
    plan=plan,
    run=run,
    # It touches no server: what must hold is the folder.
    pinned=frozenset(),
    pins=pins,
    time_limit=REMOVE_LIMIT,
)
