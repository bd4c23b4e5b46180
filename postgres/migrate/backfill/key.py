"""The key by which a backfill walks through a table, of any type and of several columns.

The server names and compares: identifiers are quoted by its `format()`, values travel as text
that is cast to the column's own type.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from postgres.errors import PostgresError

_TABLE: Final = """
    SELECT c.oid, c.relkind::text AS kind, format('%I.%I', n.nspname, c.relname) AS quoted,
           c.relkind <> 'p' AND EXISTS (SELECT FROM pg_inherits h WHERE h.inhparent = c.oid)
               AS has_children,
           pg_has_role(c.relowner, 'USAGE') AS is_ours,
           greatest(c.reltuples, 0)::bigint AS rows, c.relpages::bigint AS pages
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = $1 AND c.relname = $2
"""
# Dates are read as JSON writes them, which every DateStyle takes; other types as they write.
# Ascending, with the column's own collation and its type's own order, and no NULL: what ORDER BY
# and a row comparison without further words use. The primary key first, then the narrowest.
_KEYS: Final = """
    SELECT i.indexrelid::regclass::text AS index,
           array_agg(a.attname::text ORDER BY k.at)                     AS names,
           array_agg(quote_ident(a.attname) ORDER BY k.at)          AS quoted,
           array_agg(format_type(a.atttypid, -1) ORDER BY k.at)         AS types,
           array_agg(coalesce(nullif(t.typbasetype, 0), t.oid)
                     = ANY ('{date,timestamp,timestamptz}'::regtype[]) ORDER BY k.at) AS dates,
           array_agg(DISTINCT quote_ident(o.nspname))                   AS operators
      FROM pg_index i
      JOIN pg_class x ON x.oid = i.indexrelid
      JOIN pg_am am ON am.oid = x.relam AND am.amname = 'btree'
      CROSS JOIN LATERAL (SELECT ord AS at, i.indkey[ord - 1] AS attnum,
                                 i.indcollation[ord - 1] AS coll, i.indoption[ord - 1] AS option,
                                 i.indclass[ord - 1] AS class
                            FROM generate_series(1, i.indnkeyatts) AS ord) k
      LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum AND k.attnum > 0
      LEFT JOIN pg_type t ON t.oid = a.atttypid
      LEFT JOIN pg_opclass c ON c.oid = k.class
      LEFT JOIN pg_namespace o ON o.oid = c.opcnamespace
     WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indisready
       AND i.indpred IS NULL
     GROUP BY i.indexrelid, i.indisprimary, i.indnkeyatts
    HAVING bool_and(coalesce(a.attnotnull AND k.option = 0 AND k.coll = a.attcollation
                             AND c.opcdefault, false))
     ORDER BY i.indisprimary DESC, i.indnkeyatts, 1
     LIMIT 1
"""
_KINDS: Final = ("r", "p")
ALIAS: Final = "twokey_rows"


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """The columns of a unique key without NULL; `quoted`, `types` and `operators` by the server.

    `operators`: the schemas whose comparisons its index uses. `dates`: which need ISO text.
    """

    index: str
    names: tuple[str, ...]
    quoted: tuple[str, ...]
    types: tuple[str, ...]
    dates: tuple[bool, ...]
    operators: tuple[str, ...] = ()

    @property
    def columns(self) -> str:
        """For a row comparison."""
        return ", ".join(self.quoted)

    def order(self, direction: str = "") -> str:
        """For ORDER BY in a SELECT from `… AS {ALIAS}`.

        Never a bare name there: it would mean the result's column of that name, which is text.
        """
        return ", ".join(f"{ALIAS}.{name}{direction}" for name in self.quoted)

    @property
    def each_text(self) -> tuple[str, ...]:
        """Each column as text that its type reads back as the same value."""
        return tuple(
            f"to_jsonb({name}) #>> '{{}}'" if is_date else f"{name}::text"
            for name, is_date in zip(self.quoted, self.dates, strict=True)
        )

    @property
    def texts(self) -> str:
        """For SELECT."""
        return ", ".join(self.each_text)

    def compare(self, operator: str, first: int) -> str:
        """The key beside parameters from `first` on, which are text."""
        values = [f"${first + at}::text::{kind}" for at, kind in enumerate(self.types)]
        if len(values) == 1:
            return f"{self.quoted[0]} {operator} {values[0]}"
        return f"({self.columns}) {operator} ({', '.join(values)})"

    def within(self, *, has_start: bool, first: int = 1) -> str:
        """A condition: after the first values (if there are such), up to and with the next."""
        upper = self.compare("<=", first + (len(self.types) if has_start else 0))
        return f"{self.compare('>', first)} AND {upper}" if has_start else upper


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The table to walk through; `rows` and `pages` as of its last ANALYZE or VACUUM."""

    oid: int
    quoted: str
    key: Key
    is_ours: bool
    is_partitioned: bool
    rows: int
    pages: int


async def read_table(conn: Any, schema: str, name: str) -> Table:
    """The table and its key. The connection's `search_path` must be empty.

    Raises:
        PostgresError: there is none, or it cannot be walked through.
    """
    row = await conn.fetchrow(_TABLE, schema, name)
    if row is None or row["kind"] not in _KINDS:
        raise PostgresError(
            f"There is no table {schema}.{name}.",
            next_step="Write the table with its schema, as the database has it.",
        )
    if row["has_children"]:
        raise PostgresError(
            f"Other tables inherit from {schema}.{name}, and no key holds for all of them.",
            next_step="Backfill each of them alone, or make them partitions of one table.",
        )
    found = await conn.fetchrow(_KEYS, row["oid"])
    if found is None:
        raise PostgresError(
            f"{schema}.{name} has no primary key, and no unique index over columns that are NOT"
            " NULL: nothing says which rows are done.",
            next_step="Give it one first: CREATE UNIQUE INDEX CONCURRENTLY over columns that are"
            " NOT NULL, or a new identity column as the primary key.",
        )
    return Table(
        oid=row["oid"],
        quoted=row["quoted"],
        key=key_of(found),
        is_ours=row["is_ours"],
        is_partitioned=row["kind"] == "p",
        rows=row["rows"],
        pages=row["pages"],
    )


def key_of(row: Any) -> Key:
    """A key from a row of the catalog."""
    fields = ("names", "quoted", "types", "dates", "operators")
    return Key(index=row["index"], **{name: tuple(row[name]) for name in fields})


def interval_text(names: Sequence[str], after: Sequence[str] | None, upto: Sequence[str]) -> str:
    """Keys after one and up to another, for people."""
    key = names[0] if len(names) == 1 else f"({', '.join(names)})"
    since = "" if after is None else f" after {', '.join(after)}"
    return f"{key}{since} up to {', '.join(upto)}"
