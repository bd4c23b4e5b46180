"""Asks a cluster's servers which of them is the database now, and remembers it for a moment.

All are asked at once, never the first that answers: an old primary that came back answers too.
A database without `cluster:` costs nothing here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from jobs.cluster_look import LookAt
from jobs.cluster_of import specs_of
from jobs.operation import Database
from jobs.routing import NoRouteError, choose, closed, refusal_of, routed
from postgres.cluster.look import LIMIT, probe
from postgres.cluster.words import NodeSeen
from postgres.errors import PostgresError

# So long what was seen is believed by who only plans or reads. A run asks anew.
REMEMBER: Final = timedelta(seconds=1)
REMEMBERED_MAX: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A database as it is now. `nodes`: as they answered; () where nothing was asked."""

    database: Database
    nodes: tuple[NodeSeen, ...] = ()

    @property
    def refusal(self) -> NoRouteError | None:
        """Why it leads nowhere; None when it leads somewhere."""
        return refusal_of(self.database)


@dataclass(frozen=True, slots=True)
class _Known:
    database: Database
    route: Route
    at: float


class Routes:
    """Where databases are. `look` asks the servers; times are monotonic."""

    def __init__(
        self,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        look: LookAt = probe,
        remember: timedelta = REMEMBER,
    ) -> None:
        self._clock = clock
        self._look = look
        self._remember = remember.total_seconds()
        self._known: dict[str, _Known] = {}
        self._asking: dict[str, tuple[Database, asyncio.Task[Route]]] = {}
        self._newest: dict[str, dict[str, int]] = {}

    async def of(
        self, database: Database, *, limit: timedelta = LIMIT, anew: bool = False
    ) -> Database:
        """The database at its one writable server, or a value that leads nowhere and says why.

        Servers that hang cost `limit`, however many. `anew`: what is remembered does not count.
        Never raises.
        """
        return (await self.route(database, limit=limit, anew=anew)).database

    async def route(
        self, database: Database, *, limit: timedelta = LIMIT, anew: bool = False
    ) -> Route:
        """As `of`, with what was seen. Who asks while a look is under way shares it."""
        if database.cluster is None:
            return Route(database=database)
        if not anew and (known := self._recent(database)) is not None:
            return known
        under_way = self._asking.get(database.name)
        if anew or under_way is None or under_way[0] is not database or under_way[1].done():
            under_way = database, asyncio.create_task(self._ask(database, limit))
            self._asking[database.name] = under_way
        # Whoever asked first may give up; the others still want to know.
        return await asyncio.shield(under_way[1])

    def forget(self, database: str) -> None:
        """What was seen of it is doubted: something went wrong there."""
        self._known.pop(database, None)

    def _recent(self, database: Database) -> Route | None:
        known = self._known.get(database.name)
        if known is None or known.database is not database:
            return None
        age = asyncio.get_running_loop().time() - known.at
        return known.route if age < self._remember else None

    async def _ask(self, database: Database, limit: timedelta) -> Route:
        name, settings = database.name, database.cluster
        assert settings is not None  # noqa: S101 - who has none is not asked
        self.forget(name)
        nodes: tuple[NodeSeen, ...] = ()
        try:
            nodes = await self._look(specs_of(settings), clock=self._clock, limit=limit)
            newest = self._newest.setdefault(name, {})
            found = choose(name, nodes, kind=settings.kind, newest=newest)
            there = routed(database, found.name)
        except PostgresError as error:
            refusal = NoRouteError(error.problem, next_step=error.next_step)
            return Route(database=closed(database, refusal), nodes=nodes)
        # Of one cluster, the last that was: a server that is built anew brings another number.
        self._newest[name] = {found.system_identifier: found.timeline or 0}
        route = Route(database=there, nodes=nodes)
        while len(self._known) >= REMEMBERED_MAX:
            del self._known[next(iter(self._known))]
        now = asyncio.get_running_loop().time()
        self._known[name] = _Known(database=database, route=route, at=now)
        return route
