"""What became of a statement that had to be alone, by the catalog; and what is left half-made.

Before it is sent, `look` keeps what there is: oids, as a name may be given again. After a crash
`settle` compares: what is there now and was not then, and looks as the statement would
make it, is ours. What cannot be told apart is never touched.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, assert_never

from postgres.errors import PostgresError
from postgres.migrate.alone_words import Alone, AloneKind, IndexShape, shape_of

_NAMES_MAX: Final = 5

_OID: Final = "SELECT pg_catalog.to_regclass($1)::oid::bigint"
_TYPE_OID: Final = "SELECT pg_catalog.to_regtype($1)::oid::bigint"
_INDEXES: Final = """
    SELECT c.oid::bigint AS oid, c.relname::text AS name, i.indisvalid AS is_valid,
           pg_catalog.pg_get_indexdef(c.oid) AS definition,
           pg_catalog.format('DROP INDEX CONCURRENTLY %I.%I', n.nspname, c.relname) AS dropping,
           (SELECT min(p.pid) FROM pg_catalog.pg_stat_progress_create_index p
             WHERE p.index_relid = c.oid) AS builder
      FROM pg_catalog.pg_index i
      JOIN pg_catalog.pg_class c     ON c.oid = i.indexrelid
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE i.indrelid = $1::bigint::oid
     ORDER BY c.oid
"""
# An index lives in its table's schema, and shares its names with all that is there.
_NAMED: Final = """
    SELECT c.oid::bigint AS oid
      FROM pg_catalog.pg_class t
      JOIN pg_catalog.pg_class c ON c.relnamespace = t.relnamespace
     WHERE t.oid = $1::bigint::oid AND c.relname = $2
"""
# What REINDEX CONCURRENTLY builds, or has replaced; those of TOAST tables cannot be dropped.
_LEFTOVERS: Final = """
    SELECT c.oid::bigint AS oid, c.relname::text AS name,
           pg_catalog.format('DROP INDEX CONCURRENTLY %I.%I', n.nspname, c.relname) AS dropping
      FROM pg_catalog.pg_index i
      JOIN pg_catalog.pg_class c     ON c.oid = i.indexrelid
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE NOT i.indisvalid AND c.relname ~ '_cc(new|old)[0-9]*$' AND n.nspname !~ '^pg_'
       AND ($1::bigint IS NULL OR i.indrelid = $1::bigint::oid)
       AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_progress_create_index p
                        WHERE p.relid = i.indrelid)
     ORDER BY c.oid
"""
_TABLE_OF_INDEX: Final = """
    SELECT indrelid::bigint FROM pg_catalog.pg_index
     WHERE indexrelid = pg_catalog.to_regclass($1)::oid
"""
_LABEL: Final = """
    SELECT EXISTS (SELECT FROM pg_catalog.pg_enum
                    WHERE enumtypid = $1::bigint::oid AND enumlabel = $2)
"""
# The column is missing before PostgreSQL 14.
_INHERITS: Final = """
    SELECT coalesce((pg_catalog.to_jsonb(i) ->> 'inhdetachpending')::boolean, false) AS is_pending,
           pg_catalog.format('ALTER TABLE %s DETACH PARTITION %s FINALIZE',
                             i.inhparent::regclass, i.inhrelid::regclass) AS finalize
      FROM pg_catalog.pg_inherits i
     WHERE i.inhparent = $1::bigint::oid AND i.inhrelid = $2::bigint::oid
"""


class Became(Enum):
    """What became of a statement."""

    DONE = "done"
    NOT_DONE = "not done"  # and nothing of it is left: it may be sent
    HALF = "half"  # what is left must be cleared first
    AT_WORK = "at work"  # a backend is still at it
    FINALIZE = "finalize"  # one more statement ends it
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What became of a statement. `clear`: what to run; `names`: what is half-made."""

    became: Became
    clear: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


async def look(conn: Any, alone: Alone) -> Mapping[str, Any]:
    """What there is before a statement is sent for the first time, as JSON."""
    match alone.kind:
        case AloneKind.CREATE_INDEX:
            table = await _oid(conn, alone.table)
            rows = await conn.fetch(_INDEXES, table) if table else []
            return {"table": table, "indexes": [row["oid"] for row in rows]}
        case AloneKind.DROP_INDEX:
            return {"index": await _oid(conn, alone.name)}
        case AloneKind.REINDEX:
            table = await _reindexed(conn, alone)
            rows = await conn.fetch(_LEFTOVERS, table)
            return {"table": table, "indexes": [row["oid"] for row in rows]}
        case AloneKind.ADD_VALUE:
            name = alone.name.quoted if alone.name else ""
            return {"type": await conn.fetchval(_TYPE_OID, name)}
        case AloneKind.DETACH:
            return {
                "table": await _oid(conn, alone.table),
                "partition": await _oid(conn, alone.partition),
            }
        case AloneKind.REPEATABLE | AloneKind.OTHER:
            return {}
        case never:
            assert_never(never)


async def taken(conn: Any, alone: Alone, evidence: Mapping[str, Any]) -> Found | None:
    """Before the first time: what stands where an index is to be made; None: nothing.

    DONE: a valid index of that name on that table, which looks as this one would.

    Raises:
        PostgresError: something else has its name, or it is there half-built.
    """
    if alone.kind is not AloneKind.CREATE_INDEX or alone.name is None or not evidence["table"]:
        return None
    name = alone.name.name
    if await conn.fetchrow(_NAMED, evidence["table"], name) is None:
        return None
    rows = await conn.fetch(_INDEXES, evidence["table"])
    row = next((row for row in rows if row["name"] == name), None)
    if row is None or not is_like(row["definition"], alone.shape):
        raise PostgresError(
            f"Something else is called {name} already. Nothing of this statement has run.",
            next_step="See what it is with /db indexes, or give the new one another name.",
        )
    if not row["is_valid"]:
        raise PostgresError(
            f"{name} is there already, half-built by somebody else. Nothing of this statement has"
            " run.",
            next_step="See that nobody is building it, drop it with /db drop-index, and ask again.",
        )
    return Found(became=Became.DONE)


async def settle(  # noqa: PLR0911 - one for each kind
    conn: Any, alone: Alone, evidence: Mapping[str, Any]
) -> Found:
    """What became of a statement that was sent once; nothing is changed here."""
    match alone.kind:
        case AloneKind.CREATE_INDEX:
            return await _settle_index(conn, alone, evidence)
        case AloneKind.DROP_INDEX:
            now = await _oid(conn, alone.name)
            is_there = now is not None and now == evidence["index"]
            return Found(became=Became.NOT_DONE if is_there else Became.DONE)
        case AloneKind.REINDEX:
            rows = await conn.fetch(_LEFTOVERS, evidence["table"])
            new = [row for row in rows if row["oid"] not in evidence["indexes"]]
            return _half(new) if new else Found(became=Became.NOT_DONE)
        case AloneKind.ADD_VALUE:
            is_there = await conn.fetchval(_LABEL, evidence["type"], alone.label)
            return Found(became=Became.DONE if is_there else Became.NOT_DONE)
        case AloneKind.DETACH:
            return await _settle_detach(conn, evidence)
        case AloneKind.REPEATABLE:
            return Found(became=Became.NOT_DONE)
        case AloneKind.OTHER:
            return Found(became=Became.UNKNOWN)
        case never:
            assert_never(never)


async def clear(conn: Any, found: Found, *, seconds_max: float) -> None:
    """Drop what is left half-made, one after the other, while its table stays in use."""
    until = time.monotonic() + seconds_max
    for statement in found.clear:
        await conn.execute(statement, timeout=max(until - time.monotonic(), 1.0))


def is_like(definition: str | None, shape: IndexShape | None) -> bool:
    """Whether a definition of the catalog's may be of this shape. Pure."""
    return definition is not None and shape is not None and shape_of(definition) == shape


async def _settle_index(conn: Any, alone: Alone, evidence: Mapping[str, Any]) -> Found:
    if not evidence["table"]:
        return Found(became=Became.NOT_DONE)  # there was no table to build it on
    rows = [
        row
        for row in await conn.fetch(_INDEXES, evidence["table"])
        if row["oid"] not in evidence["indexes"]
        and (alone.name is None or row["name"] == alone.name.name)
        and is_like(row["definition"], alone.shape)
    ]
    if any(row["is_valid"] for row in rows):
        return Found(became=Became.DONE)
    if any(row["builder"] is not None for row in rows):
        return Found(became=Became.AT_WORK, names=tuple(row["name"] for row in rows))
    return _half(rows) if rows else Found(became=Became.NOT_DONE)


async def _settle_detach(conn: Any, evidence: Mapping[str, Any]) -> Found:
    row = await conn.fetchrow(_INHERITS, evidence["table"], evidence["partition"])
    if row is None:
        return Found(became=Became.DONE)
    if row["is_pending"]:
        return Found(became=Became.FINALIZE, clear=(row["finalize"],))
    return Found(became=Became.NOT_DONE)


def _half(rows: Any) -> Found:
    return Found(
        became=Became.HALF,
        clear=tuple(row["dropping"] for row in rows),
        names=tuple(row["name"] for row in rows[:_NAMES_MAX]),
    )


async def _reindexed(conn: Any, alone: Alone) -> int | None:
    """The table that is worked on; None: more than one."""
    if alone.name is None:
        return None
    if alone.scope == "index":
        found = await conn.fetchval(_TABLE_OF_INDEX, alone.name.quoted)
    else:
        found = await _oid(conn, alone.name)
    return None if found is None else int(found)


async def _oid(conn: Any, name: Any) -> int | None:
    found = await conn.fetchval(_OID, name.quoted) if name else None
    return None if found is None else int(found)
