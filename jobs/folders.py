"""Private folders of runs, and what dead runs have left behind."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from jobs.runs import Claim

log: Final = logging.getLogger("twokey.jobs")

NAME: Final = re.compile(r"run-(\d+)-(\d+)")
# Others on this machine may pass through to what they own, such as a scratch server's
# account to its data, and may not list what is there.
MODE: Final = 0o711


@asynccontextmanager
async def private_folder(home: Path, claim: Claim) -> AsyncIterator[Path]:
    """A folder for one life of a run. Removed at the end, whatever happened."""
    path = home / f"run-{claim.run_id}-{claim.epoch}"
    await asyncio.to_thread(_make, path)
    try:
        yield path
    finally:
        await asyncio.shield(remove(path))


def leftovers(home: Path) -> frozenset[tuple[int, int]]:
    """Run and epoch of every folder that is there."""
    with contextlib.suppress(FileNotFoundError):
        names = [NAME.fullmatch(path.name) for path in home.iterdir()]
        return frozenset((int(name[1]), int(name[2])) for name in names if name)
    return frozenset()


def folder_of(home: Path, run_id: int, epoch: int) -> Path:
    """Where the folder of a run's life is."""
    return home / f"run-{run_id}-{epoch}"


async def remove(path: Path) -> None:
    """Remove a folder with all that is in it; what cannot be removed is logged and left."""
    await asyncio.to_thread(_remove, path)


def _make(path: Path) -> None:
    path.mkdir(parents=True, exist_ok=True)
    path.parent.chmod(MODE)
    path.chmod(MODE)


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    if path.exists():
        log.warning("Could not remove %s; remove it by hand.", path)
