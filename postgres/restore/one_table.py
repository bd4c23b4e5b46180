"""One table out of a restored copy, as a new table in a schema of its own: never touches others.

All of it is one transaction on the goal: afterwards the table is there whole, or nothing is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import asyncpg

from postgres.connect import connection
from postgres.dsn import Target
from postgres.errors import PostgresError
from postgres.together import together

OnBytes = Callable[[int], Awaitable[None]]

LIMIT: Final = timedelta(hours=12)
LOCK_LIMIT: Final = timedelta(seconds=10)
_CHUNKS_MAX: Final = 16
_KINDS: Final = {
    "p": "partitioned: its rows are in its partitions, which can be recovered one by one",
    "v": "a view, and has no rows of its own",
    "m": "a materialized view: refresh it instead",
    "f": "a foreign table: its rows are on another server",
    "S": "a sequence",
    "i": "an index",
}

# Everything is named with its schema then, but what is PostgreSQL's own.
BARE: Final = "SET search_path = ''"

FIND_TABLE: Final = """
    SELECT c.oid, n.nspname AS schema, c.relname AS name, c.relkind AS kind,
           c.relpersistence = 'u'              AS is_unlogged,
           pg_catalog.pg_table_size(c.oid)     AS size_bytes
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname || '.' || c.relname = $1
"""

# PostgreSQL quotes the names. Values of generated and identity columns are kept as they are.
READ_SHAPE: Final = """
    SELECT format('CREATE TABLE %I.%I (%s)', $2::text, $3::text, string_agg(
               format('%I %s%s%s', a.attname, format_type(a.atttypid, a.atttypmod),
                      CASE WHEN a.attcollation <> t.typcollation
                           THEN format(' COLLATE %I.%I', cn.nspname, co.collname) END,
                      CASE WHEN a.attnotnull THEN ' NOT NULL' END),
               ', ' ORDER BY a.attnum))                                  AS create_table,
           string_agg(format('%I', a.attname), ', ' ORDER BY a.attnum)   AS columns,
           array_agg(DISTINCT format_type(a.atttypid, NULL))             AS types
      FROM pg_attribute a
      JOIN pg_type t ON t.oid = a.atttypid
      LEFT JOIN pg_collation co ON co.oid = a.attcollation
      LEFT JOIN pg_namespace cn ON cn.oid = co.collnamespace
     WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
"""

READ_KEY: Final = """
    SELECT format('ALTER TABLE %I.%I ADD PRIMARY KEY (%s)', $2::text, $3::text,
                  string_agg(format('%I', a.attname), ', ' ORDER BY k.position))
      FROM pg_index i
     CROSS JOIN unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, position)
      JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
     WHERE i.indrelid = $1 AND i.indisprimary AND k.position <= i.indnkeyatts
    HAVING count(*) > 0
"""

MISSING_TYPES: Final = """
    SELECT name FROM unnest($1::text[]) AS names (name) WHERE to_regtype(name) IS NULL ORDER BY 1
"""

FIND_SCHEMA: Final = """
    SELECT oid, obj_description(oid, 'pg_namespace') AS comment
      FROM pg_namespace
     WHERE nspname = $1
"""

# Indexes, keys and row types hang on their table and not on the schema.
CONTENTS: Final = """
    SELECT pg_describe_object(classid, objid, objsubid) AS what,
           CASE WHEN classid = 'pg_class'::regclass THEN objid END AS relation
      FROM pg_depend
     WHERE refclassid = 'pg_namespace'::regclass AND refobjid = $1
     ORDER BY 1
     LIMIT 100
"""

MAKE_SCHEMA: Final = """
    SELECT format('CREATE SCHEMA %I; COMMENT ON SCHEMA %I IS %L', $1::text, $1::text, $2::text)
"""

DROP: Final = """
    SELECT coalesce('DROP TABLE ' || nullif($2::oid, 0)::regclass::text || '; ', '')
           || format('DROP SCHEMA %I', $1::text)
"""

COUNT: Final = "SELECT format('SELECT count(*) FROM %I.%I', $1::text, $2::text)"
READ_ROWS: Final = "SELECT format('SELECT %s FROM ONLY %I.%I', $3::text, $1::text, $2::text)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a table looks like, and the statements that make one like it in the schema `into`."""

    schema: str
    name: str
    into: str
    create_table: str
    add_key: str | None
    columns: str
    types: tuple[str, ...]
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """What was copied: rows, and bytes as they went over the wire."""

    rows: int
    wire_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """A schema that a recovery has made, and all that is in it."""

    schema: str
    relation: int | None
    contents: tuple[str, ...]

    @property
    def objection(self) -> PostgresError | None:
        """Why it may not be dropped: somebody has put something into it."""
        if len(self.contents) == (self.relation is not None):
            return None
        return PostgresError(
            f"{self.schema} holds more than the one recovered table: {', '.join(self.contents)}.",
            next_step="Move the rest elsewhere, or drop it by hand if nobody needs it; try again.",
        )


async def read_shape(source: Target, table: str, *, into: str) -> Shape:
    """What the table `schema.name` of a copy looks like.

    Raises:
        PostgresError: there is no such table, or it cannot be recovered; it says why.
    """
    async with _session(source, f"look at {table} in the copy") as conn:
        found = await conn.fetchrow(FIND_TABLE, table)
        if found is None:
            raise PostgresError(
                f"The copy has no table {table}.",
                next_step="Name it with its schema, as it was called then: public.payments.",
            )
        if why := _why_not(found):
            raise PostgresError(f"{table} is {why}.", next_step="Name a plain table.")
        shape = await conn.fetchrow(READ_SHAPE, found["oid"], into, found["name"])
        if shape["columns"] is None:
            raise PostgresError(f"{table} has no columns.", next_step="Name another table.")
        key = await conn.fetchval(READ_KEY, found["oid"], into, found["name"])
    return Shape(
        schema=found["schema"], name=found["name"], into=into,
        create_table=shape["create_table"], add_key=key, columns=shape["columns"],
        types=tuple(shape["types"]), size_bytes=found["size_bytes"],
    )  # fmt: skip


async def missing_types(goal: Target, shape: Shape) -> Sequence[str]:
    """Types of the table that the goal does not have."""
    async with _session(goal, "look for types") as conn:
        return [row["name"] for row in await conn.fetch(MISSING_TYPES, list(shape.types))]


async def copy_table(
    source: Target, goal: Target, shape: Shape, *, comment: str, on_bytes: OnBytes
) -> Copied:
    """Copy the rows of one table into a new one in the new schema `shape.into` of the goal.

    A schema of that name with this very comment is what an earlier attempt made: it is
    dropped first, unless somebody has put something into it.

    Raises:
        PostgresError: it could not be done. The goal is as it was.
    """
    began = time.monotonic()
    async with (
        _session(source, f"read {shape.schema}.{shape.name} from the copy") as reading,
        _session(goal, f"write {shape.into}.{shape.name}") as writing,
        writing.transaction(),
    ):
        await _make_way(writing, shape.into, comment)
        await writing.execute(await writing.fetchval(MAKE_SCHEMA, shape.into, comment))
        await writing.execute(shape.create_table)
        rows, wire_bytes = await _stream(reading, writing, shape, on_bytes)
        if shape.add_key:
            await writing.execute(shape.add_key, timeout=LIMIT.total_seconds())
        count = await writing.fetchval(COUNT, shape.into, shape.name)
        there = await writing.fetchval(count, timeout=LIMIT.total_seconds())
        if there != rows:
            raise PostgresError(
                f"{rows:,} rows were read from the copy, but {there:,} arrived.",
                next_step="Nothing was kept. Look for triggers and rules on new tables there.",
            )
    return Copied(rows=rows, wire_bytes=wire_bytes, seconds=time.monotonic() - began)


def own_of(
    schema: str, found: Mapping[str, Any], contents: Sequence[Mapping[str, Any]], *, comment: str
) -> Own:
    """The schema that a recovery made under this comment, out of `FIND_SCHEMA` and `CONTENTS`.

    Raises:
        PostgresError: it is of that name, but no recovery made it.
    """
    if found["comment"] != comment:
        raise PostgresError(
            f"The schema {schema} is none that Twokey made, by its comment.",
            next_step="Rename it if it is in the way, or drop it by hand if it is not needed.",
        )
    return Own(
        schema=schema,
        relation=next((row["relation"] for row in contents if row["relation"]), None),
        contents=tuple(row["what"] for row in contents),
    )


async def drop_own(goal: Target, schema: str, comment: str) -> bool:
    """Drop the schema of a recovery with its table; False: it is gone already.

    Raises:
        PostgresError: something else is in it, or hangs on the table. Nothing was dropped.
    """
    async with _session(goal, f"drop the schema {schema}") as conn, conn.transaction():
        return await _make_way(conn, schema, comment)


async def _make_way(conn: Any, schema: str, comment: str) -> bool:
    found = await conn.fetchrow(FIND_SCHEMA, schema)
    if found is None:
        return False
    contents = await conn.fetch(CONTENTS, found["oid"])
    own = own_of(schema, found, contents, comment=comment)
    if objection := own.objection:
        raise objection
    # RESTRICT by default: what came in meanwhile, or hangs on the table, stops it.
    await conn.execute(await conn.fetchval(DROP, schema, own.relation or 0))
    return True


def _why_not(found: Any) -> str | None:
    """Why a relation cannot be recovered, or None."""
    kind = found["kind"].decode() if isinstance(found["kind"], bytes) else str(found["kind"])
    if kind != "r":
        return _KINDS.get(kind, "no table")
    if found["is_unlogged"]:
        return "unlogged, so no backup holds its rows"
    return None


async def _stream(reading: Any, writing: Any, shape: Shape, on_bytes: OnBytes) -> tuple[int, int]:
    """Rows from one server to the other, a few chunks at a time; how many, and their bytes."""
    chunks: asyncio.Queue[bytes | None] = asyncio.Queue(_CHUNKS_MAX)
    sent = 0

    async def push(chunk: bytes) -> None:
        nonlocal sent
        sent += len(chunk)
        await chunks.put(bytes(chunk))
        await on_bytes(sent)

    async def pull() -> AsyncIterator[bytes]:
        while (chunk := await chunks.get()) is not None:
            yield chunk

    async def read() -> str:
        query = await reading.fetchval(READ_ROWS, shape.schema, shape.name, shape.columns)
        try:
            said = await reading.copy_from_query(
                query, output=push, format="binary", timeout=LIMIT.total_seconds()
            )
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            raise _could_not(f"read {shape.schema}.{shape.name} from the copy", error) from error
        await chunks.put(None)
        return str(said)

    async with together() as group:
        reader = group.create_task(read())
        group.create_task(
            writing.copy_to_table(
                shape.name, schema_name=shape.into, source=pull(), format="binary", freeze=True,
                timeout=LIMIT.total_seconds(),
            )
        )  # fmt: skip
    return int(reader.result().split()[-1]), sent


@asynccontextmanager
async def _session(target: Target, what: str) -> AsyncIterator[Any]:
    """A session with bare names that waits for no lock for long, and for its work long enough.

    Raises:
        PostgresError: the server cannot be reached, or `what` did not succeed there.
    """
    async with connection(target) as conn:
        try:
            await conn.execute(
                f"{BARE}; SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0;"
                f" SET lock_timeout = {int(LOCK_LIMIT.total_seconds() * 1000)}"
            )
            yield conn
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            raise _could_not(what, error) from error


def _could_not(what: str, error: Exception) -> PostgresError:
    said = str(error).rstrip(".") or type(error).__name__
    return PostgresError(
        f"It was not possible to {what}: {said}.",
        next_step="Nothing was changed. Mend what it names, then try again.",
    )
