"""golang-migrate's table: one row with the newest version, and whether it is dirty.

Its source is database/postgres/postgres.go. Before it runs a file it writes the version that it
is going to and `dirty`; afterwards the same without. Below the first there is no row at all.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from postgres.migrate.books import tables
from postgres.migrate.books.base import TableBook
from postgres.migrate.words import BookEntry, Direction, Migration, Tool

USUAL: Final = "schema_migrations"
_SALT: Final = 1486364155
_NO_VERSION: Final = -1  # its NilVersion: dirty below the first migration


@dataclass(frozen=True, slots=True, kw_only=True)
class GolangMigrateBook(TableBook):
    """The table of golang-migrate."""

    TOOL: ClassVar[Tool] = Tool.GOLANG_MIGRATE
    COLUMNS: ClassVar[tuple[str, ...]] = ("version", "dirty")

    async def begin(self, conn: Any, migration: Migration, direction: Direction) -> None:
        """The version that it is going to, dirty."""
        goes_to = migration.book_after if direction is Direction.UP else migration.book_before
        known = {migration.book_before, migration.book_after}
        await self._set(conn, migration, known=known, to=goes_to, is_dirty=True)

    async def record(self, conn: Any, migration: Migration, *, seconds: float) -> None:  # noqa: ARG002
        """Its version, and clean."""
        known = {migration.book_before, migration.book_after}
        await self._set(conn, migration, known=known, to=migration.book_after, is_dirty=False)

    async def unrecord(self, conn: Any, migration: Migration) -> None:
        """The version before it, and clean."""
        known = {migration.book_before, migration.book_after}
        await self._set(conn, migration, known=known, to=migration.book_before, is_dirty=False)

    async def _set(
        self,
        conn: Any,
        migration: Migration,
        *,
        known: set[tuple[str, ...]],
        to: tuple[str, ...],
        is_dirty: bool,
    ) -> None:
        """Replace the row. What stands there must be of this migration or of the one before it."""
        table = await self._found(conn)
        async with conn.transaction():
            rows = await conn.fetch(f"DELETE FROM {table} RETURNING version")  # noqa: S608
            stood = tuple(str(row["version"]) for row in rows if row["version"] != _NO_VERSION)
            tables.must_be_of(stood in known, self.table, migration)
            version = int(to[0]) if to else _NO_VERSION
            if to or is_dirty:
                await conn.execute(
                    f"INSERT INTO {table} (version, dirty) VALUES ($1, $2)",  # noqa: S608
                    version,
                    is_dirty,
                )

    async def _entries(self, conn: Any, table: str) -> Sequence[BookEntry]:
        rows = await conn.fetch(f"SELECT version, dirty FROM {table} ORDER BY version")  # noqa: S608
        return tuple(
            BookEntry(
                version=str(row["version"]), is_complete=not row["dirty"], covers_earlier=True
            )
            for row in rows
        )

    async def _create(self, conn: Any, table: str) -> None:
        await conn.execute(
            f"CREATE TABLE IF NOT EXISTS {table}"
            " (version bigint not null primary key, dirty boolean not null)"
        )

    async def _keys(self, conn: Any) -> Sequence[int]:
        """Its number of old and new versions, and of its command line, whose name has a slash."""
        database = str(await conn.fetchval("SELECT current_database()::text"))
        schema = await tables.schema_of(conn, self.name)
        return tuple(
            lock_number(name, *more)
            for name in (database, f"/{database}")
            for more in ((schema, self.name.name), (schema,))
        )


def lock_number(database: str, *more: str) -> int:
    """golang-migrate's GenerateAdvisoryLockId (database/util.go)."""
    return zlib.crc32("\0".join([*more, database]).encode()) * _SALT % 2**32
