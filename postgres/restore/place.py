"""Replace a running server by a restored copy that stands beside it, and be able to go back.

In this order, so that nothing is ever at risk and the applications wait as short as can be: see
that WAL still reaches its archive; close the server to everybody and end all sessions; have the
last WAL archived; stop in good order; open again; take over the configuration; exchange the two
folders by two renames; start; ask the new server who it is.

Each part looks first at how things stand, so that all of it can be begun again after a crash at
any point. Before the exchange every way out leads back to the old server. After it, there is no
way back by itself, but for a copy that never ran.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final, assert_never

from pydantic import SecretStr

from postgres.errors import PostgresError
from postgres.filelock import locked_within
from postgres.restore.closing import door_of, reopen
from postgres.restore.configuration import configuration_files, take_over
from postgres.restore.control import (
    ControlFacts,
    control_facts,
    read_instance,
    setting_of,
    standing,
    start,
    stop,
    stop_hard,
)
from postgres.restore.exchange import (
    Exchange,
    Stage,
    carry_out,
    inode_of,
    look,
    take_back,
    unclear,
    write_note,
)
from postgres.restore.quiet import Answered, ask_new, close_and_quieten
from postgres.restore.ways import Note, Ways, beside, read_ways
from postgres.together import unbroken

IsArchived = Callable[[str], Awaitable[bool]]
OnText = Callable[[str], Awaitable[None]]
At = Callable[[str], None]

STOP_LIMIT: Final = timedelta(minutes=2)
START_LIMIT: Final = timedelta(minutes=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """A server to replace. `take_files`: the configuration of what leaves goes to what comes.

    `is_archived` says of a WAL file whether it is kept; None: nobody keeps WAL. With
    `may_be_broken` a server that is down already may leave as it is, however it ended.
    """

    ways: Ways
    dsn: SecretStr
    take_files: bool
    start_command: tuple[str, ...] = ()
    stop_command: tuple[str, ...] = ()
    is_archived: IsArchived | None = None
    may_be_broken: bool = False
    stop_limit: timedelta = STOP_LIMIT
    start_limit: timedelta = START_LIMIT


@dataclass(frozen=True, slots=True, kw_only=True)
class Replaced:
    """The new server runs.

    `left`: how the old one was stopped. `began_xid`: the first transaction of the new one.
    `down_seconds`: so long nobody could use the database; None after a crash on the way.
    """

    left: ControlFacts
    began_xid: int
    answered: Answered
    down_seconds: float | None


async def write_down(ways: Ways) -> Note:
    """Write down what is to be exchanged; the same note again after a crash.

    Raises:
        PostgresError: a folder is missing, the copy was not stopped in good order, or is of
            another cluster.
    """
    if found := read_ways(ways):
        return found
    place, coming = inode_of(ways.data), inode_of(ways.coming)
    if place is None or coming is None:
        missing = ways.data if place is None else ways.coming
        raise PostgresError(
            f"{missing} is gone.", next_step="Nothing was changed. See who moved it."
        )
    instance = await asyncio.to_thread(read_instance, ways.data)
    here = await control_facts(instance.folder, ways.data)
    there = await control_facts(instance.folder, ways.coming)
    _believe(ways, here, there)
    door = door_of(ways.data, await setting_of(instance, "hba_file"), f"twokey-{ways.mark}")
    note = Note(
        exchange=Exchange(
            place=ways.data,
            coming=ways.coming,
            leaving=ways.leaving,
            coming_inode=coming,
            leaving_inode=place,
        ),
        program=instance.program,
        arguments=instance.arguments,
        log=instance.log,
        hba=door.hba,
        hba_kept=door.kept,
        files=await configuration_files(instance),
        coming_xid=there.next_xid,
        coming_timeline=there.timeline,
        system_identifier=there.system_identifier,
    )
    write_note(ways.note, note)
    return note


async def replace_server(
    order: Replacement, *, on_step: OnText, at: At = lambda _: None
) -> Replaced:
    """Do what is left of it, from wherever it stands. `at` is for tests of crashes.

    Raises:
        PostgresError: it failed; `way_out` brings a server back and says what stands where.
    """
    note = await write_down(order.ways)
    at("noted")
    began: float | None = None
    match look(note.exchange):
        case Stage.BEFORE:
            began = await _free_the_place(order, note, on_step, at)
            await unbroken(asyncio.to_thread(_settle, order, note))
            at("settled")
        case Stage.BETWEEN | Stage.AFTER:
            pass
        case Stage.UNCLEAR:
            raise unclear(note.exchange)
        case _ as never:
            assert_never(never)
    carry_out(note.exchange, at)
    left = await control_facts(note.program.parent, note.exchange.leaving)
    await on_step("Starting the new server")
    await start(note.instance, command=order.start_command, time_limit=order.start_limit)
    at("started")
    answered = await ask_new(
        order.dsn,
        data=order.ways.data,
        system_identifier=note.system_identifier,
        timeline=note.coming_timeline,
    )
    seconds = None if began is None else round(time.monotonic() - began, 3)
    return Replaced(left=left, began_xid=note.coming_xid, answered=answered, down_seconds=seconds)


async def way_out(order: Replacement) -> str:
    """After a failure: see that a server runs, and say what stands where.

    Before the exchange that is the old one, open to everybody as it was. After it that is
    the new one, unless it has never run: then the old one comes back.

    Raises:
        PostgresError: no server could be brought back by itself.
    """
    note = read_ways(order.ways)
    if note is None:
        return "The server was not touched."
    match look(note.exchange):
        case Stage.BEFORE | Stage.BETWEEN:
            said = await _old_again(order, note)
            order.ways.note.unlink(missing_ok=True)
            return said
        case Stage.AFTER:
            return await _new_or_old(order, note)
        case Stage.UNCLEAR:
            raise unclear(note.exchange)
        case _ as never:
            assert_never(never)


@asynccontextmanager
async def alone(data: Path, seconds: float) -> AsyncIterator[None]:
    """One exchange at a time on this data folder, whatever process it comes from.

    Raises:
        PostgresError: another process is at it for too long.
    """
    lock = beside(data, "lock")
    handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        if not await locked_within(handle, seconds):
            raise PostgresError(
                f"Another process of Twokey is at work on {data}.",
                next_step=f"Wait for it, or end it if it hangs (`fuser {lock}` names it).",
            )
        yield
    finally:
        os.close(handle)


async def _free_the_place(order: Replacement, note: Note, on_step: OnText, at: At) -> float:
    """The old server stopped in good order; since when nobody could use it."""
    began = time.monotonic()
    if order.may_be_broken and standing(order.ways.data) == "down":
        return began
    if standing(order.ways.data) in ("up", "starting"):
        began = await close_and_quieten(
            order.dsn, note.door, is_archived=order.is_archived, on_step=on_step, at=at
        )
    await on_step("Stopping the old server")
    found = await stop(note.instance, command=order.stop_command, time_limit=order.stop_limit)
    if found != "down":
        raise PostgresError(
            f"The server on {order.ways.data} did not stop within"
            f" {order.stop_limit.total_seconds():.0f} seconds (it is {found}).",
            next_step="See in its log what it waits for, often a standby or a dead disk.",
        )
    at("stopped")
    facts = await control_facts(note.program.parent, order.ways.data)
    if not facts.is_clean:
        raise PostgresError(
            f"The server on {order.ways.data} was not stopped in good order ({facts.state}).",
            next_step="See who ended it; it recovers at its next start. Then ask again.",
        )
    return began


def _settle(order: Replacement, note: Note) -> None:
    """With both servers down: the door open again, the configuration taken over, all on disk."""
    reopen(note.door)
    try:
        if order.take_files:
            take_over(note.files, source=order.ways.data, target=order.ways.coming)
    except OSError as error:
        raise PostgresError(
            f"The configuration could not be copied: {error.strerror or error}.",
            next_step="See whether the disk is full, then ask again.",
        ) from error
    for path in (order.ways.data, order.ways.coming):
        if standing(path) != "down":
            raise PostgresError(
                f"Somebody started the server on {path} meanwhile.",
                next_step="Stop what starts it by itself, such as a unit of systemd: name its"
                " commands as `place: {start, stop}` in the inventory.",
            )


async def _old_again(order: Replacement, note: Note) -> str:
    take_back(note.exchange)
    reopen(note.door)
    stands = standing(order.ways.data)
    if stands == "stopping":
        stands = await stop_hard(note.instance)
    if stands == "down":
        await start(note.instance, command=order.start_command, time_limit=order.start_limit)
        return "The server was started again as it was, and everybody can use it as before."
    return "The server runs on as it was, and everybody can use it as before."


async def _new_or_old(order: Replacement, note: Note) -> str:
    reopen(note.door)
    exchange = note.exchange
    stands = (
        f"The new server stands at {exchange.place}, the one that it replaced at"
        f" {exchange.leaving}."
    )
    if standing(exchange.place) != "down":
        return f"{stands} The new one runs."
    if not await _never_ran(note):
        await start(note.instance, command=order.start_command, time_limit=order.start_limit)
        return f"{stands} The new one was started again."
    carry_out(exchange.reverse())
    order.ways.note.unlink(missing_ok=True)
    await start(note.instance, command=order.start_command, time_limit=order.start_limit)
    return (
        "The new server did not start, and had never run here, so the one that it replaced was"
        " put back and runs as before."
    )


async def _never_ran(note: Note) -> bool:
    """Whether the copy in the place is still as it came: nobody can have written to it."""
    found = await control_facts(note.program.parent, note.exchange.place)
    return found.is_clean and found.next_xid == note.coming_xid


def _believe(ways: Ways, here: ControlFacts, there: ControlFacts) -> None:
    if here.system_identifier != there.system_identifier:
        raise PostgresError(
            f"What was restored is another cluster ({there.system_identifier}) than the server"
            f" on {ways.data} ({here.system_identifier}).",
            next_step="A logical backup, for one, makes a new cluster: restore it with --into"
            " scratch.",
        )
    if not there.is_clean:
        raise PostgresError(
            f"What stands in {ways.coming} was not stopped in good order ({there.state}).",
            next_step="Nothing was changed. Restore again.",
        )
