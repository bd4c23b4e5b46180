"""The table for SQL files of nobody's tool: ours, in our own schema of the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from postgres.migrate.books import tables
from postgres.migrate.own_schema import SCHEMA, ensure_schema
from postgres.migrate.words import BookEntry, Direction, Migration, Tool

USUAL: Final = "applied"
_COLUMNS: Final = ("version", "name", "sha256", "applied_at", "seconds")
_CREATE: Final = """
    CREATE TABLE IF NOT EXISTS {table} (
        version    text PRIMARY KEY,
        name       text NOT NULL,
        sha256     text NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        seconds    double precision NOT NULL
    )
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainBook:
    """A row per file, with the SHA-256 of what was applied."""

    name: tables.TableName

    @property
    def table(self) -> str:
        """See Book."""
        return str(self.name)

    async def read(self, conn: Any) -> Sequence[BookEntry] | None:
        """See Book."""
        table = await self._find(conn)
        if table is None:
            return None
        rows = await conn.fetch(f"SELECT version, name, sha256 FROM {table} ORDER BY applied_at")  # noqa: S608
        return tuple(
            BookEntry(version=row["version"], name=row["name"], checksum=row["sha256"])
            for row in rows
        )

    async def ensure(self, conn: Any) -> None:
        """See Book."""
        if self.name.schema == SCHEMA:
            await ensure_schema(conn)
        if await self._find(conn) is None:
            table = await tables.new_table(conn, self.name)
            await conn.execute(_CREATE.format(table=table))

    async def begin(self, conn: Any, migration: Migration, direction: Direction) -> None:
        """See Book: the ledger of statements says it."""

    async def record(self, conn: Any, migration: Migration, *, seconds: float) -> None:
        """See Book."""
        await conn.execute(
            f"INSERT INTO {await self._found(conn)} (version, name, sha256, seconds)"  # noqa: S608
            " VALUES ($1, $2, $3, $4)",
            migration.version,
            migration.name,
            migration.checksum,
            seconds,
        )

    async def unrecord(self, conn: Any, migration: Migration) -> None:
        """See Book."""
        gone = await conn.execute(
            f"DELETE FROM {await self._found(conn)} WHERE version = $1",  # noqa: S608
            migration.version,
        )
        tables.one_row(gone, self.table, migration)

    async def try_lock(self, conn: Any) -> bool:
        """See Book."""
        return await tables.try_locks(conn, [await tables.own_key(conn, self.name)])

    async def unlock(self, conn: Any) -> None:
        """See Book."""
        await tables.unlock(conn, [await tables.own_key(conn, self.name)])

    async def guard(self, conn: Any) -> None:
        """See Book."""
        await tables.lock_table(conn, await self._found(conn))

    async def _find(self, conn: Any) -> str | None:
        return await tables.find_table(conn, self.name, tool=Tool.PLAIN, columns=_COLUMNS)

    async def _found(self, conn: Any) -> str:
        return tables.must_be(await self._find(conn), self.table)
