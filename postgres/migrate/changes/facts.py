"""What the catalog says of a table that is to be changed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Protocol


class Session(Protocol):
    """A connection that fetches, such as asyncpg's or `jobs.operation.Session`."""

    async def fetch(self, query: str, *args: object) -> Sequence[Mapping[str, Any]]:
        """All rows."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column. `type` is PostgreSQL's own text; `default` an expression, or None."""

    name: str
    type: str
    not_null: bool = False
    default: str | None = None
    is_generated: bool = False
    is_identity: bool = False
    collation: str = ""
    has_grants: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """An index or constraint on some columns, as the catalog defines it.

    `kind`: `index`, or pg_constraint's letter: c, f, p, u, x. `is_other`: a foreign key of
    another table that points here.
    """

    kind: str
    name: str
    definition: str
    columns: frozenset[str]
    is_other: bool = False
    is_valid: bool = True
    is_unique: bool = False
    is_replica_identity: bool = False
    index: str = ""  # of a unique constraint: what its index is called, and how it is defined
    index_definition: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependant:
    """Something else that needs a column, in PostgreSQL's words."""

    column: str
    text: str
    schema: str = ""  # of a view


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """A trigger of the table. `state` is pg_trigger's: O, D, R or A."""

    name: str
    state: str
    is_before_row: bool
    function_schema: str
    body_md5: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """A table. `key`: the columns of its primary key; `grants`: SQL words by grantee.

    `others_in`: how many other relations stand in each schema that was asked about; a schema
    that does not exist is not in it. `volatile`: functions that were asked about and give
    another value each time, or do not exist.
    """

    oid: int
    major: int
    kind: str = "r"
    persistence: str = "p"
    is_partition: bool = False
    family: tuple[str, ...] = ()
    is_ours: bool = True
    owner: str = ""
    may_create: bool = True
    has_policies: bool = False
    strings_conform: bool = True
    columns: Mapping[str, Column] = field(default_factory=dict)
    key: tuple[str, ...] = ()
    attached: tuple[Attached, ...] = ()
    dependants: tuple[Dependant, ...] = ()
    triggers: tuple[Trigger, ...] = ()
    publications: tuple[str, ...] = ()
    grants: Mapping[str, str] = field(default_factory=dict)
    rows: int = 0
    size_bytes: int = 0
    others_in: Mapping[str, int] = field(default_factory=dict)
    views_there: frozenset[str] = frozenset()
    volatile: tuple[str, ...] = ()

    def trigger(self, name: str) -> Trigger | None:
        """The trigger of this name."""
        return next((each for each in self.triggers if each.name == name), None)


# jsonb throughout: one round trip, and a session that only fetches can run it.
READ: Final = """
    SELECT c.oid::bigint                                       AS oid,
           current_setting('server_version_num')::int / 10000  AS major,
           c.relkind::text                                     AS kind,
           c.relpersistence::text                              AS persistence,
           c.relispartition                                    AS is_partition,
           pg_has_role(c.relowner, 'USAGE')                    AS is_ours,
           pg_get_userbyid(c.relowner)::text                   AS owner,
           has_database_privilege(current_database(), 'CREATE') AS may_create,
           c.relrowsecurity                                    AS has_policies,
           current_setting('standard_conforming_strings') = 'on' AS strings_conform,
           greatest(c.reltuples, 0)::bigint                    AS rows,
           pg_table_size(c.oid)                                AS size_bytes,
           ARRAY(SELECT i.inhparent::regclass::text FROM pg_inherits i WHERE i.inhrelid = c.oid
                  UNION ALL
                 SELECT i.inhrelid::regclass::text FROM pg_inherits i WHERE i.inhparent = c.oid)
                                                               AS family,
           ARRAY(SELECT a.attname::text
                   FROM pg_index i, unnest(i.indkey::int2[]) WITH ORDINALITY AS k(num, pos)
                   JOIN pg_attribute a ON a.attnum = k.num
                  WHERE i.indrelid = c.oid AND i.indisprimary AND a.attrelid = c.oid
                  ORDER BY k.pos)                              AS key,
           (SELECT jsonb_agg(jsonb_build_object(
                     'name', a.attname, 'type', format_type(a.atttypid, a.atttypmod),
                     'not_null', a.attnotnull,
                     'default', CASE WHEN a.attgenerated = ''
                                     THEN pg_get_expr(d.adbin, d.adrelid) END,
                     'is_generated', a.attgenerated <> '', 'is_identity', a.attidentity <> '',
                     'has_grants', a.attacl IS NOT NULL,
                     'collation', CASE WHEN a.attcollation <> t.typcollation
                                       THEN (SELECT format('%I.%I', cn.nspname, co.collname)
                                               FROM pg_collation co
                                               JOIN pg_namespace cn ON cn.oid = co.collnamespace
                                              WHERE co.oid = a.attcollation) ELSE '' END)
                     ORDER BY a.attnum)
              FROM pg_attribute a
              JOIN pg_type t         ON t.oid = a.atttypid
              LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
             WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns,
           (SELECT jsonb_agg(jsonb_build_object(
                     'name', t.tgname, 'state', t.tgenabled,
                     'is_before_row', t.tgtype & 3 = 3, 'function_schema', n.nspname,
                     'body_md5', md5(p.prosrc)))
              FROM pg_trigger t
              JOIN pg_proc p      ON p.oid = t.tgfoid
              JOIN pg_namespace n ON n.oid = p.pronamespace
             WHERE t.tgrelid = c.oid AND NOT t.tgisinternal)   AS triggers,
           ARRAY(SELECT p.pubname::text FROM pg_publication_tables p
                  WHERE p.schemaname = $1 AND p.tablename = $2) AS publications,
           (SELECT jsonb_object_agg(g.who, g.what)
              FROM (SELECT CASE WHEN x.grantee = 0 THEN 'PUBLIC'
                                ELSE format('%I', pg_get_userbyid(x.grantee)) END AS who,
                           string_agg(x.privilege_type, ', ' ORDER BY x.privilege_type) AS what
                      FROM aclexplode(c.relacl) x
                     WHERE x.privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
                       AND x.grantee <> c.relowner
                     GROUP BY 1) g)                            AS grants,
           (SELECT jsonb_object_agg(s.nspname,
                     (SELECT count(*) FROM pg_class o WHERE o.relnamespace = s.oid
                         AND o.relkind IN ('r', 'v', 'm', 'f', 'p', 'S') AND o.relname <> $2))
              FROM pg_namespace s WHERE s.nspname = ANY ($3::text[])) AS others_in,
           ARRAY(SELECT s.nspname::text FROM pg_class v
                   JOIN pg_namespace s ON s.oid = v.relnamespace
                  WHERE s.nspname = ANY ($3::text[]) AND v.relname = $2) AS views_there,
           ARRAY(SELECT f.name FROM unnest($4::text[]) AS f(name)
                  WHERE NOT EXISTS (SELECT FROM pg_proc p
                                      JOIN pg_namespace n ON n.oid = p.pronamespace
                                     WHERE n.nspname || '.' || p.proname = f.name
                                       AND p.provolatile <> 'v'
                                       AND n.nspname NOT LIKE 'twokey%')) AS volatile
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = $1 AND c.relname = $2
"""
# Indexes that no constraint owns, then constraints. Columns of expressions come from pg_depend.
ATTACHED: Final = """
    SELECT 'index' AS kind, c.relname::text AS name, pg_get_indexdef(i.indexrelid) AS definition,
           ARRAY(SELECT DISTINCT a.attname::text
                   FROM pg_depend d
                   JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
                  WHERE d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid
                    AND d.refclassid = 'pg_class'::regclass AND d.refobjid = i.indrelid
                    AND d.refobjsubid > 0) AS columns,
           false AS is_other, i.indisvalid AS is_valid, i.indisunique AS is_unique,
           i.indisreplident AS is_replica_identity, '' AS index, '' AS index_definition
      FROM pg_index i
      JOIN pg_class c ON c.oid = i.indexrelid
     WHERE i.indrelid = $1::bigint::oid
       AND NOT EXISTS (SELECT FROM pg_constraint o
                        WHERE o.conindid = i.indexrelid AND o.contype IN ('p', 'u', 'x'))
     UNION ALL
    SELECT o.contype::text, o.conname::text, pg_get_constraintdef(o.oid),
           ARRAY(SELECT a.attname::text FROM pg_attribute a
                  WHERE a.attrelid = $1::bigint::oid
                    AND a.attnum = ANY (CASE WHEN o.conrelid = $1::bigint::oid
                                             THEN o.conkey ELSE o.confkey END)),
           o.conrelid <> $1::bigint::oid, o.convalidated, o.contype IN ('p', 'u'),
           coalesce(i.indisreplident, false), coalesce(c.relname::text, ''),
           coalesce(pg_get_indexdef(i.indexrelid), '')
      FROM pg_constraint o
      LEFT JOIN pg_index i ON i.indexrelid = o.conindid AND o.contype IN ('p', 'u', 'x')
      LEFT JOIN pg_class c ON c.oid = i.indexrelid
     WHERE (o.conrelid = $1::bigint::oid OR (o.confrelid = $1::bigint::oid AND o.contype = 'f'))
       AND o.contype IN ('c', 'f', 'p', 'u', 'x')
     ORDER BY 1, 2
"""
# Whatever else the catalog knows to need a column: views, policies, generated columns,
# triggers, statistics, sequences, functions with a parsed body, publications' column lists.
DEPENDANTS: Final = """
    SELECT DISTINCT a.attname::text AS "column",
           pg_describe_object(d.classid, d.objid, d.objsubid) AS text,
           coalesce((SELECT n.nspname::text FROM pg_rewrite r
                       JOIN pg_class v     ON v.oid = r.ev_class
                       JOIN pg_namespace n ON n.oid = v.relnamespace
                      WHERE d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid), '') AS schema
      FROM pg_depend d
      JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
     WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = $1::bigint::oid
       AND d.refobjsubid > 0
       AND d.classid <> 'pg_constraint'::regclass
       AND NOT (d.classid = 'pg_class'::regclass
                AND d.objid IN (SELECT indexrelid FROM pg_index WHERE indrelid = $1::bigint::oid))
       AND NOT (d.classid = 'pg_attrdef'::regclass
                AND EXISTS (SELECT FROM pg_attrdef f WHERE f.oid = d.objid
                               AND f.adrelid = d.refobjid AND f.adnum = d.refobjsubid))
       AND NOT (d.classid = 'pg_trigger'::regclass
                AND EXISTS (SELECT FROM pg_trigger t WHERE t.oid = d.objid AND t.tgname = $2))
     ORDER BY 1, 2
     LIMIT 200
"""


async def read_facts(
    session: Session,
    *,
    schema: str,
    table: str,
    trigger: str,
    schemas: Sequence[str] = (),
    functions: Sequence[str] = (),
) -> Facts | None:
    """What the catalog says; None: there is no such table. `trigger`: ours, no dependant."""
    rows = await session.fetch(READ, schema, table, list(schemas), list(functions))
    if not rows:
        return None
    row = dict(rows[0])
    attached = await session.fetch(ATTACHED, row["oid"])
    dependants = await session.fetch(DEPENDANTS, row["oid"], trigger)
    return Facts(
        **{
            **row,
            "family": tuple(row["family"]),
            "key": tuple(row["key"]),
            "publications": tuple(row["publications"]),
            "volatile": tuple(row["volatile"]),
            "views_there": frozenset(row["views_there"]),
            "columns": MappingProxyType(
                {each["name"]: Column(**each) for each in _json(row["columns"]) or ()}
            ),
            "triggers": tuple(Trigger(**each) for each in _json(row["triggers"]) or ()),
            "grants": MappingProxyType(_json(row["grants"]) or {}),
            "others_in": MappingProxyType(_json(row["others_in"]) or {}),
        },
        attached=tuple(
            Attached(**{**each, "columns": frozenset(each["columns"])}) for each in attached
        ),
        dependants=tuple(Dependant(**each) for each in dependants),
    )


def _json(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value
