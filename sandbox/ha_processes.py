"""The processes of a sandbox's hosts: found by where they work, ended when we end.

A host here is a set of folders: whatever works in one of them belongs to it. PostgreSQL goes to
its data folder by itself, and agents are started in a folder of their own. This needs /proc.

Run as a program it is the keeper: it waits until its standard input closes, which it does when
the process that started it ends, however it ends, and then ends what works in the folders that
it was given. Patroni starts servers that outlive it, so that nothing else would end them. It
imports nothing of ours, as it runs by its file's name.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_ROUNDS_MAX: Final = 50
_PAUSE_SECONDS: Final = 0.02
_TTY_FIELD: Final = 4  # of /proc/PID/stat, counted after the name
_ENDED: Final = ("Z", "X")


def can_tell_hosts() -> bool:
    """Whether this machine says where its processes work."""
    return (_PROC / "self" / "cwd").exists()


def working_in(folders: Sequence[Path]) -> list[int]:
    """Living processes whose working folder is one of these, without those of a terminal.

    Somebody's shell that stands in a data folder is not part of the host.
    """
    wanted = {os.path.realpath(folder) for folder in folders}
    found: list[int] = []
    for entry in _PROC.iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            if os.readlink(entry / "cwd") in wanted and not _has_terminal(entry):  # noqa: PTH115
                found.append(int(entry.name))
        except OSError:  # gone, a zombie, or somebody else's
            continue
    return found


def end_all(folders: Sequence[Path]) -> None:
    """Kill all that works in the folders, and what it starts meanwhile, frozen or not."""
    for _ in range(_ROUNDS_MAX):
        found = working_in(folders)
        if not found:
            return
        for pid in found:
            _send(pid, signal.SIGKILL)
        time.sleep(_PAUSE_SECONDS)


def freeze_all(folders: Sequence[Path]) -> None:
    """Stop all that works in the folders, as a paused virtual machine does."""
    seen: set[int] = set()
    for _ in range(_ROUNDS_MAX):
        fresh = set(working_in(folders)) - seen
        if not fresh:
            return
        for pid in sorted(fresh):
            _send(pid, signal.SIGSTOP)
        seen |= fresh


def thaw_all(folders: Sequence[Path]) -> None:
    """Let all go on that `freeze_all` stopped."""
    for pid in working_in(folders):
        _send(pid, signal.SIGCONT)


def is_alive(pid: int, folder: Path) -> bool:
    """Whether this process lives and works in the folder: not one that got its number."""
    try:
        return (_PROC / str(pid) / "cwd").samefile(folder)
    except OSError:
        return False


def is_zombie(pid: int) -> bool:
    """Whether the process has ended, but its parent has not asked how.

    Init may take seconds to, and until then PostgreSQL believes a lock file with its number.
    """
    try:
        return _fields(_PROC / str(pid))[0] in _ENDED
    except OSError:
        return False


def start_keeper(folders: Sequence[Path]) -> subprocess.Popen[bytes]:
    """A process that outlives us only to end what works in the folders.

    Closing its standard input lets it do so, and end.
    """
    return subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, *folders],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,  # Ctrl-C is not for it
    )


def _has_terminal(entry: Path) -> bool:
    return _fields(entry)[_TTY_FIELD] != "0"


def _fields(entry: Path) -> list[str]:
    # The name may hold blanks and brackets; what follows it does not.
    return (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


if __name__ == "__main__":
    sys.stdin.buffer.read()
    end_all([Path(name) for name in sys.argv[1:]])
