"""A second session that looks at the first: who blocks it, which locks it holds, whether it lives.

Another session, since one that waits for a lock cannot look, and since the SQL of a file may
change whatever there is in its own: search path, role, settings.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import asyncpg

from postgres.connect import CONNECT_SECONDS_MAX
from postgres.health.blocking import PREPARED, Backend, Key, backend_of
from postgres.health.statement_text import shown
from postgres.migrate.own_schema import SCHEMA
from postgres.migrate.words import Lock, lock_of

_LOOKS_PER_WAIT: Final = 8
_LOOK_SECONDS_MIN: Final = 0.01
_LOOK_SECONDS_MAX: Final = 1.0
_NAME_CHARS_MAX: Final = 40
_QUERY_CHARS_MAX: Final = 90
_NAMED_MAX: Final = 3
# Who scans or writes through an index holds its lock: from here on its table counts as locked.
_REACHES_TABLE: Final = Lock.SHARE

# pg_blocking_pids takes every lock of the lock manager for a moment: only for who does wait.
_BLOCKERS: Final = """
    WITH waiting AS MATERIALIZED (
        SELECT b.pid
          FROM pg_stat_get_activity($1) me
         CROSS JOIN unnest(CASE WHEN me.wait_event_type = 'Lock'
                                THEN pg_blocking_pids($1) END) AS b(pid)
         LIMIT 20
    ), asked AS (
        SELECT l.locktype, l.mode,
               coalesce(l.relation, (SELECT min(r.relation::bigint)::oid FROM pg_locks r
                                      WHERE r.pid = $1 AND r.locktype = 'tuple')) AS relation
          FROM pg_locks l
         WHERE l.pid = $1 AND NOT l.granted
         LIMIT 1
    )
    SELECT w.pid, a.usename AS user, a.application_name AS application, a.datname AS database,
           host(a.client_addr) AS client, a.backend_type, a.state, a.query, a.backend_start,
           a.xact_start, a.query_start, a.state_change, a.backend_xid IS NOT NULL AS has_written,
           clock_timestamp() AS seen_at, '{}'::int[] AS blocked_by, '' AS mode, '' AS locktype,
           '' AS relation, NULL::timestamptz AS since, asked.locktype AS wanted_type,
           asked.mode AS wanted_mode, asked.relation::regclass::text AS wanted_relation
      FROM waiting w
      LEFT JOIN pg_stat_activity a ON a.pid = w.pid
      LEFT JOIN asked ON true
     ORDER BY a.xact_start NULLS LAST, w.pid
"""
# What others do not see yet was made by this very transaction: nobody waits for it.
_HELD: Final = """
    SELECT l.locktype, l.mode, l.virtualtransaction, l.objid::bigint AS objid,
           t.nspname AS schema, c.relname AS name, c.relkind::text AS kind,
           tn.nspname AS table_schema, tc.relname AS table_name
      FROM pg_locks l
      LEFT JOIN pg_class c      ON l.locktype = 'relation' AND c.oid = l.relation
      LEFT JOIN pg_namespace t  ON t.oid = c.relnamespace
      LEFT JOIN pg_index i      ON i.indexrelid = c.oid
      LEFT JOIN pg_class tc     ON tc.oid = i.indrelid
      LEFT JOIN pg_namespace tn ON tn.oid = tc.relnamespace
     WHERE l.pid = $1 AND l.granted AND l.locktype IN ('relation', 'virtualxid', 'advisory')
"""
_TABLES: Final = frozenset({"r", "p", "m", "v", "f"})
_STATE: Final = """
    SELECT a.state, a.backend_start FROM pg_stat_activity a WHERE a.pid = $1
"""
_TERMINATE: Final = """
    SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a
     WHERE a.pid = $1 AND a.backend_start = $2
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Who is in the way at a moment, and of what: `wanted` such as `AccessExclusive on t`."""

    backends: tuple[Backend, ...]
    wanted: str

    @property
    def text(self) -> str:
        """For people: each with what it does, the oldest first."""
        named = "; ".join(told(each) for each in self.backends[:_NAMED_MAX])
        more = len(self.backends) - _NAMED_MAX
        return f"{named}; and {more} more" if more > 0 else named

    @property
    def has_autovacuum(self) -> bool:
        """One that gives way, if we only wait long enough; or something that may be one.

        Who may not see the work of others sees of it that it has no user.
        """
        return any(
            (each.backend_type == "autovacuum worker" and not each.is_against_wraparound)
            or (each.is_hidden and not each.user)
            for each in self.backends
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What a session holds: locks on tables that others see, and which transaction it is in."""

    transaction: str
    tables: Mapping[str, Lock]
    advisory: frozenset[int]  # the lower halves of the keys


@dataclass(slots=True)
class Seen:
    """What the last look at who blocks has found."""

    block: Block | None = None
    waited_seconds: float = 0.0


@dataclass(slots=True, kw_only=True)
class Watch:
    """The second session. `pid` and `since` say which session it looks at."""

    conn: Any
    pid: int
    since: datetime
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def held(self) -> Held:
        """What it holds now."""
        async with self._lock:
            rows = await self.conn.fetch(_HELD, self.pid, timeout=CONNECT_SECONDS_MAX)
        return held_of(rows)

    async def block(self) -> Block | None:
        """Who it waits for; None: it does not wait."""
        async with self._lock:
            rows = await self.conn.fetch(_BLOCKERS, self.pid, timeout=CONNECT_SECONDS_MAX)
            if not rows:
                return None
            # A prepared transaction has no session; its pid is 0 there.
            gone = any(row["pid"] == 0 for row in rows)
            prepared = await self.conn.fetch(PREPARED, timeout=CONNECT_SECONDS_MAX) if gone else []
        return block_of(rows, [row for row in prepared if row["pid"] == self.pid])

    async def is_idle(self) -> bool | None:
        """Whether it waits for us, outside of transactions; None: it is gone."""
        async with self._lock:
            row = await self.conn.fetchrow(_STATE, self.pid, timeout=CONNECT_SECONDS_MAX)
        if row is None or row["backend_start"] != self.since:
            return None
        return bool(row["state"] == "idle")

    async def row(self, query: str) -> Any:
        """A look at it by a query whose only argument is its pid."""
        async with self._lock:
            return await self.conn.fetchrow(query, self.pid, timeout=CONNECT_SECONDS_MAX)

    async def run(self, statement: str) -> None:
        """Something about it, by its pid and since when it is."""
        async with self._lock:
            await self.conn.execute(statement, self.pid, self.since, timeout=CONNECT_SECONDS_MAX)

    async def terminate(self) -> None:
        """End it on the server: what it is in is rolled back. No other session of that pid."""
        await self.run(_TERMINATE)

    @asynccontextmanager
    async def naming(self, lock_seconds: float) -> AsyncIterator[Seen]:
        """Look who blocks it, several times within the shortest wait, until the end."""
        seen, stop = Seen(), asyncio.Event()
        every = lock_seconds / _LOOKS_PER_WAIT if lock_seconds else _LOOK_SECONDS_MAX
        every = min(max(every, _LOOK_SECONDS_MIN), _LOOK_SECONDS_MAX)
        looking = asyncio.create_task(self._keep_looking(seen, stop, every))
        try:
            yield seen
        finally:
            # A look is over in milliseconds; one that was cut short would break the session.
            stop.set()
            await asyncio.wait({looking})

    async def _keep_looking(self, seen: Seen, stop: asyncio.Event, every: float) -> None:
        """Only names: what fails here fails alone."""
        while not await _happens(stop, every):
            try:
                block = await self.block()
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
                return
            if block is not None:
                seen.block = block
                seen.waited_seconds += every


async def _happens(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


def block_of(rows: Sequence[Mapping[str, Any]], prepared: Sequence[Mapping[str, Any]]) -> Block:
    """What `_BLOCKERS` found; `prepared`: what `PREPARED` says of our wait. Pure."""
    backends = [backend_of(row) for row in rows if row["pid"] and row["query"] is not None]
    ghosts: dict[Key, Backend] = {
        row["gid"]: Backend(
            key=row["gid"], user=row["user"] or "", seen_at=row["seen_at"],
            xact_start=row["prepared"], backend_type="prepared transaction",
        )
        for row in prepared
    }  # fmt: skip
    mode = (rows[0]["wanted_mode"] or "").removesuffix("Lock")
    if rows[0]["wanted_type"] in {"transactionid", "tuple"}:
        what = "a row"
        if rows[0]["wanted_relation"]:
            what += f" of {rows[0]['wanted_relation']}"
    elif rows[0]["wanted_relation"]:
        what = f"{mode} on {rows[0]['wanted_relation']}"
    else:
        what = rows[0]["wanted_type"] or "a lock"
    return Block(backends=(*backends, *ghosts.values()), wanted=what)


def held_of(rows: Sequence[Mapping[str, Any]]) -> Held:
    """What `_HELD` found, by schema.name; the locks of an index as its table's. Pure."""
    tables: dict[str, Lock] = {}
    transaction = ""
    advisory: set[int] = set()
    for row in rows:
        if row["locktype"] == "virtualxid":
            transaction = row["virtualtransaction"]
        elif row["locktype"] == "advisory":
            advisory.add(row["objid"])
        elif (found := _table_of(row)) is not None:
            tables[found] = max(lock_of(row["mode"]), tables.get(found, Lock.NONE))
    return Held(transaction=transaction, tables=tables, advisory=frozenset(advisory))


def _table_of(row: Mapping[str, Any]) -> str | None:
    """The table that a lock is about; None: none that people know, or one that is new."""
    if row["kind"] in _TABLES:
        schema, name = row["schema"], row["name"]
    elif row["table_name"] is not None and lock_of(row["mode"]) >= _REACHES_TABLE:
        schema, name = row["table_schema"], row["table_name"]
    else:
        return None
    if schema.startswith("pg_") or schema in {"information_schema", SCHEMA}:
        return None
    return f"{schema}.{name}"


def told(backend: Backend) -> str:
    """A session for people: who it is, what it is at, for how long; no literal of a statement."""
    if backend.is_prepared:
        return f"the prepared transaction {_short(str(backend.key))!r}{_age(backend)}"
    if backend.is_hidden:
        who = f"process {backend.key} ({_short(backend.user) or 'of the server itself'})"
        return f"{who}, whose work our user may not see (GRANT pg_monitor)"
    known = [_short(each) for each in (backend.user, backend.application, backend.client) if each]
    who = f"process {backend.key} ({', '.join(known) or backend.backend_type})"
    if backend.is_against_wraparound:
        return f"{who}, an autovacuum to prevent wraparound, which does not give way"
    if backend.backend_type == "autovacuum worker":
        return f"{who}, an autovacuum"
    text = shown(backend.query, chars_max=_QUERY_CHARS_MAX)
    if backend.state == "active":
        return f"{who}, which runs {text or backend.backend_type}{_age(backend)}"
    last = f", last: {text}" if text else ""
    return f"{who}, {backend.state or backend.backend_type}{_age(backend)}{last}"


def _age(backend: Backend) -> str:
    age = backend.transaction_age
    return "" if age is None else f", its transaction open for {_seconds(age.total_seconds())}"


def _seconds(seconds: float) -> str:
    if seconds < 120:  # noqa: PLR2004 - two minutes
        return f"{max(seconds, 0):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"  # noqa: PLR2004


def _short(text: str) -> str:
    return text if len(text) <= _NAME_CHARS_MAX else f"{text[: _NAME_CHARS_MAX - 1]}…"
