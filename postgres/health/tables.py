"""How large things are: databases, the largest tables, WAL. Also settings and invalid indexes.

Measuring every table would take seconds with ten thousand of them, fill the session's memory,
and wait behind anybody's ALTER TABLE. So the catalog's page counts choose thirty, and only these
are measured; what somebody holds locked, or waits to lock, keeps its estimate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import asyncpg

from postgres.health.instance import SETTINGS, SETTINGS_QUERY

TABLES_MAX: Final = 10
DATABASES_MAX: Final = 100
INDEXES_MAX: Final = 50

# Page counts are as old as the last VACUUM or ANALYZE: they choose, and stand in for what is
# locked. A table that had neither yet has no pages; it is guessed by the rows that were
# inserted. First the 200 largest relations of any kind (one pass, no sort of all), then the
# tables that they belong to: summing up every table's parts takes five times as long. No
# relation is opened, so nothing here waits for a lock.
_LARGEST: Final = """
    WITH /* twokey-monitor */ spaces AS MATERIALIZED (
        SELECT oid, nspname FROM pg_namespace
         WHERE nspname <> 'information_schema' AND nspname !~ '^pg_(catalog|toast|temp)'
    ), large AS MATERIALIZED (
        SELECT c.oid, c.relkind
          FROM pg_class c
         WHERE c.relkind IN ('r', 'm', 'i', 't')
           AND (c.relkind IN ('i', 't') OR c.relnamespace IN (SELECT oid FROM spaces))
         ORDER BY CASE WHEN c.relpages = 0 AND c.relkind IN ('r', 'm')
                       THEN pg_stat_get_live_tuples(c.oid) / 50 ELSE c.relpages END DESC
         LIMIT 200
    ), indexed AS MATERIALIZED (
        SELECT i.indrelid AS oid FROM large l JOIN pg_index i ON i.indexrelid = l.oid
         WHERE l.relkind = 'i'
    ), toasted AS MATERIALIZED (
        SELECT oid FROM large WHERE relkind = 't' UNION SELECT oid FROM indexed
    ), candidates AS (
        SELECT oid FROM large WHERE relkind IN ('r', 'm')
         UNION SELECT oid FROM indexed
         UNION SELECT c.oid FROM pg_class c WHERE c.reltoastrelid IN (SELECT oid FROM toasted)
    ), parts AS (
        SELECT c.oid, s.nspname, c.relname, c.reltuples, c.relpages, c.reltoastrelid,
               CASE WHEN c.relpages = 0 THEN pg_stat_get_live_tuples(c.oid) ELSE 0 END AS live,
               coalesce(toast.relpages, 0) AS toast_pages, own.pages AS index_pages,
               of_toast.pages AS toast_index_pages,
               array[c.oid, c.reltoastrelid] || own.oids || of_toast.oids AS relations
          FROM candidates
          JOIN pg_class c USING (oid)
          JOIN spaces s ON s.oid = c.relnamespace
          LEFT JOIN pg_class toast ON toast.oid = c.reltoastrelid
         CROSS JOIN LATERAL (
               SELECT coalesce(sum(x.relpages), 0) AS pages, array_agg(x.oid) AS oids
                 FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
                WHERE i.indrelid = c.oid) AS own
         CROSS JOIN LATERAL (
               SELECT coalesce(sum(x.relpages), 0) AS pages, array_agg(x.oid) AS oids
                 FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
                WHERE i.indrelid = c.reltoastrelid) AS of_toast
         WHERE c.relkind IN ('r', 'm')
    ), sums AS (
        SELECT *, greatest(relpages, live / 50) + toast_pages + index_pages + toast_index_pages
                  AS pages
          FROM parts
    )
    SELECT oid, format('%I.%I', nspname, relname) AS name,
           greatest(reltuples, live, 0)::bigint AS rows,
           (pages * current_setting('block_size')::bigint)::bigint AS bytes,
           (index_pages * current_setting('block_size')::bigint)::bigint AS index_bytes,
           relations
      FROM sums
     ORDER BY pages DESC, oid
     LIMIT 30
"""

# A rebuild locks an index alone, and the size of its table wants that index too: so all
# relations of a table count, and those that somebody only waits to lock: we would stand in line.
_EXACT: Final = """
    SELECT /* twokey-monitor */ oid, pg_total_relation_size(oid::regclass) AS bytes,
           pg_indexes_size(oid::regclass) AS index_bytes
      FROM unnest($1::oid[]) AS wanted(oid)
"""

_LOCKED: Final = """
    SELECT /* twokey-monitor */ DISTINCT relation
      FROM pg_locks
     WHERE locktype = 'relation' AND mode = 'AccessExclusiveLock'
       AND database IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
"""

_DATABASES: Final = """
    SELECT /* twokey-monitor */ oid, datname AS name
      FROM pg_database
     WHERE datallowconn AND NOT datistemplate
     ORDER BY datname = current_database() DESC, oid
     LIMIT 101
"""
_DATABASE: Final = "SELECT /* twokey-monitor */ pg_database_size($1::oid)"

# Of pg_monitor alone.
_WAL: Final = "SELECT /* twokey-monitor */ sum(size)::bigint FROM pg_ls_waldir()"

# One that is being built is invalid too; a partitioned one is until all its parts are attached.
_INVALID: Final = """
    SELECT /* twokey-monitor */ format('%I.%I', n.nspname, c.relname) AS name
      FROM pg_index i
      JOIN pg_class c     ON c.oid = i.indexrelid
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE NOT i.indisvalid AND c.relkind = 'i'
       AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index p
                        WHERE p.index_relid = i.indexrelid OR p.relid = i.indrelid)
     ORDER BY n.nspname, c.relname
     LIMIT 51
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSize:
    """A table with its indexes and TOAST. Not `is_exact`: as the catalog last counted pages."""

    oid: int
    name: str
    bytes: int
    index_bytes: int
    rows: int
    is_exact: bool = False
    relations: tuple[int, ...] = ()

    def told(self) -> dict[str, Any]:
        """As `detail` has it."""
        return {
            "name": self.name, "bytes": self.bytes, "index_bytes": self.index_bytes,
            "rows": self.rows, "is_exact": self.is_exact,
        }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """What changes rarely."""

    settings: Mapping[str, str | None]
    pending_restart: int
    invalid_indexes: tuple[str, ...]


async def largest_tables(conn: Any) -> tuple[Sequence[TableSize], str]:
    """The ten largest tables of this database, and a note when they could only be estimated.

    Raises:
        asyncpg.PostgresError, asyncpg.InterfaceError, OSError: the catalog cannot be read.
    """
    found = [_table(row) for row in await conn.fetch(_LARGEST)]
    locked = {row["relation"] for row in await conn.fetch(_LOCKED)}
    free = [table.oid for table in found if locked.isdisjoint(table.relations)]
    try:
        rows = await conn.fetch(_EXACT, free)
    except (asyncpg.LockNotAvailableError, asyncpg.UndefinedTableError, asyncpg.QueryCanceledError):
        # Somebody locked or dropped one after we had looked: the next look will be exact.
        return _top(found), "The sizes of tables are estimates: one was locked meanwhile."
    exact = {row["oid"]: row for row in rows if row["bytes"] is not None}
    return _top([_measured(table, exact.get(table.oid)) for table in found]), ""


def _table(row: Any) -> TableSize:
    return TableSize(
        oid=row["oid"],
        name=row["name"],
        bytes=row["bytes"],
        index_bytes=row["index_bytes"],
        rows=row["rows"],
        relations=tuple(oid for oid in row["relations"] if oid),
    )


def _measured(table: TableSize, exact: Any) -> TableSize:
    if exact is None:
        return table
    return replace(
        table, bytes=exact["bytes"], index_bytes=exact["index_bytes"] or 0, is_exact=True
    )


def _top(tables: Sequence[TableSize]) -> Sequence[TableSize]:
    return sorted(tables, key=lambda table: (-table.bytes, table.name))[:TABLES_MAX]


async def database_sizes(conn: Any) -> tuple[Sequence[tuple[str, int]], str]:
    """Each database with its bytes, and a note about those that are left out.

    One statement each: a limit that one large database reaches costs no other its size.

    Raises:
        asyncpg.PostgresError, asyncpg.InterfaceError, OSError: they cannot be listed.
    """
    rows = await conn.fetch(_DATABASES)
    sizes: list[tuple[str, int]] = []
    failed: list[str] = ["more"] if len(rows) > DATABASES_MAX else []
    for row in rows[:DATABASES_MAX]:
        try:
            if (size := await conn.fetchval(_DATABASE, row["oid"])) is not None:
                sizes.append((row["name"], size))
        except asyncpg.InvalidCatalogNameError:
            continue  # dropped since
        except (asyncpg.InsufficientPrivilegeError, asyncpg.QueryCanceledError):
            failed.append(row["name"])
    note = f"Databases without a size: {', '.join(failed[:5])}." if failed else ""
    return sizes, note


async def wal_bytes(conn: Any) -> int | None:
    """What WAL takes on the disk; None where the login may not look."""
    try:
        found: int | None = await conn.fetchval(_WAL)
    except asyncpg.InsufficientPrivilegeError:
        return None
    return found


async def read_catalog(conn: Any) -> Catalog:
    """Settings, those that wait for a restart, and invalid indexes of this database."""
    settings = await conn.fetch(SETTINGS_QUERY, list(SETTINGS))
    invalid = await conn.fetch(_INVALID)
    return Catalog(
        settings={row["name"]: row["setting"] for row in settings if row["name"] in SETTINGS},
        pending_restart=sum(row["pending_restart"] for row in settings),
        invalid_indexes=tuple(row["name"] for row in invalid),
    )
