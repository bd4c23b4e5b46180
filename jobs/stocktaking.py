"""Compares catalogue and disk by the clock, on the worker that has the backups at hand.

What has lost its files counts no more, so that it is told of and nothing relies on it; what
is back counts again. One worker looks after a database, as long as it lives.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Final, NoReturn

from jobs.archive_lease import Lease, Leases
from jobs.away import is_away
from jobs.engines import engine_of
from jobs.operation import Database, JobError
from jobs.reconcile import at_hand, findings, look, settle
from postgres.errors import PostgresError
from store.connect import Store

log: Final = logging.getLogger("twokey.backups")

EVERY: Final = timedelta(minutes=5)
# A disk that is mounted anew is back by then; what is away for longer is called lost.
PATIENCE: Final = timedelta(minutes=15)
LOOK_SECONDS_MAX: Final = 120.0


class Stocktaking:
    """The looks of one worker. `clock` gives the time, aware, in UTC."""

    def __init__(
        self,
        *,
        store: Store,
        databases: Mapping[str, Database],
        worker: str,
        clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._databases = databases
        self._clock = clock
        self._leases = Leases(store, name=f"stock {worker}")
        self._ours: set[str] = set()
        self._away_since: dict[str, datetime] = {}

    async def run(self) -> NoReturn:
        """Look again and again; never returns."""
        try:
            while True:
                await self.look()
                await asyncio.sleep(EVERY.total_seconds())
        finally:
            self._leases.close()

    async def look(self) -> None:
        """Look at each database once. What cannot be looked at now is looked at next time."""
        for database in self._databases.values():
            try:
                async with asyncio.timeout(LOOK_SECONDS_MAX):
                    await self._look_at(database)
            except (JobError, PostgresError) as error:
                log.warning("Backups of %s: %s %s", database.name, error.problem, error.next_step)
            except Exception as error:
                if not isinstance(error, OSError) and not is_away(error):
                    raise
                log.warning("The backups of %s could not be looked at: %s", database.name, error)

    async def _look_at(self, database: Database) -> None:
        name = database.name
        # Who had them at hand once looks on: that is how it is found that they are gone.
        if name not in self._ours and not await at_hand(database):
            return
        if await self._leases.take(f"the backups of {name}") is not Lease.OURS:
            self._ours.discard(name)
            return
        self._ours.add(name)
        now = self._clock()
        seen = await look(self._store, database, engine_of(database), now)
        since = self._away_since.setdefault(name, now) if seen.is_away else now
        if not seen.is_away:
            self._away_since.pop(name, None)
        for finding in findings(database, seen):
            log.warning("%s %s", finding.problem, finding.next_step)
        await settle(self._store, database, seen, now, for_good=now - since >= PATIENCE)
