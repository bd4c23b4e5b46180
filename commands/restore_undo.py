"""`/db restore-undo orders 17`: the server that a restore had replaced comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
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
from jobs.place_copy import COPY_LIMIT, NewTimeline, hand_over, own_timeline
from jobs.place_look import host, look, place_settings
from jobs.place_objections import objection
from jobs.place_run import (
    REPLACE_LIMIT,
    Exchange,
    Exchanged,
    alone_at,
    exchange,
    is_archived,
)
from jobs.text import count_text, span_text
from postgres.errors import PostgresError
from postgres.restore.control import control_facts, read_instance, standing
from postgres.restore.exchange import inode_of
from postgres.restore.place import Replacement
from postgres.restore.quiet import NEXT_XID
from postgres.restore.ways import Ways, ways_of_undo
from store.replaced import ReplacedServer, end_replaced

LOOK_LIMIT: Final = timedelta(minutes=5)
RECORD_LIMIT: Final = timedelta(minutes=1)


class Params(BaseModel, extra="forbid"):
    """Which restore to take back."""

    database: str = Field(description="Database in the inventory", examples=["orders"])
    request: int = Field(description="Number of the restore --into place", examples=[17], ge=1)


async def plan(context: Context, params: Params) -> Plan:
    """Say what comes back, and what is lost by it."""
    server = await _fitting(context, params)
    data = Path(server.data)
    undone = ways_of_undo(data, 0, undoes=params.request).leaving
    since = await _written_since(context, server)
    lost = (
        "an unknown number of transactions" if since is None else count_text(since, "transaction")
    )
    return Plan(
        title=f"Undo restore #{params.request} of {params.database}",
        steps=(
            "Give the old server a timeline of its own, while the restored one runs on",
            "Close the restored server to everybody, have its last WAL archived, stop it",
            f"Rename {data.name} to {undone.name}, and the old server's folder to {data.name}",
            "Start the old server, and see that it is the one and takes writes",
        ),
        facts=(
            ("Restored", f"{age_text(context, server)}, from {server.detail['backup']}"),
            ("Comes back", f"{server.aside} on {server.host}"),
            ("Lost by it", f"at most {lost} since the restore"),
        ),
        warnings=(
            f"What was written since the restore, at most {lost}, is not in the old server.",
            "Whoever uses the database is cut off, and must connect again.",
        ),
        undo="By hand only: the restored server's folder is kept beside the old one.",
        pins=_pins(server),
        attributes={"into": "place"},
    )


async def pins(context: Context, params: Params, plan: Plan) -> Mapping[str, str]:
    """What stands where, and that nobody has confirmed or undone it meanwhile."""
    del plan
    return _pins(await _fitting(context, params))


async def run(job: Job, params: Params, plan: Plan) -> Answer:
    """Exchange the two servers again."""
    del plan
    data = await asyncio.to_thread(place_settings(job).data.resolve)
    ways = ways_of_undo(data, job.request_id, undoes=params.request)
    async with alone_at(data):
        return await _run(job, params, ways)


async def _run(job: Job, params: Params, ways: Ways) -> Answer:
    async def check(attempt: Attempt) -> JsonValue:
        del attempt
        await _fitting(job, params)
        return None

    async def branch(attempt: Attempt) -> JsonValue:
        del attempt
        made = await own_timeline(job.database, ways.coming, ways.data)
        return made.model_dump(mode="json")

    await job.step("look at both servers", check, mode=Mode.RETRYABLE, time_limit=LOOK_LIMIT)
    made = await job.step(
        "give the old server a timeline", branch, mode=Mode.RETRYABLE, time_limit=COPY_LIMIT
    )
    timeline = NewTimeline.model_validate(made)
    done = await _exchange(job, params, ways)
    problem = await hand_over(job.database, ways.data, timeline.first_wal)
    return _answer(params, ways, done, problem)


async def _exchange(job: Job, params: Params, ways: Ways) -> Exchanged:
    settings = place_settings(job)

    async def enter(found: Exchanged | None) -> None:
        detail: dict[str, JsonValue] = {"undone": str(ways.leaving), "undone_by": job.request_id}
        if found is not None:
            detail["undo"] = found.model_dump(mode="json")
        async with job.store.begin() as conn:
            await end_replaced(conn, params.request, state="undone", at=job.now, detail=detail)

    given = Exchange(
        order=Replacement(
            ways=ways,
            dsn=job.database.dsn,
            take_files=False,  # it comes back as it was
            may_be_broken=True,
            start_command=settings.start,
            stop_command=settings.stop,
            is_archived=is_archived(job.database, ways.data),
        ),
        enter=enter,
    )

    async def replaced(attempt: Attempt) -> JsonValue:
        del attempt
        return (await exchange(job, given)).model_dump(mode="json")

    # Retryable: it looks first how the folders stand, and goes on from there.
    done = await job.step(
        "replace the server", replaced, mode=Mode.RETRYABLE, time_limit=REPLACE_LIMIT
    )
    return Exchanged.model_validate(done)


async def _fitting(context: Context, params: Params) -> ReplacedServer:
    """What comes back, if the server in its place may leave."""
    server = await still_aside(context, params.database, params.request)
    data = await asyncio.to_thread(place_settings(context).data.resolve)
    if str(data) != server.data:
        raise JobError(
            f"The inventory now names {data}, and the restore was at {server.data}.",
            next_step="Correct `place: data` in the inventory.",
        )
    if standing(data) == "down":  # a restored server that does not even start may leave, too
        return server
    place = replace(await look(context), kept=(), strangers=())
    archive = context.database.backups.archive.method
    if found := objection(place, needed_bytes=None, archive=archive):
        raise found
    return server


async def _written_since(context: Context, server: ReplacedServer) -> int | None:
    """How many transactions the restored server has begun; None where that cannot be known."""
    began = server.detail.get("new_xid")
    if not isinstance(began, int):
        return None
    data = Path(server.data)
    if standing(data) == "down":
        try:
            instance = await asyncio.to_thread(read_instance, data)
            facts = await control_facts(instance.folder, data)
        except PostgresError:
            return None
        return max(0, facts.next_xid - began) if facts.is_clean else None
    rows = await context.reader.rows(NEXT_XID)
    return max(0, int(next(iter(rows[0].values()))) - began)


def _pins(server: ReplacedServer) -> Mapping[str, str]:
    return {
        "aside": f"{server.aside} on {host()} (inode {inode_of(Path(server.aside))})",
        "place": f"{server.data} (inode {inode_of(Path(server.data))})",
    }


def _answer(params: Params, ways: Ways, done: Exchanged, problem: str) -> Answer:
    name = params.database
    down = "" if done.down_seconds is None else span_text(timedelta(seconds=done.down_seconds))
    return Answer(
        title=f"Restore #{params.request} of {name} was undone",
        lines=(
            "Applications can connect again; the server is the one from before the restore.",
            f"Now take a full backup of timeline {done.new_timeline}: /db backup {name}",
            f"What was written meanwhile is in {ways.leaving}, which nobody removes by itself.",
            *((problem,) if problem else ()),
        ),
        facts=(
            ("Nobody could use it", f"for {down}" if down else "while a worker was replaced too"),
            ("Kept aside", str(ways.leaving)),
        ),
        numbers={
            "request": params.request,
            "down_seconds": -1 if done.down_seconds is None else done.down_seconds,
            "timeline": done.new_timeline,
        },
    )


OPERATION = Operation(
    name="restore-undo",
    summary="Put back the server that a restore into place had replaced",
    kind=Kind.CHANGE,
    risk=Risk.DESTRUCTIVE,
    params=Params,
    example="/db restore-undo orders 17",
    plan=plan,
    run=run,
    # The server in the place may be down, and that is when an undo is wanted most.
    pinned=frozenset(),
    pins=pins,
)
