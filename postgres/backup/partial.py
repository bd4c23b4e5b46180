"""The folder of a backup while it is taken: `<id>.partial`, ours alone, and gone if it fails.

Whoever takes the backup holds a lock on the folder itself, which ends with its process. So two
never write into one, and what a dead one left can be told from what a living one writes.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final

from postgres.backup.facts import PARTIAL, backup_folder
from postgres.errors import PostgresError
from postgres.sizes import pretty_bytes

STALE_AFTER: Final = timedelta(days=1)
# A file system that knows no such locks, as some network ones.
_NO_LOCKS: Final = (errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


def partial_folder(folder: Path, backup_id: str) -> Path:
    """Where a backup is while it is taken."""
    place = backup_folder(folder, backup_id)
    return place.with_name(place.name + PARTIAL)


@contextmanager
def begun(folder: Path, backup_id: str) -> Iterator[Path]:
    """An empty partial folder; what a dead attempt left in it is removed first.

    It is removed at the end, unless it got the backup's name by then.

    Raises:
        PostgresError: another process takes this very backup, or the folder cannot be made, or
            anything inside met an `OSError`, as of a full disk.
    """
    partial = partial_folder(folder, backup_id)
    handle: int | None = None
    try:
        handle = _claim(partial)
        yield partial
    except OSError as error:
        raise disk_error(folder, error) from error
    finally:
        if handle is not None:
            shutil.rmtree(partial, ignore_errors=True)
            os.close(handle)


def remove_partial(folder: Path, backup_id: str) -> None:
    """Remove what an attempt left that did not end, if anything."""
    shutil.rmtree(partial_folder(folder, backup_id), ignore_errors=True)


def sweep(folder: Path, *, now: float, older_than: timedelta = STALE_AFTER) -> tuple[str, ...]:
    """Remove partial folders that nobody has written to for so long; their names.

    `now` is in seconds since 1970. One that is being written is locked, and is left alone also
    where the file system knows no locks, as its files are young.
    """
    swept = []
    for partial in sorted(folder.glob(f"*{PARTIAL}")):
        if partial.is_dir() and _newest(partial) < now - older_than.total_seconds():
            handle = _locked(partial)
            if handle is None:
                continue
            shutil.rmtree(partial, ignore_errors=True)
            os.close(handle)
            swept.append(partial.name)
    return tuple(swept)


def disk_error(folder: Path, error: OSError) -> PostgresError:
    """The error for a disk that did not take a backup."""
    free = shutil.disk_usage(folder).free if folder.exists() else 0
    return PostgresError(
        f"The backup could not be written to {folder}: {error.strerror or error}. "
        f"{pretty_bytes(free)} are free there.",
        next_step="Free some space or name another folder, then ask for the backup again.",
    )


def _claim(partial: Path) -> int:
    partial.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial.mkdir(mode=0o700, exist_ok=True)
    handle = _locked(partial)
    if handle is None:
        raise PostgresError(
            f"The backup {partial.name.removesuffix(PARTIAL)} is being taken by another process.",
            next_step="Wait for it to end: it will be the one that you asked for.",
        )
    try:
        for path in partial.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
    except BaseException:
        os.close(handle)
        raise
    return handle


def _locked(partial: Path) -> int | None:
    """A handle that holds the folder's lock until it is closed; None: another process does."""
    handle = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            os.close(handle)
            raise
    if not _is_still(partial, handle):  # it got its name, or was removed, before we had the lock
        os.close(handle)
        return None
    return handle


def _is_still(partial: Path, handle: int) -> bool:
    try:
        return os.path.samestat(partial.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def _newest(partial: Path) -> float:
    """When something in it was last written; far ahead where that cannot be told."""
    try:
        return max(path.stat().st_mtime for path in (partial, *partial.rglob("*")))
    except OSError:  # it changes while we look: somebody is at work
        return float("inf")
