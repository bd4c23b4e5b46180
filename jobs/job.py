"""A run in progress, as an operation sees it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from pydantic import JsonValue

from jobs.operation import Mode
from jobs.progress import Progress
from jobs.pulse import Leash
from jobs.reader import LiveContext
from jobs.steps import Body, Steps


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveJob(LiveContext):
    """Implements `jobs.operation.Job` for one life of a run."""

    folder: Path
    request_id: int
    run_key: str
    steps: Steps
    progress: Progress
    leash: Leash

    @property
    def is_paused(self) -> bool:
        """See `jobs.operation.Job.is_paused`."""
        return bool(self.leash.paused_by)

    @property
    def is_cancelled(self) -> bool:
        """See `jobs.operation.Job.is_cancelled`."""
        return self.leash.cancelled.is_set()

    @property
    def cancelled_by(self) -> str:
        """See `jobs.operation.Job.cancelled_by`."""
        return self.leash.cancelled_by

    async def until_cancelled(self) -> None:
        """See `jobs.operation.Job.until_cancelled`."""
        await self.leash.cancelled.wait()

    async def step(
        self, name: str, body: Body, *, mode: Mode, time_limit: timedelta, attempts: int = 1
    ) -> JsonValue:
        """See `jobs.operation.Job.step`."""
        return await self.steps.step(
            name, body, mode=mode, time_limit=time_limit, attempts=attempts
        )

    async def report(self, text: str, *, fraction: float | None = None) -> None:
        """See `jobs.operation.Job.report`."""
        self.progress.report(text, fraction=fraction)
