"""Where tests put what nobody keeps: in memory where the machine has enough of it.

A server that is made, filled and thrown away costs half as much there: a database is 300
files, and most of what backups and servers write is flushed to the disk before they go on.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

MEMORY: Final = Path("/dev/shm")
PREFIX: Final = "tk-tests-"
# Half of a run with two processes was seen to need two GiB at most at any one time.
FREE_BYTES_MIN: Final = 4 << 30
# A folder younger than this may not be locked yet by the run that makes it.
_YOUNG_SECONDS: Final = 60.0
_LOCK: Final = "lock"


def use_memory(memory: Path = MEMORY) -> None:
    """Have `tempfile`, pytest and our child processes put their folders into memory.

    Who sets TMPDIR keeps it, and so do the processes of pytest-xdist that this one starts.
    The folder goes when the process ends; what a killed run left, the next one removes.
    """
    if "TMPDIR" in os.environ or free_bytes(memory) < FREE_BYTES_MIN:
        return
    sweep(memory, now=time.time())
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=memory))
    # Open until the process ends, which frees the lock.
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    folder.chmod(0o1777)  # as /tmp is: servers may run as another account
    atexit.register(_remove, folder, os.getpid())
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)


def free_bytes(folder: Path) -> int:
    """How much may be put there; 0 where it is no place in memory that programs may run from."""
    try:
        found = os.statvfs(folder)
        available = Path("/proc/meminfo").read_text().split("MemAvailable:")[1].split()[0]
    except (OSError, IndexError):
        return 0
    if found.f_flag & (os.ST_NOEXEC | os.ST_RDONLY) or not os.access(folder, os.W_OK | os.X_OK):
        return 0
    return min(found.f_bavail * found.f_frsize, int(available) * 1024)


def sweep(parent: Path, *, now: float) -> None:
    """Remove the folders of runs that ended without doing so."""
    for folder in parent.glob(f"{PREFIX}*"):
        with _left(folder, now) as left:
            if left:
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _left(folder: Path, now: float) -> Iterator[bool]:
    """Whether no process holds the folder; nobody takes it within the block."""
    try:
        if now - folder.stat().st_ctime < _YOUNG_SECONDS:
            yield False
            return
        handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:  # it belongs to somebody else, or has just gone
        yield False
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        yield False
    else:
        yield True
    finally:
        os.close(handle)


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # not in a copy that somebody forked
        shutil.rmtree(folder, ignore_errors=True)
