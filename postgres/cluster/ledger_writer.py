"""The one who writes a ledger's rows, over a connection that is found anew whenever it breaks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from postgres.cluster.ledger_door import SERVER, Door, Session, answered, find
from postgres.cluster.ledger_file import LedgerFile, fold
from postgres.cluster.look import look_at
from postgres.cluster.verify import DRILL_SCHEMA
from postgres.cluster.words import NodeSpec
from postgres.errors import PostgresError
from postgres.health.connecting import FAILURES
from postgres.together import together

BEAT_SECONDS: Final = 0.1
ALIVE_SECONDS: Final = 1.0
_PAUSE_SECONDS: Final = 0.02

# One round trip by the simple protocol, which every pooler can carry; it writes nothing where a
# pooler has handed it to another server than the one that said hello.
_ROW: Final = f"INSERT INTO {DRILL_SCHEMA}.ledger (key, seq) SELECT %s, %d WHERE {SERVER} = %d"
_BEAT: Final = f"""
    INSERT INTO {DRILL_SCHEMA}.heartbeats (key, server, at)
    SELECT %s, %d, to_timestamp(%.6f) WHERE {SERVER} = %d
        ON CONFLICT (key, server) DO UPDATE SET at = excluded.at
"""
_WRITTEN: Final = "INSERT 0 1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How far a ledger is. `server`: the node of the last acknowledgement, '' while unknown.

    `searches`: how often it had to look for somebody who takes writes. `problem`: why it writes
    no more, '' while it does.
    """

    acknowledged: int = 0
    failed: int = 0
    searches: int = 0
    acked_at: datetime | None = None
    server: str = ""
    problem: str = ""


class _StoppedError(Exception):
    """What was acknowledged could not be written down, so it must not be counted."""


class Writer:
    """Writes until it is stopped or cancelled, or `limit` has passed. One run each.

    `now`: seconds since 1970, steady while the process lives.
    """

    def __init__(
        self,
        places: Sequence[Door],
        nodes: Sequence[NodeSpec],
        file: LedgerFile,
        *,
        key: str,
        now: Callable[[], float],
        every: timedelta,
        limit: timedelta,
    ) -> None:
        self._places = places
        self._nodes = nodes
        self._file = file
        self._key = key
        self._now = now
        self._every = every.total_seconds()
        self._limit = limit
        self._seq = file.first
        self._newest: int | None = None
        self._names: dict[int, str] = {}
        self._warned = False
        self._is_stopped = False
        self._acknowledged = self._failed = self._searches = 0
        self._acked_at: float | None = None
        self._server = 0
        self._problem = ""

    @property
    def standing(self) -> Standing:
        """How far it is now."""
        at = self._acked_at
        return Standing(
            acknowledged=self._acknowledged,
            failed=self._failed,
            searches=self._searches,
            acked_at=None if at is None else datetime.fromtimestamp(at, tz=UTC),
            server=self._names.get(self._server, ""),
            problem=self._problem,
        )

    def stop(self) -> None:
        """Begin no other row, and end."""
        self._is_stopped = True

    async def run(self) -> None:
        """Write. What servers and connections do never raises."""
        try:
            async with asyncio.timeout(self._limit.total_seconds()), together() as group:
                side = [group.create_task(self._mark()), group.create_task(self._learn_names())]
                await self._write(group)
                for task in side:
                    task.cancel()
        except TimeoutError:
            self._problem = f"it has written for {self._limit}"
        except _StoppedError as error:
            self._problem = str(error)
        finally:
            with suppress(OSError):
                self._file.alive(self._now())
            self._file.close()

    async def _write(self, group: asyncio.TaskGroup) -> None:
        while not self._is_stopped:
            self._searches += 1
            session = await self._find()
            if session is None:
                return
            try:
                await self._fill(session, group)
            except FAILURES:
                await asyncio.sleep(_PAUSE_SECONDS)
            finally:
                session.conn.terminate()

    async def _find(self) -> Session | None:
        """None: it was stopped meanwhile."""
        task = asyncio.create_task(find(self._places, self._key, newest=self._newest))
        try:
            while not task.done() and not self._is_stopped:
                await asyncio.wait({task}, timeout=_PAUSE_SECONDS)
            if task.done():
                return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
        return None

    async def _fill(self, session: Session, group: asyncio.TaskGroup) -> None:
        """Rows and heartbeats over one connection until it breaks, or leads elsewhere."""
        session.conn.add_log_listener(self._listen)
        self._newest = max(self._newest or 0, session.timeline)
        next_beat = 0.0
        while not self._is_stopped:
            began = self._now()
            page = await self._row(session, began)
            if page is not None:
                group.create_task(_fold(page))
            if self._server != session.server:
                return
            if self._now() >= next_beat:
                next_beat = self._now() + BEAT_SECONDS
                await self._beat(session)
            await asyncio.sleep(max(began + self._every - self._now(), 0.0))

    async def _row(self, session: Session, sent: float) -> Path | None:
        seq, self._seq = self._seq, self._seq + 1
        self._warned = False
        is_written = False
        try:
            statement = _ROW % (session.key, seq, session.server)
            status = await answered(session.conn, session.conn.execute(statement))
            acked = self._now()
            is_written = status == _WRITTEN
        finally:
            if not is_written:
                self._failed += 1
                self._server = 0
                self._keep(seq, sent, None, session.server)
        if not is_written:
            return None
        page = self._keep(seq, sent, acked, session.server)
        self._acknowledged += 1
        self._acked_at, self._server = acked, session.server
        return page

    async def _beat(self, session: Session) -> None:
        values = (session.key, session.server, self._now(), session.server)
        await answered(session.conn, session.conn.execute(_BEAT % values))

    def _keep(self, seq: int, sent: float, acked: float | None, server: int) -> Path | None:
        is_local = acked is not None and self._warned
        try:
            return self._file.row(seq, sent, acked, str(server), is_local=is_local)
        except OSError as error:
            raise _StoppedError(f"it cannot be written down: {error}") from error

    def _listen(self, _conn: Any, message: Any) -> None:
        """Our statement warns of one thing only: that it did not wait for a standby to the end."""
        self._warned = self._warned or message.severity_en == "WARNING"

    async def _mark(self) -> None:
        while True:
            try:
                self._file.alive(self._now())
            except OSError as error:
                raise _StoppedError(f"it cannot be written down: {error}") from error
            await asyncio.sleep(ALIVE_SECONDS)

    async def _learn_names(self) -> None:
        """Find out which node a server is that has just answered."""
        while True:
            server = self._server
            if server and server not in self._names:
                seen = await look_at(self._nodes, clock=lambda: datetime.now(UTC))
                for each in seen:
                    if each.started_at:
                        self._name(round(each.started_at.timestamp() * 1_000_000), each.name)
                if server not in self._names:  # not one of ours: no need to ask all the time
                    await asyncio.sleep(ALIVE_SECONDS)
            await asyncio.sleep(BEAT_SECONDS)

    def _name(self, server: int, node: str) -> None:
        if server in self._names:
            return
        self._names[server] = node
        try:
            self._file.name(str(server), node)
        except OSError as error:
            raise _StoppedError(f"it cannot be written down: {error}") from error


async def _fold(page: Path) -> None:
    """A page that cannot be folded stays whole."""
    with suppress(OSError, PostgresError):
        await asyncio.to_thread(fold, page)
