"""One connection to a node that stays, and is made anew when it was cut."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import asyncpg
from pydantic import SecretStr

from postgres.dsn import parse_dsn
from postgres.errors import PostgresError

APPLICATION: Final = "twokey-monitor"
CONNECT_SECONDS_MAX: Final = 5
ANSWER_SECONDS_MAX: Final = 6.0  # the server's own limit comes first
_CLOSE_SECONDS_MAX: Final = 2.0

# Set after connecting, not with it: pg_settings then still tells what applications have.
_SETTINGS: Final = """
    SET lock_timeout = '500ms';
    SET statement_timeout = '5s';
    SET jit = off;
    SET default_transaction_read_only = on;
    SET search_path = pg_catalog;
"""

# The last one is what asyncpg says of a connection that was cut while nobody used it.
FAILURES: Final = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)

_T = TypeVar("_T")


class NodeConnection:
    """Connects when first used. `changed` is called with each new connection, before its use."""

    def __init__(self, dsn: SecretStr, *, changed: Callable[[int], None]) -> None:
        self._target = parse_dsn(dsn.get_secret_value())
        self._changed = changed
        self._conn: Any = None
        self.version = ""

    async def run(self, work: Callable[[Any], Awaitable[_T]]) -> _T:
        """What `work` makes of the connection. It only reads: on a cut one it runs again.

        Raises:
            PostgresError: the server cannot be reached, or cuts us off twice.
            asyncpg.PostgresError, asyncpg.InterfaceError, OSError: of `work` itself.
        """
        before, conn = self._conn, await self.open()
        try:
            return await work(conn)
        except FAILURES as error:
            if isinstance(error, asyncpg.InternalClientError):
                conn.terminate()
            if conn is not before or not conn.is_closed():
                raise
        return await work(await self.open())

    async def open(self) -> Any:
        """The connection; a new one where there is none.

        Raises:
            PostgresError: the server cannot be reached, or refuses us.
        """
        if self._conn is not None and not self._conn.is_closed():
            return self._conn
        try:
            conn = await asyncpg.connect(
                self._target.url(),
                timeout=CONNECT_SECONDS_MAX,
                command_timeout=ANSWER_SECONDS_MAX,
                # Statements stay prepared for as long as the connection lives.
                max_cached_statement_lifetime=0,
                max_cacheable_statement_size=0,
                server_settings={"application_name": APPLICATION},
            )
        except FAILURES as error:
            raise unreachable(self._target.place, error) from error
        try:
            await conn.execute(_SETTINGS)
        except FAILURES as error:
            conn.terminate()
            raise unreachable(self._target.place, error) from error
        self._conn = conn
        number = conn.get_server_version()
        self.version = f"{number.major}.{number.minor}"
        self._changed(number.major)
        return conn

    async def close(self) -> None:
        """End the connection; another `run` opens a new one."""
        conn, self._conn = self._conn, None
        if conn is None or conn.is_closed():
            return
        try:
            await conn.close(timeout=_CLOSE_SECONDS_MAX)
        except (*FAILURES, asyncio.CancelledError):
            conn.terminate()
            raise


def unreachable(place: str, error: BaseException) -> PostgresError:
    """The same failure for people."""
    said = str(error).splitlines()[0][:300] if str(error) else "no answer"
    return PostgresError(
        f"The server on {place} cannot be looked at: {said}.",
        next_step="See whether it runs and accepts this user from here.",
    )
