"""The folder of a scratch server: where it is, how it is handed over, how all of it goes away."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from postgres.account import OPEN_HOME, reachable, server_account
from postgres.errors import PostgresError
from postgres.layout import Layout
from postgres.postmaster import live_postmaster
from postgres.process import send
from postgres.sizes import pretty_bytes

_STOP_SECONDS: Final = 10.0
_LOOK_EVERY_SECONDS: Final = 0.05


def scratch_folder(work_folder: Path) -> Path:
    """Where a scratch server of this work folder is; see `account.reachable`."""
    return reachable(work_folder / "scratch", server_account())


async def remove_scratch(work_folder: Path) -> None:
    """Stop and remove a scratch server, also one that a dead process left; harmless otherwise."""
    folder = scratch_folder(work_folder)
    if not folder.exists():
        return
    data = folder / "data"
    if live_postmaster(data):
        await asyncio.shield(_stop(data))
    await asyncio.shield(asyncio.to_thread(_remove, folder))


def give(path: Path) -> None:
    """Give a file or folder to the server account."""
    if account := server_account():
        os.chown(path, account.uid, account.gid, follow_symlinks=False)


def disk_error(folder: Path, error: OSError) -> PostgresError:
    """The error for a disk that did not take a restored copy."""
    parent = next(part for part in (folder, *folder.parents) if part.exists())
    return PostgresError(
        f"The restore to {folder} failed: {error.strerror or error}. "
        f"{pretty_bytes(shutil.disk_usage(parent).free)} are free there.",
        next_step="Free some space there, or set TWOKEY_HOME to a larger disk, then try again.",
    )


async def _stop(data: Path) -> None:
    """End a server that a dead process of ours left, if it did not end with it."""
    for number in (signal.SIGQUIT, signal.SIGKILL):
        end = time.monotonic() + _STOP_SECONDS
        while (found := live_postmaster(data)) and time.monotonic() < end:
            send(found.pid, number)
            await asyncio.sleep(_LOOK_EVERY_SECONDS)


def _remove(folder: Path) -> None:
    layout = Layout(data=folder / "data", named=folder / "data")
    layout.remove()
    shutil.rmtree(folder, ignore_errors=True)
    if folder.parent.parent == OPEN_HOME:
        with suppress(OSError):  # not empty: another one is at work there
            folder.parent.rmdir()
