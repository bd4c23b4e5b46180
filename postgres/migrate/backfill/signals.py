"""What a backfill looks at four times a second, over a connection of its own.

Standbys are seen from the primary, and where their own connection strings are known also by
themselves: one that lost its primary has no row there, and is exactly the one that falls behind.
One that neither streams nor answers for a minute is gone, and does not count any more.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

import asyncpg

from postgres.connect import close
from postgres.dsn import Target
from postgres.errors import PostgresError
from postgres.health.lag import Trail
from postgres.migrate.backfill.key import Table
from postgres.migrate.backfill.spec import BackfillLimits, FreeBytes
from postgres.migrate.backfill.throttle import ReplicaLag, Signals

GONE_AFTER: Final = timedelta(seconds=60)
_LOOK_SECONDS_MAX: Final = 5
_REPLICA_SECONDS_MAX: Final = 3
_AGES_MAX: Final = 200

# Logical subscribers replay nothing, and pg_receivewal has no replay_lsn. Sessions of ours are
# no load of others. `twokey-monitor` keeps it out of the statements that are watched.
_LOOK: Final = """
    WITH /* twokey-monitor */ here AS (
        SELECT pg_current_wal_lsn() AS lsn
    ), act AS MATERIALIZED (
        SELECT pid, state, wait_event_type, query_start, backend_type, application_name
          FROM pg_stat_activity
    )
    SELECT pg_wal_lsn_diff(here.lsn, '0/0')::bigint AS wal,
           (SELECT count(*)::int FROM act
             WHERE wait_event_type = 'Lock' AND pid <> ALL ($1::int[])
               AND state IS NOT NULL)                                    AS waiters,
           (SELECT coalesce(array_agg(ms), '{}') FROM (
                SELECT greatest(extract(epoch FROM clock_timestamp() - query_start) * 1000, 0)
                       ::float8 AS ms
                  FROM act
                 WHERE state = 'active' AND backend_type = 'client backend'
                   AND pid <> ALL ($1::int[]) AND pid <> pg_backend_pid()
                   AND application_name NOT LIKE 'twokey%'
                 LIMIT 200) AS ages)                                     AS ages,
           (SELECT coalesce(jsonb_agg(jsonb_build_object(
                       'name', coalesce(nullif(application_name, ''), host(client_addr), 'standby'),
                       'replay', pg_wal_lsn_diff(replay_lsn, '0/0'))), '[]')::text
              FROM pg_stat_replication r
             WHERE replay_lsn IS NOT NULL
               AND NOT EXISTS (SELECT FROM pg_replication_slots s
                                WHERE s.active_pid = r.pid AND s.slot_type = 'logical'))
                                                                         AS replicas
      FROM here
"""
_RIGHTS: Final = "SELECT pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')"
_DEAD: Final = """
    SELECT coalesce(sum(n_dead_tup), 0)::bigint AS dead,
           coalesce(sum(n_live_tup), 0)::bigint AS live
      FROM pg_stat_all_tables
     WHERE relid IN (SELECT relid FROM pg_partition_tree($1::oid::regclass)
                      UNION SELECT $1::oid::regclass)
"""
_PROBE: Final = "SELECT 1 FROM {table} ORDER BY {columns} LIMIT 1"
_REPLAYED: Final = """
    SELECT pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0')::bigint AS replay
     WHERE pg_is_in_recovery()
"""
_BLIND: Final = (
    "This user may not see other sessions or standbys (GRANT pg_monitor), so neither their lag"
    " nor their load holds the backfill up."
)
# Who holds up batches of ours, for the message that says so.
_BLOCKERS: Final = """
    SELECT b.pid, b.state, left(b.application_name, 40) AS name,
           extract(epoch FROM clock_timestamp() - b.xact_start)::float8 AS seconds
      FROM pg_stat_activity a
      CROSS JOIN LATERAL unnest(pg_blocking_pids(a.pid)) AS p(pid)
      JOIN pg_stat_activity b ON b.pid = p.pid
     WHERE a.pid = ANY ($1::int[]) AND a.wait_event_type = 'Lock' AND b.pid <> ALL ($1::int[])
     ORDER BY b.xact_start
     LIMIT 1
"""

LOST: Final = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
)


@dataclass(slots=True)
class _Replica:
    """A standby that is asked itself. `heard_at`: when it last answered (s)."""

    target: Target
    heard_at: float
    conn: Any = None
    replay: int | None = None
    is_gone: bool = False


@dataclass(slots=True, kw_only=True)
class Watcher:
    """Reads signals. `pids`: our own sessions, kept by who opens them."""

    target: Target
    table: Table
    limits: BackfillLimits
    pids: set[int]
    conn: Any = None
    free_bytes: FreeBytes | None = None
    clock: Callable[[], float] = time.monotonic
    trail: Trail = field(default_factory=Trail)
    unremovable: int = 0  # dead rows that the last VACUUM had to leave
    dead_rows: int = 0
    judges_dead: bool = True
    blocker: str = ""
    notes: list[str] = field(default_factory=list)
    _replicas: list[_Replica] = field(default_factory=list)

    def ask_too(self, replicas: Sequence[Target]) -> None:
        """Standbys that can be asked themselves."""
        self._replicas = [_Replica(target=each, heard_at=self.clock()) for each in replicas]

    async def look(self) -> Signals:
        """One look, over a new connection where the last one was lost.

        Raises:
            asyncpg.PostgresError, OSError, asyncpg.InterfaceError: it cannot be seen.
        """
        try:
            async with asyncio.timeout(_LOOK_SECONDS_MAX):
                conn = self.conn or await self._connect()
                row = await conn.fetchrow(_LOOK, list(self.pids))
                probe_ms = await self._probe()
                await self._look_for_blockers()
                dead = await self._dead()
        except (asyncpg.PostgresError, *LOST):
            self.conn, lost = None, self.conn
            if lost is not None:
                lost.terminate()
            raise
        at = self.clock()
        self.trail = self.trail.add(at, row["wal"])
        seen = _replicas_of(row["replicas"])
        await self._ask_replicas(at)
        for each in self._replicas:
            if each.replay is not None and not each.is_gone:
                seen.setdefault(each.target.place, each.replay)
        return Signals(
            at=at,
            replicas=tuple(
                self._lag(name, replay, row["wal"])
                for name, replay in seen.items()
                if name not in self.limits.unwatched
            ),
            waiters=row["waiters"],
            wal_bytes=row["wal"],
            dead=dead,
            ages_ms=tuple(row["ages"][:_AGES_MAX]),
            probe_ms=probe_ms,
            free_bytes=await self._free(),
        )

    async def close(self) -> None:
        """Hang up."""
        for conn in (self.conn, *(each.conn for each in self._replicas)):
            if conn is not None:
                await close(conn, seconds=1)

    async def _connect(self) -> Any:
        self.conn = await asyncpg.connect(
            self.target.url(),
            timeout=_LOOK_SECONDS_MAX,
            command_timeout=_LOOK_SECONDS_MAX,
            server_settings={"application_name": "twokey backfill watch", "jit": "off"},
        )
        # The probe must be a look into the index, whatever the statistics say.
        await self.conn.execute("SET enable_seqscan = off")
        told = any(note is _BLIND for note in self.notes)
        if not told and not await self.conn.fetchval(_RIGHTS):
            self.notes.append(_BLIND)
        return self.conn

    async def _probe(self) -> float:
        query = _PROBE.format(table=self.table.quoted, columns=self.table.key.columns)
        began = time.perf_counter()
        await self.conn.fetchrow(query)
        return (time.perf_counter() - began) * 1000

    def _lag(self, name: str, replay: int, wal: int) -> ReplicaLag:
        return ReplicaLag(
            name=name,
            bytes_behind=max(wal - replay, 0),
            seconds_behind=self.trail.bounds(replay)[0],
        )

    async def _look_for_blockers(self) -> None:
        row = await self.conn.fetchrow(_BLOCKERS, list(self.pids))
        if row is not None:
            name = f" of {row['name']}" if row["name"] else ""
            self.blocker = (
                f"process {row['pid']}{name} ({row['state'] or 'hidden'}, its transaction is"
                f" {row['seconds'] or 0:.0f} s old)"
            )

    async def _dead(self) -> float | None:
        row = await self.conn.fetchrow(_DEAD, self.table.oid)
        self.dead_rows = row["dead"]
        live = max(row["live"], self.table.rows)
        if not live or not self.judges_dead:
            return None
        return float(max(row["dead"] - self.unremovable, 0) / live)

    async def _free(self) -> int | None:
        return None if self.free_bytes is None else await self.free_bytes()

    async def _ask_replicas(self, at: float) -> None:
        if self._replicas:
            await asyncio.gather(*(self._ask(each, at) for each in self._replicas))

    async def _ask(self, each: _Replica, at: float) -> None:
        if each.is_gone:
            return
        try:
            async with asyncio.timeout(_REPLICA_SECONDS_MAX):
                if each.conn is None:
                    each.conn = await asyncpg.connect(
                        each.target.url(),
                        timeout=_REPLICA_SECONDS_MAX,
                        server_settings={"application_name": "twokey backfill lag"},
                    )
                each.replay = await each.conn.fetchval(_REPLAYED)
            each.heard_at = at
        except (asyncpg.PostgresError, *LOST):
            each.conn, lost = None, each.conn
            if lost is not None:
                lost.terminate()
            if at - each.heard_at > GONE_AFTER.total_seconds():
                each.is_gone = True
                self.notes.append(
                    f"The standby on {each.target.place} has not answered for"
                    f" {GONE_AFTER.total_seconds():.0f} s: it holds nothing up any more."
                )


def _replicas_of(text: str) -> dict[str, int]:
    """Where each standby has replayed to; of one name the one that is furthest behind."""
    found: dict[str, int] = {}
    for each in json.loads(text):
        replay = int(each["replay"])
        found[each["name"]] = min(found.get(each["name"], replay), replay)
    return found


async def check_primary(conn: Any) -> None:
    """Raises PostgresError on a standby, where nothing can be written."""
    if await conn.fetchval("SELECT pg_is_in_recovery()"):
        raise PostgresError(
            "This server is a standby: nothing can be changed there.",
            next_step="Name the primary in the inventory.",
        )
