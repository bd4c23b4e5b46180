"""How to reach our own database, as the role that may only do what the application does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import asyncpg
from pydantic import SecretStr
from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from store.quick import Quick, Statement

APPLICATION_ROLE: Final = "twokey_app"
CONNECT_SECONDS_MAX: Final = 5
# Nothing that a listener or a worker asks of the store takes this long; a statement
# that does is stuck, and its transaction must not hold a request's row for ever.
STATEMENT_SECONDS_MAX: Final = 30
POOL_SECONDS_MAX: Final = 10


@dataclass(frozen=True, slots=True)
class Store:
    """Our own database. `dsn` serves code that needs a connection of its own, such as LISTEN."""

    dsn: SecretStr
    engine: AsyncEngine
    role: str
    quick: Quick

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """A transaction: committed at the end of the block, rolled back by an exception."""
        async with self.engine.begin() as conn:
            yield conn

    @asynccontextmanager
    async def single(self) -> AsyncIterator[AsyncConnection]:
        """A connection on which each statement commits by itself, in one round trip.

        For one statement that is complete alone: what it locks is free again when the server
        has done it, and does not wait for us to come back and say COMMIT.
        """
        async with self.engine.connect() as conn:
            yield await conn.execution_options(isolation_level="AUTOCOMMIT")

    async def rows(
        self, statement: Statement, values: Mapping[str, object]
    ) -> Sequence[Mapping[str, Any]]:
        """What a statement returns that is complete alone, as in `single`, for less processor.

        For what people wait for. It commits by itself, in one round trip.
        """
        return await self.quick.rows(statement.sql, statement.arguments(values))

    async def direct(self, *, application_name: str = "twokey") -> asyncpg.Connection:
        """A connection outside the pool, without a statement timeout; the caller closes it."""
        return await asyncpg.connect(
            self.dsn.get_secret_value(),
            timeout=CONNECT_SECONDS_MAX,
            server_settings={"role": self.role, "application_name": application_name},
        )

    async def close(self) -> None:
        """Close the connections."""
        await self.quick.close()
        await self.engine.dispose()


def connect(dsn: SecretStr | str, *, size: int = 10, role: str = APPLICATION_ROLE) -> Store:
    """The store behind a libpq-style DSN. Connects when first used.

    A DSN as plain text is for servers that ask for no password.

    At most `size` connections serve transactions, and a fifth of that single statements:
    those wait for one another's locks, so that more of them only push each other.
    Every connection runs as `role`, whatever the DSN's user may do: even an owner's DSN
    cannot edit the audit by a mistake of ours.
    """
    secret = dsn if isinstance(dsn, SecretStr) else SecretStr(dsn)
    settings = {
        "role": role,
        "application_name": "twokey",
        "statement_timeout": str(STATEMENT_SECONDS_MAX * 1000),
        "idle_in_transaction_session_timeout": str(2 * STATEMENT_SECONDS_MAX * 1000),
    }

    async def new_connection() -> asyncpg.Connection:
        return await asyncpg.connect(
            secret.get_secret_value(), timeout=CONNECT_SECONDS_MAX, server_settings=settings
        )

    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=new_connection,
        pool_size=size,
        max_overflow=0,
        pool_timeout=POOL_SECONDS_MAX,
    )
    event.listen(engine.sync_engine, "checkout", _refuse_closed)
    quick = Quick(
        secret,
        size=max(1, size // 5),
        seconds_max=POOL_SECONDS_MAX + STATEMENT_SECONDS_MAX,
        timeout=CONNECT_SECONDS_MAX,
        server_settings=settings,
    )
    return Store(dsn=secret, engine=engine, role=role, quick=quick)


def _refuse_closed(dbapi_connection: Any, _record: object, _proxy: object) -> None:
    """Make the pool connect anew when the server went away since the last use.

    asyncpg knows of a closed socket without asking the server, so this costs no round
    trip, unlike a ping.
    """
    if dbapi_connection.driver_connection.is_closed():
        raise DisconnectionError
