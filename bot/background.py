"""Work after an ack that nobody waits for, held on to and brought to its end at a stop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any, Final

log: Final = logging.getLogger("twokey.background")

TASKS_MAX: Final = 1000


class Background:
    """A bounded set of tasks. Nothing that must not be lost belongs here: that is a row."""

    def __init__(self, *, limit: timedelta, tasks_max: int = TASKS_MAX) -> None:
        self._limit = limit
        self._tasks_max = tasks_max
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None], *, limit: timedelta | None = None) -> None:
        """Do `work` soon, for at most the limit. Beyond the bound it is dropped and logged."""
        if len(self._tasks) >= self._tasks_max:
            work.close()
            log.error("Too much is going on: an answer was dropped.")
            return
        task = asyncio.create_task(self._run(work, limit or self._limit))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def drain(self) -> None:
        """Wait for what was started; what does not end within the limit is cancelled."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._limit.total_seconds())
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, work: Coroutine[Any, Any, None], limit: timedelta) -> None:
        try:
            async with asyncio.timeout(limit.total_seconds()):
                await work
        except TimeoutError:
            log.warning("An answer took longer than %s and was given up.", limit)
        except Exception:
            log.exception("An answer could not be given.")
