"""Restore into place: what a plan says about it, and the run that carries it out.

`commands.restore` chooses backup and target and asks here for the rest. Nothing is deleted: the
server that was replaced stands aside until somebody confirms (`commands.restore_confirm`) or
takes it back (`commands.restore_undo`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from types import MappingProxyType
from typing import Final

from pydantic import JsonValue

from jobs.backup_settings import ArchiveMethod
from jobs.operation import Answer, Attempt, Context, Database, Job, JobError, Mode, Risk, UndoCall
from jobs.place_copy import COPY_LIMIT, Copy, hand_over, make_copy
from jobs.place_look import host, look, place_of, place_settings
from jobs.place_objections import Place, objection
from jobs.place_run import (
    REPLACE_LIMIT,
    Exchange,
    Exchanged,
    alone_at,
    exchange,
    has_begun,
    is_archived,
    remove_copy,
)
from jobs.text import count_text, span_text
from postgres.restore.exchange import inode_of
from postgres.restore.place import Replacement
from postgres.restore.ways import Ways, ways_of_restore
from postgres.restore.window import Choice
from postgres.sizes import pretty_bytes
from store.replaced import ReplacedServer, record_replaced

UNDO_WITHIN: Final = timedelta(days=7)
LOOK_LIMIT: Final = timedelta(minutes=5)
# A copy is made again when the run was stopped in good order and goes on elsewhere.
COPIES_MAX: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceOrder:
    """What is to take the place of the running server: see `postgres.restore.window.choose`."""

    choice: Choice

    @property
    def needed_bytes(self) -> int:
        """How large the copy gets, with the WAL that is replayed on the way."""
        return self.choice.backup.data_bytes + self.choice.wal_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacePart:
    """The pieces of a Plan that are about the place. The risk is `risk`, the undo `undo`."""

    steps: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]
    pins: Mapping[str, str]
    undo: str
    attributes: Mapping[str, str | int] = field(
        default_factory=lambda: MappingProxyType({"into": "place"})
    )
    risk: Risk = Risk.DESTRUCTIVE


async def plan_place(context: Context, order: PlaceOrder) -> PlacePart:
    """What a restore into place would do here.

    Raises:
        JobError: the server of this database cannot be replaced from here; it says why.
    """
    place = await _fitting(context, order)
    name = place.database
    return PlacePart(
        steps=_steps(place),
        facts=(
            ("Replaces", f"{place.data} on {host()}"),
            ("Room", f"{pretty_bytes(place.free_bytes)} free for a second copy"),
            ("Kept aside", f"the old server, {pretty_bytes(place.data_bytes)}, until confirmed"),
        ),
        warnings=tuple(_warnings(place, context.database)),
        pins=_pins(place),
        undo=f"For 7 days, until confirmed: /db restore-undo {name}. What is written after the"
        " restore is lost by it.",
    )


async def place_pins(context: Context) -> Mapping[str, str]:
    """Today's values of `PlacePart.pins`, for `Operation.pins`."""
    return _pins(await look(context))


async def run_place(job: Job, order: PlaceOrder) -> Answer:
    """Recover a copy beside the server, and put it in its place. All steps of the run.

    Raises:
        JobError: it could not be done; it says what stands where.
    """
    data = await asyncio.to_thread(place_settings(job).data.resolve)
    ways = ways_of_restore(data, job.request_id)
    async with alone_at(data):
        return await _run(job, order, ways)


def undo_of_place(database: str, numbers: Mapping[str, JsonValue]) -> UndoCall | None:
    """What undoes a restore into place: for `Operation.undo`, from the answer's numbers."""
    if numbers.get("into") != "place":
        return None
    params: Mapping[str, JsonValue] = {"database": database, "request": numbers["request"]}
    return UndoCall(operation="restore-undo", params=params, within=UNDO_WITHIN)


async def _run(job: Job, order: PlaceOrder, ways: Ways) -> Answer:
    async def check(attempt: Attempt) -> JsonValue:
        del attempt
        if not await asyncio.to_thread(has_begun, ways):
            await _fitting(job, order)
        return None

    await job.step("look at the place", check, mode=Mode.RETRYABLE, time_limit=LOOK_LIMIT)
    try:
        copy = await _copy(job, order, ways)
        done = await _exchange(job, order, ways, copy)
    finally:
        if not await asyncio.to_thread(has_begun, ways):
            await asyncio.to_thread(remove_copy, ways)
    problem = await hand_over(job.database, ways.data, copy.first_wal)
    return _answer(job, ways, copy, done, problem)


async def _copy(job: Job, order: PlaceOrder, ways: Ways) -> Copy:
    """The copy, made once; again only if it was given up with an earlier life of the run."""

    async def recover(attempt: Attempt) -> JsonValue:
        del attempt
        copy = await make_copy(job, order.choice, ways)
        return copy.model_dump(mode="json")

    for number in range(1, COPIES_MAX + 1):
        name = "recover a copy" if number == 1 else f"recover a copy, again ({number})"
        made = await job.step(name, recover, mode=Mode.RETRYABLE, time_limit=COPY_LIMIT)
        if inode_of(ways.coming) is not None or await asyncio.to_thread(has_begun, ways):
            return Copy.model_validate(made)
    raise JobError(
        f"The copy beside {ways.data} was removed {COPIES_MAX} times.",
        next_step="See why the worker is restarted so often, then ask again.",
    )


async def _exchange(job: Job, order: PlaceOrder, ways: Ways, copy: Copy) -> Exchanged:
    database, settings = job.database, place_settings(job)

    async def enter(found: Exchanged | None) -> None:
        row = _row(job, order, ways, copy, found)
        async with job.store.begin() as conn:
            await record_replaced(conn, row)

    given = Exchange(
        order=Replacement(
            ways=ways,
            dsn=database.dsn,
            take_files=True,
            start_command=settings.start,
            stop_command=settings.stop,
            is_archived=is_archived(database, ways.data),
        ),
        enter=enter,
    )

    async def replace(attempt: Attempt) -> JsonValue:
        del attempt
        found = await exchange(job, given)
        return found.model_dump(mode="json")

    # Retryable: it looks first how the folders stand, and goes on from there.
    done = await job.step(
        "replace the server", replace, mode=Mode.RETRYABLE, time_limit=REPLACE_LIMIT
    )
    return Exchanged.model_validate(done)


async def _fitting(context: Context, order: PlaceOrder) -> Place:
    place_of(context)
    place = await look(context)
    archive = context.database.backups.archive.method
    if found := objection(place, needed_bytes=order.needed_bytes, archive=archive):
        raise found
    if order.choice.backup.kind == "logical":
        raise JobError(
            f"{order.choice.backup.id} is a logical backup, which makes a new cluster.",
            next_step="Restore it --into scratch, or choose a full backup.",
        )
    if order.choice.backup.system_identifier != place.server_system:
        raise JobError(
            f"{order.choice.backup.id} is of another cluster than the server of {place.database}.",
            next_step="Choose a backup of this very server, or restore --into scratch.",
        )
    return place


def _steps(place: Place) -> tuple[str, ...]:
    data, name = place.data, place.data.name
    return (
        f"Recover the copy beside {data}, and check it; the server runs on meanwhile",
        "Close the server to everybody, end all sessions, have its last WAL archived, stop it",
        f"Rename {name} to {name}.twokey-old-…, and the copy to {name} with today's settings",
        "Start the new server, and see that it is the one and takes writes",
        "Keep the old server's folder until somebody confirms or undoes it",
    )


def _pins(place: Place) -> Mapping[str, str]:
    return {"place": f"{place.data} on {host()} (inode {inode_of(place.data)})"}


def _warnings(place: Place, database: Database) -> list[str]:
    found = [
        "Whoever uses the database is cut off, and must connect again.",
        "Roles and passwords are those of the restored moment.",
        "Take a full backup afterwards: the restored server is on a new timeline.",
    ]
    if place.slots:
        found.append(f"Replication slots end with the old server: {', '.join(place.slots)}.")
    if place.prepared:
        found.append(
            f"{count_text(place.prepared, 'prepared transaction')} would end with the old server."
        )
    if database.backups.archive.method is ArchiveMethod.NONE:
        found.append("WAL is not archived: the time since the last backup is in no archive.")
    return found


def _row(
    job: Job, order: PlaceOrder, ways: Ways, copy: Copy, found: Exchanged | None
) -> ReplacedServer:
    detail: dict[str, JsonValue] = {
        "backup": order.choice.backup.id,
        "target": str(order.choice.target),
        "inode": inode_of(ways.leaving),
        "copy_xid": copy.next_xid,
        "timeline": copy.timeline,
    }
    if found is not None:
        detail |= found.model_dump(mode="json")
    return ReplacedServer(
        request_id=job.request_id,
        database=job.database.name,
        host=host(),
        data=str(ways.data),
        aside=str(ways.leaving),
        state="kept",
        at=job.now,
        detail=detail,
    )


def _answer(job: Job, ways: Ways, copy: Copy, done: Exchanged, problem: str) -> Answer:
    name, request = job.database.name, job.request_id
    lost = max(0, done.left_xid - copy.next_xid)
    down = "" if done.down_seconds is None else span_text(timedelta(seconds=done.down_seconds))
    return Answer(
        title=f"{name} was restored into place",
        lines=(
            "Applications can connect again.",
            f"Now take a full backup of timeline {done.new_timeline}: /db backup {name}",
            f"To have the old server back: /db restore-undo {name} {request}",
            f"To remove the old server's folder: /db restore-confirm {name} {request}",
            *((problem,) if problem else ()),
        ),
        facts=(
            ("Recovered to", copy.reached),
            ("Not in it", f"at most {count_text(lost, 'transaction')} of the old server"),
            ("Nobody could use it", f"for {down}" if down else "while a worker was replaced too"),
            ("Recovered in", span_text(timedelta(seconds=copy.seconds))),
            ("Kept aside", str(ways.leaving)),
        ),
        numbers={
            "into": "place",
            "request": request,
            "lost_transactions": lost,
            "down_seconds": -1 if done.down_seconds is None else done.down_seconds,
            "seconds": copy.seconds,
            "timeline": done.new_timeline,
        },
    )
