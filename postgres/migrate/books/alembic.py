"""Alembic's table: a row per head, nearly always one. Its source is runtime/migration.py.

Alembic takes no lock: `guard` keeps it from writing while we do. A revision applied by both at
once fails in one of the two, when the row that it would change is another by then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from postgres.migrate.books import tables
from postgres.migrate.books.base import TableBook
from postgres.migrate.words import BookEntry, Migration, Tool

USUAL: Final = "alembic_version"


@dataclass(frozen=True, slots=True, kw_only=True)
class AlembicBook(TableBook):
    """The table of Alembic."""

    TOOL: ClassVar[Tool] = Tool.ALEMBIC
    COLUMNS: ClassVar[tuple[str, ...]] = ("version_num",)

    async def record(self, conn: Any, migration: Migration, *, seconds: float) -> None:  # noqa: ARG002
        """The heads that there are with it, in place of those before."""
        await self._replace(conn, migration, migration.book_before, migration.book_after)

    async def unrecord(self, conn: Any, migration: Migration) -> None:
        """The heads that there were before it."""
        await self._replace(conn, migration, migration.book_after, migration.book_before)

    async def _replace(
        self, conn: Any, migration: Migration, old: tuple[str, ...], new: tuple[str, ...]
    ) -> None:
        table = await self._found(conn)
        async with conn.transaction():
            rows = await conn.fetch(f"SELECT version_num FROM {table}")  # noqa: S608
            tables.must_be_of(
                sorted(row["version_num"] for row in rows) == sorted(old), self.table, migration
            )
            await conn.execute(
                f"DELETE FROM {table} WHERE version_num <> ALL($1::text[])",  # noqa: S608
                list(new),
            )
            await conn.execute(
                f"INSERT INTO {table} (version_num)"  # noqa: S608
                f" SELECT n FROM unnest($1::text[]) AS n"
                f" WHERE NOT EXISTS (SELECT 1 FROM {table} WHERE version_num = n)",
                list(new),
            )

    async def _entries(self, conn: Any, table: str) -> Sequence[BookEntry]:
        rows = await conn.fetch(f"SELECT version_num FROM {table} ORDER BY version_num")  # noqa: S608
        return tuple(BookEntry(version=row["version_num"], covers_earlier=True) for row in rows)

    async def _create(self, conn: Any, table: str) -> None:
        pk = tables.quoted(f"{self.name.name}_pkc")
        await conn.execute(
            f"CREATE TABLE IF NOT EXISTS {table} (version_num VARCHAR(32) NOT NULL,"
            f" CONSTRAINT {pk} PRIMARY KEY (version_num))"
        )
