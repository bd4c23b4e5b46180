"""Looks at one node again and again: within a limit, and seldom while it does not answer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from pydantic import SecretStr

from jobs.health_settings import Volume
from jobs.text import span_text
from postgres.errors import PostgresError
from postgres.health.collect import Collected, NodeCollector
from postgres.health.connecting import FAILURES

log: Final = logging.getLogger("twokey.health")

CLOSE_SECONDS_MAX: Final = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePlace:
    """A server of a database's cluster. `volume` and `pgbouncer`: of the inventory's own alone."""

    name: str
    dsn: SecretStr
    region: str = ""
    volume: Volume | None = None
    pgbouncer: SecretStr | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Silent:
    """It did not answer: why, and what to do."""

    problem: str
    next_step: str


class Eye(Protocol):
    """What looks at a server: `postgres.health.collect.NodeCollector`."""

    async def collect(self, now: datetime) -> Collected:
        """One look; what is due rarely comes with it when it is."""
        ...

    async def close(self) -> None:
        """End the connection."""
        ...


class Opener(Protocol):
    """Makes what looks at a server."""

    def __call__(self, place: NodePlace, earlier: Mapping[str, Any] | None) -> Eye:
        """`earlier`: the detail of the last look, by whoever took it."""
        ...


def open_node(place: NodePlace, earlier: Mapping[str, Any] | None) -> Eye:
    """The usual one."""
    return NodeCollector(
        place.dsn,
        name=place.name,
        volume=place.volume,
        pgbouncer=place.pgbouncer,
        earlier=earlier,
    )


class NodeWatch:
    """One node. `earlier` is what was known of it before us."""

    def __init__(
        self, place: NodePlace, opener: Opener, *, earlier: Mapping[str, Any] | None
    ) -> None:
        self.place = place
        self._opener = opener
        self._earlier = earlier
        self._eye: Eye | None = None
        self._silent: Silent | None = None
        self._failures = 0
        self._failed_at = self._again_at = datetime.min.replace(tzinfo=UTC)

    async def look(
        self, now: datetime, *, limit: timedelta, every: timedelta, pause_max: timedelta
    ) -> Collected | Silent:
        """What it says, within `limit`; or the last failure, where it is too early to ask again.

        `every`: how often it is looked at. One that stays silent is asked after growing pauses of
        at most `pause_max`.
        """
        if self._silent is not None and self._failed_at <= now < self._again_at:
            return self._silent
        found = await self._ask(now, limit)
        if isinstance(found, Silent):
            await self.close()
            self._silent = found
            self._failures += 1
            self._failed_at, self._again_at = now, now + _pause(self._failures, every, pause_max)
            return found
        self._silent, self._failures = None, 0
        return found

    async def close(self) -> None:
        """End the connection, for as long as nobody looks."""
        if self._eye is not None:
            with contextlib.suppress(*FAILURES, PostgresError):  # it is given up either way
                async with asyncio.timeout(CLOSE_SECONDS_MAX):
                    await self._eye.close()

    async def _ask(self, now: datetime, limit: timedelta) -> Collected | Silent:
        try:
            async with asyncio.timeout(limit.total_seconds()):
                if self._eye is None:
                    self._eye = self._opener(self.place, self._earlier)
                return await self._eye.collect(now)
        except TimeoutError:
            silent = Silent(
                problem=f"{self.place.name} does not answer within {span_text(limit)}.",
                next_step="See whether the server is overloaded or the network lets us in.",
            )
        except PostgresError as error:
            silent = Silent(problem=error.problem, next_step=error.next_step)
        except Exception:
            # The edge of one node: what is odd about it must not blind us for all others.
            if self._silent is None:
                log.exception("Looking at %s failed.", self.place.name)
            return Silent(
                problem=f"Looking at {self.place.name} failed in a way that was not foreseen.",
                next_step="Look for its traceback in the worker's log, and report it.",
            )
        if self._silent is None:
            log.warning("%s: %s", self.place.name, silent.problem)
        return silent


def _pause(failures: int, every: timedelta, pause_max: timedelta) -> timedelta:
    """Until just before the next round, then every second one, and so on up to `pause_max`."""
    rounds = 1 << min(failures - 1, 8)
    return max(min(rounds * every, pause_max), every) - every / 2
