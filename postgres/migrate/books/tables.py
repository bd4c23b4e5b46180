"""A bookkeeping table: its name, whether it is there and is the tool's, and its locks."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from postgres.errors import PostgresError
from postgres.migrate.words import Migration, Tool

# PostgreSQL cuts a longer name off in silence, and then reads another table.
_NAME_BYTES_MAX: Final = 63
_SHOWN_MAX: Final = 5

# A name without a schema is looked for where the tools look: in current_schema(). $1 null.
_FIND: Final = """
    SELECT n.nspname::text AS schema, c.relname::text AS name, c.relkind::text AS kind,
           array(SELECT a.attname::text FROM pg_attribute a
                  WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = coalesce($1, current_schema()) AND c.relname = $2
       AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
"""
_ELSEWHERE: Final = """
    SELECT n.nspname::text AS schema
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relname = $1 AND c.relkind IN ('r', 'p')
       AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
     ORDER BY 1
     LIMIT 6
"""
_FILLED: Final = """
    SELECT c.relname::text
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = $1 AND c.relkind IN ('r', 'p')
       AND NOT EXISTS (SELECT 1 FROM pg_depend d
                        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                          AND d.deptype = 'e')
     ORDER BY 1
     LIMIT 3
"""
_TRY: Final = "SELECT pg_try_advisory_lock($1)"
_UNLOCK: Final = "SELECT pg_advisory_unlock($1)"
# Ours, for tools that take none: it keeps two of us apart, not the tool and us.
_OWN_KEY: Final = "SELECT hashtextextended('twokey book ' || $1, 7203)"


@dataclass(frozen=True, slots=True, kw_only=True)
class TableName:
    """A table's name. `schema` '': the first schema of the session's search path."""

    schema: str
    name: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}" if self.schema else self.name


def table_name(text: str, *, usual: str, schema: str = "") -> TableName:
    """The name that the settings give, such as `app.schema_migrations`, or the usual one.

    The parts are taken as they are written, as the tools take them; double quotes around a part
    let it contain a dot.

    Raises:
        PostgresError: it is no name of a table.
    """
    parts = _split(text) if text else [schema, usual]
    if len(parts) == 1:
        parts = [schema, *parts]
    for part in parts[1:] if not parts[0] else parts:
        if not part or "\0" in part or len(part.encode()) > _NAME_BYTES_MAX:
            raise _no_name(text)
    if len(parts) != 2:  # noqa: PLR2004  (schema and name)
        raise _no_name(text)
    return TableName(schema=parts[0], name=parts[1])


def quoted(name: str) -> str:
    """A name as an identifier, as the server's quote_ident does it for one that needs it."""
    return '"' + name.replace('"', '""') + '"'


def identifier(schema: str, name: str) -> str:
    """Schema and table as one identifier."""
    return f"{quoted(schema)}.{quoted(name)}"


async def find_table(
    conn: Any, table: TableName, *, tool: Tool, columns: Collection[str]
) -> str | None:
    """The table as an identifier; None when there is none.

    Raises:
        PostgresError: something else has this name, or the table stands in another schema only:
            to take it for missing would apply everything once more.
    """
    rows = await conn.fetch(_FIND, table.schema or None, table.name)
    if not rows:
        await _refuse_elsewhere(conn, table)
        return None
    (found,) = rows
    if found["kind"] not in ("r", "p") or set(columns) != set(found["columns"]):
        raise PostgresError(
            f"{found['schema']}.{found['name']} is not the table of {tool}: it has"
            f" {', '.join(sorted(found['columns']))}.",
            next_step="Set `migrations.tool` or `migrations.table` in the inventory.",
        )
    return identifier(found["schema"], found["name"])


async def new_table(conn: Any, table: TableName) -> str:
    """The identifier of a table that is to be created; its schema must be there.

    Raises:
        PostgresError: there is no such schema.
    """
    schema = table.schema or await conn.fetchval("SELECT current_schema()::text")
    if schema is None or not await conn.fetchval(
        "SELECT EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = $1)", schema
    ):
        raise PostgresError(
            f"There is no schema {schema or 'in the search path'} for the table {table}.",
            next_step="Create the schema, or correct `migrations.table` in the inventory.",
        )
    return identifier(schema, table.name)


async def schema_of(conn: Any, table: TableName) -> str:
    """The schema in which the table stands or would stand."""
    return table.schema or str(await conn.fetchval("SELECT current_schema()::text") or "public")


async def lock_table(conn: Any, table: str) -> None:
    """Nobody else writes the table until this transaction ends; reading goes on."""
    await conn.execute(f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE")


async def own_key(conn: Any, table: TableName) -> int:
    """A lock of ours, for the table of a tool that takes none."""
    return int(await conn.fetchval(_OWN_KEY, f"{await schema_of(conn, table)}.{table.name}"))


async def try_locks(conn: Any, keys: Sequence[int]) -> bool:
    """Take all of these advisory locks for the session, or none of them.

    Raises:
        RuntimeError: inside a transaction, where a lock must not be waited for.
    """
    if conn.is_in_transaction():
        raise RuntimeError("an advisory lock is not to be tried inside a transaction")
    held: list[int] = []
    for key in keys:
        if not await conn.fetchval(_TRY, key):
            await unlock(conn, held)
            return False
        held.append(key)
    return True


async def unlock(conn: Any, keys: Sequence[int]) -> None:
    """Give these advisory locks back."""
    for key in reversed(keys):
        await conn.fetchval(_UNLOCK, key)


def one_row(status: str, name: str, migration: Migration) -> None:
    """Look at what a statement on the book has changed.

    Raises:
        PostgresError: not exactly one row: somebody else writes this table.
    """
    must_be_of(status.rpartition(" ")[2] == "1", name, migration)


def must_be_of(is_so: bool, name: str, migration: Migration) -> None:  # noqa: FBT001
    """Go on only when the table holds what it must hold before this migration is written down.

    Raises:
        PostgresError: it does not: somebody else writes this table.
    """
    if not is_so:
        raise PostgresError(
            f"The table {name} does not say what it must before {migration.title} is changed in"
            " it: somebody else applies migrations here.",
            next_step="See who does, then ask for a new plan.",
        )


async def refuse_filled(conn: Any, schema: str, *, table: str, next_step: str) -> None:
    """A schema that has tables but no book is refused, as its tool does.

    Raises:
        PostgresError: what stands in the schema was made by nobody knows which migrations.
    """
    filled = await conn.fetch(_FILLED, schema)
    if filled:
        names = ", ".join(row[0] for row in filled)
        raise PostgresError(
            f"The schema {schema} has tables ({names}), and no {table} that says where they"
            " come from.",
            next_step=next_step,
        )


async def _refuse_elsewhere(conn: Any, table: TableName) -> None:
    if table.schema:
        return
    schemas = [row["schema"] for row in await conn.fetch(_ELSEWHERE, table.name)]
    if schemas:
        raise PostgresError(
            f"There is no table {table.name} in the first schema of our search path, but one in"
            f" {', '.join(schemas[:_SHOWN_MAX])}.",
            next_step="Say which in the inventory, such as"
            f" `migrations.table: {schemas[0]}.{table.name}`.",
        )


def _split(text: str) -> list[str]:
    """The parts of a name between its dots; a dot within double quotes is part of the name."""
    parts, part, inside = [], "", False
    at = 0
    while at < len(text):
        char = text[at]
        if inside and text.startswith('""', at):
            part, at = part + '"', at + 2
            continue
        if char == '"':
            inside = not inside
        elif char == "." and not inside:
            parts.append(part)
            part = ""
        else:
            part += char
        at += 1
    if inside:
        raise _no_name(text)
    return [*parts, part]


def _no_name(text: str) -> PostgresError:
    return PostgresError(
        f"{text[:100]!r} is not the name of a table.",
        next_step="Write `migrations.table` as table or schema.table.",
    )
