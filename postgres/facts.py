"""What a change of a server relies on: which cluster it is, where it stands, what it holds.

One place for the facts that are pinned into plans: a query each, and what its row means.
Whoever has a connection runs them; the same query gives the same text until a fact moves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

# Where we have been connected to, as the server itself sees it: behind a name or a proxy
# another server may answer tomorrow. The control file of a server that was just promoted
# still holds the old timeline, so a primary is asked for the name of its next WAL file.
# One row.
IDENTITY: Final = r"""
    SELECT (SELECT s.system_identifier::text FROM pg_control_system() AS s) AS system_identifier,
           CASE WHEN pg_is_in_recovery()
                THEN (SELECT c.timeline_id FROM pg_control_checkpoint() AS c)
                ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int
           END                                                              AS timeline,
           pg_is_in_recovery()                                              AS standby,
           coalesce(host(inet_server_addr()), 'socket')                     AS address,
           current_setting('port')                                          AS port
"""

# A line of text for each thing that people define, sorted bytewise, hashed by the server.
# Neither OIDs nor positions nor statistics: a restored copy has the same fingerprint. Names
# are written out whole, because a search_path in this very statement says so: `path` is
# a subquery that cannot be inlined, and each part reads it first.
_DEFINITIONS: Final = r"""
      WITH path AS MATERIALIZED (
               SELECT set_config('search_path', 'pg_catalog', true) AS is_set),
           spaces AS MATERIALIZED (
               SELECT n.oid, n.nspname
                 FROM pg_namespace n
                WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'),
           members AS MATERIALIZED (
               SELECT d.objid FROM pg_depend d WHERE d.deptype = 'e' AND {members}),
           classes AS MATERIALIZED (
               SELECT c.oid, s.nspname, c.relname, c.relkind, c.relpersistence, c.relrowsecurity,
                      c.relforcerowsecurity, c.reloptions, c.relpartbound,
                      format('%I.%I', s.nspname, c.relname) AS name
                 FROM pg_class c JOIN spaces s ON s.oid = c.relnamespace
                WHERE c.oid NOT IN (SELECT objid FROM members)),
           lines(line) AS (
        SELECT format('schema %I', nspname) FROM spaces
     UNION ALL
        SELECT format('extension %I %s in %I', e.extname, e.extversion, n.nspname)
          FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
     UNION ALL
        SELECT concat_ws(' ', 'class', c.name, c.relkind, c.relpersistence, c.relrowsecurity,
                         c.relforcerowsecurity, c.reloptions,
                         CASE WHEN c.relkind = 'p' THEN pg_get_partkeydef(c.oid) END,
                         CASE WHEN c.relpartbound IS NOT NULL
                              THEN pg_get_expr(c.relpartbound, c.oid) END)
          FROM path, classes c
         WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm', 'c', 'S')
     UNION ALL
        SELECT concat_ws(' ', 'inherits', child.name, parent.oid::regclass::text)
          FROM path, pg_inherits i
          JOIN classes child   ON child.oid = i.inhrelid
          JOIN pg_class parent ON parent.oid = i.inhparent
     UNION ALL
        SELECT concat_ws(' ', 'column', c.name, quote_ident(a.attname),
                         format_type(a.atttypid, a.atttypmod),
                         CASE WHEN a.attnotnull THEN 'NOT NULL' END,
                         nullif(a.attidentity, ''), nullif(a.attgenerated, ''),
                         CASE WHEN a.attcollation <> t.typcollation
                              THEN a.attcollation::regcollation::text END,
                         CASE WHEN d.oid IS NOT NULL THEN pg_get_expr(d.adbin, d.adrelid) END)
          FROM path, classes c
          JOIN pg_attribute a    ON a.attrelid = c.oid
          JOIN pg_type t         ON t.oid = a.atttypid
          LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
         WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm', 'c')
           AND a.attnum > 0 AND NOT a.attisdropped
     UNION ALL
        SELECT concat_ws(' ', 'constraint', c.conrelid::regclass::text,
                         c.contypid::regtype::text, quote_ident(c.conname),
                         pg_get_constraintdef(c.oid))
          FROM path, pg_constraint c JOIN spaces s ON s.oid = c.connamespace
     UNION ALL
        SELECT concat_ws(' ', 'index', c.name, i.indisvalid, i.indisreplident,
                         CASE WHEN k.oid IS NULL THEN pg_get_indexdef(i.indexrelid) END)
          FROM path, pg_index i
          JOIN classes c            ON c.oid = i.indexrelid
          LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x')
     UNION ALL
        SELECT concat_ws(' ', 'view', c.name, pg_get_viewdef(c.oid))
          FROM path, classes c
         WHERE c.relkind IN ('v', 'm')
     UNION ALL
        SELECT concat_ws(' ', 'rule', c.name, pg_get_ruledef(r.oid), r.ev_enabled)
          FROM path, pg_rewrite r JOIN classes c ON c.oid = r.ev_class
         WHERE r.rulename <> '_RETURN'
     UNION ALL
        SELECT concat_ws(' ', 'sequence', c.name, format_type(s.seqtypid, NULL), s.seqstart,
                         s.seqincrement, s.seqmin, s.seqmax, s.seqcache, s.seqcycle)
          FROM path, pg_sequence s JOIN classes c ON c.oid = s.seqrelid
     UNION ALL
        SELECT concat_ws(' ', 'function', p.prokind, pg_get_functiondef(p.oid))
          FROM path, pg_proc p JOIN spaces s ON s.oid = p.pronamespace
         WHERE p.prokind <> 'a' AND p.oid NOT IN (SELECT objid FROM members)
     UNION ALL
        SELECT concat_ws(' ', 'aggregate', p.oid::regprocedure::text, a.aggkind,
                         a.aggtransfn::regprocedure::text, a.aggfinalfn::regprocedure::text,
                         a.aggcombinefn::regprocedure::text, format_type(a.aggtranstype, NULL),
                         a.agginitval)
          FROM path, pg_aggregate a
          JOIN pg_proc p ON p.oid = a.aggfnoid
          JOIN spaces s  ON s.oid = p.pronamespace
         WHERE p.oid NOT IN (SELECT objid FROM members)
     UNION ALL
        SELECT concat_ws(' ', 'trigger', pg_get_triggerdef(t.oid), t.tgenabled)
          FROM path, pg_trigger t JOIN classes c ON c.oid = t.tgrelid
         WHERE NOT t.tgisinternal
     UNION ALL
        SELECT concat_ws(' ', 'event trigger', quote_ident(e.evtname), e.evtevent, e.evttags,
                         e.evtfoid::regprocedure::text, e.evtenabled)
          FROM path, pg_event_trigger e
     UNION ALL
        SELECT concat_ws(' ', 'type', format('%I.%I', s.nspname, t.typname), t.typtype,
                         CASE t.typtype
                              WHEN 'd' THEN concat_ws(' ', format_type(t.typbasetype, t.typtypmod),
                                                      t.typnotnull, t.typdefault)
                              WHEN 'e' THEN (SELECT string_agg(quote_literal(l.enumlabel), ','
                                                               ORDER BY l.enumsortorder)
                                               FROM pg_enum l WHERE l.enumtypid = t.oid)
                              WHEN 'r' THEN (SELECT format_type(r.rngsubtype, NULL)
                                               FROM pg_range r WHERE r.rngtypid = t.oid)
                         END)
          FROM path, pg_type t JOIN spaces s ON s.oid = t.typnamespace
         WHERE t.typtype IN ('d', 'e', 'r') AND t.oid NOT IN (SELECT objid FROM members)
     UNION ALL
        SELECT concat_ws(' ', 'policy', c.name, quote_ident(p.polname), p.polcmd, p.polpermissive,
                         (SELECT string_agg(coalesce(r.rolname, 'public'), ','
                                            ORDER BY r.rolname COLLATE "C")
                            FROM unnest(p.polroles) AS member(oid)
                            LEFT JOIN pg_roles r ON r.oid = member.oid),
                         pg_get_expr(p.polqual, p.polrelid),
                         '/', pg_get_expr(p.polwithcheck, p.polrelid))
          FROM path, pg_policy p JOIN classes c ON c.oid = p.polrelid
     UNION ALL
        SELECT concat_ws(' ', 'foreign', c.name, quote_ident(v.srvname), f.ftoptions)
          FROM pg_foreign_table f
          JOIN classes c           ON c.oid = f.ftrelid
          JOIN pg_foreign_server v ON v.oid = f.ftserver
           )
"""

# One row.
SCHEMA: Final = (
    _DEFINITIONS.replace("{members}", "false")  # noqa: S608 - constants of ours
    + r"""
    SELECT encode(sha256(convert_to(coalesce(string_agg(line, E'\n' ORDER BY line COLLATE "C"), ''),
                                    getdatabaseencoding())), 'hex') AS fingerprint
      FROM lines
"""
)

# What the fingerprint is made of, a row for each line: `postgres.schema.drift` compares them. What
# an extension brings is said by its name and version.
SCHEMA_LINES: Final = (
    _DEFINITIONS.replace("{members}", "true")  # noqa: S608 - constants of ours
    + """
    SELECT line
      FROM lines
     ORDER BY line COLLATE "C"
     LIMIT $1
"""
)

# So many digits of the fingerprint are shown to people: 96 bits.
FINGERPRINT_CHARS: Final = 24


def system_identifier(row: Mapping[str, Any]) -> str:
    """From a row of `IDENTITY`: made by initdb, and the same on all standbys."""
    return str(row["system_identifier"])


def timeline(row: Mapping[str, Any]) -> str:
    """From a row of `IDENTITY`: one more after each promotion."""
    return str(row["timeline"])


def primary(row: Mapping[str, Any]) -> str:
    """From a row of `IDENTITY`: which node answers, and whether it is the primary."""
    role = "standby" if row["standby"] else "primary"
    return f"{row['address']}:{row['port']} ({role})"


def fingerprint(row: Mapping[str, Any]) -> str:
    """From a row of `SCHEMA`: the same text means the same definitions."""
    return str(row["fingerprint"])[:FINGERPRINT_CHARS]
