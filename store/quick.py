"""Single statements without what SQLAlchemy works out for each call.

SQLAlchemy costs several times what asyncpg does, and the ack of a command is paid by the
processor. A statement is still written with named parameters; it is compiled once.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import asyncpg
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSON
from sqlalchemy.dialects.postgresql import asyncpg as dialect

_DIALECT: Final = dialect.dialect()  # type: ignore[no-untyped-call]
_as_json: Final = json.JSONEncoder().encode


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
    """Connections for single statements, each of which commits by itself."""

    def __init__(self, dsn: str, *, size: int, seconds_max: float, **connect_args: Any) -> None:
        """Connects when first used. `connect_args` go to asyncpg."""
        self._dsn = dsn
        self._size = size
        self._seconds_max = seconds_max
        self._connect_args = connect_args
        self._pool: asyncpg.Pool | None = None

    async def rows(
        self, statement: Statement, values: Mapping[str, object]
    ) -> Sequence[Mapping[str, Any]]:
        """Run a statement that is complete alone; what it returns."""
        async with asyncio.timeout(self._seconds_max):
            if self._pool is None:
                self._pool = self._new_pool()
                await self._pool  # connects nowhere yet
            async with self._pool.acquire() as conn:
                found: Sequence[Mapping[str, Any]] = await conn.fetch(
                    statement.sql, *statement.arguments(values)
                )
                return found

    async def close(self) -> None:
        """Close the connections."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.terminate()

    def _new_pool(self) -> asyncpg.Pool:
        # The pool replaces connections that the server closed, without asking the server.
        return asyncpg.create_pool(
            self._dsn,
            min_size=0,
            max_size=self._size,
            max_inactive_connection_lifetime=0,
            reset=_leave_as_is,
            **self._connect_args,
        )


async def _leave_as_is(conn: object) -> None:
    """Single statements change no session, so there is nothing to reset after each of them."""
    del conn
