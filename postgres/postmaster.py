"""A server's own note of itself, `postmaster.pid`, and whether to believe it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from postgres.process import is_postmaster

_FILE: Final = "postmaster.pid"
_LINES: Final = 8
_READY: Final = ("ready", "standby")


@dataclass(frozen=True, slots=True, kw_only=True)
class Postmaster:
    """A live server: its process, where it listens, and whether it takes connections.

    `status` is its own word: starting, ready, standby or stopping.
    """

    pid: int
    port: int
    sockets: str
    ready: bool
    status: str = ""


def live_postmaster(data: Path) -> Postmaster | None:
    """The server that runs on this data folder, or None.

    A note left by a server that died is not believed, even if its number now belongs to
    another process.
    """
    lines = _note(data)
    if not lines or not is_postmaster(pid := _number(lines[0]), data):
        return None
    lines += [""] * (_LINES - len(lines))
    status = lines[7].strip()
    return Postmaster(
        pid=pid,
        port=_number(lines[3]),
        sockets=lines[4],
        ready=status in _READY,
        status=status,
    )


def disown_stale_note(data: Path) -> None:
    """Keep a dead server's note from stopping the next one.

    PostgreSQL itself passes over a note whose process is gone, but not one whose number now
    belongs to another process of the same account. It passes over its parent's number too, and
    that is us: with our number in the note, its check that no old backend still uses the
    shared memory stays in force. Call only when `live_postmaster` found none.
    """
    lines = _note(data)
    if not lines:
        return
    pid = os.getpid()
    with (data / _FILE).open("w") as note:
        note.write("\n".join([str(pid), *lines[1:]]) + "\n")


def _note(data: Path) -> list[str]:
    try:
        return (data / _FILE).read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []


def _number(text: str) -> int:
    try:
        return abs(int(text))  # a single-user server writes its number as a negative one
    except ValueError:
        return 0
