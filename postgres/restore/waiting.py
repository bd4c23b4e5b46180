"""What a server's startup process is at, before the server can be asked itself."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from postgres.postmaster import live_postmaster

_PROC: Final = Path("/proc")
_TITLE: Final = "postgres: startup "


def startup_title(data: Path) -> str:
    """Which WAL file it reads or waits for, by the title of its process; empty: nobody can tell.

    A file that is there but makes no sense is one that it reads, for ever.
    """
    found = live_postmaster(data)
    if found is None:
        return ""
    try:
        children = (_PROC / f"{found.pid}/task/{found.pid}/children").read_text().split()
        titles = [(_PROC / child / "cmdline").read_text(errors="replace") for child in children]
    except OSError:
        return ""
    startup = [title.split(_TITLE)[1] for title in titles if _TITLE in title]
    return startup[0].strip("\0 \n") if startup else ""
