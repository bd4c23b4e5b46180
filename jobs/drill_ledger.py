"""A drill's ledger of acknowledged rows: kept over the lives of its run, and swept afterwards."""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from pydantic import JsonValue, TypeAdapter

from jobs.drill_words import Cost
from jobs.operation import Job, JobError
from postgres.cluster.ledger import Ledger, heartbeat_ages, measure, remove
from postgres.cluster.ledger_file import is_begun
from postgres.cluster.loss import GAP_SECONDS, Loss
from postgres.cluster.words import NodeSpec
from postgres.dsn import Target
from postgres.errors import PostgresError

log: Final = logging.getLogger("twokey.drills")

BASELINE_ROWS: Final = 100  # a second of them
BASELINE_LIMIT: Final = timedelta(seconds=30)
RETURN_LIMIT: Final = timedelta(seconds=30)
BEAT_AGE_MAX: Final = 5.0
KEPT: Final = timedelta(days=7)
_LOOK_EVERY_SECONDS: Final = 0.1
_NAME: Final = "ledger-{key}"
_COST: Final = TypeAdapter[Cost | None](Cost | None)


class DrillLedger:
    """The ledger of one run. `problem`: why nobody can tell what was lost, '' while one can.

    `writes` None: there is none, as an earlier life wrote on another machine.
    """

    def __init__(
        self, job: Job, nodes: tuple[NodeSpec, ...], endpoint: Target | None, limit: timedelta
    ) -> None:
        self._job = job
        self._nodes = nodes
        self.endpoint = endpoint
        self._limit = limit
        self.key = job.run_key
        self.folder = folder_of(job)
        self.writes: Ledger | None = None
        self.problem = ""

    @asynccontextmanager
    async def writing(self, *, is_first: bool) -> AsyncIterator[None]:
        """Write within the block. `is_first`: no earlier life of the run has written.

        Raises:
            PostgresError: it cannot begin.
        """
        await asyncio.to_thread(_sweep, self.folder)
        if not is_first and not await asyncio.to_thread(is_begun, self.folder):
            self.problem = (
                "What was acknowledged was written down by a worker on another machine, so nobody"
                " can tell what was lost."
            )
            yield
            return
        ledger = Ledger(
            self.endpoint,
            self._nodes,
            self.key,
            self.folder,
            clock=lambda: self._job.now,
            limit=self._limit,
        )
        async with ledger:
            self.writes = ledger
            yield

    async def baseline(self, candidate: str) -> str:
        """Wait until rows are acknowledged and the heartbeat is on the candidate; says how.

        Raises:
            JobError: they are not in time. Nothing has been harmed.
        """
        if self.writes is None:
            return self.problem
        if not await self.writes.until(
            lambda now: now.acknowledged >= BASELINE_ROWS, limit=BASELINE_LIMIT
        ):
            standing = self.writes.standing
            raise JobError(
                f"Only {standing.acknowledged} rows were acknowledged through the application's"
                f" endpoint in {BASELINE_LIMIT.total_seconds():.0f} s. {standing.problem}".strip(),
                next_step="See where `cluster.endpoint` leads, and whether its role may connect."
                " Nothing was harmed.",
            )
        nodes = [each for each in self._nodes if each.name == candidate]
        end = time.monotonic() + BASELINE_LIMIT.total_seconds()
        while nodes:
            age = (await heartbeat_ages(nodes, self.key, clock=lambda: self._job.now))[candidate]
            if age is not None and age <= BEAT_AGE_MAX:
                return (
                    f"Rows are acknowledged, and {candidate} has those of {max(age, 0):.1f} s ago"
                )
            if time.monotonic() > end:
                raise JobError(
                    f"{candidate} does not show what was written: the last row is"
                    f" {'not there' if age is None else f'{age:.0f} s old'}.",
                    next_step="It must replay before anything is lost on purpose: /db replication."
                    " Nothing was harmed.",
                )
            await asyncio.sleep(_LOOK_EVERY_SECONDS)
        return "Rows are acknowledged"

    async def cost(
        self, primary: Target, *, injected_at: datetime, since: datetime, before: Cost | None = None
    ) -> Cost | None:
        """What was lost and how long nobody could write; None: nobody can tell.

        `since`: when somebody took writes again: an acknowledgement after it is waited for.
        `before`: what had been lost by an earlier change of the same ledger.

        Raises:
            PostgresError: the rows cannot be counted.
        """
        if self.problem:
            return None
        if self.writes is not None:
            await self.writes.until(
                lambda now: now.acked_at is not None and now.acked_at > since, limit=RETURN_LIMIT
            )
            loss = await self.writes.measure(primary, injected_at=injected_at)
        else:
            loss = await measure(
                primary, key=self.key, folder=self.folder, injected_at=injected_at,
                until=self._job.now,
            )  # fmt: skip
        return cost_of(loss, before)

    async def clear(self, primary: Target) -> None:
        """Remove the rows and what was written down; the next sweep takes what stays."""
        try:
            await remove(primary, self.key)
        except PostgresError as error:
            log.warning("%s %s", error.problem, error.next_step)
        await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)


def folder_of(job: Job) -> Path:
    """A run's ledger: beside the folders of the run's lives, each of which goes with its life."""
    return job.folder.parent / _NAME.format(key=job.run_key)


def cost_of(loss: Loss, before: Cost | None = None) -> Cost:
    """A loss as it is reported. `before`: what was lost earlier is not counted again. Pure."""
    lost = loss.lost - (before.lost if before else 0)
    return Cost(
        acknowledged=loss.acknowledged,
        lost=lost,
        ambiguous=loss.ambiguous - (before.ambiguous if before else 0),
        rpo_seconds=loss.rpo_seconds if lost or before is None else 0.0,
        heartbeat_seconds=loss.heartbeat_seconds,
        write_gap_seconds=loss.write_gap_seconds,
        rto_seconds=loss.rto_seconds,
        is_exact=loss.blind_seconds == 0,
    )


def cost_of_standby(cost: Cost) -> Cost:
    """What the loss of a standby cost: its RTO is how long writes paused, if they did. Pure."""
    gap = cost.write_gap_seconds
    return Cost(
        acknowledged=cost.acknowledged,
        lost=cost.lost,
        ambiguous=cost.ambiguous,
        rpo_seconds=cost.rpo_seconds,
        heartbeat_seconds=cost.heartbeat_seconds,
        write_gap_seconds=gap,
        rto_seconds=gap if gap >= GAP_SECONDS else 0.0,
        is_exact=cost.is_exact,
    )


def cost_text(cost: Cost | None, problem: str) -> str:
    """What it cost in one line. Pure."""
    if cost is None:
        return problem or "Nobody can tell what was lost"
    return (
        f"{cost.lost:,} of {cost.acknowledged:,} acknowledged rows lost, RPO"
        f" {cost.rpo_seconds:.2f} s, no writes for {cost.write_gap_seconds:.2f} s"
    )


def cost_json(cost: Cost | None) -> JsonValue:
    """As a step keeps it."""
    kept: JsonValue = _COST.dump_python(cost, mode="json")
    return kept


def cost_from(done: Mapping[str, Any]) -> Cost | None:
    """What a step has kept."""
    return _COST.validate_python(done["cost"])


def _sweep(mine: Path) -> None:
    """Remove what drills left here that nobody went on with."""
    oldest = time.time() - KEPT.total_seconds()
    for each in mine.parent.glob(_NAME.format(key="*")):
        if each != mine and each.is_dir() and each.stat().st_mtime < oldest:
            shutil.rmtree(each, ignore_errors=True)
