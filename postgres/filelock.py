"""A file's lock, waited for. It ends with the process that holds it, however that ends."""

from __future__ import annotations

import asyncio
import fcntl
import time
from typing import Final

_LOOK_EVERY_SECONDS: Final = 0.02


async def locked_within(handle: int, seconds: float) -> bool:
    """Whether the lock of the open file became ours in time; closing `handle` frees it."""
    end = time.monotonic() + seconds
    while not _locked(handle):
        if time.monotonic() > end:
            return False
        await asyncio.sleep(_LOOK_EVERY_SECONDS)
    return True


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
