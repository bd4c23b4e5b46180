"""Indexes are created and dropped while their table stays in use, and nothing half-built stays.

CREATE INDEX CONCURRENTLY cannot run in a transaction: when it ends early, an invalid index is
left that every write maintains and no query uses. Whoever comes next finds out what there is and
goes on from there, so that all of this may be run again after a crash at any point.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Any, Final, assert_never

import asyncpg

from postgres.connect import connection
from postgres.dsn import Target
from postgres.errors import PostgresError
from postgres.health.index_nodes import TermsError
from postgres.health.index_terms import Terms, terms_of
from postgres.together import together, unbroken

Tell = Callable[[str, float | None], Awaitable[None]]

# Names with their schema, as PostgreSQL's own are found without; no limit of the role's applies.
_SETTINGS: Final = (
    "SET search_path = ''; SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0"
)

FIND: Final = """
    SELECT c.oid, i.indrelid AS table_oid, i.indisvalid AS is_valid, i.indislive AS is_live,
           pg_get_indexdef(c.oid)      AS definition,
           c.relpages::bigint * current_setting('block_size')::bigint AS pages_bytes,
           (SELECT min(p.pid) FROM pg_stat_progress_create_index p
             WHERE p.index_relid = c.oid)                             AS builder
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN pg_index i ON i.indexrelid = c.oid
     WHERE n.nspname = $1 AND c.relname = $2
"""

SIZE: Final = "SELECT pg_relation_size($1::oid::regclass)"
DROP: Final = "SELECT format('DROP INDEX CONCURRENTLY %I.%I', $1::text, $2::text)"

PROGRESS: Final = """
    SELECT p.phase, p.lockers_total, p.lockers_done, p.blocks_total, p.blocks_done,
           p.tuples_total, p.tuples_done, l.pid AS locker, left(l.application_name, 40) AS name,
           extract(epoch FROM clock_timestamp() - l.xact_start)::float8 AS locker_seconds
      FROM pg_stat_progress_create_index p
      LEFT JOIN pg_stat_activity l ON l.pid = p.current_locker_pid
     WHERE p.pid = $1
"""

# What share of the whole is done when a phase begins, and when it ends.
_PHASES: Final = (
    ("waiting for writers before build", 0.0, 0.05),
    ("building index", 0.05, 0.6),
    ("waiting for writers before validation", 0.6, 0.65),
    ("index validation: scanning index", 0.65, 0.75),
    ("index validation: sorting", 0.75, 0.8),
    ("index validation: scanning table", 0.8, 0.95),
    ("waiting for old snapshots", 0.95, 1.0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildLimits:
    """`lock`: one wait for older transactions. `again`: how often it is tried."""

    lock: timedelta = timedelta(minutes=10)
    again: int = 3
    pause: timedelta = timedelta(seconds=10)
    look: timedelta = timedelta(seconds=2)
    whole: timedelta = timedelta(hours=12)
    cleanup: timedelta = timedelta(seconds=15)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """An index to create: `statement` was made by the server's `format()`."""

    schema: str
    name: str
    table_oid: int
    statement: str
    terms: Terms

    @property
    def text(self) -> str:
        """The index, for people."""
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """An index that is there and valid."""

    oid: int
    size_bytes: int
    definition: str


class Move(Enum):
    """What to do next about an index, by what there is."""

    CREATE = "create"
    TAKE = "take"  # it is there, and valid
    WAIT = "wait"  # a backend is building it, perhaps one whose worker died
    CLEAR = "clear"  # half-built, and nobody is at work on it
    REFUSE = "refuse"  # something else has the name


def next_move(found: Any | None, order: Order) -> Move:
    """What to do next, by a row of `FIND`. Pure.

    The name was free when the run began, so an index of that name on that table with those
    columns is the run's own.
    """
    if found is None:
        return Move.CREATE
    if found["table_oid"] != order.table_oid or not _is_like(found["definition"], order.terms):
        return Move.REFUSE
    if found["is_valid"]:
        return Move.TAKE
    return Move.WAIT if found["builder"] is not None else Move.CLEAR


async def is_free(target: Target, schema: str, name: str) -> bool:
    """Whether nothing has this name.

    Raises:
        PostgresError: the server cannot be asked.
    """
    async with _session(target, BuildLimits(), f"look for {schema}.{name}") as conn:
        return await conn.fetchrow(FIND, schema, name) is None


async def build(target: Target, order: Order, *, limits: BuildLimits, tell: Tell) -> Built:
    """Create the index, or go on with what an earlier attempt left; it is valid at the end.

    Whatever ends it early, the half-built index is dropped, if the server still answers.

    Raises:
        PostgresError: it could not be done. Says whether something half-built is left.
    """
    blocked = 0
    try:
        while True:
            async with _session(target, limits, f"create {order.text}") as conn:
                try:
                    made = await _once(target, conn, order, limits, tell)
                    if made is not None:
                        return made
                    continue
                except asyncpg.LockNotAvailableError:
                    blocked += 1
                    if blocked >= limits.again:
                        raise
            await tell(f"Older transactions held it up; trying again ({blocked})", None)
            await asyncio.sleep(limits.pause.total_seconds())
    except asyncio.CancelledError:
        await unbroken(_cleared(target, order, limits))
        raise
    except PostgresError as error:
        left = "" if await _cleared(target, order, limits) else _left(order)
        raise PostgresError(error.problem, next_step=left or error.next_step) from error


async def drop(target: Target, schema: str, name: str, *, limits: BuildLimits, tell: Tell) -> bool:
    """Drop an index while its table stays in use; False: it was gone already.

    Raises:
        PostgresError: it is still there, perhaps no longer in use; it says so.
    """
    for attempt in range(1, limits.again + 1):
        async with _session(target, limits, f"drop {schema}.{name}") as conn:
            found = await conn.fetchrow(FIND, schema, name)
            if found is None:
                return attempt > 1
            try:
                await _drop(conn, schema, name, limits)
            except asyncpg.LockNotAvailableError:
                await tell("An older transaction held it up; trying again", None)
            else:
                return True
        await asyncio.sleep(limits.pause.total_seconds())
    async with _session(target, limits, f"look at {schema}.{name}") as conn:
        raise _still_there(schema, name, await conn.fetchrow(FIND, schema, name))


def fraction_of(row: Any) -> float | None:
    """How far a row of `PROGRESS` is, from 0 to 1; None where its phase is not known. Pure."""
    for phase, start, end in _PHASES:
        if str(row["phase"]).startswith(phase):
            done = max(
                (row[f"{what}_done"] / row[f"{what}_total"]
                 for what in ("blocks", "tuples", "lockers") if row[f"{what}_total"]),
                default=0.0,
            )  # fmt: skip
            return float(start + (end - start) * min(done, 1.0))
    return None


def progress_text(row: Any) -> str:
    """A row of `PROGRESS` in words. Pure."""
    if row["locker"] is None:
        return str(row["phase"]).capitalize()
    since = f" for {row['locker_seconds']:.0f} s" if row["locker_seconds"] is not None else ""
    return (
        f"{str(row['phase']).capitalize()}: {row['lockers_done']} of {row['lockers_total']} done,"
        f" now for process {row['locker']} ({row['name'] or 'no name'}) at work{since}"
    )


async def _once(
    target: Target, conn: Any, order: Order, limits: BuildLimits, tell: Tell
) -> Built | None:
    """Do what is to be done next; the index once it is there, else None: look again."""
    found = await conn.fetchrow(FIND, order.schema, order.name)
    match next_move(found, order):
        case Move.TAKE:
            return await _built(conn, found)
        case Move.WAIT:
            await _watch_other(conn, found["builder"], limits, tell)
        case Move.CLEAR:
            await tell("Dropping what an earlier attempt left half-built", None)
            await _drop(conn, order.schema, order.name, limits)
        case Move.CREATE:
            await _create(target, conn, order, limits, tell)
        case Move.REFUSE:
            raise _taken(order)
        case never:
            assert_never(never)
    return None


async def _create(target: Target, conn: Any, order: Order, limits: BuildLimits, tell: Tell) -> None:
    """Run the statement, telling how far it is. Somebody else at the same name is no error."""
    async with together() as group:
        telling = group.create_task(_watch(target, conn.get_server_pid(), limits, tell))
        try:
            await conn.execute(order.statement, timeout=limits.whole.total_seconds())
        except asyncpg.DuplicateTableError:
            return  # look again what it is
        finally:
            telling.cancel()


async def _watch(target: Target, pid: int, limits: BuildLimits, tell: Tell) -> None:
    """Tell how far a backend is, until cancelled. Only words: what fails here fails alone."""
    try:
        async with connection(target) as conn:
            while True:
                await asyncio.sleep(limits.look.total_seconds())
                if (row := await conn.fetchrow(PROGRESS, pid)) is not None:
                    await tell(progress_text(row), fraction_of(row))
    except (PostgresError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
        return


async def _watch_other(conn: Any, pid: int, limits: BuildLimits, tell: Tell) -> None:
    """Wait while a backend, whose worker may be gone, goes on with it."""
    while (row := await conn.fetchrow(PROGRESS, pid)) is not None:
        await tell(f"Still at work since before: {progress_text(row)}", fraction_of(row))
        await asyncio.sleep(limits.look.total_seconds())


async def _built(conn: Any, found: Any) -> Built:
    return Built(
        oid=found["oid"],
        size_bytes=await conn.fetchval(SIZE, found["oid"]),
        definition=found["definition"],
    )


async def _drop(conn: Any, schema: str, name: str, limits: BuildLimits) -> None:
    statement = await conn.fetchval(DROP, schema, name)
    try:
        await conn.execute(statement, timeout=limits.whole.total_seconds())
    except asyncpg.UndefinedObjectError:
        return


async def _cleared(target: Target, order: Order, limits: BuildLimits) -> bool:
    """Drop what is left half-built, for a limited time; False: it is still there, or unknown."""
    quick = BuildLimits(lock=limits.cleanup, look=limits.look, whole=limits.cleanup)
    try:
        async with (
            asyncio.timeout(limits.cleanup.total_seconds()),
            _session(target, quick, f"drop the half-built {order.text}") as conn,
        ):
            # A backend that was told to stop may need a moment to do so.
            while True:
                found = await conn.fetchrow(FIND, order.schema, order.name)
                match next_move(found, order):
                    case Move.CREATE | Move.TAKE | Move.REFUSE:
                        return True
                    case Move.WAIT:
                        await asyncio.sleep(0.1)
                    case Move.CLEAR:
                        await _drop(conn, order.schema, order.name, quick)
                    case never:
                        assert_never(never)
    except (PostgresError, TimeoutError):
        return False


@asynccontextmanager
async def _session(target: Target, limits: BuildLimits, what: str) -> AsyncIterator[Any]:
    """A session that waits so long for locks and no longer.

    Raises:
        PostgresError: the server cannot be reached, or `what` did not succeed there.
    """
    lock_ms = max(1, int(limits.lock.total_seconds() * 1000))
    async with connection(target) as conn:
        try:
            await conn.execute(f"{_SETTINGS}; SET lock_timeout = {lock_ms}")
            yield conn
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            raise _explained(what, error, limits) from error


def _is_like(definition: str | None, terms: Terms) -> bool:
    """Whether a definition may be of these terms; the server rewrites expressions."""
    if definition is None:
        return False
    try:
        found = terms_of(definition)
    except TermsError:
        return False
    return (found.method, found.is_unique, len(found.keys), found.columns) == (
        terms.method, terms.is_unique, len(terms.keys), terms.columns
    )  # fmt: skip


def _explained(what: str, error: Exception, limits: BuildLimits) -> PostgresError:
    """An error in two sentences; its detail may hold values of rows, and is left out."""
    said = str(error.args[0] if error.args else type(error).__name__).rstrip(".")
    match error:
        case asyncpg.LockNotAvailableError():
            return PostgresError(
                f"It was not possible to {what}: older transactions held it up for"
                f" {limits.lock.total_seconds():g} s, {limits.again} times.",
                next_step="See with /db locks which transactions are that old, and end them or"
                " wait for them; then ask again.",
            )
        case asyncpg.UniqueViolationError():
            return PostgresError(
                f"It was not possible to {what}: some rows have the same values.",
                next_step="Find and mend the duplicates (GROUP BY … HAVING count(*) > 1), then"
                " ask again.",
            )
        case asyncpg.DiskFullError():
            return PostgresError(
                f"It was not possible to {what}: the server's disk is full.",
                next_step="Make room there, then ask again.",
            )
        case _:
            return PostgresError(
                f"It was not possible to {what}: {said}.",
                next_step="Mend what it names, then ask again.",
            )


def _taken(order: Order) -> PostgresError:
    return PostgresError(
        f"Something else is called {order.text} by now.",
        next_step="See what it is, then ask for the index under another name.",
    )


def _left(order: Order) -> str:
    return (
        f"It may have left {order.text} half-built, which slows writes and serves no query: see"
        " /db indexes, and drop it with /db drop-index."
    )


def _still_there(schema: str, name: str, found: Any | None) -> PostgresError:
    unused = found is not None and not found["is_valid"]
    state = "It is no longer used by queries already, and half-dropped" if unused else (
        "It is as it was"
    )  # fmt: skip
    return PostgresError(
        f"{schema}.{name} could not be dropped: older transactions held it up. {state}.",
        next_step="See with /db locks which transactions are that old; then ask again.",
    )
