"""Looks at all databases by the clock: each is looked at by one worker, for as long as it lives.

Each database is a task of its own, so that none waits for another, and their looks are spread
over the interval. What is stored is rolled up, and removed in time, by one worker too.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Final, NoReturn

from sqlalchemy.ext.asyncio import AsyncConnection

from jobs.archive_lease import Lease, Leases
from jobs.away import is_away
from jobs.collect_database import DatabaseWatch, Pace, Tools, names_of
from jobs.collect_node import Opener, open_node
from jobs.operation import Database
from store.connect import Store
from store.measured import trim
from store.rollups import roll_up
from store.samples import FORGOTTEN_AFTER, Width, forget_nodes

log: Final = logging.getLogger("twokey.health")

# One answer of the store about a worker's leases counts for all of them so long.
REMEMBER: Final = timedelta(seconds=2)
ROLL_UP_EVERY: Final[Mapping[Width, timedelta]] = {
    "5m": timedelta(minutes=5),
    "1h": timedelta(minutes=15),
    "1d": timedelta(hours=3),
}
TRIM_EVERY: Final = timedelta(minutes=15)
# In one round; what is left is done in the next one.
BITES_MAX: Final = 200
BITE_SECONDS_MAX: Final = 30.0


class Collecting:
    """The looks of one worker. `clock` gives the time, aware, in UTC."""

    def __init__(
        self,
        *,
        store: Store,
        databases: Mapping[str, Database],
        worker: str,
        clock: Callable[[], datetime],
        pace: Pace | None = None,
        opener: Opener = open_node,
    ) -> None:
        self._tools = Tools(
            store=store, worker=worker, clock=clock, pace=pace or Pace(), opener=opener
        )
        self._databases = [each for each in databases.values() if each.monitoring.is_on]
        self._leases = Leases(store, name=f"health {worker}", remember=REMEMBER)
        self._done_at: dict[str, datetime] = {}
        self._started = clock()

    async def run(self) -> NoReturn:
        """Look until cancelled; never returns. No connection outlives it."""
        try:
            async with asyncio.TaskGroup() as group:
                for database in self._databases:
                    group.create_task(self._watch(database))
                group.create_task(self._keep_house())
        finally:
            self._leases.close()
        raise AssertionError("its tasks never end")

    async def _watch(self, database: Database) -> NoReturn:
        """Wait until the database is ours to look at; then do so until it is not."""
        watch, name = DatabaseWatch(self._tools, database), f"the health of {database.name}"
        every = database.monitoring.every.total_seconds()
        share = share_of(database.name)
        while True:
            await asyncio.sleep(self._tools.pace.lease.total_seconds() * (0.5 + share))
            if await self._leases.take(name) is not Lease.OURS:
                continue
            try:
                await until_next(every, share)
                while await self._leases.take(name) is not Lease.ELSEWHERE:
                    await watch.look()
                    await until_next(every, share)
            finally:
                await watch.close()

    async def _keep_house(self) -> NoReturn:
        while True:
            await asyncio.sleep(self._tools.pace.house.total_seconds())
            if await self._leases.take("the roll-ups of health") is not Lease.OURS:
                continue
            try:
                await self.keep_house()
            except Exception as error:
                if not is_away(error):
                    raise
                log.warning("Samples are not rolled up: the store is away (%s).", error)

    async def keep_house(self) -> None:
        """Roll up, remove and forget what is due, in transactions of their own."""
        now = self._tools.clock()
        for width, every in ROLL_UP_EVERY.items():
            if self._is_due(width, every, now):
                await self._in_bites(partial(roll_up, width=width, now=now))
                self._done_at[width] = now
        if self._is_due("trim", TRIM_EVERY, now):
            await self._in_bites(partial(trim, now=now))
            await self._in_bites(partial(self._forget, now=now))
            self._done_at["trim"] = now

    async def _in_bites(self, bite: Callable[[AsyncConnection], Awaitable[bool]]) -> None:
        """Do it until there is no more to do, or for this round enough."""
        for _ in range(BITES_MAX):
            async with (
                asyncio.timeout(BITE_SECONDS_MAX), self._tools.writes,
                self._tools.store.begin() as conn,
            ):  # fmt: skip
                if not await bite(conn):
                    return

    async def _forget(self, conn: AsyncConnection, now: datetime) -> bool:
        """Nodes that left the inventory. Not at once: at first all may have been away."""
        if now - self._started >= FORGOTTEN_AFTER:
            known = {each.name: names_of(each) for each in self._databases}
            await forget_nodes(conn, known, now=now)
        return False

    def _is_due(self, what: str, every: timedelta, now: datetime) -> bool:
        last = self._done_at.get(what)
        return last is None or not last <= now < last + every


def share_of(name: str) -> float:
    """Where in an interval a database's looks lie, from 0 to 1: the same at every start."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]) / 2**32


async def until_next(every_seconds: float, share: float) -> None:
    """Wait for the next of the moments that come every so many seconds, never less than a tenth.

    What was missed is not made up for.
    """
    now = asyncio.get_running_loop().time()
    wait = (share * every_seconds - now) % every_seconds
    if wait < every_seconds / 10:
        wait += every_seconds
    await asyncio.sleep(wait)
