"""What a drill knows of itself while it runs, and how its steps are told. See `jobs.drilling`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from pydantic import JsonValue

from jobs.cluster_of import specs_of
from jobs.cluster_settings import ClusterSettings
from jobs.drill_hands import DrillOrder, StopAskedError
from jobs.drill_ledger import DrillLedger
from jobs.drill_telling import tell_phase, why_stopped
from jobs.drill_words import Cost, Difference, Moment, Phase
from jobs.operation import Attempt, Job, JobError, Mode
from postgres.cluster.words import NodeSpec
from postgres.dsn import parse_dsn
from postgres.errors import PostgresError

STEP_LIMIT: Final = timedelta(minutes=5)
# The ledger goes on while a drill whose time is up is brought to a safe end.
_MORE: Final = timedelta(hours=1)

Body = Callable[[Attempt], Awaitable[JsonValue]]


@dataclass(slots=True, kw_only=True)
class DrillState:
    """One life of a drill's run, and what its report is made of.

    `may_be_broken`: whether this life or an earlier one may have injected the fault. `error`: what
    ended the flow; `unsafe`: what kept it from a safe end; `stopped`: who or what stopped it.
    """

    job: Job
    order: DrillOrder
    settings: ClusterSettings
    started_at: datetime
    moments: list[Moment] = field(default_factory=list)
    trouble: list[str] = field(default_factory=list)
    error: JobError | PostgresError | None = None
    unsafe: JobError | PostgresError | None = None
    stopped: str = ""
    may_be_broken: bool = False
    before: Mapping[str, str] = field(default_factory=dict)
    started: Mapping[str, str] = field(default_factory=dict)
    timings: Mapping[str, str] = field(default_factory=dict)
    lag_bytes: int | None = None
    cost: Cost | None = None
    cost_back: Cost | None = None
    connectivity: str = ""
    is_connected: bool = False
    is_redundant: bool = False
    is_back: bool | None = None
    differences: tuple[Difference, ...] = ()
    primary: str = ""
    ledger: DrillLedger = field(init=False)

    def __post_init__(self) -> None:
        endpoint = self.settings.endpoint
        self.ledger = DrillLedger(
            self.job,
            specs_of(self.settings),
            parse_dsn(endpoint.get_secret_value()) if endpoint else None,
            self.settings.drills.hard_limit + _MORE,
        )
        self.primary = self.order.leader

    async def reach(
        self,
        phase: Phase,
        name: str,
        body: Body,
        *,
        mode: Mode,
        limit: timedelta = STEP_LIMIT,
        attempts: int = 1,
    ) -> dict[str, Any]:
        """A step after which a phase is reached."""
        done = await self.step(name, body, mode=mode, limit=limit, attempts=attempts)
        await self.reached(phase, done)
        return done

    async def step(
        self,
        name: str,
        body: Body,
        *,
        mode: Mode,
        limit: timedelta = STEP_LIMIT,
        attempts: int = 1,
    ) -> dict[str, Any]:
        """What a part returned, now or in an earlier life."""
        done = await self.job.step(name, body, mode=mode, time_limit=limit, attempts=attempts)
        assert isinstance(done, dict)  # noqa: S101 - what the bodies of this file return
        return done

    async def reached(self, phase: Phase, done: Mapping[str, Any]) -> None:
        """Tell it, and keep it."""
        at, text = datetime.fromisoformat(str(done["at"])), str(done["text"])
        self.moments.append(Moment(phase=phase, at=at, text=text))
        await tell_phase(self.job, phase, text)

    def failed(self, error: JobError | PostgresError) -> None:
        """Something went wrong; the first of them is what ended the flow."""
        self.error = self.error or error
        self.trouble.append(error.problem)

    def heed(self) -> None:
        """Stop here if somebody wants it.

        Raises:
            StopAskedError: somebody does.
        """
        if why := self.why_stopped():
            self.stopped = why
            raise StopAskedError

    def why_stopped(self) -> str:
        """Who or what wants it to end; '' while nobody does."""
        limit = self.settings.drills.hard_limit
        return why_stopped(self.job, limit, is_over=self.job.now - self.started_at > limit)

    def last(self, phase: Phase) -> datetime | None:
        """When a phase was reached, None: it was not."""
        return next((each.at for each in reversed(self.moments) if each.phase is phase), None)

    def spec(self, name: str) -> NodeSpec:
        """The server of this name."""
        return next(each for each in specs_of(self.settings) if each.name == name)
