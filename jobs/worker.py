"""A worker: takes runs from the queue until it is told to stop, on any number of hosts."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

from approvals.directory import Directory
from approvals.in_force import Policies
from jobs.archiving import ArchiveKeeper
from jobs.collecting import Collecting
from jobs.engine import PgQueue
from jobs.grants import Grants
from jobs.kept_aside import tell_kept
from jobs.limits import Limits
from jobs.locks import SpareSession
from jobs.operation import Database, Operation
from jobs.pulse import Interrupt, Pulse
from jobs.reader import Readers
from jobs.recover import keep_looking
from jobs.runner import Runner
from jobs.scratches import keep_scratches
from jobs.stocktaking import Stocktaking
from jobs.surroundings import Surroundings
from store.connect import Store

log: Final = logging.getLogger("twokey.jobs")


class Worker:
    """Runs what has been granted. Any number of workers can share one store."""

    def __init__(
        self,
        *,
        store: Store,
        approvals: Grants,
        directory: Directory,
        operations: Mapping[str, Operation],
        databases: Mapping[str, Database],
        home: Path,
        clock: Callable[[], datetime],
        limits: Limits | None = None,
        policies: Policies | None = None,
    ) -> None:
        limits = limits or Limits()
        # Unique for each start: a worker never takes its predecessor's runs for its own.
        name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.given: Final = Surroundings(
            store=store,
            queue=PgQueue(store, poll=limits.poll, redeliver_after=limits.stale / 2),
            approvals=approvals,
            directory=directory,
            operations=operations,
            databases=databases,
            readers=Readers(),
            home=home / "runs",
            clock=clock,
            worker=name,
            limits=limits,
            policies=policies,
        )
        self._pulse = Pulse(store, worker=name, limits=limits)
        self._spare = SpareSession(store)
        self._runner = Runner(self.given, self._pulse, spare=self._spare)

    @property
    def name(self) -> str:
        """Host, process and start of this worker, as `runs.worker` has it."""
        return self.given.worker

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then give running steps their grace and the rest back.

        Returns when no body is left. A run that was cut short is resumed by another worker.
        """
        limits = self.given.limits
        consuming = asyncio.create_task(
            self.given.queue.consume(self._runner.deliver, stop, places=limits.concurrency)
        )
        beside = [
            asyncio.create_task(self._pulse.keep()),
            asyncio.create_task(keep_looking(self.given, self._pulse)),
            asyncio.create_task(self._spare.keep()),
            asyncio.create_task(self._keep_scratches()),
            asyncio.create_task(self._tell_kept()),
            asyncio.create_task(self._keep_archives()),
            asyncio.create_task(self._take_stock()),
            asyncio.create_task(self._collect()),
        ]
        try:
            await self._until_stopped(stop, consuming, beside)
            await asyncio.wait({consuming}, timeout=limits.stop_grace.total_seconds())
            if not consuming.done():
                log.warning("Runs are still at work; they are stopped and resumed elsewhere.")
                self._pulse.pull_all(Interrupt.STOPPING)
            await consuming
        finally:
            for task in (consuming, *beside):
                task.cancel()
            await asyncio.gather(consuming, *beside, return_exceptions=True)
            await self.given.readers.close()

    async def _keep_archives(self) -> None:
        given = self.given
        await ArchiveKeeper(
            store=given.store,
            databases=given.databases,
            readers=given.readers,
            worker=given.worker,
            clock=given.clock,
        ).run()

    async def _take_stock(self) -> None:
        given = self.given
        await Stocktaking(
            store=given.store, databases=given.databases, worker=given.worker, clock=given.clock
        ).run()

    async def _collect(self) -> None:
        given = self.given
        await Collecting(
            store=given.store, databases=given.databases, worker=given.worker, clock=given.clock
        ).run()

    async def _keep_scratches(self) -> None:
        given = self.given
        await keep_scratches(given.store, given.home.parent, clock=given.clock)

    async def _tell_kept(self) -> None:
        given = self.given
        await tell_kept(given.store, given.databases, clock=given.clock)

    async def _until_stopped(
        self,
        stop: asyncio.Event,
        consuming: asyncio.Task[None],
        beside: list[asyncio.Task[None]],
    ) -> None:
        """Wait for the end, or for one of the loops that never end to break."""
        waiting = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({waiting, consuming, *beside}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        for task in (consuming, *beside):
            if task.done():
                task.result()
