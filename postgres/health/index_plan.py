"""What an index on a table would be and cost, before it is made: facts, objections, estimates.

The objections and the estimates are pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from postgres.errors import PostgresError
from postgres.health.index_nodes import Piece, TermsError
from postgres.health.index_terms import Terms, terms_of

MANY_INDEXES: Final = 10
MANY_KEYS: Final = 3
# Of an entry of a B-tree: its header, and the pointer to it. Pages are filled to 90 %.
_ENTRY_BYTES: Final = 8
_POINTER_BYTES: Final = 4
_FILL: Final = 0.9
_ALIGN: Final = 8
_WIDTH_UNKNOWN: Final = 16
# Rules of thumb for common disks: the table is read twice, the rows are sorted once.
_SCAN_BYTES_A_SECOND: Final = 100 * 1024 * 1024
_SORT_ROWS_A_SECOND: Final = 400_000

FIND_TABLE: Final = """
    SELECT c.oid, n.nspname AS schema, c.relname AS name, c.relkind::text AS kind,
           c.relpersistence::text AS persistence, pg_is_in_recovery() AS is_standby,
           pg_has_role(current_user, c.relowner, 'USAGE')   AS is_owner,
           has_schema_privilege(n.oid, 'CREATE')            AS may_create,
           has_table_privilege(c.oid, 'SELECT')             AS may_read,
           n.nspname IN ('pg_catalog', 'information_schema') OR n.nspname ~ '^pg_t(oast|emp)'
                                                            AS is_system,
           greatest(c.reltuples, 0)::bigint                 AS rows,
           pg_table_size(c.oid)                             AS size_bytes,
           (SELECT count(*) FROM pg_index i WHERE i.indrelid = c.oid) AS indexes,
           pg_stat_get_tuples_inserted(c.oid) + pg_stat_get_tuples_updated(c.oid)
             + pg_stat_get_tuples_deleted(c.oid)            AS writes,
           extract(epoch FROM clock_timestamp() - greatest(d.stats_reset, b.stats_reset))::float8
             / 86400                                        AS days
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_stat_database d ON d.datname = current_database()
     CROSS JOIN pg_stat_bgwriter b
     WHERE n.nspname || '.' || c.relname = $1
        OR (c.relname = $1 AND pg_table_is_visible(c.oid))
     ORDER BY n.nspname || '.' || c.relname = $1 DESC
     LIMIT 1
"""

COLUMNS: Final = """
    SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type,
           CASE WHEN a.attlen > 0 THEN a.attlen::int ELSE s.avg_width END AS width
      FROM pg_attribute a
      JOIN pg_class c ON c.oid = a.attrelid
      JOIN pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN pg_stats s ON s.schemaname = n.nspname AND s.tablename = c.relname
                          AND s.attname = a.attname AND NOT s.inherited
     WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
"""

EXISTING: Final = """
    SELECT n.nspname || '.' || c.relname AS name, pg_get_indexdef(c.oid) AS definition,
           i.indisvalid AS is_valid,
           EXISTS (SELECT FROM pg_stat_progress_create_index p WHERE p.index_relid = c.oid)
               AS is_being_built
      FROM pg_index i
      JOIN pg_class c ON c.oid = i.indexrelid
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE i.indrelid = $1
     ORDER BY 1
"""

IMMUTABLE: Final = """
    SELECT DISTINCT proname AS name FROM pg_proc
     WHERE pronamespace = 'pg_catalog'::regnamespace AND provolatile = 'i'
       AND proname = ANY($1::text[])
"""

OPCLASSES: Final = """
    SELECT o.opcname AS name, n.nspname AS schema
      FROM pg_opclass o
      JOIN pg_am m ON m.oid = o.opcmethod
      JOIN pg_namespace n ON n.oid = o.opcnamespace
     WHERE m.amname = $1 AND o.opcname = ANY($2::text[])
"""

NAME_TAKEN: Final = """
    SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                    WHERE n.nspname = $1 AND c.relname = $2) AS taken
"""

CHECK: Final = "EXPLAIN SELECT {chosen} FROM %I.%I"

_KINDS: Final[Mapping[str, str]] = {
    "v": "a view: index the tables that it reads",
    "f": "a foreign table: its rows are on another server",
    "i": "an index",
    "S": "a sequence",
    "c": "a type",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Existing:
    """An index that a table has already, by a row of `EXISTING`."""

    name: str
    definition: str
    is_valid: bool
    is_being_built: bool


def table_objection(table: Any) -> PostgresError | None:
    """Why no index can be made on it, or None; by a row of `FIND_TABLE`. Pure."""
    name = f"{table['schema']}.{table['name']}"
    if table["is_standby"]:
        return PostgresError(
            "The server is a standby, so no index can be made there.",
            next_step="Point the database's entry in the inventory to its primary.",
        )
    if table["is_system"]:
        return PostgresError(
            f"{name} is PostgreSQL's own, or temporary.", next_step="Name a table of yours."
        )
    if table["kind"] == "p":
        return PostgresError(
            f"{name} is partitioned, and PostgreSQL builds no index on it while it stays in use.",
            next_step="Ask for the index on each partition. Then, by a migration: CREATE INDEX ON"
            " ONLY the parent, and ALTER INDEX … ATTACH PARTITION for each.",
        )
    if table["kind"] not in {"r", "m"}:
        return PostgresError(
            f"{name} is {_KINDS.get(table['kind'], 'no table')}.", next_step="Name a table."
        )
    if not (table["is_owner"] and table["may_create"]):
        return PostgresError(
            f"Our user may not create an index on {name}: only its owner may, with the right to"
            " create in its schema.",
            next_step=f"GRANT the owner's role of {name} to our user, and CREATE on its schema.",
        )
    return None


def terms_objection(
    terms: Terms, columns: Mapping[str, Any], immutable: Sequence[str]
) -> PostgresError | None:
    """Why the terms do not fit the table, or None. `immutable`: functions that always agree."""
    if unknown := sorted(terms.columns - set(columns)):
        return PostgresError(
            f"The table has no column {', '.join(unknown)}.",
            next_step=f"It has: {', '.join(sorted(columns)[:20])}.",
        )
    if volatile := sorted(terms.functions - set(immutable)):
        return PostgresError(
            f"{', '.join(volatile)} is no immutable function of PostgreSQL's own, so an index"
            " cannot rely on it.",
            next_step="Take one that always gives the same for the same value, such as lower(x).",
        )
    if terms.include and terms.method not in {"btree", "gist"}:
        return PostgresError(
            f"A {terms.method} index includes no further columns.",
            next_step="Leave include empty, or take btree.",
        )
    if terms.is_unique and terms.method != "btree":
        return PostgresError(
            f"A {terms.method} index keeps nothing unique.", next_step="Take btree, or not unique."
        )
    return None


def overlap_objection(terms: Terms, existing: Sequence[Existing]) -> PostgresError | None:
    """The index that is the same already, or None. Pure."""
    for each in existing:
        known = _terms_or_none(each.definition)
        if known is None or not _covers(known, terms):
            continue
        if each.is_being_built:
            return PostgresError(
                f"{each.name} is the same, and is being built just now.",
                next_step="Wait for it, then look again with /db indexes.",
            )
        if not each.is_valid:
            return PostgresError(
                f"{each.name} is the same, but was left half-built.",
                next_step=f"Drop it first: /db drop-index … {each.name}",
            )
        return PostgresError(
            f"{each.name} is the same index already.", next_step="Nothing needs to be created."
        )
    return None


def overlap_warnings(terms: Terms, existing: Sequence[Existing]) -> list[str]:
    """What is said about indexes that begin alike. Pure."""
    warnings: list[str] = []
    for each in existing:
        known = _terms_or_none(each.definition)
        if known is None or not known.method == terms.method == "btree":
            continue
        if (known.where and known.where.plain) != (terms.where and terms.where.plain):
            continue
        short, long = sorted((known.keys, terms.keys), key=len)
        if len(short) == len(long) or [key.piece.plain for key in short] != [
            key.piece.plain for key in long[: len(short)]
        ]:
            continue
        if len(known.keys) > len(terms.keys):
            warnings.append(f"{each.name} begins with the same columns: it may serve already.")
        elif not known.is_unique:
            warnings.append(f"{each.name} will be redundant then: see /db indexes afterwards.")
    return warnings


def index_bytes(rows: int, widths: Sequence[int | None]) -> int:
    """About how large an index of so many rows is, without what deduplication saves. Pure."""
    width = sum(_WIDTH_UNKNOWN if each is None else each for each in widths)
    aligned = -(-(width + _ENTRY_BYTES) // _ALIGN) * _ALIGN
    return int(rows * (aligned + _POINTER_BYTES) / _FILL) + 8192


def build_seconds(rows: int, table_bytes: int) -> int:
    """About how long it takes when nothing holds it up: a rule of thumb, at least 1. Pure."""
    return 1 + int(2 * table_bytes / _SCAN_BYTES_A_SECOND + rows / _SORT_ROWS_A_SECOND)


def check_query(schema: str, table: str, terms: Terms) -> Piece | None:
    """An EXPLAIN that the server refuses when types or functions do not fit; None: plain columns.

    For `FORMAT`. Nothing is read.
    """
    parts = [key.piece for key in terms.keys if key.column is None]
    if terms.where is None and not parts:
        return None
    chosen = ", ".join(f"({piece.template})" for piece in parts) or "1"
    args = [arg for piece in parts for arg in piece.args] + [schema, table]
    template = CHECK.replace("{chosen}", chosen)
    if terms.where is not None:
        template += f" WHERE {terms.where.template}"
        args += terms.where.args
    return Piece(template=template, args=tuple(args))


def _covers(known: Terms, terms: Terms) -> bool:
    """Whether the known one does all that the other would."""
    if known.is_unique and not terms.is_unique:
        known = Terms(method=known.method, keys=known.keys, include=known.include,
                      where=known.where, is_unique=False)  # fmt: skip
    return known.canonical == terms.canonical


def _terms_or_none(definition: str) -> Terms | None:
    try:
        return terms_of(definition)
    except TermsError:
        return None
