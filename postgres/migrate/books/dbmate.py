"""dbmate's table: a row per version. Its source is pkg/driver/postgres/postgres.go.

dbmate itself takes no lock at all: `guard` keeps it from writing while we do, and the second
of two who apply the same version fails at the primary key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from postgres.migrate.books import tables
from postgres.migrate.books.base import TableBook
from postgres.migrate.words import BookEntry, Migration, Tool

USUAL: Final = "schema_migrations"


@dataclass(frozen=True, slots=True, kw_only=True)
class DbmateBook(TableBook):
    """The table of dbmate. It keeps no checksums and no flag of a beginning."""

    TOOL: ClassVar[Tool] = Tool.DBMATE
    COLUMNS: ClassVar[tuple[str, ...]] = ("version",)

    async def record(self, conn: Any, migration: Migration, *, seconds: float) -> None:  # noqa: ARG002
        """A row."""
        await conn.execute(
            f"INSERT INTO {await self._found(conn)} (version) VALUES ($1)",  # noqa: S608
            migration.version,
        )

    async def unrecord(self, conn: Any, migration: Migration) -> None:
        """The row goes."""
        gone = await conn.execute(
            f"DELETE FROM {await self._found(conn)} WHERE version = $1",  # noqa: S608
            migration.version,
        )
        tables.one_row(gone, self.table, migration)

    async def _entries(self, conn: Any, table: str) -> Sequence[BookEntry]:
        rows = await conn.fetch(f"SELECT version FROM {table} ORDER BY version")  # noqa: S608
        return tuple(BookEntry(version=row["version"]) for row in rows)

    async def _create(self, conn: Any, table: str) -> None:
        await conn.execute(f"CREATE TABLE IF NOT EXISTS {table} (version varchar(255) PRIMARY KEY)")
