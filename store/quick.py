"""Single statements without what SQLAlchemy and asyncpg's pool work out for each call.

Both cost several times the statement itself, and the ack of a command is paid by the
processor. A statement is still written with named parameters; it is compiled once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import asyncpg
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSON
from sqlalchemy.dialects.postgresql import asyncpg as dialect

CLOSE_SECONDS_MAX: Final = 2.0
IDLE_SECONDS_MAX: Final = 300.0
_DIALECT: Final = dialect.dialect()  # type: ignore[no-untyped-call]
_as_json: Final = json.JSONEncoder().encode

Rows = Sequence[Mapping[str, Any]]


class Statement:
    """A statement with named parameters, as asyncpg wants it: compiled when it is made.

    Columns of JSON come back as text.
    """

    def __init__(self, text: sa.TextClause) -> None:
        compiled = text.compile(dialect=_DIALECT)
        self._names: Sequence[str] = compiled.positiontup or ()
        self._json = {name for name, bind in compiled.binds.items() if isinstance(bind.type, JSON)}
        self.sql = str(compiled)

    def arguments(self, values: Mapping[str, object]) -> list[object]:
        """The parameters in their order; what the statement does not name is left out."""
        return [
            _as_json(values[name]) if name in self._json else values[name] for name in self._names
        ]


class Quick:
    """A few connections for single statements, each of which commits by itself.

    The statements change no session, so nothing is reset after them. When none was run for
    `IDLE_SECONDS_MAX`, the connections are closed.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[asyncpg.Connection]],
        *,
        size: int,
        seconds_max: float,
        is_good: Callable[[asyncpg.Connection], bool] = lambda conn: not conn.is_closed(),
    ) -> None:
        """Connects when first used. `seconds_max` is for all: waiting, connecting, the answer.

        `is_good`: whether a connection may be used again, as far as is known without asking.
        """
        self._connect = connect
        self._seconds_max = seconds_max
        self._is_good = is_good
        self._turns = asyncio.Semaphore(size)
        self._free: list[asyncpg.Connection] = []
        self._used_at = 0.0
        self._idling: asyncio.TimerHandle | None = None

    async def rows(self, sql: str, arguments: Sequence[object]) -> Rows:
        """Run a statement that is complete alone; what it returns."""
        async with asyncio.timeout(self._seconds_max), self._turns:
            conn = await self._connection()
            try:
                found: Rows = await conn.fetch(sql, *arguments)
            except asyncpg.ReadOnlySQLTransactionError:
                conn.terminate()  # to a server that takes writes no more
                raise
            except asyncpg.PostgresError:
                self._give_back(conn)
                raise
            except BaseException:
                conn.terminate()  # in the middle of something that nobody waits for now
                raise
            self._give_back(conn)
            return found

    async def close(self) -> None:
        """Close the connections that nobody uses."""
        free, self._free = self._free, []
        for conn in free:
            with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await conn.close(timeout=CLOSE_SECONDS_MAX)

    async def _connection(self) -> asyncpg.Connection:
        # A socket that the server closed is known without asking the server.
        while self._free:
            if self._is_good(conn := self._free.pop()):
                return conn
            conn.terminate()
        return await self._connect()

    def _give_back(self, conn: asyncpg.Connection) -> None:
        self._free.append(conn)
        loop = asyncio.get_running_loop()
        self._used_at = loop.time()
        if self._idling is None:
            self._idling = loop.call_later(IDLE_SECONDS_MAX, self._let_go_if_idle)

    def _let_go_if_idle(self) -> None:
        self._idling = None
        loop = asyncio.get_running_loop()
        left = self._used_at + IDLE_SECONDS_MAX - loop.time()
        if left > 0:
            self._idling = loop.call_later(left, self._let_go_if_idle)
            return
        free, self._free = self._free, []
        for conn in free:
            conn.terminate()
