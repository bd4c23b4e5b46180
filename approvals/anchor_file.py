"""A file of anchors that only grows: one line per anchor, never rewritten.

Whoever reads it must be able to believe it: a line is written whole and brought to the disk
before we go on, and nothing is appended to a file in which something is not in order.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Final

from approvals.anchors import Anchor, Anchors, make_anchors, read_anchors, to_line
from approvals.chain import GENESIS, Head
from approvals.exports import text_lines
from approvals.words import BadInputError, ExplainedError

# Its owner writes, and a group of auditors may read. There is no secret in it.
MODE: Final = 0o640
LOCK_SECONDS_MAX: Final = 5.0
_LOOK_AGAIN_SECONDS: Final = 0.05
# linux/fs.h: what lsattr shows.
_FS_IOC_GETFLAGS: Final = 0x80086601
_FS_IMMUTABLE: Final = 0x10
_FS_APPEND: Final = 0x20


class AnchorFileError(ExplainedError):
    """The file cannot be appended to, and it says why. Nothing was written."""


class Attribute(StrEnum):
    """Whether the file system lets a file only grow."""

    APPEND_ONLY = "append-only"
    PLAIN = "plain"
    UNKNOWN = "unknown"


def append_anchor(path: Path, heads: Sequence[Head], *, at: datetime) -> Anchor | None:
    """Append the anchor of `heads`; None when the file's newest one is of `at` or later.

    Blocks: it waits for the disk, and for another process that appends.

    Raises:
        AnchorFileError: the file cannot be opened, locked, believed or written.
    """
    with _opened(path) as descriptor:
        kept = _believed(path)
        if kept is not None and kept.newest_at is not None and kept.newest_at >= at:
            return None
        prev = kept.newest_hash if kept else GENESIS
        [anchor] = make_anchors(heads, at=at, prev=prev)
        _write(descriptor, path, f"{to_line(anchor)}\n".encode())
        return anchor


def read_file(path: Path) -> Anchors | None:
    """What a file of anchors says; None when there is no such file or nothing in it.

    Raises:
        AnchorFileError: it cannot be read, or not everything in it is an anchor.
    """
    try:
        if path.stat().st_size == 0:
            return None
        with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
            return read_anchors(text_lines(file, name=str(path)), name=str(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise AnchorFileError(
            f"The anchors' file {path} cannot be read: {error.strerror}.",
            next_step="Let the user that runs Twokey read and append to it.",
        ) from error
    except BadInputError as error:
        raise AnchorFileError(error.problem, next_step=_MOVE_ASIDE) from error


def attribute_of(path: Path) -> Attribute:
    """Whether the file system keeps the file append-only, as `lsattr` would show."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return Attribute.UNKNOWN
    try:
        found = fcntl.ioctl(descriptor, _FS_IOC_GETFLAGS, bytes(8))
    except OSError:
        return Attribute.UNKNOWN  # this file system has no such attributes
    finally:
        os.close(descriptor)
    flags = int.from_bytes(found[:4], "little")
    return Attribute.APPEND_ONLY if flags & (_FS_APPEND | _FS_IMMUTABLE) else Attribute.PLAIN


_MOVE_ASIDE: Final = (
    "Somebody may have edited it: keep it, compare it with what was posted to the channel, then "
    "move it aside (as root: chattr -a FILE; mv FILE FILE.kept), and a new one begins."
)


def _believed(path: Path) -> Anchors | None:
    """What the file says, if all of it is in order."""
    kept = read_file(path)
    if kept is None:
        return None
    if kept.problems or kept.notes:
        said = (*kept.problems, *kept.notes)[0]
        raise AnchorFileError(f"Nothing is appended to {path}: {said}", next_step=_MOVE_ASIDE)
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            raise AnchorFileError(
                f"Nothing is appended to {path}: its last line has no end.", next_step=_MOVE_ASIDE
            )
    return kept


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """The file, for appending only, and for one process at a time."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags, MODE)
    except OSError as error:
        raise AnchorFileError(
            f"The anchors' file {path} cannot be appended to: {error.strerror}.",
            next_step="Create its folder and let the user that runs Twokey write there.",
        ) from error
    try:
        _lock(descriptor, path)
        yield descriptor
    finally:
        os.close(descriptor)  # and the lock is free


def _lock(descriptor: int, path: Path) -> None:
    until = time.monotonic() + LOCK_SECONDS_MAX
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                raise AnchorFileError(
                    f"Another process holds {path}.", next_step="Look who: fuser FILE."
                ) from None
            time.sleep(_LOOK_AGAIN_SECONDS)
        else:
            return


def _write(descriptor: int, path: Path, line: bytes) -> None:
    try:
        written = os.write(descriptor, line)
        os.fsync(descriptor)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise AnchorFileError(
            f"The anchor could not be written to {path}: {error.strerror}.",
            next_step="Make room on its disk.",
        ) from error
    if written != len(line):
        raise AnchorFileError(f"Only a part of the anchor got into {path}.", next_step=_MOVE_ASIDE)
