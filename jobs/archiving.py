"""Looks after the WAL archives of all databases: each by one worker, for as long as it lives."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from datetime import datetime

from jobs.archive_keeper import Keeper, Pace, Tools
from jobs.archive_lease import Lease, Leases
from jobs.away import is_away
from jobs.backup_settings import ArchiveMethod
from jobs.operation import Database
from jobs.reader import Readers
from jobs.routes import Routes
from postgres.cluster.look import look_at
from store.archives import forget_archive
from store.connect import Store


class ArchiveKeeper:
    """Looks after the archives that no other worker looks after."""

    def __init__(
        self,
        *,
        store: Store,
        databases: Mapping[str, Database],
        readers: Readers,
        worker: str,
        clock: Callable[[], datetime],
        environ: Mapping[str, str] = os.environ,
        pace: Pace | None = None,
        routes: Routes | None = None,
    ) -> None:
        """`worker` names this process in the rows of its archives."""
        self._store = store
        self._databases = databases
        self._readers = readers
        self._worker = worker
        self._clock = clock
        self._environ = environ
        self._pace = pace or Pace()
        # A whole look: where our slot stayed behind is seen by it.
        self._routes = routes or Routes(clock=clock, look=look_at)
        self._leases = Leases(store, name=worker)

    async def run(self) -> None:
        """Look after archives until cancelled; never returns. No receiver outlives it."""
        methods = {name: each.backups.archive.method for name, each in self._databases.items()}
        try:
            async with asyncio.TaskGroup() as group:
                for name, method in methods.items():
                    if method is not ArchiveMethod.NONE:
                        group.create_task(self._watch(self._databases[name]))
                await self._forget(
                    [name for name, method in methods.items() if method is ArchiveMethod.NONE]
                )
                await asyncio.Event().wait()
        finally:
            self._leases.close()

    async def _forget(self, names: list[str]) -> None:
        """Remove the rows of databases that are archived no more."""
        try:
            async with self._store.begin() as conn:
                for name in names:
                    await forget_archive(conn, name)
        except Exception as error:
            if not is_away(error):
                raise

    async def _watch(self, database: Database) -> None:
        """Wait until the archive is ours to look after; then do so until it is not."""
        tools = Tools(
            store=self._store,
            reader=self._readers.of,
            routes=self._routes,
            worker=self._worker,
            clock=self._clock,
            environ=self._environ,
            pace=self._pace,
        )
        while True:
            if await self._leases.take(database.name) is Lease.OURS:
                async with Keeper(tools, database) as keeper:
                    while await self._leases.take(database.name) is not Lease.ELSEWHERE:
                        await keeper.look()
                        await asyncio.sleep(self._pace.look.total_seconds())
            await asyncio.sleep(self._pace.look.total_seconds())
