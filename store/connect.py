"""How to reach our own database, as the role that may only do what the application does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import asyncpg
from pydantic import SecretStr
from sqlalchemy import event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from store.quick import Quick, Statement
from store.reach import CONNECT_SECONDS_MAX, Reach

__all__ = ["APPLICATION_ROLE", "CONNECT_SECONDS_MAX", "Store", "connect"]

APPLICATION_ROLE: Final = "twokey_app"
# Nothing that a listener or a worker asks of the store takes this long; a statement
# that does is stuck, and its transaction must not hold a request's row for ever.
STATEMENT_SECONDS_MAX: Final = 30
POOL_SECONDS_MAX: Final = 10


@dataclass(frozen=True, slots=True)
class Store:
    """Our own database. `reach` leads to whichever host it is on."""

    dsn: SecretStr
    engine: AsyncEngine
    role: str
    quick: Quick
    reach: Reach

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
        return await self.reach.connect(
            server_settings={"role": self.role, "application_name": application_name}
        )

    async def close(self) -> None:
        """Close the connections."""
        await self.reach.close()
        await self.quick.close()
        await self.engine.dispose()


def connect(dsn: SecretStr | str, *, size: int = 10, role: str = APPLICATION_ROLE) -> Store:
    """The store behind a libpq-style DSN. Connects when first used.

    A DSN as plain text is for servers that ask for no password. Of several hosts the one is
    connected to that takes writes, and is followed when it changes.

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

    reach = Reach(secret)

    async def new_connection() -> asyncpg.Connection:
        return await reach.connect(server_settings=settings)

    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=new_connection,
        pool_size=size,
        max_overflow=0,
        pool_timeout=POOL_SECONDS_MAX,
    )

    def refuse_bad(dbapi_connection: Any, _record: object, _proxy: object) -> None:
        """Make the pool connect anew when the server went away, or the store left it.

        asyncpg knows of a closed socket without asking the server, so this costs no round
        trip, unlike a ping.
        """
        if not reach.is_good(dbapi_connection.driver_connection):
            raise DisconnectionError

    event.listen(engine.sync_engine, "checkout", refuse_bad)
    event.listen(engine.sync_engine, "handle_error", _leave_readers)
    quick = Quick(
        new_connection,
        size=max(1, size // 5),
        seconds_max=POOL_SECONDS_MAX + STATEMENT_SECONDS_MAX,
        is_good=reach.is_good,
    )
    return Store(dsn=secret, engine=engine, role=role, quick=quick, reach=reach)


def _leave_readers(context: ExceptionContext) -> None:
    """A server that takes no writes any more was the store: all connections to it are spent."""
    cause = getattr(context.original_exception, "__cause__", None)
    if isinstance(cause, asyncpg.ReadOnlySQLTransactionError):
        context.is_disconnect = True
