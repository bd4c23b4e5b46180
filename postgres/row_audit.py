"""Who changed which row of a sensitive table: a trigger that writes it down, in the database.

Everything stands in a schema of its own, `twokey_audit`. The trigger's function runs with its
owner's rights, so whoever writes to the table needs none on the record and cannot change it.
The triggers fire ALWAYS: `session_replication_role` does not switch them off. An owner of the
table or a superuser can remove them; `states` says when somebody did.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Protocol

SCHEMA: Final = "twokey_audit"
ROW_TRIGGER: Final = "twokey_row_audit"
TRUNCATE_TRIGGER: Final = "twokey_truncate_audit"
TABLES_MAX: Final = 1000

# The guide's columns keep their names; what it lacks says who it was behind a shared login.
_BODY: Final = """
BEGIN
    INSERT INTO twokey_audit.row_changes
           (schema_name, table_name, operation, old_data, new_data, changed_by, acting_as,
            application_name, client_addr, transaction_id)
    VALUES (TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_OP,
            CASE WHEN TG_OP IN ('UPDATE', 'DELETE')
                 THEN to_jsonb(OLD) - coalesce(TG_ARGV, '{}') END,
            CASE WHEN TG_OP IN ('INSERT', 'UPDATE')
                 THEN to_jsonb(NEW) - coalesce(TG_ARGV, '{}') END,
            session_user, nullif(current_setting('role', true), 'none'),
            current_setting('application_name', true), inet_client_addr(),
            pg_current_xact_id()::text::bigint);
    RETURN NULL;
END
"""
_GUARD_BODY: Final = """
BEGIN
    IF TG_OP = 'DELETE' AND current_setting('twokey_audit.forgetting', true) = 'on' THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION 'twokey_audit.row_changes is a record: % is not allowed', TG_OP
          USING HINT = 'SELECT twokey_audit.forget(before) removes what is older.';
END
"""
# Whatever stands there already with our names is made as it should be.
PREPARE: Final = f"""
CREATE SCHEMA IF NOT EXISTS twokey_audit;
CREATE TABLE IF NOT EXISTS twokey_audit.row_changes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    schema_name text NOT NULL,
    table_name text NOT NULL,
    operation text NOT NULL,
    old_data jsonb,
    new_data jsonb,
    changed_by text NOT NULL,
    acting_as text,
    application_name text,
    client_addr inet,
    transaction_id bigint NOT NULL
);
CREATE INDEX IF NOT EXISTS row_changes_at ON twokey_audit.row_changes USING brin (changed_at);
CREATE OR REPLACE FUNCTION twokey_audit.record_row_change() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $body${_BODY}$body$;
CREATE OR REPLACE FUNCTION twokey_audit.keep_record() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $body${_GUARD_BODY}$body$;
CREATE OR REPLACE FUNCTION twokey_audit.forget(before timestamptz) RETURNS bigint
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    SET twokey_audit.forgetting = 'on'
    AS $body$
DECLARE
    forgotten bigint;
BEGIN
    DELETE FROM twokey_audit.row_changes WHERE changed_at < before;
    GET DIAGNOSTICS forgotten = ROW_COUNT;
    RETURN forgotten;
END
$body$;
DROP TRIGGER IF EXISTS keep_record ON twokey_audit.row_changes;
CREATE TRIGGER keep_record BEFORE UPDATE OR DELETE OR TRUNCATE ON twokey_audit.row_changes
    FOR EACH STATEMENT EXECUTE FUNCTION twokey_audit.keep_record();
ALTER TABLE twokey_audit.row_changes ENABLE ALWAYS TRIGGER keep_record;
REVOKE ALL ON SCHEMA twokey_audit FROM PUBLIC;
REVOKE ALL ON twokey_audit.row_changes FROM PUBLIC;
REVOKE ALL ON FUNCTION twokey_audit.record_row_change() FROM PUBLIC;
REVOKE ALL ON FUNCTION twokey_audit.forget(timestamptz) FROM PUBLIC;
"""  # noqa: S608 - constants of ours
BODY_HASH: Final = hashlib.md5(_BODY.encode(), usedforsecurity=False).hexdigest()

# PostgreSQL quotes every name and every argument. One row, or none.
LOOK: Final = f"""
    SELECT c.oid::bigint                                     AS oid,
           format('%I.%I', n.nspname, c.relname)              AS quoted,
           c.relkind::text                                    AS kind,
           c.relpersistence::text                             AS persistence,
           c.relispartition                                   AS is_partition,
           pg_has_role(c.relowner, 'USAGE')                   AS is_ours,
           pg_get_userbyid(c.relowner)                        AS owner,
           current_user::text                                 AS us,
           pg_is_in_recovery()                                AS standby,
           has_database_privilege(current_database(), 'CREATE')
                OR to_regnamespace('{SCHEMA}') IS NOT NULL    AS may_create,
           -- Who owns what stands there could make our function do their work, with our rights.
           ARRAY(SELECT DISTINCT pg_get_userbyid(o.owner)::text
                   FROM (SELECT nspowner FROM pg_namespace WHERE nspname = '{SCHEMA}'
                          UNION ALL
                         SELECT relowner FROM pg_class
                          WHERE relnamespace = to_regnamespace('{SCHEMA}')
                          UNION ALL
                         SELECT proowner FROM pg_proc
                          WHERE pronamespace = to_regnamespace('{SCHEMA}')) AS o(owner)
                  WHERE pg_get_userbyid(o.owner) <> current_user)  AS strangers,
           greatest(c.reltuples, 0)::bigint                   AS rows,
           pg_table_size(c.oid)                               AS size_bytes,
           coalesce(s.n_tup_ins + s.n_tup_upd + s.n_tup_del, 0) AS writes,
           coalesce(d.stats_reset, pg_postmaster_start_time()) AS writes_since,
           ARRAY(SELECT w.name FROM unnest($2::text[]) AS w(name)
                  WHERE NOT EXISTS (SELECT FROM pg_attribute a
                                     WHERE a.attrelid = c.oid AND a.attname = w.name
                                       AND a.attnum > 0 AND NOT a.attisdropped)) AS unknown,
           (SELECT coalesce(string_agg(quote_literal(w.name), ', '), '')
              FROM unnest($2::text[]) AS w(name))             AS arguments
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN pg_stat_all_tables s ON s.relid = c.oid
      LEFT JOIN pg_stat_database d   ON d.datname = current_database()
     WHERE n.nspname || '.' || c.relname = $1
       AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
"""  # noqa: S608 - a constant of ours

# Both triggers of each table that has one, or is asked for by its name.
STATES: Final = f"""
      WITH audited AS (
        SELECT t.tgrelid,
               bool_or(t.tgname = '{ROW_TRIGGER}' AND t.tgenabled = 'A')      AS rows_on,
               bool_or(t.tgname = '{TRUNCATE_TRIGGER}' AND t.tgenabled = 'A') AS truncate_on,
               bool_and(p.prosecdef AND md5(p.prosrc) = $2
                        AND p.pronamespace = to_regnamespace('{SCHEMA}'))      AS is_ours,
               max(encode(t.tgargs, 'escape'))                                 AS arguments
          FROM pg_trigger t
          JOIN pg_proc p ON p.oid = t.tgfoid
         WHERE t.tgname IN ('{ROW_TRIGGER}', '{TRUNCATE_TRIGGER}')
         GROUP BY t.tgrelid)
    SELECT n.nspname || '.' || c.relname AS name,
           a.tgrelid IS NOT NULL        AS is_there,
           coalesce(a.rows_on, false)     AS rows_on,
           coalesce(a.truncate_on, false) AS truncate_on,
           coalesce(a.is_ours, false)     AS is_ours,
           coalesce(a.arguments, '')      AS arguments
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN audited a ON a.tgrelid = c.oid
     WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
       AND (a.tgrelid IS NOT NULL OR n.nspname || '.' || c.relname = ANY ($1::text[]))
     ORDER BY 1
     LIMIT {TABLES_MAX}
"""  # noqa: S608 - constants of ours

IS_THERE: Final = f"SELECT to_regclass('{SCHEMA}.row_changes') IS NOT NULL AS is_there"
# What has been recorded, by the planner's estimate: the record may be large.
RECORD: Final = f"""
    SELECT greatest(c.reltuples, 0)::bigint     AS rows,
           pg_total_relation_size(c.oid)        AS size_bytes,
           (SELECT changed_at FROM {SCHEMA}.row_changes ORDER BY id DESC LIMIT 1) AS newest,
           EXISTS (SELECT FROM pg_trigger t
                    WHERE t.tgrelid = c.oid AND t.tgname = 'keep_record'
                      AND t.tgenabled = 'A')    AS is_guarded
      FROM pg_class c
     WHERE c.oid = to_regclass('{SCHEMA}.row_changes')
"""  # noqa: S608 - a constant of ours


class AuditState(StrEnum):
    """Whether changes of a table's rows are written down."""

    IN_FORCE = "in force"
    MISSING = "missing"
    DISABLED = "disabled"  # a trigger is there and does not fire, or one of the two is gone
    ALTERED = "altered"  # what it runs is not what we installed


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """A table and its audit. `without`: columns that are not written down."""

    table: str
    state: AuditState
    without: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What has been written down: about how many rows, how large, the newest, whether guarded."""

    rows: int
    size_bytes: int
    newest: datetime | None
    is_guarded: bool


class Rows(Protocol):
    """Whatever reads rows: a reader's `rows`."""

    async def rows(self, query: str, *args: object) -> Sequence[Mapping[str, Any]]:
        """All rows."""
        ...


def install_statements(seen: Mapping[str, Any]) -> str:
    """What installs the audit on the table of a row of `LOOK`; all of it in one transaction."""
    table, arguments = seen["quoted"], seen["arguments"]
    return f"""{PREPARE}
DROP TRIGGER IF EXISTS {ROW_TRIGGER} ON {table};
DROP TRIGGER IF EXISTS {TRUNCATE_TRIGGER} ON {table};
CREATE TRIGGER {ROW_TRIGGER} AFTER INSERT OR UPDATE OR DELETE ON {table}
    FOR EACH ROW EXECUTE FUNCTION {SCHEMA}.record_row_change({arguments});
CREATE TRIGGER {TRUNCATE_TRIGGER} AFTER TRUNCATE ON {table}
    FOR EACH STATEMENT EXECUTE FUNCTION {SCHEMA}.record_row_change();
ALTER TABLE {table} ENABLE ALWAYS TRIGGER {ROW_TRIGGER};
ALTER TABLE {table} ENABLE ALWAYS TRIGGER {TRUNCATE_TRIGGER};
"""


def remove_statements(seen: Mapping[str, Any]) -> str:
    """What removes the audit from a table; what was written down stays."""
    table = seen["quoted"]
    return f"""
DROP TRIGGER IF EXISTS {ROW_TRIGGER} ON {table};
DROP TRIGGER IF EXISTS {TRUNCATE_TRIGGER} ON {table};
"""


async def states(reader: Rows, wanted: Sequence[str] = ()) -> Sequence[Audited]:
    """Every audited table, and those of `wanted` (`schema.table`), whatever their state."""
    found = [_audited(row) for row in await reader.rows(STATES, list(wanted), BODY_HASH)]
    known = {each.table for each in found}
    gone = [Audited(table=name, state=AuditState.MISSING) for name in wanted if name not in known]
    return [*found, *gone]


async def record(reader: Rows) -> Record | None:
    """What has been written down; None: nothing was ever installed here.

    Raises:
        JobError: it may not be read.
    """
    if not (await reader.rows(IS_THERE))[0]["is_there"]:
        return None
    (row,) = await reader.rows(RECORD)
    return Record(**row)


def _audited(row: Mapping[str, Any]) -> Audited:
    match row:
        case {"is_there": False}:
            state = AuditState.MISSING
        case {"is_ours": False}:
            state = AuditState.ALTERED
        case {"rows_on": True, "truncate_on": True}:
            state = AuditState.IN_FORCE
        case _:
            state = AuditState.DISABLED
    without = tuple(name for name in row["arguments"].split("\\000") if name)
    return Audited(table=row["name"], state=state, without=without)
