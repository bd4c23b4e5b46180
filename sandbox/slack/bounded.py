"""Memory with a bound: whatever grows here forgets its oldest part."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Bounded(dict[K, V], Generic[K, V]):
    """A dict that forgets its oldest entry when it would hold more than `most`."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def __setitem__(self, key: K, value: V) -> None:
        super().__setitem__(key, value)
        while len(self) > self._most:
            del self[next(iter(self))]


class Changes:
    """A version that counts up, and a way to wait for the next one."""

    def __init__(self) -> None:
        self.version = 0
        self._next = asyncio.Event()

    def bump(self) -> None:
        """Something changed: wake everybody who waits."""
        self.version += 1
        self._next.set()
        self._next = asyncio.Event()

    async def wait(self, *, after: int) -> int:
        """The version, as soon as it is above `after`. The caller limits the wait."""
        while self.version <= after:
            await self._next.wait()
        return self.version


class Background:
    """Tasks that outlive the call that started them; none survives `close`."""

    def __init__(self, most: int = 1000) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._most = most

    def start(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run `work`; beyond the bound it is not started at all."""
        if len(self._tasks) >= self._most:
            work.close()
            return
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Cancel what still runs and wait for its end."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
