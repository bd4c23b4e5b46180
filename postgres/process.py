"""Child processes that end with us, and who a process is."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PROC: Final = Path("/proc")
_ON_LINUX: Final = sys.platform == "linux"
# PyDLL keeps the interpreter's lock: a call between fork and exec must not wait for it.
_LIBC: Final = ctypes.PyDLL(None) if _ON_LINUX else None


def end_with_parent(ending: signal.Signals) -> Callable[[], None]:
    """A `preexec_fn`: the child gets `ending` when the thread that starts it ends.

    That covers kill -9 of our process, which runs no clean-up code. Start children from
    a thread that lives as long as they should, such as the main one.
    """
    parent = os.getpid()

    def prepare() -> None:
        os.umask(0o077)
        if _LIBC is not None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, int(ending), 0, 0, 0)
            if os.getppid() != parent:  # died between the fork and the line above
                os._exit(1)

    return prepare


def clean_environment(folder: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of PostgreSQL's programs: nothing of ours but what is passed."""
    return {
        "PATH": f"{folder}:/usr/local/bin:/usr/bin:/bin",
        "HOME": "/",
        "LC_ALL": "C",
        **(extra or {}),
    }


def is_postmaster(pid: int, data: Path) -> bool:
    """Whether the process is a server on this data folder, and not one that got its number."""
    if not _PROC.joinpath("self", "cwd").exists():
        return _exists(pid)
    try:
        return _PROC.joinpath(str(pid), "cwd").samefile(data)
    except OSError:  # gone, ended but not yet collected, or somebody else's
        return False


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may have ended already."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
