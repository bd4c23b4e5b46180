"""What a statement does where it runs, by the server's own account: locks, rewrites, scans, WAL.

Only for a disposable copy that nobody else uses: what others did meanwhile would be counted too.

Inside a transaction the session's own locks are exact: PostgreSQL keeps them until the end. Of a
statement that must be alone (CREATE INDEX CONCURRENTLY, VACUUM) they are gone when it has
ended: they are looked at from a second session while it runs, which may miss a short one, and
joined with those that are known of such a statement. `Observation.is_sampled` says so.

The check of a foreign key reads its tables through queries of its own, which may not count as
scans; there the rows are the planner's, of the tables that the review says are read.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from postgres.connect import connection
from postgres.dsn import Target
from postgres.errors import PostgresError
from postgres.migrate.words import Lock, Observation, ReviewedStatement, Work, lock_of

_SAMPLE_EVERY_SECONDS: Final = 0.005
_LOOK_SECONDS_MAX: Final = 120.0
# Who scans or writes through an index holds its lock: from here on the table is as good as
# locked itself. ALTER INDEX ... RENAME, for one, stays below.
_REACHES_TABLE: Final = Lock.SHARE

# Names are written out: the file may have set a search_path in which others stand first.
_RELATIONS: Final = """
    SELECT c.oid::bigint                                   AS oid,
           n.nspname || '.' || c.relname                   AS name,
           c.relkind::text                                 AS kind,
           pg_catalog.pg_relation_filenode(c.oid)::bigint  AS filenode,
           greatest(c.reltuples, 0)::bigint                AS rows,
           i.indrelid::bigint                              AS table_oid
      FROM pg_catalog.pg_class c
      JOIN pg_catalog.pg_namespace n  ON n.oid = c.relnamespace
      LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
     WHERE c.relkind IN ('r', 'p', 'm', 'v', 'f', 'i', 'I')
       AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
"""
_LOCKS: Final = """
    SELECT l.relation::bigint AS oid, l.mode
      FROM pg_catalog.pg_locks l
     WHERE l.pid = $1 AND l.granted AND l.locktype = 'relation'
       AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d
                          WHERE d.datname = pg_catalog.current_database())
"""
_COUNTS: Final = """
    SELECT relid::bigint AS oid, seq_tup_read AS scanned,
           n_tup_ins + n_tup_upd + n_tup_del AS written
      FROM pg_catalog.pg_stat_xact_user_tables
     WHERE seq_tup_read + n_tup_ins + n_tup_upd + n_tup_del > 0
"""
# The same moment for all of a transaction, and another one for the next.
_STAND: Final = """
    SELECT pg_catalog.now()                                                 AS began,
           pg_catalog.pg_backend_pid()                                      AS pid,
           pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_insert_lsn(),
                                      '0/0')::bigint                        AS wal
"""
_INDEXES: Final = frozenset({"i", "I"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Relation:
    name: str
    kind: str
    filenode: int | None
    rows: int
    table_oid: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """How things stood before a statement."""

    wal: int
    relations: Mapping[int, _Relation]
    counts: Mapping[int, tuple[int, int]]
    at: float


class CopyObserver:
    """Watches the statements of one session; implements `postgres.migrate.apply.Observer`."""

    def __init__(self, target: Target) -> None:
        """`target` is the copy, for a second session where one is needed."""
        self._target = target
        # What was there when the transaction began: only that can anybody wait for.
        self._existing: Mapping[int, _Relation] = {}
        self._began: object = None
        self._look: _Look | None = None
        self._sampler: _Sampler | None = None
        # All so far, and the statement that has begun and not ended: also when it failed.
        self.seen: list[Observation] = []
        self.at_work: ReviewedStatement | None = None

    async def before(self, conn: Any, statement: ReviewedStatement) -> None:
        """Look how things stand; call it right before the statement."""
        await self._end_sampling()
        stand = await conn.fetchrow(_STAND, timeout=_LOOK_SECONDS_MAX)
        relations = await _relations(conn)
        if stand["began"] != self._began or not conn.is_in_transaction():
            self._existing, self._began = relations, stand["began"]
        if statement.must_be_alone or not conn.is_in_transaction():
            self._sampler = _Sampler(self._target, int(stand["pid"]))
            await self._sampler.begin()
        self.at_work = statement
        self._look = _Look(
            wal=int(stand["wal"]),
            relations=relations,
            counts=await _counts(conn),
            at=time.monotonic(),
        )

    async def after(self, conn: Any, statement: ReviewedStatement) -> Observation:
        """What the statement has done; call it right after it, in the same transaction."""
        ended = time.monotonic()
        look, self._look = self._look, None
        if look is None:
            raise RuntimeError("`before` was not called")
        sampler = await self._end_sampling()
        stand = await conn.fetchrow(_STAND, timeout=_LOOK_SECONDS_MAX)
        modes = sampler.modes if sampler else await _modes(conn, int(stand["pid"]))
        locks = self._locks(modes, with_indexes=sampler is None)
        if sampler:
            known = self._known()
            for each in statement.touched:
                if each.table in known:
                    locks[each.table] = max(each.lock, locks.get(each.table, Lock.NONE))
        relations = await _relations(conn)
        scanned, written = _changes(look, await _counts(conn), relations)
        found = Observation(
            index=statement.index,
            seconds=round(ended - look.at, 6),
            locks=locks,
            rewritten=_rewritten(look.relations, relations),
            scanned=_with_checks(statement, scanned, self._existing),
            written=written,
            wal_bytes=max(int(stand["wal"]) - look.wal, 0),
            is_sampled=sampler is not None,
        )
        self.at_work = None
        self.seen.append(found)
        return found

    async def close(self) -> None:
        """Let go of the second session, also after a statement that failed."""
        await self._end_sampling()

    async def _end_sampling(self) -> _Sampler | None:
        sampler, self._sampler = self._sampler, None
        if sampler:
            await sampler.end()
        return sampler

    def _known(self) -> frozenset[str]:
        return frozenset(each.name for each in self._existing.values())

    def _locks(self, modes: Iterable[tuple[int, str]], *, with_indexes: bool) -> dict[str, Lock]:
        """The strongest on each table that was there, those of its indexes included.

        What runs CONCURRENTLY locks an index for an instant when nobody uses it any more.
        """
        found: dict[str, Lock] = {}
        for oid, mode in modes:
            relation, lock = self._existing.get(oid), lock_of(mode)
            if relation is not None and relation.kind in _INDEXES:
                reaches = with_indexes and lock >= _REACHES_TABLE
                relation = self._existing.get(relation.table_oid or 0) if reaches else None
            if relation is not None:
                found[relation.name] = max(lock, found.get(relation.name, Lock.NONE))
        return dict(sorted(found.items()))


class _Sampler:
    """Looks at the locks of another session, again and again, from a session of its own."""

    def __init__(self, target: Target, pid: int) -> None:
        self._target, self._pid = target, pid
        self._looks: asyncio.Task[None] | None = None
        self.modes: set[tuple[int, str]] = set()

    async def begin(self) -> None:
        """Returns when the second session is there, or cannot be had."""
        ready = asyncio.Event()
        self._looks = asyncio.create_task(self._keep_looking(ready))
        await ready.wait()

    async def end(self) -> None:
        """Stop looking."""
        if self._looks is not None:
            self._looks.cancel()
            await asyncio.wait([self._looks])

    async def _keep_looking(self, ready: asyncio.Event) -> None:
        try:
            # Without it, what is known of the statement stands alone.
            with suppress(PostgresError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                async with connection(self._target) as conn:
                    ready.set()
                    while True:
                        self.modes.update(await _modes(conn, self._pid))
                        await asyncio.sleep(_SAMPLE_EVERY_SECONDS)
        finally:
            ready.set()


async def _relations(conn: Any) -> Mapping[int, _Relation]:
    rows = await conn.fetch(_RELATIONS, timeout=_LOOK_SECONDS_MAX)
    return {
        row["oid"]: _Relation(
            name=row["name"],
            kind=row["kind"],
            filenode=row["filenode"],
            rows=row["rows"],
            table_oid=row["table_oid"],
        )
        for row in rows
    }


async def _modes(conn: Any, pid: int) -> list[tuple[int, str]]:
    rows = await conn.fetch(_LOCKS, pid, timeout=_LOOK_SECONDS_MAX)
    return [(row["oid"], row["mode"]) for row in rows]


async def _counts(conn: Any) -> Mapping[int, tuple[int, int]]:
    rows = await conn.fetch(_COUNTS, timeout=_LOOK_SECONDS_MAX)
    return {row["oid"]: (row["scanned"], row["written"]) for row in rows}


def _rewritten(before: Mapping[int, _Relation], after: Mapping[int, _Relation]) -> tuple[str, ...]:
    """What has another file than it had: written anew, or emptied. Indexes go with their table."""
    moved = {
        oid
        for oid, was in before.items()
        if (now := after.get(oid)) is not None and now.filenode != was.filenode
    }
    tables = {oid for oid in moved if before[oid].kind not in _INDEXES}
    alone = {oid for oid in moved - tables if before[oid].table_oid not in tables}
    return tuple(sorted(before[oid].name for oid in tables | alone))


def _changes(
    look: _Look, counts: Mapping[int, tuple[int, int]], relations: Mapping[int, _Relation]
) -> tuple[Mapping[str, int], Mapping[str, int]]:
    """Rows read one after the other, and rows written, by table."""
    scanned: dict[str, int] = {}
    written: dict[str, int] = {}
    for oid, (reads, writes) in sorted(counts.items()):
        relation = relations.get(oid) or look.relations.get(oid)
        if relation is None:
            continue
        reads_before, writes_before = look.counts.get(oid, (0, 0))
        # TRUNCATE takes back what was counted before it.
        if reads > reads_before:
            scanned[relation.name] = reads - reads_before
        if writes > writes_before:
            written[relation.name] = writes - writes_before
    return scanned, written


def _with_checks(
    statement: ReviewedStatement, scanned: Mapping[str, int], existing: Mapping[int, _Relation]
) -> Mapping[str, int]:
    """Tables that the review says are read, and of which nothing was counted."""
    rows = {each.name: each.rows for each in existing.values()}
    uncounted = {
        each.table: rows[each.table]
        for each in statement.touched
        if each.work is Work.SCAN and each.table in rows and each.table not in scanned
    }
    return {**scanned, **uncounted}
