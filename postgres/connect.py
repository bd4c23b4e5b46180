"""Connections to servers, with limits and with errors for people."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg

from postgres.dsn import Target
from postgres.errors import PostgresError

CONNECT_SECONDS_MAX: Final = 15
CLOSE_SECONDS_MAX: Final = 5.0


@asynccontextmanager
async def connection(target: Target, database: str | None = None) -> AsyncIterator[Any]:
    """An asyncpg connection that is closed at the end.

    Raises:
        PostgresError: the server cannot be reached, or refuses us.
    """
    name = database or target.database
    try:
        conn = await asyncpg.connect(
            target.url(name),
            timeout=CONNECT_SECONDS_MAX,
            command_timeout=CONNECT_SECONDS_MAX,
            server_settings={"application_name": "twokey"},
        )
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise PostgresError(
            f"The database {name} on {target.place} cannot be reached: {error or 'no answer'}.",
            next_step="See whether the server runs and accepts this user from here.",
        ) from error
    try:
        yield conn
    finally:
        await close(conn, seconds=CLOSE_SECONDS_MAX)


async def close(conn: asyncpg.Connection, *, seconds: float) -> None:
    """Say goodbye to the server within `seconds`, else hang up."""
    try:
        await conn.close(timeout=seconds)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        conn.terminate()
