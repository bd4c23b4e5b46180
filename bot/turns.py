"""First come, first served: so many answers are worked on at once, the rest wait their turn.

Without it a crowd's answers share the processor and a request's lock evenly, and then they
all come too late together. In turns the first are early and only the last are late.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from weakref import WeakKeyDictionary

AT_ONCE: Final = 24


class NoTurnError(Exception):
    """The time ran out while it waited: nothing was begun, so nothing can have changed."""


_turns: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore]] = WeakKeyDictionary()


@asynccontextmanager
async def turn(*, seconds_max: float) -> AsyncIterator[None]:
    """A block that begins when its turn comes and has `seconds_max` in all, waiting included.

    Raises:
        NoTurnError: its turn did not come in time.
        TimeoutError: it did, and the block took too long.
    """
    turns = _turns.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(AT_ONCE))
    begun = False
    try:
        async with asyncio.timeout(seconds_max), turns:
            begun = True
            yield
    except TimeoutError as error:
        if begun:
            raise
        raise NoTurnError from error
