"""The tables that statements name: how large, what is indexed, how often written, what we may read.

Only tables of the names asked for are looked at: a database may have ten thousand others.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from postgres.health.explain import OWN_FUNCTIONS, Session

TABLES_MAX: Final = 1000

# Statistics begin at a reset, and anew after a crash: then only pg_stat_bgwriter says so.
COUNTED_SINCE: Final = """
    SELECT greatest(d.stats_reset, b.stats_reset) AS since, clock_timestamp() AS now
      FROM pg_stat_database d, pg_stat_bgwriter b
     WHERE d.datname = current_database()
"""

TABLES: Final = """
    SELECT c.oid, n.nspname AS schema, c.relname AS name, c.relkind::text AS kind,
           c.reltuples::float8                     AS rows,
           pg_table_is_visible(c.oid)              AS is_visible,
           has_table_privilege(c.oid, 'SELECT')    AS may_read,
           pg_stat_get_tuples_inserted(c.oid) + pg_stat_get_tuples_updated(c.oid)
             + pg_stat_get_tuples_deleted(c.oid)   AS writes,
           pg_stat_get_tuples_updated(c.oid)       AS updates,
           pg_stat_get_tuples_hot_updated(c.oid)   AS hot_updates
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relname = ANY($1::text[]) AND c.relkind IN ('r', 'p', 'm', 'v', 'f')
       AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_t(oast|emp)'
       AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
                          AND d.objid = c.oid AND d.deptype = 'e')
     ORDER BY c.oid
     LIMIT $2
"""

COLUMNS: Final = """
    SELECT a.attrelid AS table_oid, a.attname AS name, b.typname AS type,
           format('%I.%I', tn.nspname, t.typname) AS cast_to,
           s.n_distinct::float8 AS n_distinct
      FROM pg_attribute a
      JOIN pg_class c ON c.oid = a.attrelid
      JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_type t ON t.oid = a.atttypid
      JOIN pg_type b ON b.oid = CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.oid END
      JOIN pg_namespace tn ON tn.oid = t.typnamespace
      LEFT JOIN pg_stats s ON s.schemaname = n.nspname AND s.tablename = c.relname
                          AND s.attname = a.attname AND NOT s.inherited
     WHERE a.attrelid = ANY($1::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
"""

# Also those that are unique: what an index of theirs begins with needs no other.
INDEXED: Final = """
    SELECT i.indrelid AS table_oid,
           array_agg(a.attname::text ORDER BY k.place) AS columns
      FROM pg_index i
     CROSS JOIN unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
      JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
      JOIN pg_class c ON c.oid = i.indexrelid
      JOIN pg_am m ON m.oid = c.relam AND m.amname = 'btree'
     WHERE i.indrelid = ANY($1::oid[]) AND i.indisvalid AND i.indpred IS NULL
       AND i.indexprs IS NULL AND k.place <= i.indnkeyatts
     GROUP BY i.indexrelid, i.indrelid
"""

# A btree of these types says nothing that a statement asks.
_NOT_BTREE: Final = frozenset(
    {"json", "jsonb", "xml", "bytea", "point", "box", "polygon", "circle", "line", "lseg", "path",
     "tsvector", "tsquery", "geometry", "geography", "hstore", "vector"}
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class TableColumn:
    """A column. `distinct`: how many values it has; None: not analyzed, or not for us to see."""

    name: str
    cast_to: str  # its type, quoted by the server
    distinct: float | None
    has_btree: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvisedTable:
    """A table; `rows` below 0: it was never analyzed. Writes are since `Catalog.since`."""

    oid: int
    schema: str
    name: str
    kind: str
    rows: float
    is_visible: bool
    may_read: bool
    writes: int
    updates: int
    hot_updates: int
    columns: Mapping[str, TableColumn]
    indexed: tuple[tuple[str, ...], ...]

    @property
    def text(self) -> str:
        """The table, for people."""
        return f"{self.schema}.{self.name}"

    @property
    def is_analyzed(self) -> bool:
        """Whether anything is known of its columns."""
        return any(column.distinct is not None for column in self.columns.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """All tables that were asked for, and since when their writes are counted."""

    tables: tuple[AdvisedTable, ...]
    since: datetime | None
    now: datetime
    own_functions: frozenset[str]

    def find(self, schema: str | None, name: str) -> AdvisedTable | None:
        """The table that a statement means; without a schema, the one that is meant if any is."""
        named = [table for table in self.tables if table.name == name]
        if schema is not None:
            return next((table for table in named if table.schema == schema), None)
        visible = [table for table in named if table.is_visible]
        if visible:
            return visible[0]
        return named[0] if len(named) == 1 else None


async def read_catalog(
    session: Session, names: Collection[str], functions: Collection[str]
) -> Catalog:
    """The tables of these names, whatever their schema."""
    tables = await session.fetch(TABLES, sorted(names), TABLES_MAX)
    oids = [row["oid"] for row in tables]
    columns: dict[int, dict[str, TableColumn]] = {}
    rows_of = {row["oid"]: row["rows"] for row in tables}
    for row in await session.fetch(COLUMNS, oids):
        column = _column(row, rows_of[row["table_oid"]])
        columns.setdefault(row["table_oid"], {})[column.name] = column
    indexed: dict[int, list[tuple[str, ...]]] = {}
    for row in await session.fetch(INDEXED, oids):
        indexed.setdefault(row["table_oid"], []).append(tuple(row["columns"]))
    counted = (await session.fetch(COUNTED_SINCE))[0]
    own = await session.fetch(OWN_FUNCTIONS, sorted(functions))
    return Catalog(
        tables=tuple(
            AdvisedTable(
                **row,
                columns=MappingProxyType(columns.get(row["oid"], {})),
                indexed=tuple(indexed.get(row["oid"], ())),
            )
            for row in tables
        ),
        since=counted["since"],
        now=counted["now"],
        own_functions=frozenset(row["name"] for row in own),
    )


def _column(row: Mapping[str, Any], rows: float) -> TableColumn:
    distinct = row["n_distinct"]
    if distinct is not None and distinct < 0:  # a share of the rows
        distinct = -distinct * max(rows, 0)
    return TableColumn(
        name=row["name"],
        cast_to=row["cast_to"],
        distinct=distinct,
        has_btree=row["type"] not in _NOT_BTREE and not str(row["type"]).startswith("_"),
    )
