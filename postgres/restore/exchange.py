"""Put one data folder in the place of another: two renames that survive a crash at any point.

There is no moment at which one has to remember what was done: a folder keeps its inode when it
is renamed, so where the two folders stand tells it. The note beside them (`Exchange`) is written
before the first rename, and says which two they are.

    orders                      the place
    orders.twokey-new-17        what comes
    orders.twokey-old-17        where what leaves goes to
    orders.twokey-17.json       the note
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from postgres.errors import PostgresError

_NOTE_BYTES_MAX: Final = 100_000
_SYNCS_MAX: Final = 16


class Stage(StrEnum):
    """How far an exchange is, by where the folders stand."""

    BEFORE = "before"  # the old one is in the place, the new one beside it
    BETWEEN = "between"  # nothing is in the place; both stand beside it
    AFTER = "after"  # the new one is in the place, the old one beside it
    UNCLEAR = "unclear"  # neither of these: nothing may be touched


class Exchange(BaseModel):
    """What is exchanged with what. An inode's number is that of a data folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    place: Path
    coming: Path
    leaving: Path
    coming_inode: int
    leaving_inode: int

    def reverse(self) -> Exchange:
        """What puts everything back once this one is through."""
        return Exchange(
            place=self.place,
            coming=self.leaving,
            leaving=self.coming,
            coming_inode=self.leaving_inode,
            leaving_inode=self.coming_inode,
        )


def stage_of(
    exchange: Exchange, *, place: int | None, coming: int | None, leaving: int | None
) -> Stage:
    """How far it is, by the inodes of what stands at the three paths now. Pure."""
    new, old = exchange.coming_inode, exchange.leaving_inode
    match (place, coming, leaving):
        case (found, beside, None) if found == old and beside == new:
            return Stage.BEFORE
        case (None, beside, aside) if beside == new and aside == old:
            return Stage.BETWEEN
        case (found, None, aside) if found == new and aside == old:
            return Stage.AFTER
        case _:
            return Stage.UNCLEAR


def look(exchange: Exchange) -> Stage:
    """How far it is."""
    return stage_of(
        exchange,
        place=inode_of(exchange.place),
        coming=inode_of(exchange.coming),
        leaving=inode_of(exchange.leaving),
    )


def carry_out(exchange: Exchange, at: Callable[[str], None] = lambda _: None) -> None:
    """Do what is left of it. `at` is told what was done, for tests of crashes.

    Raises:
        PostgresError: the folders stand as they should not; nothing was touched.
    """
    for begin, source, target in (
        (Stage.BEFORE, exchange.place, exchange.leaving),
        (Stage.BETWEEN, exchange.coming, exchange.place),
    ):
        stage = look(exchange)
        if stage is Stage.UNCLEAR:
            raise unclear(exchange)
        if stage is begin:
            _rename(source, target)
            at(f"left {begin}")
    if look(exchange) is not Stage.AFTER:
        raise unclear(exchange)


def take_back(exchange: Exchange) -> None:
    """Before the new folder is in the place: have the old one there. Harmless otherwise."""
    if look(exchange) is Stage.BETWEEN:
        _rename(exchange.leaving, exchange.place)


def unclear(exchange: Exchange) -> PostgresError:
    """The error for folders that somebody else has moved: it says what stands where."""
    names = {exchange.coming_inode: "the restored copy", exchange.leaving_inode: "the old server"}
    stands = []
    for path in (exchange.place, exchange.coming, exchange.leaving):
        inode = inode_of(path)
        what = "nothing" if inode is None else names.get(inode, "a folder that is neither")
        stands.append(f"{path} is {what}")
    return PostgresError(
        f"The folders do not stand as Twokey left them: {'; '.join(stands)}.",
        next_step="Nothing was touched. See who moved them, put the one that shall run at"
        f" {exchange.place}, and start the server.",
    )


def inode_of(path: Path) -> int | None:
    """The inode of what stands there; None for nothing."""
    try:
        return path.lstat().st_ino
    except FileNotFoundError:
        return None


def write_note(path: Path, note: BaseModel) -> None:
    """Write a note whole or not at all, and on the disk before this returns."""
    partial = path.with_name(path.name + ".part")
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(note.model_dump_json(indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    sync_folder(path.parent)


def read_note(path: Path) -> bytes | None:
    """A note's text, or None where there is none."""
    with suppress(FileNotFoundError):
        return path.read_bytes()[:_NOTE_BYTES_MAX]
    return None


def bad_note(path: Path, error: ValidationError) -> PostgresError:
    """The error for a note that cannot be understood."""
    return PostgresError(
        f"{path} cannot be understood: {error.error_count()} things in it are wrong.",
        next_step="Somebody changed it. See which folders stand beside it, and which server runs.",
    )


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Have all files of a folder and its folders on the disk.

    Side by side: a disk makes many files durable in hardly more time than one.
    """
    with ThreadPoolExecutor(_SYNCS_MAX, "sync") as pool:
        for _ in pool.map(_sync, _everything(folder)):
            pass


def _sync(path: str) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _rename(source: Path, target: Path) -> None:
    try:
        source.rename(target)
        sync_folder(target.parent)
    except OSError as error:
        raise PostgresError(
            f"{source} cannot be renamed to {target.name}: {error.strerror or error}.",
            next_step="See who may write in that folder, and whether it is a mount point.",
        ) from error


def _everything(folder: Path) -> Iterator[str]:
    yield os.fspath(folder)
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _everything(Path(entry.path))
            elif entry.is_file(follow_symlinks=False):
                yield entry.path
