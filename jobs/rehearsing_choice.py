"""From what a rehearsal's copy is made: a proven backup, the way from there, and the room."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from jobs.operation import Context, JobError
from jobs.recoverable import Kept
from postgres.errors import PostgresError
from postgres.migrate.books.book import Book
from postgres.migrate.words import Review, Work
from postgres.restore.target import END, LATEST
from postgres.restore.window import Choice
from postgres.sizes import pretty_bytes
from store.backups import BackupRecord, find_backup, is_proven, newest_backup

# As production has them, where they change what is measured. Event triggers are part of what a
# migration sets off; whole pages are part of its WAL; and WAL must not fill the worker's disk.
SETTINGS: Final = {"full_page_writes": "on", "max_wal_size": "2GB", "checkpoint_timeout": "5min"}
_FIRST_WITH_EVENT_TRIGGERS_SWITCH: Final = 17
LOOK_LIMIT: Final = timedelta(seconds=30)
_NAMED_MAX: Final = 3
_MARGIN_BYTES: Final = 512 * 2**20


async def proven_backup(context: Context, backup_id: str = "") -> BackupRecord:
    """The newest backup that was verified, or the one of this id.

    Raises:
        JobError: there is none, or it was never found good.
    """
    name = context.database.name
    async with context.store.begin() as conn:
        if not backup_id:
            found = await newest_backup(conn, name, verified=True)
        else:
            is_good = await is_proven(conn, backup_id)
            found = await find_backup(conn, name, backup_id) if is_good else None
    if found is None:
        what = f"the backup {backup_id}" if backup_id else "a backup"
        raise JobError(
            f"A rehearsal needs {what} of {name} that was proven, and there is none.",
            next_step=f"Prove one first: /db verify {name}; or take one: /db backup {name}.",
        )
    return found


def way_to(kept: Kept, backup_id: str) -> Choice:
    """From a backup as far as its archive leads; to its own end where nothing leads on.

    Raises:
        PostgresError: there is no such backup.
        JobError: it was found damaged.
    """
    try:
        choice = kept.choose(LATEST, backup_id=backup_id)
    except PostgresError:
        return kept.choose(END, backup_id=backup_id)
    return choice if choice.wal else kept.choose(END, backup_id=backup_id)


def work_of(reviews: Sequence[Review]) -> int:
    """Bytes that are written anew, or read in whole."""
    return sum(
        touch.size_bytes or 0
        for review in reviews
        for each in review.statements
        for touch in each.touched
        if touch.work in {Work.REWRITE, Work.SCAN}
    )


def room_needed(choice: Choice, work_bytes: int) -> int:
    """Bytes that a copy needs: itself, its WAL, and what is written anew, with its WAL."""
    return choice.backup.data_bytes + choice.wal_bytes + 2 * work_bytes + _MARGIN_BYTES


def settings_of_copy(major: int) -> Mapping[str, str]:
    """What differs from an ordinary scratch server."""
    if major < _FIRST_WITH_EVENT_TRIGGERS_SWITCH:
        return SETTINGS
    return {**SETTINGS, "event_triggers": "on"}


def check_room(folder: Path, choice: Choice, work_bytes: int) -> None:
    """Look before anything is unpacked.

    Raises:
        JobError: the disk under `folder` has not enough.
    """
    needed = room_needed(choice, work_bytes)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise JobError(
            f"A rehearsal needs {pretty_bytes(needed)} on the worker's disk, and"
            f" {pretty_bytes(free)} are free in {folder}.",
            next_step="Make room there, or set TWOKEY_HOME to a larger disk.",
        )


async def must_be_abreast(context: Context, book: Book, backup_id: str, conn: Any) -> None:
    """See that the copy, at the other end of `conn`, has every migration that the target has.

    Raises:
        JobError: some were applied after what was restored.
    """
    async with context.reader.session(limit=LOOK_LIMIT) as session:
        there = await book.read(session)
    copied = {entry.version for entry in await book.read(conn) or ()}
    missing = [entry.version for entry in there or () if entry.version not in copied]
    if missing:
        raise JobError(
            f"{', '.join(missing[-_NAMED_MAX:])} was applied to {context.database.name} after what"
            f" can be restored from {backup_id}.",
            next_step=f"Take a new backup (/db backup {context.database.name}), verify it, then"
            " rehearse again.",
        )
