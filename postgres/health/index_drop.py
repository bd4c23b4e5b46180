"""Which indexes may be dropped, what is said about it, and how they come back. Pure but for SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from postgres.errors import PostgresError
from postgres.health.index_nodes import TermsError
from postgres.health.index_terms import terms_of, written
from postgres.health.indexes import Counted

FIND: Final = """
    SELECT c.oid, i.indrelid AS table_oid, n.nspname AS schema, c.relname AS name,
           n.nspname || '.' || t.relname AS table_name,
           pg_get_indexdef(c.oid) AS definition, pg_is_in_recovery() AS is_standby,
           pg_has_role(current_user, c.relowner, 'USAGE') AS is_owner,
           i.indisreplident AS is_identity, i.indisexclusion AS is_exclusion,
           i.indisclustered AS is_clustered, c.relispartition OR c.relkind = 'I' AS is_partitioned,
           (SELECT string_agg(conname, ', ') FROM pg_constraint k WHERE k.conindid = c.oid)
               AS constraints,
           EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
                      AND d.objid = c.oid AND d.deptype = 'e') AS in_extension,
           EXISTS (SELECT FROM pg_stat_progress_create_index p WHERE p.index_relid = c.oid)
               AS is_being_built,
           n.nspname IN ('pg_catalog', 'information_schema') OR n.nspname ~ '^pg_t(oast|emp)'
               AS is_system,
           pg_relation_size(c.oid) AS size_bytes, pg_stat_get_numscans(c.oid) AS scans,
           greatest(s.stats_reset, b.stats_reset) AS since, clock_timestamp() AS now,
           (SELECT string_agg(k.conname, ', ') FROM pg_constraint k
             WHERE k.conrelid = i.indrelid AND k.contype = 'f'
               AND k.conkey <@ (i.indkey::int2[])[0:cardinality(k.conkey) - 1]) AS references
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_index i ON i.indexrelid = c.oid
      JOIN pg_class t ON t.oid = i.indrelid
      JOIN pg_stat_database s ON s.datname = current_database()
     CROSS JOIN pg_stat_bgwriter b
     WHERE n.nspname || '.' || c.relname = $1
"""

# All indexes of a table, the one in question among them.
SHAPES: Final = """
    SELECT c.oid, n.nspname || '.' || c.relname AS full_name, m.amname AS method,
           i.indkey::text AS columns, i.indclass::text AS classes,
           i.indcollation::text AS collations, i.indoption::text AS options,
           coalesce(pg_get_expr(i.indexprs, i.indrelid), '') AS expressions,
           coalesce(pg_get_expr(i.indpred, i.indrelid), '')  AS predicate,
           i.indisunique AS is_unique, i.indisvalid AS is_valid, i.indnkeyatts AS key_count,
           i.indnatts AS count
      FROM pg_index i
      JOIN pg_class c ON c.oid = i.indexrelid
      JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_am m ON m.oid = c.relam
     WHERE i.indrelid = $1
     ORDER BY 2
"""

_VECTORS: Final = ("columns", "classes", "collations", "options")
_SAME: Final = ("method", "columns", "classes", "collations", "options", "expressions",
                "predicate", "key_count")  # fmt: skip


def twin_of(row: Mapping[str, Any], siblings: Sequence[Mapping[str, Any]]) -> str | None:
    """The valid index of the table that is the same and at least as strict, or None."""
    for each in siblings:
        same = all(each[key] == row[key] for key in _SAME)
        if same and each["is_valid"] and (each["is_unique"] or not row["is_unique"]):
            return str(each["full_name"])
    return None


def wider_of(row: Mapping[str, Any], siblings: Sequence[Mapping[str, Any]]) -> str | None:
    """The valid B-tree of the table that begins with all that this one has, or None."""
    for each in siblings:
        if (
            each["is_valid"]
            and each["method"] == row["method"] == "btree"
            and each["predicate"] == row["predicate"]
            and not each["expressions"] + row["expressions"]
            and row["count"] == row["key_count"] < each["key_count"]
            and all(each[key].startswith(f"{row[key]} ") for key in _VECTORS)
        ):
            return str(each["full_name"])
    return None


def drop_objection(
    row: Mapping[str, Any], siblings: Sequence[Mapping[str, Any]]
) -> PostgresError | None:
    """Why an index must stay, or None; by a row of `FIND` and the shapes."""
    name = f"{row['schema']}.{row['name']}"
    twin = twin_of(row, siblings)
    alone = row["is_valid"] and not any(each["is_valid"] for each in siblings)
    reasons = (
        (row["is_standby"], "cannot be dropped: the server is a standby",
         "Point the database's entry in the inventory to its primary."),
        (row["is_system"], "is PostgreSQL's own, or temporary", "Name an index of yours."),
        (row["constraints"], f"backs the constraint {row['constraints']}",
         "Drop the constraint by a migration, if nobody needs it: that drops the index."),
        (row["is_exclusion"], "excludes rows", "Drop its constraint by a migration."),
        (row["is_identity"], "identifies the table's rows for logical replication",
         "Choose another REPLICA IDENTITY first, by a migration."),
        (row["is_partitioned"], "belongs to a partitioned index",
         "Drop the index of the parent by a migration: that drops those of all partitions."),
        (row["in_extension"], "belongs to an extension", "Leave it, or drop the extension."),
        (row["is_being_built"], "is being built just now",
         "Wait for it, or cancel the request that builds it."),
        (row["is_unique"] and row["is_valid"] and twin is None, "keeps values unique",
         "Leave it: without it, wrong rows could come in."),
        (alone, "is the only index of its table", "Leave it, or drop it by a migration."),
        (not row["is_owner"], "is not ours to drop: only its owner may",
         "GRANT the owner's role to our user."),
    )  # fmt: skip
    for holds, problem, next_step in reasons:
        if holds:
            return PostgresError(f"{name} {problem}.", next_step=next_step)
    return None


def drop_warnings(
    row: Mapping[str, Any],
    siblings: Sequence[Mapping[str, Any]],
    replicas: Sequence[Counted],
    silent: Sequence[str],
) -> list[str]:
    """What people should know before they agree."""
    if not row["is_valid"] or twin_of(row, siblings):
        return []
    if wider := wider_of(row, siblings):
        return [f"{wider} begins with the same columns and takes over; it is larger."]
    found: list[str] = []
    scans = row["scans"] + sum(each.scans.get(row["oid"], 0) for each in replicas)
    if scans:
        found.append(f"It was used {scans:,} times: statements that use it may get slow.")
    if silent:
        found.append(f"Nobody knows whether {', '.join(silent)} uses it.")
    if row["references"]:
        found.append(
            f"It serves the foreign key {row['references']}: without it, deleting what is"
            " referred to may read the whole table."
        )
    if row["is_clustered"]:
        found.append("CLUSTER orders the table by it.")
    return found


def recreation(definition: str) -> Mapping[str, str] | None:
    """What `create-index` is to be asked for the same index; None: it cannot say all of it."""
    try:
        terms = terms_of(definition)
    except TermsError:
        return None
    from pglast import parse_sql  # noqa: PLC0415 - a heavy import, for those who need it

    statement: Any = parse_sql(definition)[0].stmt
    return {
        "table": f"{statement.relation.schemaname}.{statement.relation.relname}",
        "name": statement.idxname,
        "method": terms.method,
        "unique": "yes" if terms.is_unique else "",
        **written(terms),
    }
