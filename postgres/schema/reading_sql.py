"""The statements that read a `Catalog`. Each object is one row with one JSON value, `found`.

They run under `search_path = pg_catalog`, so that the server writes names in full.
"""

from __future__ import annotations

from typing import Final

from postgres.migrate.own_schema import ASIDE_SCHEMA

# Names are looked up under the path of the session, as the statements will be.
RESOLVE: Final = """
    SELECT w.schema, w.name,
           to_regclass(CASE WHEN w.schema = '' THEN quote_ident(w.name)
                            ELSE format('%I.%I', w.schema, w.name) END)::oid::bigint AS oid
      FROM unnest($1::text[], $2::text[]) AS w(schema, name)
"""
SURROUNDINGS: Final = f"""
    SELECT current_schemas(false)::text[] AS path,
           current_setting('search_path') AS search_path,
           current_setting('server_version_num')::int / 10000 AS major,
           ARRAY(SELECT nspname::text FROM pg_namespace
                  WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
                  ORDER BY 1) AS schemas,
           ARRAY(SELECT extname::text FROM pg_extension ORDER BY 1) AS extensions,
           ARRAY(SELECT relname::text FROM pg_class
                  WHERE relnamespace = to_regnamespace('{ASIDE_SCHEMA}') ORDER BY 1) AS aside
"""  # noqa: S608 - a constant of ours
FOUND_ROUTINES: Final = """
    SELECT p.oid::bigint AS oid, pg_function_is_visible(p.oid) AS is_visible
      FROM pg_proc p
     WHERE p.proname = ANY($1::text[]) AND p.pronamespace <> 'pg_catalog'::regnamespace
"""
FOUND_TYPES: Final = """
    SELECT t.oid::bigint AS oid, pg_type_is_visible(t.oid) AS is_visible
      FROM pg_type t
     WHERE t.typname = ANY($1::text[]) AND t.typnamespace <> 'pg_catalog'::regnamespace
       AND t.typtype IN ('e', 'd', 'r')
"""
ALL: Final = r"""
      WITH mine AS (
        SELECT n.oid FROM pg_namespace n
         WHERE n.nspname !~ '^(pg|twokey)_' AND n.nspname <> 'information_schema'),
           members AS (SELECT d.classid, d.objid FROM pg_depend d WHERE d.deptype = 'e')
    SELECT 'relation' AS what, c.oid::bigint AS oid
      FROM pg_class c JOIN mine ON mine.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f', 'c')
       AND ('pg_class'::regclass, c.oid) NOT IN (SELECT classid, objid FROM members)
     UNION ALL
    SELECT 'routine', p.oid::bigint FROM pg_proc p JOIN mine ON mine.oid = p.pronamespace
     WHERE ('pg_proc'::regclass, p.oid) NOT IN (SELECT classid, objid FROM members)
     UNION ALL
    SELECT 'type', t.oid::bigint FROM pg_type t JOIN mine ON mine.oid = t.typnamespace
     WHERE t.typtype IN ('e', 'd', 'r')
       AND ('pg_type'::regclass, t.oid) NOT IN (SELECT classid, objid FROM members)
     LIMIT $1
"""


def _grants(word: str, acl: str, owner: str) -> str:
    """Rights as statements; the owner's own come with the owner. `word`: SQL for the object."""
    return f"""
        ARRAY(SELECT format('GRANT %s ON %s TO %s%s',
                            string_agg(a.privilege_type, ', ' ORDER BY a.privilege_type), {word},
                            CASE WHEN a.grantee = 0 THEN 'PUBLIC'
                                 ELSE quote_ident(pg_get_userbyid(a.grantee)) END,
                            CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
                FROM aclexplode({acl}) AS a
               WHERE a.grantee <> {owner}
               GROUP BY a.grantee, a.is_grantable
               ORDER BY a.grantee, a.is_grantable)"""  # noqa: S608 - constants of ours


_NAMES_OF: Final = """ARRAY(SELECT a.attname::text FROM unnest({keys}) WITH ORDINALITY AS w(n, o)
                              JOIN pg_attribute a ON a.attrelid = {table} AND a.attnum = w.n
                             ORDER BY w.o)"""
_FULL: Final = """(SELECT format('%I.%I', rn.nspname, rc.relname)
                      FROM pg_class rc JOIN pg_namespace rn ON rn.oid = rc.relnamespace
                     WHERE rc.oid = {oid})"""

_COLUMNS: Final = """
    (SELECT coalesce(jsonb_agg(jsonb_build_object(
                'name', a.attname, 'type', format_type(a.atttypid, a.atttypmod),
                'not_null', a.attnotnull, 'identity', a.attidentity::text,
                'generated', a.attgenerated::text, 'inherited', NOT a.attislocal,
                'collation', CASE WHEN a.attcollation <> t.typcollation
                                  THEN a.attcollation::regcollation::text ELSE '' END,
                'default', coalesce(pg_get_expr(d.adbin, d.adrelid), ''),
                'comment', coalesce(col_description(a.attrelid, a.attnum), ''))
                ORDER BY a.attnum), '[]')
       FROM pg_attribute a
       JOIN pg_type t         ON t.oid = a.atttypid
       LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
      WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        AND c.relkind IN ('r', 'p', 'f', 'v', 'm', 'c'))"""
# NOT NULL is said of the column, and triggers of constraints are no constraints to make.
_CONSTRAINTS: Final = f"""
    (SELECT coalesce(jsonb_agg(jsonb_build_object(
                'name', k.conname, 'kind', k.contype::text,
                'definition', pg_get_constraintdef(k.oid), 'is_valid', k.convalidated,
                'columns', {_NAMES_OF.format(keys="k.conkey", table="k.conrelid")},
                'index', CASE WHEN k.contype IN ('p', 'u', 'x')
                              THEN coalesce((SELECT relname::text FROM pg_class
                                              WHERE oid = k.conindid), '') ELSE '' END,
                'inherited', k.conparentid <> 0 OR NOT k.conislocal,
                'target', coalesce({_FULL.format(oid="k.confrelid")}, ''))
                ORDER BY k.conname), '[]')
       FROM pg_constraint k
      WHERE k.conrelid = c.oid AND k.contype IN ('c', 'f', 'p', 'u', 'x'))"""  # noqa: S608 - constants of ours
_INDEXES: Final = """
    (SELECT coalesce(jsonb_agg(jsonb_build_object(
                'name', ic.relname, 'definition', pg_get_indexdef(i.indexrelid),
                'is_valid', i.indisvalid, 'inherited', ic.relispartition,
                -- Of expressions and of WHERE too: a column that goes takes the index along.
                'columns', ARRAY(SELECT DISTINCT a.attname::text FROM pg_depend d
                                   JOIN pg_attribute a ON a.attrelid = c.oid
                                                      AND a.attnum = d.refobjsubid
                                  WHERE d.classid = 'pg_class'::regclass
                                    AND d.objid = i.indexrelid
                                    AND d.refclassid = 'pg_class'::regclass
                                    AND d.refobjid = c.oid AND d.refobjsubid > 0),
                'constraint', coalesce((SELECT k.conname::text FROM pg_constraint k
                                         WHERE k.conindid = i.indexrelid
                                           AND k.contype IN ('p', 'u', 'x')), ''))
                ORDER BY ic.relname), '[]')
       FROM pg_index i JOIN pg_class ic ON ic.oid = i.indexrelid
      WHERE i.indrelid = c.oid)"""
_TRIGGERS: Final = f"""
    (SELECT coalesce(jsonb_agg(jsonb_build_object(
                'name', t.tgname, 'definition', pg_get_triggerdef(t.oid),
                'enabled', t.tgenabled::text,
                'columns', {_NAMES_OF.format(keys="t.tgattr::int2[]", table="t.tgrelid")})
                ORDER BY t.tgname), '[]')
       FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal)"""  # noqa: S608 - constants of ours
_POLICIES: Final = """
    (SELECT coalesce(jsonb_agg(jsonb_build_object('name', p.polname, 'definition', concat(
                format('CREATE POLICY %I ON %I.%I', p.polname, n.nspname, c.relname),
                CASE WHEN p.polpermissive THEN '' ELSE ' AS RESTRICTIVE' END,
                ' FOR ', CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT'
                              WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE' ELSE 'ALL' END,
                ' TO ', (SELECT string_agg(CASE WHEN r.oid = 0 THEN 'PUBLIC'
                                                ELSE quote_ident(pg_get_userbyid(r.oid)) END, ', ')
                           FROM unnest(p.polroles) AS r(oid)),
                ' USING (' || pg_get_expr(p.polqual, p.polrelid) || ')',
                ' WITH CHECK (' || pg_get_expr(p.polwithcheck, p.polrelid) || ')'))
                ORDER BY p.polname), '[]')
       FROM pg_policy p WHERE p.polrelid = c.oid)"""
_SEQUENCE: Final = f"""
    (SELECT jsonb_build_object(
                'type', format_type(s.seqtypid, NULL), 'start', s.seqstart,
                'increment', s.seqincrement, 'minimum', s.seqmin, 'maximum', s.seqmax,
                'cache', s.seqcache, 'cycles', s.seqcycle,
                'owner_table', coalesce({_FULL.format(oid="d.refobjid")}, ''),
                'owner_column', coalesce((SELECT attname::text FROM pg_attribute
                                           WHERE attrelid = d.refobjid
                                             AND attnum = d.refobjsubid), ''),
                'is_identity', coalesce(d.deptype = 'i', false))
       FROM pg_sequence s
       LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = s.seqrelid
                            AND d.refclassid = 'pg_class'::regclass AND d.refobjsubid > 0
                            AND d.deptype IN ('a', 'i')
      WHERE s.seqrelid = c.oid)"""  # noqa: S608 - constants of ours
_OWNED: Final = """
    (SELECT coalesce(jsonb_agg(s.relname ORDER BY s.relname), '[]')
       FROM pg_depend d JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
      WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass
        AND d.refobjid = c.oid AND d.deptype IN ('a', 'i'))"""
_INCOMING: Final = f"""
    (SELECT coalesce(jsonb_agg(jsonb_build_object(
                'table', {_FULL.format(oid="k.conrelid")}, 'name', k.conname,
                'action', k.confdeltype::text) ORDER BY k.conname), '[]')
       FROM pg_constraint k
      WHERE k.confrelid = c.oid AND k.contype = 'f' AND k.conrelid <> c.oid)"""  # noqa: S608 - constants of ours
# What goes with it (auto and internal), and who then depends on any of that and would be left.
_DEPENDENTS: Final = """
    (WITH RECURSIVE gone(classid, objid, depth) AS (
         SELECT 'pg_class'::regclass::oid, c.oid, 0
          UNION
         SELECT d.classid, d.objid, gone.depth + 1
           FROM gone JOIN pg_depend d ON d.refclassid = gone.classid AND d.refobjid = gone.objid
          WHERE d.deptype IN ('a', 'i', 'I', 'P', 'S') AND gone.depth < 10)
     SELECT coalesce(jsonb_agg(DISTINCT pg_describe_object(d.classid, d.objid, 0)), '[]')
       FROM gone JOIN pg_depend d ON d.refclassid = gone.classid AND d.refobjid = gone.objid
      WHERE d.deptype = 'n' AND (d.classid, d.objid) NOT IN (SELECT classid, objid FROM gone))"""

RELATIONS: Final = f"""
    SELECT jsonb_build_object(
               'oid', c.oid::bigint, 'schema', n.nspname, 'name', c.relname,
               'kind', c.relkind::text, 'owner', pg_get_userbyid(c.relowner),
               'persistence', c.relpersistence::text,
               'comment', coalesce(obj_description(c.oid, 'pg_class'), ''),
               'options', coalesce(to_jsonb(c.reloptions), '[]'),
               'row_security', c.relrowsecurity, 'force_row_security', c.relforcerowsecurity,
               'partition_key', coalesce(CASE WHEN c.relkind = 'p'
                                              THEN pg_get_partkeydef(c.oid) END, ''),
               'bound', coalesce(pg_get_expr(c.relpartbound, c.oid), ''),
               'parents', (SELECT coalesce(jsonb_agg({_FULL.format(oid="i.inhparent")}
                                                     ORDER BY i.inhseqno), '[]')
                             FROM pg_inherits i WHERE i.inhrelid = c.oid),
               'has_children', EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = c.oid),
               'rows', c.reltuples::bigint,
               'bytes', CASE WHEN $2 OR c.relkind NOT IN ('r', 'm') THEN 0
                             ELSE pg_total_relation_size(c.oid) END,
               'definition', coalesce(CASE WHEN c.relkind IN ('v', 'm')
                                           THEN pg_get_viewdef(c.oid)
                                           WHEN c.relkind IN ('i', 'I')
                                           THEN pg_get_indexdef(c.oid) END, ''),
               'table', coalesce((SELECT {_FULL.format(oid="i.indrelid")}
                                    FROM pg_index i WHERE i.indexrelid = c.oid), ''),
               'constraint', coalesce((SELECT k.conname::text FROM pg_constraint k
                                        WHERE k.conindid = c.oid
                                          AND k.contype IN ('p', 'u', 'x')), ''),
               'columns', {_COLUMNS}, 'constraints', {_CONSTRAINTS}, 'indexes', {_INDEXES},
               'triggers', {_TRIGGERS}, 'policies', {_POLICIES},
               'rules', (SELECT coalesce(jsonb_agg(pg_get_ruledef(r.oid)), '[]')
                           FROM pg_rewrite r
                          WHERE r.ev_class = c.oid AND r.rulename <> '_RETURN'),
               'incoming', {_INCOMING}, 'sequences', {_OWNED}, 'sequence', {_SEQUENCE},
               'dependents', CASE WHEN $2 THEN '[]'::jsonb ELSE {_DEPENDENTS} END,
               'grants', {
    _grants(
        "format('%s%I.%I', CASE c.relkind WHEN 'S' THEN 'SEQUENCE '"
        " ELSE '' END, n.nspname, c.relname)",
        "c.relacl",
        "c.relowner",
    )
}
           )::text AS found
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.oid = ANY($1::bigint[]::oid[])
     ORDER BY n.nspname, c.relname
"""  # noqa: S608 - constants of ours

_ROUTINE_WORD: Final = (
    "format('%s %I.%I(%s)', CASE p.prokind WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END,"
    " n.nspname, p.proname, pg_get_function_identity_arguments(p.oid))"
)
ROUTINES: Final = f"""
    SELECT jsonb_build_object(
               'oid', p.oid::bigint, 'schema', n.nspname, 'name', p.proname,
               'kind', p.prokind::text, 'owner', pg_get_userbyid(p.proowner),
               'arguments', pg_get_function_identity_arguments(p.oid),
               'types', ARRAY(SELECT format_type(a.oid, NULL)
                                FROM unnest(p.proargtypes) WITH ORDINALITY AS a(oid, o)
                               ORDER BY a.o),
               'definition', CASE WHEN p.prokind = 'a' THEN ''
                                  ELSE pg_get_functiondef(p.oid) END,
               'comment', coalesce(obj_description(p.oid, 'pg_proc'), ''),
               'argument_names', coalesce(to_jsonb(p.proargnames), '[]'),
               'defaults', p.pronargdefaults,
               'grants', CASE WHEN p.proacl IS NULL THEN '{{}}'::text[]
                              ELSE ARRAY[format('REVOKE ALL ON %s FROM PUBLIC', {_ROUTINE_WORD})]
                         END || {_grants(_ROUTINE_WORD, "p.proacl", "p.proowner")}
           )::text AS found
      FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
     WHERE p.oid = ANY($1::bigint[]::oid[])
     ORDER BY n.nspname, p.proname, p.oid
"""  # noqa: S608 - constants of ours

TYPES: Final = """
    SELECT jsonb_build_object(
               'oid', t.oid::bigint, 'schema', n.nspname, 'name', t.typname,
               'kind', t.typtype::text, 'owner', pg_get_userbyid(t.typowner),
               'labels', ARRAY(SELECT l.enumlabel::text FROM pg_enum l
                                WHERE l.enumtypid = t.oid ORDER BY l.enumsortorder),
               'definition', coalesce(CASE t.typtype
                   WHEN 'e' THEN format('CREATE TYPE %I.%I AS ENUM (%s)', n.nspname, t.typname,
                        (SELECT string_agg(quote_literal(l.enumlabel), ', '
                                           ORDER BY l.enumsortorder)
                           FROM pg_enum l WHERE l.enumtypid = t.oid))
                   WHEN 'd' THEN format('CREATE DOMAIN %I.%I AS %s', n.nspname, t.typname,
                        concat_ws(' ', format_type(t.typbasetype, t.typtypmod),
                                  'COLLATE ' || (SELECT t.typcollation::regcollation::text
                                                   FROM pg_type b
                                                  WHERE b.oid = t.typbasetype
                                                    AND b.typcollation <> t.typcollation),
                                  'DEFAULT ' || t.typdefault,
                                  CASE WHEN t.typnotnull THEN 'NOT NULL' END,
                                  (SELECT string_agg(format('CONSTRAINT %I %s', k.conname,
                                                            pg_get_constraintdef(k.oid)), ' '
                                                     ORDER BY k.conname)
                                     FROM pg_constraint k
                                    WHERE k.contypid = t.oid AND k.contype = 'c')))
                   WHEN 'r' THEN (SELECT format('CREATE TYPE %I.%I AS RANGE (SUBTYPE = %s)',
                                                n.nspname, t.typname,
                                                format_type(r.rngsubtype, NULL))
                                    FROM pg_range r
                                   WHERE r.rngtypid = t.oid AND r.rngcanonical = 0
                                     AND r.rngsubdiff = 0)
                   END, '')
           )::text AS found
      FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
     WHERE t.oid = ANY($1::bigint[]::oid[])
     ORDER BY n.nspname, t.typname
"""
