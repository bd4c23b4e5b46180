"""Takes a backup's folder away, so that no crash and no second worker leaves half of one."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

from postgres.backup.facts import PARTIAL
from postgres.errors import PostgresError

# A second worker at the same folder takes files from under the first one's hands.
_TRIES: Final = 3


def remove_folder(place: Path) -> int:
    """Rename it, so that it no longer counts, then remove it; how many bytes that freed.

    Harmless where it is gone already, and where somebody else is at it.

    Raises:
        PostgresError: something of it cannot be removed. It counts no more all the same.
    """
    partial = place.with_name(place.name + PARTIAL)
    if place.exists():
        shutil.rmtree(partial, ignore_errors=True)
        with suppress(FileNotFoundError):
            place.rename(partial)
    freed = _size(partial)
    for _ in range(_TRIES):
        shutil.rmtree(partial, ignore_errors=True)
        if not partial.exists():
            return freed
    raise PostgresError(
        f"Something in {partial} cannot be removed.",
        next_step="Look who owns it and whether the disk is writable, then prune again.",
    )


def _size(folder: Path) -> int:
    size = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                size += os.lstat(os.path.join(parent, name)).st_size  # noqa: PTH118
    return size
