"""Whether what is stored can be believed: indexes and tables by amcheck, references by looking.

Every check is one statement in a session that only reads, takes the locks of a SELECT, and
gives way where it would wait for long. What could not be checked is said, never passed over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Protocol

import asyncpg

CHECKS_MAX: Final = 20_000
COMPLAINTS_MAX: Final = 20  # of one table
ORPHANS_MAX: Final = 1000  # counted of one reference
HEAP_CHECK_SINCE: Final = 140000


class CheckKind(StrEnum):
    """What is looked at."""

    INDEX = "index"
    TABLE = "table"
    REFERENCE = "reference"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One statement to run. `bytes` is what it reads, about, for the progress."""

    kind: CheckKind
    name: str
    sql: str
    bytes: int


class Outcome(StrEnum):
    """How a check ended."""

    SOUND = "sound"
    BROKEN = "broken"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a check found; `says` is '' for what is sound."""

    outcome: Outcome
    says: str = ""


class Fetcher(Protocol):
    """Whatever runs a query."""

    async def fetch(self, query: str, *args: object) -> Sequence[Mapping[str, Any]]:
        """All rows."""
        ...


# One row: what can be checked here at all. The function's schema is quoted by the server.
ABILITIES: Final = """
    SELECT current_setting('server_version_num')::int                  AS version,
           current_setting('data_checksums') = 'on'                     AS has_checksums,
           (SELECT coalesce(sum(checksum_failures), 0)::bigint FROM pg_stat_database)
                                                                        AS checksum_failures,
           (SELECT quote_ident(n.nspname)
              FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
             WHERE e.extname = 'amcheck')                               AS amcheck,
           EXISTS (SELECT FROM pg_proc p
                    WHERE p.proname = 'bt_index_check'
                      AND has_function_privilege(p.oid, 'EXECUTE'))     AS may_check,
           (SELECT count(*) FROM pg_index i
             WHERE NOT i.indisvalid
               AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index p
                                WHERE p.index_relid = i.indexrelid))    AS invalid_indexes
"""

# Only what a restart would not empty anyhow, and what is complete.
INDEXES: Final = """
    SELECT format('%I.%I', n.nspname, c.relname)         AS name,
           format('SELECT {schema}.bt_index_check(%s, {deep})', c.oid) AS sql,
           pg_relation_size(c.oid)
             + CASE WHEN {deep} THEN pg_relation_size(i.indrelid) ELSE 0 END AS bytes
      FROM pg_index i
      JOIN pg_class c     ON c.oid = i.indexrelid
      JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_am a        ON a.oid = c.relam
     WHERE a.amname = 'btree' AND c.relkind = 'i' AND c.relpersistence = 'p'
       AND i.indisvalid AND i.indisready
       AND ($1 = '' OR i.indrelid = to_regclass($1))
     ORDER BY bytes, name
     LIMIT {most}
"""

TABLES: Final = """
    SELECT format('%I.%I', n.nspname, c.relname)         AS name,
           format('SELECT blkno, offnum, attnum, msg FROM {schema}.verify_heapam(%s) LIMIT {some}',
                  c.oid)                                 AS sql,
           pg_relation_size(c.oid)                       AS bytes
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_am a        ON a.oid = c.relam
     WHERE a.amname = 'heap' AND c.relkind IN ('r', 'm', 't') AND c.relpersistence = 'p'
       AND ($1 = '' OR c.oid = to_regclass($1)
            OR c.oid = (SELECT t.reltoastrelid FROM pg_class t WHERE t.oid = to_regclass($1)))
     ORDER BY bytes, name
     LIMIT {most}
"""

# Rows that refer to nothing. MATCH SIMPLE: a row with a null among its columns refers to nobody.
REFERENCES: Final = """
    SELECT format('%I.%I %s', n.nspname, c.relname, k.conname) AS name,
           format('SELECT count(*) AS orphans FROM (SELECT FROM %s AS c WHERE %s AND NOT EXISTS'
                  || ' (SELECT FROM %s AS p WHERE %s) LIMIT {some}) AS x',
                  k.conrelid::regclass,
                  string_agg(format('c.%I IS NOT NULL', a.attname), ' AND ' ORDER BY o.place),
                  k.confrelid::regclass,
                  string_agg(format('p.%I = c.%I', b.attname, a.attname), ' AND '
                             ORDER BY o.place))                AS sql,
           pg_relation_size(k.conrelid)                         AS bytes
      FROM pg_constraint k
      JOIN pg_class c     ON c.oid = k.conrelid
      JOIN pg_namespace n ON n.oid = c.relnamespace
     CROSS JOIN unnest(k.conkey, k.confkey) WITH ORDINALITY AS o(mine, theirs, place)
      JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = o.mine
      JOIN pg_attribute b ON b.attrelid = k.confrelid AND b.attnum = o.theirs
     WHERE k.contype = 'f' AND k.conparentid = 0
       AND ($1 = '' OR k.conrelid = to_regclass($1))
     GROUP BY n.nspname, c.relname, k.conname, k.conrelid, k.confrelid
     ORDER BY bytes, name
     LIMIT {most}
"""


async def index_checks(
    db: Fetcher, *, schema: str, table: str = "", is_deep: bool
) -> Sequence[Check]:
    """One for each B-tree. `is_deep`: also that every row of the table is in it."""
    sql = INDEXES.format(schema=schema, deep="true" if is_deep else "false", most=CHECKS_MAX)
    return await _checks(db, CheckKind.INDEX, sql, table)


async def table_checks(db: Fetcher, *, schema: str, table: str = "") -> Sequence[Check]:
    """One for each heap, its TOAST table included. PostgreSQL 14 and newer."""
    sql = TABLES.format(schema=schema, some=COMPLAINTS_MAX, most=CHECKS_MAX)
    return await _checks(db, CheckKind.TABLE, sql, table)


async def reference_checks(db: Fetcher, *, table: str = "") -> Sequence[Check]:
    """One for each foreign key, be it validated and enforced or not."""
    sql = REFERENCES.format(some=ORPHANS_MAX, most=CHECKS_MAX)
    return await _checks(db, CheckKind.REFERENCE, sql, table)


async def _checks(db: Fetcher, kind: CheckKind, sql: str, table: str) -> Sequence[Check]:
    rows = await db.fetch(sql, table)
    return [
        Check(kind=kind, name=row["name"], sql=row["sql"], bytes=row["bytes"] or 0) for row in rows
    ]


async def carry_out(db: Fetcher, check: Check) -> Result:
    """Run one check.

    Raises:
        asyncpg.PostgresError, OSError: what says nothing about the data, such as a server
            that goes away.
    """
    try:
        rows = await db.fetch(check.sql)
    except (asyncpg.IndexCorruptedError, asyncpg.DataCorruptedError) as error:
        return Result(outcome=Outcome.BROKEN, says=str(error))
    except (asyncpg.UndefinedTableError, asyncpg.UndefinedObjectError):
        return Result(outcome=Outcome.SKIPPED, says="it was dropped meanwhile")
    except asyncpg.LockNotAvailableError:
        return Result(outcome=Outcome.SKIPPED, says="somebody holds a lock on it")
    except asyncpg.QueryCanceledError:
        return Result(outcome=Outcome.SKIPPED, says="the check took too long")
    except asyncpg.InsufficientPrivilegeError as error:
        return Result(outcome=Outcome.SKIPPED, says=str(error))
    return _read(check.kind, rows)


def _read(kind: CheckKind, rows: Sequence[Mapping[str, Any]]) -> Result:
    match kind:
        case CheckKind.INDEX:
            said = ""
        case CheckKind.TABLE:
            said = "; ".join(_complaint(row) for row in rows)
        case CheckKind.REFERENCE:
            count = rows[0]["orphans"]
            more = " or more" if count >= ORPHANS_MAX else ""
            said = f"{count:,}{more} rows refer to nothing" if count else ""
    return Result(outcome=Outcome.BROKEN if said else Outcome.SOUND, says=said)


def _complaint(row: Mapping[str, Any]) -> str:
    return f"block {row['blkno']}, line {row['offnum']}: {row['msg']}"
