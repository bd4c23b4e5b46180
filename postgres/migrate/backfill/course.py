"""How a running backfill stands: what its workers, its watch and its VACUUM share."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from postgres.migrate.backfill.pace import Speed
from postgres.migrate.backfill.spec import BackfillLimits, BatchDone, Control
from postgres.migrate.backfill.throttle import Cause, Reason, Throttle

_GLANCE_SECONDS: Final = 0.05
_BREATH_SECONDS_MAX: Final = 2.0
_NOTES_MAX: Final = 20
_ALMOST: Final = 0.99
_MINUTE: Final = 60
_HOUR: Final = 3600

BLIND: Final = Reason(cause=Cause.BLIND, text="the server's state cannot be seen just now")


@dataclass(slots=True, kw_only=True)
class Course:
    """Counts of all lives but `…_here`, which are of this one; times in seconds."""

    control: Control
    limits: BackfillLimits
    total: int
    rows: int
    passed: int
    updated_here: int = 0
    batches_here: int = 0
    retries: int = 0
    vacuums: int = 0
    worked: float = 0.0
    throttled: float = 0.0
    paused: float = 0.0
    spared: float = 0.0  # between batches, over all workers
    waited: dict[str, float] = field(default_factory=dict)
    throttle: Throttle = field(default_factory=Throttle)
    reason: Reason | None = BLIND  # nothing is done before the first look
    speed: Speed = field(default_factory=Speed)
    notes: list[str] = field(default_factory=list)
    pids: set[int] = field(default_factory=set)

    def note(self, text: str) -> None:
        """Something that people should know, once."""
        if text not in self.notes and len(self.notes) < _NOTES_MAX:
            self.notes.append(text)

    @contextmanager
    def session(self, conn: Any) -> Iterator[None]:
        """While this lasts a session is known as ours."""
        pid = conn.get_server_pid()
        self.pids.add(pid)
        try:
            yield
        finally:
            self.pids.discard(pid)

    def did(self, done: BatchDone) -> None:
        """Count a batch that was committed."""
        self.rows += done.updated
        self.passed += done.passed
        self.updated_here += done.updated
        self.batches_here += 1

    def passes(self, seconds: float) -> None:
        """Time went by: it was paused, throttled or worked."""
        if self.control.is_paused:
            self.paused += seconds
            return
        self.worked += seconds
        self.speed = self.speed.look(self.passed, self.worked)
        if self.reason is not None:
            self.throttled += seconds
            cause = self.reason.cause.value
            self.waited[cause] = self.waited.get(cause, 0.0) + seconds

    async def until_free(self) -> bool:
        """Wait while something holds it up; False: it is to pause."""
        while not self.control.is_paused:
            if self.reason is None:
                return True
            await asyncio.sleep(_GLANCE_SECONDS)
        return False

    async def until_resumed(self) -> None:
        """Wait for the end of a pause."""
        while self.control.is_paused:  # noqa: ASYNC110 - others set it, in a store
            await asyncio.sleep(_GLANCE_SECONDS)

    async def breathe(self, batch_seconds: float) -> None:
        """Leave others their share of the time after a batch."""
        share = self.throttle.share
        if share < 1:
            breath = min(_BREATH_SECONDS_MAX, batch_seconds * (1 / share - 1))
            if self.reason is None:
                self.spared += breath
            await asyncio.sleep(breath)

    @property
    def fraction(self) -> float:
        """How much of it is done, as far as anybody can tell before its end."""
        return min(_ALMOST, self.passed / self.total) if self.total else 0.0

    @property
    def text(self) -> str:
        """How it stands, for people."""
        parts = [f"{self.passed:,} of about {max(self.total, self.passed):,} rows"]
        if self.control.is_paused:
            rests = "paused: it holds no lock" if not self.pids else "pausing: the last batches end"
            return "; ".join([*parts, rests])
        if self.speed.per_second:
            parts.append(f"{self.speed.per_second:,.0f} rows a second")
        left = self.speed.seconds_left(max(self.total - self.passed, 0))
        if left is not None:
            parts.append(f"about {pretty_seconds(left)} left")
        if self.reason is not None:
            parts.append(f"waiting: {self.reason.text}")
        return "; ".join(parts)


def pretty_seconds(seconds: float) -> str:
    """A length of time for people: 90 is "1 min 30 s". Pure."""
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"
