"""The pulse of a worker: its runs are alive, still its own, and not cancelled."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Final

from jobs import runs
from jobs.away import is_away
from jobs.limits import Limits
from jobs.runs import Claim
from store.connect import Store

log: Final = logging.getLogger("twokey.jobs")


class Interrupt(StrEnum):
    """Why a run's body has to stop."""

    CANCELLED = "cancelled"  # a person asked for it
    FENCED = "fenced"  # another worker owns the run
    LOCK_LOST = "lock_lost"  # the target lock was lost for longer than its grace
    STOPPING = "stopping"  # this worker ends


class Leash:
    """What a running body is held by. The first reason to stop is the one that counts.

    A body that ends in order is only told of a person who wants it to stop; it may still be
    pulled for every other reason.
    """

    def __init__(self, claim: Claim, *, ends_in_order: bool = False) -> None:
        self.claim = claim
        self.reason: Interrupt | None = None
        self.cancelled_by = ""  # who asked it to stop; '' for nobody
        self.cancelled = asyncio.Event()
        self._ends_in_order = ends_in_order
        self.paused_by = claim.paused_by  # who asked the body to wait; '' for nobody
        self.pulled = asyncio.Event()

    def pull(self, reason: Interrupt) -> None:
        """Have the body stop; does nothing when it was told so before."""
        if self.reason is None:
            self.reason = reason
            self.pulled.set()

    def cancel(self, by: str) -> None:
        """A person wants the run to stop: `by` is not ''. The first who asked is remembered."""
        if not self.cancelled_by:
            self.cancelled_by = by
            self.cancelled.set()
        if not self._ends_in_order:
            self.pull(Interrupt.CANCELLED)


class Pulse:
    """Looks at the runs of one worker often, and says that they are alive now and then."""

    def __init__(self, store: Store, *, worker: str, limits: Limits) -> None:
        self._store = store
        self._worker = worker
        self._limits = limits
        self._held: dict[int, Leash] = {}
        self._beaten = 0.0
        self._heard: dict[int, float] = {}  # when what the store has acknowledged was sent
        self._reason: Interrupt | None = None

    @contextmanager
    def holding(self, leash: Leash) -> Iterator[None]:
        """Beat for this run within the block, and only there: a dead body has no pulse."""
        self._held[leash.claim.run_id] = leash
        self._heard[leash.claim.run_id] = asyncio.get_running_loop().time()
        if self._reason is not None:
            leash.pull(self._reason)
        try:
            yield
        finally:
            del self._held[leash.claim.run_id]
            del self._heard[leash.claim.run_id]

    def held(self) -> frozenset[tuple[int, int]]:
        """Run and epoch of each body of this worker."""
        return frozenset((run_id, leash.claim.epoch) for run_id, leash in self._held.items())

    def pull_all(self, reason: Interrupt) -> None:
        """Have every body of this worker stop, and each that starts after this."""
        self._reason = reason
        for leash in self._held.values():
            leash.pull(reason)

    async def keep(self) -> None:
        """Never returns. While the store is away nothing is known and nothing is done.

        But a body whose pulse nobody has heard for long is stopped while it is still ours: soon
        another worker may take it over. An old primary that was parted from its synchronous
        standby answers, and acknowledges nothing.
        """
        while True:
            await asyncio.sleep(self._limits.pulse.total_seconds())
            if not self._held:
                continue
            try:
                async with asyncio.timeout(self._let_go_unheard()):
                    await self._once()
            except Exception as error:
                if not is_away(error):
                    raise
                log.warning("No pulse: the store is away (%s).", error)

    def _let_go_unheard(self) -> float:
        """Stop who was not heard of for too long; how many seconds the next try may take."""
        limits, now = self._limits, asyncio.get_running_loop().time()
        longest = (limits.stale - limits.cleanup).total_seconds()
        for run_id, leash in self._held.items():
            if now - self._heard[run_id] >= longest:
                leash.pull(Interrupt.LOCK_LOST)
        left = [longest - (now - heard) for heard in self._heard.values()]
        soonest = min((each for each in left if each > 0), default=longest)
        return min(limits.stale.total_seconds() / 2, soonest)

    async def _once(self) -> None:
        leashes = dict(self._held)
        ids = [leash.claim.run_id for leash in leashes.values()]
        now = asyncio.get_running_loop().time()
        is_due = now - self._beaten >= self._limits.heartbeat.total_seconds()
        async with self._store.begin() as conn:
            if is_due:
                await runs.beat(conn, ids, worker=self._worker)
            seen = await runs.look(conn, ids, worker=self._worker)
        if is_due:  # acknowledged, not only sent
            self._beaten = now
            self._heard.update({run_id: now for run_id in ids if run_id in self._held})
        for leash in leashes.values():
            run = seen.get(leash.claim.run_id)
            if run is None or run.epoch != leash.claim.epoch:
                leash.pull(Interrupt.FENCED)
                continue
            leash.paused_by = run.paused_by
            if run.cancel_by:
                leash.cancel(run.cancel_by)
