"""Asking a target's catalog about what files of SQL name: two queries, whatever their number."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol, TypeAlias

from postgres.errors import PostgresError
from postgres.migrate.review.dispatch import judge
from postgres.migrate.review.effects import Scene
from postgres.migrate.review.facts import (
    NO_PAST,
    Column,
    Facts,
    FunctionFacts,
    Past,
    TableConstraint,
    TableFacts,
    TypeFacts,
)
from postgres.migrate.review.nodes import kind_of, of_kind, parts
from postgres.migrate.review.split import Piece, parse

NAMES_MAX: Final = 5_000
_DOTTED: Final = 2


_File: TypeAlias = tuple[str, tuple[Piece, ...]]


class CatalogSession(Protocol):
    """One connection that reads, such as asyncpg's or `jobs.operation.Session`."""

    async def fetch(self, query: str, *args: object) -> Any:
        """All rows."""
        ...


# A name without a schema is looked for where the session would find it, first come first
# served; a schema that the login may not use is not on its path. An index stands for its table;
# a table brings its partitions or heirs (their sizes are its own), its parents, and the tables on
# the other side of its foreign keys. No right on a table is needed: sizes are everybody's.
_TABLES: Final = """
    WITH RECURSIVE wanted AS (
        SELECT DISTINCT w.schema, w.name FROM unnest($1::text[], $2::text[]) AS w(schema, name)
    ), path AS (
        SELECT p.schema::text AS schema, p.at
          FROM unnest(current_schemas(true)) WITH ORDINALITY AS p(schema, at)
    ), named AS (
        SELECT DISTINCT ON (w.schema, w.name) c.oid, c.relkind
          FROM wanted w
          JOIN pg_class c      ON c.relname = w.name
          JOIN pg_namespace n  ON n.oid = c.relnamespace
          LEFT JOIN path p     ON p.schema = n.nspname
         WHERE c.relkind IN ('r', 'p', 'm', 'v', 'f', 'i', 'I', 'S', 't')
           AND (n.nspname = w.schema OR (w.schema = '' AND p.at IS NOT NULL))
         ORDER BY w.schema, w.name, p.at
    ), whole AS (
        SELECT c.oid
          FROM wanted w
          JOIN pg_namespace n ON n.nspname = w.name AND w.schema = '*'
          JOIN pg_class c     ON c.relnamespace = n.oid AND c.relkind IN ('r', 'p', 'm')
    ), first AS (
        SELECT DISTINCT coalesce(i.indrelid, d.oid) AS oid
          FROM named d
          LEFT JOIN pg_index i ON i.indexrelid = d.oid
         UNION
        SELECT oid FROM whole
    ), near AS (
        SELECT oid FROM first
         UNION
        SELECT h.inhparent FROM first f JOIN pg_inherits h ON h.inhrelid = f.oid
         UNION
        SELECT h.inhrelid  FROM first f JOIN pg_inherits h ON h.inhparent = f.oid
         UNION
        SELECT k.confrelid FROM first f JOIN pg_constraint k ON k.conrelid = f.oid
         WHERE k.contype = 'f'
         UNION
        SELECT k.conrelid  FROM first f JOIN pg_constraint k ON k.confrelid = f.oid
         WHERE k.contype = 'f'
    ), tree AS (
        SELECT oid AS root, oid FROM near
         UNION
        SELECT t.root, h.inhrelid FROM tree t JOIN pg_inherits h ON h.inhparent = t.oid
    ), sums AS (
        SELECT t.root,
               sum(CASE WHEN c.relkind IN ('r', 'm', 't') THEN pg_table_size(c.oid) END)
                   AS size_bytes,
               sum(CASE WHEN c.relkind IN ('r', 'm') THEN pg_indexes_size(c.oid) END)
                   AS index_bytes,
               -- Never counted: -1 since 14, 0 pages before. The statistics may know better.
               sum(CASE WHEN c.relkind NOT IN ('r', 'm') THEN 0
                        WHEN c.reltuples > 0 THEN c.reltuples
                        WHEN c.relpages > 0 AND c.reltuples = 0 THEN 0
                        ELSE pg_stat_get_live_tuples(c.oid) END) AS counted,
               bool_or(c.relkind IN ('r', 'm') AND c.reltuples <= 0 AND c.relpages = 0
                       AND pg_stat_get_live_tuples(c.oid) = 0
                       AND pg_relation_size(c.oid) > 0) AS is_uncounted
          FROM tree t JOIN pg_class c ON c.oid = t.oid
         GROUP BY t.root
    )
    SELECT c.oid::bigint AS oid, n.nspname AS schema, c.relname AS name,
           c.relkind::text AS kind,
           coalesce(s.size_bytes, 0)::bigint  AS size_bytes,
           coalesce(s.index_bytes, 0)::bigint AS index_bytes,
           CASE WHEN NOT coalesce(s.is_uncounted, false) THEN s.counted::bigint END AS counted,
           EXISTS (SELECT FROM first f WHERE f.oid = c.oid) AS is_named,
           c.relhasrules AND c.relkind IN ('r', 'p') AS has_rules,
           -- Since 18 a column may be NOT NULL for new rows alone, by a constraint not validated.
           (SELECT json_agg(json_build_array(
                       a.attname,
                       CASE WHEN tn.nspname = 'pg_catalog' THEN t.typname
                            ELSE tn.nspname || '.' || t.typname END,
                       a.atttypmod,
                       a.attnotnull AND NOT EXISTS (
                           SELECT FROM pg_constraint k
                            WHERE k.conrelid = a.attrelid AND k.contype = 'n'
                              AND NOT k.convalidated AND a.attnum = ANY (k.conkey)),
                       a.atthasdef) ORDER BY a.attnum)
              FROM pg_attribute a
              JOIN pg_type t       ON t.oid = a.atttypid
              JOIN pg_namespace tn ON tn.oid = t.typnamespace
             WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)::text AS columns,
           (SELECT json_agg(json_build_array(
                       k.conname, k.contype,
                       (SELECT json_agg(a.attname ORDER BY a.attnum) FROM pg_attribute a
                         WHERE a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey)),
                       CASE WHEN k.confrelid <> 0 THEN (
                           SELECT rn.nspname || '.' || r.relname
                             FROM pg_class r JOIN pg_namespace rn ON rn.oid = r.relnamespace
                            WHERE r.oid = k.confrelid) END,
                       k.convalidated,
                       CASE WHEN k.contype IN ('c', 'n') AND cardinality(k.conkey) = 1 THEN (
                           SELECT a.attname FROM pg_attribute a
                            WHERE a.attrelid = k.conrelid AND a.attnum = k.conkey[1]
                              AND (k.contype = 'n' OR pg_get_expr(k.conbin, k.conrelid)
                                   = format('(%I IS NOT NULL)', a.attname))) END)
                       ORDER BY k.conname)
              FROM pg_constraint k
             WHERE k.conrelid = c.oid AND k.contype IN ('c', 'f', 'n', 'p', 'u', 'x'))::text
               AS constraints,
           (SELECT json_agg(DISTINCT rn.nspname || '.' || r.relname)
              FROM pg_constraint k
              JOIN pg_class r      ON r.oid = k.conrelid
              JOIN pg_namespace rn ON rn.oid = r.relnamespace
             WHERE k.confrelid = c.oid AND k.contype = 'f')::text AS referenced_by,
           (SELECT json_agg(g.tgname ORDER BY g.tgname) FROM pg_trigger g
             WHERE g.tgrelid = c.oid AND NOT g.tgisinternal)::text AS triggers,
           (SELECT json_agg(json_build_array(ic.relname, i.indnkeyatts, (
                       SELECT json_agg(coalesce(a.attname, '') ORDER BY x.at)
                         FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS x(attnum, at)
                         LEFT JOIN pg_attribute a
                           ON a.attrelid = i.indrelid AND a.attnum = x.attnum AND x.attnum > 0),
                       i.indpred IS NOT NULL, xn.nspname))
              FROM pg_index i
              JOIN pg_class ic     ON ic.oid = i.indexrelid
              JOIN pg_namespace xn ON xn.oid = ic.relnamespace
             WHERE i.indrelid = c.oid)::text AS indexes,
           (SELECT json_agg(pn.nspname || '.' || p.relname)
              FROM pg_inherits h
              JOIN pg_class p      ON p.oid = h.inhparent
              JOIN pg_namespace pn ON pn.oid = p.relnamespace
             WHERE h.inhrelid = c.oid)::text AS parents,
           (SELECT json_agg(en.nspname || '.' || e.relname)
              FROM tree t
              JOIN pg_class e      ON e.oid = t.oid
              JOIN pg_namespace en ON en.oid = e.relnamespace
             WHERE t.root = c.oid AND t.oid <> c.oid)::text AS children,
           (SELECT dn.nspname || '.' || d.relname
              FROM pg_partitioned_table pt
              JOIN pg_class d      ON d.oid = pt.partdefid
              JOIN pg_namespace dn ON dn.oid = d.relnamespace
             WHERE pt.partrelid = c.oid) AS default_partition,
           current_schemas(false)::text[] AS search_path
      FROM near x
      JOIN pg_class c     ON c.oid = x.oid
      JOIN pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN sums s    ON s.root = c.oid
"""

# Every function and every type of these names, in whatever schema: which of them a call means
# depends on its arguments, so the worst of them counts.
_CALLS: Final = """
    SELECT 'function' AS what, p.proname AS name,
           max(CASE WHEN n.nspname = 'pg_catalog' AND e.extname IS NULL
                    THEN CASE p.provolatile WHEN 'v' THEN 3 WHEN 's' THEN 2 ELSE 1 END
               END) AS worst,
           coalesce(array_agg(DISTINCT e.extname::text) FILTER (WHERE e.extname IS NOT NULL),
                    '{}') AS extensions,
           bool_or(n.nspname <> 'pg_catalog' AND e.extname IS NULL) AS is_other
      FROM pg_proc p
      JOIN pg_namespace n   ON n.oid = p.pronamespace
      LEFT JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid
                           AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
      LEFT JOIN pg_extension e ON e.oid = d.refobjid
     WHERE p.proname = ANY ($1::text[])
     GROUP BY p.proname
     UNION ALL
    SELECT 'type', t.typname,
           max(CASE t.typtype WHEN 'd' THEN 3 WHEN 'c' THEN 2 ELSE 1 END), '{}',
           bool_or(t.typtype = 'd' AND (
               t.typnotnull OR EXISTS (SELECT FROM pg_constraint k WHERE k.contypid = t.oid)
               -- A domain over a domain: the one below may check.
               OR EXISTS (SELECT FROM pg_type b WHERE b.oid = t.typbasetype
                             AND b.typtype = 'd')))
      FROM pg_type t
     WHERE t.typname = ANY ($2::text[])
     GROUP BY t.typname
"""
_PATH: Final = "SELECT current_schemas(false)::text[] AS search_path"
_VOLATILITY: Final[Mapping[int | None, str]] = {None: "", 1: "i", 2: "s", 3: "v"}
_TYPE_KIND: Final[Mapping[int, str]] = {1: "b", 2: "c", 3: "d"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What SQL names: relations as (schema or '', name), functions and types without schema.

    A schema whose every table is meant stands as ('*', schema).
    """

    relations: frozenset[tuple[str, str]]
    functions: frozenset[str]
    types: frozenset[str]


async def read_facts(session: CatalogSession, sqls: Sequence[str]) -> Facts:
    """What the catalog knows of everything that these files name, in one look.

    Things that are not there are simply left out: an earlier file may make them. Needs no
    right on a table; sizes wait while somebody holds a table exclusively.

    Raises:
        PostgresError: a file is no SQL, or they name more than we look up.
    """
    files = await asyncio.to_thread(_parsed, sqls)
    names = await asyncio.to_thread(names_in, files)
    count = len(names.relations) + len(names.functions) + len(names.types)
    if count > NAMES_MAX:
        raise PostgresError(
            f"These files name {count:,} things; we look up {NAMES_MAX:,}.",
            next_step="Apply fewer of them at a time.",
        )
    relations = sorted(names.relations)
    tables = await session.fetch(
        _TABLES, [schema for schema, _ in relations], [name for _, name in relations]
    )
    path = tables[0] if tables else (await session.fetch(_PATH))[0]
    calls = await session.fetch(_CALLS, sorted(names.functions), sorted(names.types))
    facts = facts_of(tables, calls, search_path=tuple(path["search_path"]))
    return await asyncio.to_thread(_with_pasts, facts, files)


def with_pasts(facts: Facts, sqls: Sequence[str]) -> Facts:
    """Facts that know what each of the files finds when those before it have run. Pure.

    Raises:
        PostgresError: a file is no SQL.
    """
    return _with_pasts(facts, _parsed(sqls))


def _parsed(sqls: Sequence[str]) -> list[_File]:
    return [(sql, parse(sql)) for sql in sqls]


def _with_pasts(facts: Facts, files: Sequence[_File]) -> Facts:
    pasts: dict[str, Past] = {}
    past = NO_PAST
    for sql, pieces in files:
        pasts.setdefault(sql, past)
        scene = Scene(facts=facts, major=0, past=past)
        for piece in pieces:
            scene = scene.after(judge(piece.tree, scene))
        past = scene.past
    return replace(facts, pasts=pasts)


def names_in(files: Iterable[_File]) -> Names:
    """The names in these files, each with its statements. Pure."""
    relations: set[tuple[str, str]] = set()
    functions: set[str] = set()
    types: set[str] = set()
    for piece in (piece for _, pieces in files for piece in pieces):
        tree = piece.tree
        relations |= {(e.schemaname or "", e.relname) for e in of_kind(tree, "RangeVar")}
        functions |= {parts(e.funcname)[-1] for e in of_kind(tree, "FuncCall")}
        types |= {parts(e)[-1] for e in of_kind(tree, "TypeName") if parts(e)}
        relations |= _objects(tree)
        if kind_of(tree) == "CreateFunctionStmt":
            functions.add(parts(tree.funcname)[-1])
    return Names(
        relations=frozenset(relations), functions=frozenset(functions), types=frozenset(types)
    )


def facts_of(
    tables: Sequence[Mapping[str, Any]],
    calls: Sequence[Mapping[str, Any]],
    *,
    search_path: tuple[str, ...],
) -> Facts:
    """The rows of both queries as facts. Pure."""
    found = [_table(row) for row in tables]
    indexes = {
        f"{index[4]}.{index[0]}": table.name
        for row, table in zip(tables, found, strict=True)
        for index in _json(row["indexes"])
    }
    return Facts(
        search_path=search_path,
        tables={table.name: table for table in found},
        indexes=indexes,
        functions={r["name"]: _function(r) for r in calls if r["what"] == "function"},
        types={r["name"]: _type(r) for r in calls if r["what"] == "type"},
        is_read=True,
    )


def _table(row: Mapping[str, Any]) -> TableFacts:
    columns = [
        Column(name=c[0], type_name=c[1], typmod=c[2], is_not_null=c[3], has_default=c[4])
        for c in _json(row["columns"])
    ]
    constraints = tuple(
        TableConstraint(
            name=k[0],
            kind=k[1],
            columns=tuple(k[2] or ()),
            references=k[3] or "",
            is_valid=bool(k[4]),
            not_null=k[5] or "",
        )
        for k in _json(row["constraints"])
    )
    return TableFacts(
        name=f"{row['schema']}.{row['name']}",
        kind=row["kind"],
        size_bytes=int(row["size_bytes"]),
        index_bytes=int(row["index_bytes"]),
        rows=None if row["counted"] is None else int(row["counted"]),
        columns={column.name: column for column in columns},
        constraints=constraints,
        referenced_by=tuple(_json(row["referenced_by"])),
        triggers=tuple(_json(row["triggers"])),
        has_rules=bool(row["has_rules"]),
        index_columns={index[0]: tuple(index[2] or ()) for index in _json(row["indexes"])},
        parents=tuple(_json(row["parents"])),
        children=tuple(_json(row["children"])),
        default_partition=row["default_partition"] or "",
    )


def _function(row: Mapping[str, Any]) -> FunctionFacts:
    return FunctionFacts(
        name=row["name"],
        catalog=_VOLATILITY[row["worst"]],
        extensions=frozenset(row["extensions"]),
        is_made_by_people=bool(row["is_other"]),
    )


def _type(row: Mapping[str, Any]) -> TypeFacts:
    return TypeFacts(
        name=row["name"], kind=_TYPE_KIND[row["worst"]], is_checked=bool(row["is_other"])
    )


def _objects(tree: Any) -> set[tuple[str, str]]:
    """Relations that stand in a statement as bare lists of names."""
    match kind_of(tree):
        case "DropStmt":
            kind, names = tree.removeType.name, [parts(each) for each in tree.objects]
            if kind == "OBJECT_SCHEMA":
                return {("*", name[-1]) for name in names}
            if kind in {"OBJECT_TRIGGER", "OBJECT_POLICY", "OBJECT_RULE"}:
                names = [name[:-1] for name in names]
            return {_pair(name) for name in names if name}
        case "CommentStmt" | "SecLabelStmt":
            name = parts(tree.object)
            return {_pair(each) for each in (name, name[:-1]) if each}
        case _:
            return set()


def _pair(name: tuple[str, ...]) -> tuple[str, str]:
    return (name[-_DOTTED], name[-1]) if len(name) >= _DOTTED else ("", name[-1])


def _json(text: str | None) -> Sequence[Any]:
    return json.loads(text) if text else ()
