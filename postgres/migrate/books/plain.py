"""The table for SQL files of nobody's tool: ours, in our own schema of the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from postgres.migrate.books import tables
from postgres.migrate.books.base import TableBook
from postgres.migrate.own_schema import SCHEMA, ensure_schema
from postgres.migrate.words import BookEntry, Migration, Tool

USUAL: Final = "applied"
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
class PlainBook(TableBook):
    """A row per file, with the SHA-256 of what was applied."""

    TOOL: ClassVar[Tool] = Tool.PLAIN
    COLUMNS: ClassVar[tuple[str, ...]] = ("version", "name", "sha256", "applied_at", "seconds")

    async def ensure(self, conn: Any) -> None:
        """Have our schema, and the table in it."""
        if self.name.schema == SCHEMA:
            await ensure_schema(conn)
        await TableBook.ensure(self, conn)

    async def record(self, conn: Any, migration: Migration, *, seconds: float) -> None:
        """A row."""
        await conn.execute(
            f"INSERT INTO {await self._found(conn)} (version, name, sha256, seconds)"  # noqa: S608
            " VALUES ($1, $2, $3, $4)",
            migration.version,
            migration.name,
            migration.checksum,
            seconds,
        )

    async def unrecord(self, conn: Any, migration: Migration) -> None:
        """The row goes."""
        gone = await conn.execute(
            f"DELETE FROM {await self._found(conn)} WHERE version = $1",  # noqa: S608
            migration.version,
        )
        tables.one_row(gone, self.table, migration)

    async def _entries(self, conn: Any, table: str) -> Sequence[BookEntry]:
        rows = await conn.fetch(f"SELECT version, name, sha256 FROM {table} ORDER BY applied_at")  # noqa: S608
        return tuple(
            BookEntry(version=row["version"], name=row["name"], checksum=row["sha256"])
            for row in rows
        )

    async def _create(self, conn: Any, table: str) -> None:
        await conn.execute(_CREATE.format(table=table))
