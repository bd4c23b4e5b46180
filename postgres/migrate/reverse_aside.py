"""The way back of a drop whose data was kept aside: all of it is there again. Pure."""

from __future__ import annotations

from postgres.migrate.aside_back import in_one_go
from postgres.migrate.aside_words import Kept
from postgres.migrate.reverse_scene import Undo, back


def from_aside(kept: Kept) -> Undo:
    """What was kept, in its place again; what is written meanwhile does not matter to it."""
    return back(*in_one_go(kept), note=f"{kept.original} comes back from {kept.kept}.")
