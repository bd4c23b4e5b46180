"""A read-only look at target databases: short statements, few connections, clear errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import asyncpg
from pydantic import SecretStr

from approvals.in_force import Policies
from jobs.operation import Database, JobError, Reader, Session
from jobs.routing import refusal_of
from postgres.connect import close
from postgres.errors import PostgresError
from store.connect import Store
from store.quick import Quick

CONNECTIONS_MAX: Final = 2
RECENT_MAX: Final = 16  # queries remembered per database
CONNECT_SECONDS_MAX: Final = 5.0
CLOSE_SECONDS_MAX: Final = 2.0

# What a connection says that was closed behind our back; the next one may work.
_CUT: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    ConnectionResetError,
)


class LiveReader:
    """Reads one database; implements `jobs.operation.Reader`."""

    def __init__(self, database: Database, *, statement_timeout: timedelta) -> None:
        self._database = database
        self._limit = statement_timeout
        self._quick = _quick(database, statement_timeout)
        self._recent: dict[str, tuple[float, asyncio.Task[Sequence[Mapping[str, Any]]]]] = {}
        self._asked = 0
        self._is_retired = False

    async def rows(self, query: str, *args: object) -> Sequence[Mapping[str, Any]]:
        """See `jobs.operation.Reader.rows`."""
        self._asked += 1
        try:
            try:
                return await self._rows(query, args)
            except _CUT:
                # The server was restarted since the connection was last used.
                return await self._rows(query, args)
        except PostgresError as error:  # it leads nowhere now: see `jobs.routing.ClosedDsn`
            raise JobError(error.problem, next_step=error.next_step) from error
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise _explained(self._database.name, error, self._limit) from error
        finally:
            self._asked -= 1
            if self._is_retired:
                await self.retire()

    async def recent_rows(self, query: str, *, age_max: timedelta) -> Sequence[Mapping[str, Any]]:
        """See `jobs.operation.Reader.recent_rows`. Many who ask at once share one query."""
        now = asyncio.get_running_loop().time()
        asked_at, asking = self._recent.get(query, (0.0, None))
        failed = asking is not None and asking.done() and asking.exception() is not None
        if asking is None or failed or now - asked_at > age_max.total_seconds():
            while len(self._recent) >= RECENT_MAX:
                del self._recent[next(iter(self._recent))]
            asking = asyncio.create_task(self.rows(query))
            # Whoever asked may have gone by the time it fails.
            asking.add_done_callback(lambda task: task.cancelled() or task.exception())
            self._recent[query] = (now, asking)
        return asking.result() if asking.done() else await asyncio.shield(asking)

    @asynccontextmanager
    async def session(
        self, *, limit: timedelta, settings: Mapping[str, str] | None = None
    ) -> AsyncIterator[Session]:
        """See `jobs.operation.Reader.session`."""
        seconds = limit.total_seconds()
        given = {**_settings(limit), **(settings or {}), "default_transaction_read_only": "on"}
        try:
            conn = await asyncpg.connect(
                for_reading(self._database.dsn.get_secret_value()),
                timeout=int(CONNECT_SECONDS_MAX),
                # The server's own limit comes first; this one is for a server that says nothing.
                command_timeout=seconds + 2 * CONNECT_SECONDS_MAX,
                server_settings=given,
            )
            try:
                yield conn
            finally:
                await close(conn, seconds=CLOSE_SECONDS_MAX)
        except TimeoutError as error:
            raise JobError(
                f"{self._database.name} did not answer within {seconds:g} s.",
                next_step="Look for load and locks there, then try again.",
            ) from error
        except PostgresError as error:
            raise JobError(error.problem, next_step=error.next_step) from error
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise _explained(self._database.name, error, limit) from error

    async def close(self) -> None:
        """Close the connections."""
        for _, asking in self._recent.values():
            asking.cancel()
        self._recent.clear()
        await self._quick.close()

    async def retire(self) -> None:
        """Close the connections as soon as nobody waits for rows, now and whenever it is asked."""
        self._is_retired = True
        if not self._asked:
            await self._quick.close()

    async def _rows(self, query: str, args: tuple[object, ...]) -> list[Mapping[str, Any]]:
        # No transaction of our own: one statement in a session that only reads.
        return [dict(row) for row in await self._quick.rows(query, args)]


def for_reading(dsn: str) -> str:
    """The same place for a session that only reads. Pure.

    asyncpg takes our own read-only session for the server's, and would find nobody who writes.
    """
    return dsn.replace("target_session_attrs=read-write", "target_session_attrs=primary")


def _settings(limit: timedelta) -> dict[str, str]:
    limit_ms = str(int(limit.total_seconds() * 1000))
    return {
        "application_name": "twokey",
        "default_transaction_read_only": "on",
        "statement_timeout": limit_ms,
        "lock_timeout": limit_ms,
        "idle_in_transaction_session_timeout": limit_ms,
    }


def _quick(database: Database, limit: timedelta) -> Quick:
    settings = _settings(limit)

    async def new_connection() -> asyncpg.Connection:
        return await asyncpg.connect(
            for_reading(database.dsn.get_secret_value()),
            timeout=int(CONNECT_SECONDS_MAX),
            server_settings=settings,
        )

    return Quick(
        new_connection,
        size=CONNECTIONS_MAX,
        # The server's own limit comes first; this one is for a server that says nothing.
        seconds_max=limit.total_seconds() + 2 * CONNECT_SECONDS_MAX,
    )


class Readers:
    """One reader per database, closed together.

    Where a database leads to may change: then it gets a new reader, and the old one is closed as
    soon as nobody waits for its rows. A run that began at the old place gets one of that again.
    """

    def __init__(self, *, statement_timeout: timedelta = timedelta(seconds=5)) -> None:
        self._limit = statement_timeout
        self._readers: dict[str, tuple[SecretStr, LiveReader]] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def of(self, database: Database) -> LiveReader:
        """The reader of a database; connects when first used."""
        if refusal_of(database) is not None:
            return LiveReader(database, statement_timeout=self._limit)  # it never connects
        dsn, known = self._readers.get(database.name, (None, None))
        if known is not None and dsn == database.dsn:
            return known
        if known is not None:
            task = asyncio.get_running_loop().create_task(known.retire())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        made = LiveReader(database, statement_timeout=self._limit)
        self._readers[database.name] = database.dsn, made
        return made

    def anew(self) -> Readers:
        """The same with no connection yet: it looks where the addresses lead today."""
        return Readers(statement_timeout=self._limit)

    async def close(self) -> None:
        """Close all connections."""
        readers, self._readers = self._readers, {}
        for _, reader in readers.values():
            await reader.close()
        await asyncio.gather(*self._closing)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveContext:
    """What planning and answering may use; implements `jobs.operation.Context`."""

    target: Database | None
    readers: Readers
    store: Store
    clock: Callable[[], datetime]
    in_force: Policies | None = None
    databases: Mapping[str, Database] = field(default_factory=dict)

    @property
    def database(self) -> Database:
        """The target."""
        if self.target is None:
            raise JobError(
                "This operation was started without a database.",
                next_step="Name the database, such as `/db backup orders`.",
            )
        return self.target

    @property
    def reader(self) -> Reader:
        """The target, read-only."""
        return self.readers.of(self.database)

    @property
    def policies(self) -> Policies:
        """The policy in force, and the one that the file proposes."""
        if self.in_force is None:
            raise JobError(
                "The policy cannot be looked at from here.",
                next_step="Ask for it where the bot runs, with /db policy-change.",
            )
        return self.in_force

    @property
    def now(self) -> datetime:
        """The time, aware, in UTC."""
        return self.clock()


def _explained(database: str, error: Exception, limit: timedelta) -> JobError:
    """An asyncpg or network error in two sentences."""
    match error:
        case asyncpg.QueryCanceledError() | asyncpg.LockNotAvailableError():
            return JobError(
                f"A look at {database} took longer than {limit.total_seconds():g} s.",
                next_step="Look for load and locks there, then try again.",
            )
        case asyncpg.InvalidAuthorizationSpecificationError():
            return JobError(
                f"{database} refused our login: {error}.",
                next_step="Correct the login in the DSN or pg_hba.conf, then run `twokey doctor`.",
            )
        case asyncpg.InvalidCatalogNameError():
            return JobError(
                f"The server of {database} has no such database: {error}.",
                next_step="Correct the DSN in the inventory, then run `twokey doctor`.",
            )
        case asyncpg.InsufficientPrivilegeError():
            return JobError(
                f"Our user may not read this in {database}: {error}.",
                next_step="Grant it what `twokey doctor` lists, then try again.",
            )
        case (
            OSError()
            | asyncpg.PostgresConnectionError()
            | asyncpg.InterfaceError()
            | asyncpg.OperatorInterventionError()
            | asyncpg.TooManyConnectionsError()
        ):
            said = str(error) or type(error).__name__
            return JobError(
                f"{database} cannot be reached: {said}.",
                next_step="Check that its server is up and that this host may connect to it.",
            )
        case _:
            return JobError(
                f"A query on {database} failed: {error}.",
                next_step="Tell the operator; `twokey doctor` checks what we need there.",
            )
