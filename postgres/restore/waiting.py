"""What a server's startup process is waiting for, before the server can be asked itself."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from postgres.postmaster import live_postmaster

_PROC: Final = Path("/proc")
_TITLE: Final = "startup waiting for "


def startup_waits_for(data: Path) -> str:
    """The WAL file that it says to wait for in its title; empty: none, or nobody can tell.

    It says so for a moment at every file, and for ever at one that does not come.
    """
    found = live_postmaster(data)
    if found is None:
        return ""
    try:
        children = (_PROC / f"{found.pid}/task/{found.pid}/children").read_text().split()
        titles = [(_PROC / child / "cmdline").read_text(errors="replace") for child in children]
    except OSError:
        return ""
    waiting = [title.split(_TITLE)[1] for title in titles if _TITLE in title]
    return waiting[0].strip("\0 \n") if waiting else ""
