"""A restored copy on which migrations are tried: kept from reaching anybody, and compared.

It was production a moment ago and knows its passwords: foreign servers, subscriptions and user
mappings lead nowhere before the first statement runs. Nothing in it listens to the network, and
no library is loaded at its start (see `postgres.restore.scratch`), so no job of pg_cron begins.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import asyncpg

from postgres.connect import connection
from postgres.dsn import Target
from postgres.errors import PostgresError
from postgres.migrate.own_schema import ASIDE_SCHEMA, SCHEMA
from postgres.schema.declared import read_lines
from postgres.schema.drift import DriftKind, Scope, compare

# Contents are compared by checksums of all rows: for so long, and of so much.
CONTENTS_SECONDS_MAX: Final = 900.0
CONTENTS_BYTES_MAX: Final = 4 * 2**30
TABLES_MAX: Final = 2000
_LOOK_SECONDS_MAX: Final = 120.0
NOWHERE: Final = "/nonexistent"

# Statements that cut the copy off, quoted by PostgreSQL. A wrapper without a handler reaches
# nobody; one without a validator takes any option.
_CUT_OFF: Final = """
    SELECT format('ALTER SUBSCRIPTION %I DISABLE', s.subname) AS sql, 1 AS part
      FROM pg_subscription s
     WHERE s.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
     UNION ALL
    SELECT format('ALTER SUBSCRIPTION %I CONNECTION %L', s.subname,
                  'password=none host=' || $1::text), 2
      FROM pg_subscription s
     WHERE s.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
     UNION ALL
    SELECT format('ALTER FOREIGN DATA WRAPPER %I NO HANDLER NO VALIDATOR', w.fdwname), 3
      FROM pg_foreign_data_wrapper w
     UNION ALL
    SELECT format('ALTER SERVER %I OPTIONS (%s)', v.srvname,
                  (SELECT string_agg(format('DROP %I', o.option_name), ', ')
                     FROM pg_options_to_table(v.srvoptions) AS o)), 4
      FROM pg_foreign_server v
     WHERE cardinality(v.srvoptions) > 0
     UNION ALL
    SELECT format('ALTER SERVER %I OPTIONS (ADD host %L)', v.srvname, $1::text), 5
      FROM pg_foreign_server v
     UNION ALL
    SELECT format('DROP USER MAPPING FOR %s SERVER %I',
                  CASE WHEN m.umuser = 0 THEN 'PUBLIC'
                       ELSE quote_ident(pg_get_userbyid(m.umuser)) END, m.srvname), 6
      FROM pg_user_mappings m
     ORDER BY part
"""

# Contents of what people store; unlogged tables come empty out of a backup.
_TABLES: Final = """
    SELECT n.nspname || '.' || c.relname AS name,
           pg_table_size(c.oid)          AS bytes,
           format('SELECT count(*) AS rows,'
                  ' coalesce(sum(hashtextextended((x.*)::text, 0)::numeric), 0)::text AS sum'
                  ' FROM ONLY %I.%I AS x', n.nspname, c.relname) AS sql
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'm') AND c.relispopulated AND c.relpersistence = 'p'
       AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', $1, $2)
     ORDER BY pg_table_size(c.oid)
     LIMIT $3
"""
# What a value is written as depends on these.
_SAME_TEXT: Final = (
    "SET LOCAL timezone = 'UTC'; SET LOCAL datestyle = 'ISO'; SET LOCAL intervalstyle ="
    " 'postgres'; SET LOCAL extra_float_digits = 3; SET LOCAL bytea_output = 'hex'"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """How many rows a table has, and a sum over the hashes of their texts, in any order."""

    rows: int
    checksum: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Standstill:
    """How a database looks at a moment. `contents`: of the tables that could be read in time."""

    lines: tuple[str, ...]
    sizes: Mapping[str, int] = field(default_factory=dict)
    contents: Mapping[str, Contents] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What is not as it was, in words. `uncompared`: tables whose contents nobody compared."""

    definitions: tuple[str, ...] = ()
    contents: tuple[str, ...] = ()
    uncompared: tuple[str, ...] = ()


async def cut_off(target: Target) -> int:
    """Have nothing in this database lead to another server; how many statements that took.

    `target` is the copy, as a superuser.

    Raises:
        PostgresError: it could not be done, so nothing may run on the copy.
    """
    async with connection(target) as conn:
        try:
            rows = await conn.fetch(_CUT_OFF, NOWHERE)
            for row in rows:
                await conn.execute(row["sql"])
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            raise PostgresError(
                f"The copy could not be cut off from other servers: {error or 'no answer'}.",
                next_step="Nothing was tried on it. See what foreign servers and subscriptions"
                " the database has.",
            ) from error
    return len(rows)


async def stand_still(
    target: Target,
    *,
    first: Collection[str] = (),
    besides: Collection[str] = (),
    seconds_max: float = CONTENTS_SECONDS_MAX,
    bytes_max: int = CONTENTS_BYTES_MAX,
) -> Standstill:
    """Definitions, sizes, and checksums of contents: of the tables `first`, then of the others.

    The smallest come before the large ones, until time or bytes are used up; what is `besides`
    is left out. As a superuser: policies hide rows from others.

    Raises:
        PostgresError: it cannot be read, or there are too many definitions.
    """
    deadline = time.monotonic() + seconds_max
    contents: dict[str, Contents] = {}
    async with connection(target) as conn:
        try:
            async with conn.transaction(isolation="repeatable_read", readonly=True):
                await conn.execute(_SAME_TEXT)
                lines = await read_lines(conn)
                rows = await conn.fetch(
                    _TABLES, SCHEMA, ASIDE_SCHEMA, TABLES_MAX, timeout=_LOOK_SECONDS_MAX
                )
            left = bytes_max
            for row in sorted(rows, key=lambda row: row["name"] not in first):
                left -= row["bytes"]
                remaining = deadline - time.monotonic()
                if left < 0 or remaining <= 0 or _is_one_of(row["name"], besides):
                    continue
                found = await contents_of(conn, row["sql"], remaining)
                if found is not None:
                    contents[row["name"]] = found
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            raise PostgresError(
                f"The copy could not be read: {error or 'no answer'}.",
                next_step="Look at the worker's disk and log, then rehearse again.",
            ) from error
    sizes = {row["name"]: int(row["bytes"]) for row in rows}
    return Standstill(lines=lines, sizes=sizes, contents=contents)


def difference(before: Standstill, after: Standstill, *, worked_on: Collection[str]) -> Difference:
    """What is not as it was. Pure. `worked_on`: tables that somebody may have changed."""
    drifts = compare(before.lines, after.lines, scope=Scope.ALL)
    known = before.contents.keys() & after.contents.keys()
    there = before.sizes.keys() & after.sizes.keys()
    return Difference(
        definitions=tuple(f"{each.what} {each.name} {_SAID[each.kind]}" for each in drifts),
        contents=tuple(
            said
            for name in sorted(known)
            if (said := _changed(name, before.contents[name], after.contents[name]))
        ),
        uncompared=tuple(sorted((set(worked_on) & there) - known)),
    )


_SAID: Final[Mapping[DriftKind, str]] = {
    DriftKind.MISSING: "is gone",
    DriftKind.UNDECLARED: "is new",
    DriftKind.DIFFERENT: "is another",
}


def _changed(name: str, before: Contents, after: Contents) -> str:
    if before.rows != after.rows:
        return f"{name} has {after.rows:,} rows instead of {before.rows:,}"
    return f"{name} has other values" if before.checksum != after.checksum else ""


def _is_one_of(name: str, tables: Collection[str]) -> bool:
    """Whether it is named, with its schema or without."""
    return name in tables or name.partition(".")[2] in tables


async def contents_of(conn: Any, sql: str, seconds: float) -> Contents | None:
    """What `sql` says of one table; None: it takes too long, or cannot be read as text."""
    try:
        async with conn.transaction(isolation="repeatable_read", readonly=True):
            await conn.execute(f"{_SAME_TEXT}; SET LOCAL statement_timeout = {_ms(seconds)}")
            row = await conn.fetchrow(sql, timeout=seconds + _LOOK_SECONDS_MAX)
    except asyncpg.PostgresConnectionError:
        raise
    except asyncpg.PostgresError:
        return None
    return Contents(rows=int(row["rows"]), checksum=str(row["sum"]))


def _ms(seconds: float) -> int:
    return max(int(seconds * 1000), 1)
