"""Answers of queries that take long, kept for a while: one look at a time, and with their age.

A mark says what an answer depends on besides its age: it was the same when the look began, or
the answer is not used. Each process remembers on its own; the marks come from the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from jobs.operation import Answer

ENTRIES_MAX: Final = 500

Look = Callable[[], Awaitable[Answer]]


@dataclass(slots=True, kw_only=True)
class _Entry:
    """A look under way, or what it brought. `at`: when it began, so the age is never too young."""

    at: datetime
    mark: str
    flight: asyncio.Task[Answer]

    def is_usable(self, now: datetime, *, mark: str, age_max: timedelta) -> bool:
        """Whether somebody who asks now may get this: what is under way, or is young enough."""
        if self.mark != mark:
            return False
        if not self.flight.done():
            return True
        failed = self.flight.cancelled() or self.flight.exception() is not None
        return not failed and timedelta(0) <= now - self.at < age_max


class Remembered:
    """Looks and what they brought, by what was asked."""

    def __init__(self, *, entries_max: int = ENTRIES_MAX) -> None:
        self._entries_max = entries_max
        self._entries: dict[str, _Entry] = {}

    def flight(
        self, key: str, look: Look, *, now: datetime, mark: str, age_max: timedelta, anew: bool
    ) -> asyncio.Task[Answer]:
        """The look at `key` that serves who asks now: under way, remembered, or begun here.

        `anew`: what is remembered does not do, a look under way does. Its answer has `at`. It
        is shared: wait for it without cancelling it.
        """
        known = self._entries.get(key)
        usable = known is not None and known.is_usable(now, mark=mark, age_max=age_max)
        if known and usable and not (anew and known.flight.done()):
            return known.flight
        flight = asyncio.create_task(_dated(look, now))
        # Whoever asked may have gone by the time it fails.
        flight.add_done_callback(lambda task: task.cancelled() or task.exception())
        self._entries.pop(key, None)
        while len(self._entries) >= self._entries_max:
            del self._entries[next(iter(self._entries))]
        self._entries[key] = _Entry(at=now, mark=mark, flight=flight)
        return flight

    async def close(self) -> None:
        """End the looks under way."""
        flights = [entry.flight for entry in self._entries.values() if not entry.flight.done()]
        self._entries.clear()
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)


async def _dated(look: Look, now: datetime) -> Answer:
    return replace(await look(), at=now)
