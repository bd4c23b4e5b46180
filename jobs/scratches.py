"""Scratch servers on this host: ended when their time is up, and never forgotten.

A server is found twice, by its row in the store and by its folder. A row without a running
server is told as lost; a folder without a row is what a dead run left, and is removed.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Final

from jobs.away import is_away
from jobs.text import span_text
from postgres.errors import PostgresError
from postgres.restore.lasting import (
    FOLDER,
    BusyError,
    alone,
    is_alive,
    lasting_folders,
    remove_all,
    remove_lasting,
)
from store import outbox
from store.connect import Store
from store.scratches import (
    Scratch,
    State,
    channel_of,
    end_scratch,
    find_scratch,
    running_scratches,
)

log: Final = logging.getLogger("twokey.jobs")

EVERY: Final = timedelta(seconds=10)
# A server whose host says nothing for so long after its end is not waited for.
SILENCE_MAX: Final = timedelta(hours=1)


class Verdict(StrEnum):
    """What is to be done about a scratch server that should run."""

    KEEP = "keep"
    EXPIRED = "expired"
    LOST = "lost"


def verdict(scratch: Scratch, *, alive: bool, now: datetime) -> Verdict:
    """What has become of a server. Pure. One whose time is up has ended, alive or not."""
    if scratch.expires_at <= now:
        return Verdict.EXPIRED
    return Verdict.KEEP if alive else Verdict.LOST


def this_host() -> str:
    """The host that we run on, as rows name it."""
    return socket.gethostname()


def home_of(run_folder: Path) -> Path:
    """Twokey's home, from the private folder of a run."""
    return run_folder.parents[1]


def folder_of(home: Path, scratch_id: str) -> Path:
    """Where a scratch server stands."""
    return home / FOLDER / scratch_id


async def keep_scratches(
    store: Store,
    home: Path,
    *,
    clock: Callable[[], datetime],
    every: timedelta = EVERY,
) -> None:
    """Look after the scratch servers of this host, for ever."""
    while True:
        try:
            await look(store, home, now=clock())
        except (PostgresError, OSError) as error:
            log.warning("Scratch servers could not be looked after: %s", error)
        except Exception as error:
            if not is_away(error):
                raise
        await asyncio.sleep(every.total_seconds())


async def look(store: Store, home: Path, *, now: datetime, host: str | None = None) -> None:
    """Once: end what has expired, mark what is lost, remove what is left over."""
    host = host or this_host()
    async with store.begin() as conn:
        rows = await running_scratches(conn)
    mine = [row for row in rows if row.host == host and _is_under(row, home)]
    for row in mine:
        alive = await asyncio.to_thread(is_alive, Path(row.folder))
        match verdict(row, alive=alive, now=now):
            case Verdict.KEEP:
                continue
            case Verdict.EXPIRED:
                await end(store, row, state="removed", now=now)
            case Verdict.LOST:
                await end(store, row, state="lost", now=now)
    for row in rows:
        if row not in mine and now - row.expires_at > SILENCE_MAX:
            await _tell_ended(store, row, state="lost", now=now)
    for folder in await asyncio.to_thread(lasting_folders, home):
        await _remove_leftover(store, folder, host)


async def end(store: Store, scratch: Scratch, *, state: State, now: datetime) -> bool:
    """Stop and remove a server of this host, and tell it; False while somebody else is at it.

    Removed first and stored then: what dies in between is found again by its row.
    """
    folder = Path(scratch.folder)
    try:
        with alone(folder):
            async with store.begin() as conn:
                current = await find_scratch(conn, scratch.id)
            if current != scratch:
                return False
            await remove_lasting(folder)
    except BusyError:
        return False
    except FileNotFoundError:
        pass  # its folder is gone already
    await _tell_ended(store, scratch, state=state, now=now)
    return True


async def end_all(store: Store, home: Path, *, now: datetime) -> None:
    """End every scratch server under `home`, as when a demo ends; nobody is told.

    Raises:
        PostgresError: one of them is being made right now.
    """
    await remove_all(home)
    async with store.begin() as conn:
        for row in await running_scratches(conn, host=this_host()):
            if _is_under(row, home):
                await end_scratch(conn, row.id, state="removed", now=now)


async def _remove_leftover(store: Store, folder: Path, host: str) -> None:
    """Remove a folder that no row names, unless a run is just making a server in it."""
    try:
        with alone(folder):
            async with store.begin() as conn:
                row = await find_scratch(conn, folder.name)
            known = row is not None and row.state == "running" and row.host == host
            if known and row is not None and Path(row.folder) == folder:
                return
            await remove_lasting(folder)
            log.info("Removed %s, which a run that died has left.", folder)
    except (BusyError, FileNotFoundError):
        return


async def _tell_ended(store: Store, scratch: Scratch, *, state: State, now: datetime) -> None:
    """Store the end, and say it in the thread of its request, together."""
    async with store.begin() as conn:
        if not await end_scratch(conn, scratch.id, state=state, now=now):
            return
        channel = await channel_of(conn, scratch.request_id)
        if channel is None:
            return
        await outbox.post(
            conn,
            topic="note",
            request_id=scratch.request_id,
            channel=channel,
            payload={
                "text": _words(scratch, state, now),
                "kind": "done" if state == "removed" else "warning",
            },
            now=now,
        )


def _words(scratch: Scratch, state: State, now: datetime) -> str:
    age = span_text(now - scratch.created_at)
    if state == "removed":
        return f"The scratch server {scratch.id} was removed with all its data, after {age}."
    return (
        f"The scratch server {scratch.id} on {scratch.host} is gone after {age}: it was stopped,"
        " or its host was restarted. Nothing of it is kept; restore again if it is still needed."
    )


def _is_under(scratch: Scratch, home: Path) -> bool:
    return Path(scratch.folder).parent == home / FOLDER
