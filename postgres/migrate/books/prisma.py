"""Prisma's table: a row per attempt. Its source is sql_migration_persistence.rs.

A row without `finished_at` is an attempt that failed or still goes on, and one with
`rolled_back_at` counts as never applied: that is also how we write down a way back.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from postgres.migrate.books import tables
from postgres.migrate.books.base import TableBook
from postgres.migrate.words import BookEntry, Direction, Migration, Tool

USUAL: Final = "_prisma_migrations"
SCHEMA: Final = "public"  # what its `schema` parameter is unless somebody sets it
_LOCK: Final = 72707369
_CREATE: Final = """
    CREATE TABLE {table} (
        id                  VARCHAR(36) PRIMARY KEY NOT NULL,
        checksum            VARCHAR(64) NOT NULL,
        finished_at         TIMESTAMPTZ,
        migration_name      VARCHAR(255) NOT NULL,
        logs                TEXT,
        rolled_back_at      TIMESTAMPTZ,
        started_at          TIMESTAMPTZ NOT NULL DEFAULT now(),
        applied_steps_count INTEGER NOT NULL DEFAULT 0
    )
"""
_BEGIN: Final = """
    INSERT INTO {table} (id, checksum, started_at, migration_name)
    SELECT $1, $2, clock_timestamp(), $3::varchar
     WHERE NOT EXISTS (SELECT 1 FROM {table}
                        WHERE migration_name = $3 AND finished_at IS NULL
                          AND rolled_back_at IS NULL)
"""
_FINISH: Final = """
    UPDATE {table}
       SET finished_at = clock_timestamp(), applied_steps_count = applied_steps_count + 1
     WHERE migration_name = $1 AND finished_at IS NULL AND rolled_back_at IS NULL
"""
# To be gone back from, a migration counts as begun once more.
_REOPEN: Final = """
    UPDATE {table} SET finished_at = NULL
     WHERE migration_name = $1 AND rolled_back_at IS NULL
"""
# Without an end, too: so `migrate resolve --rolled-back` leaves an attempt that has failed.
_ROLL_BACK: Final = """
    UPDATE {table} SET rolled_back_at = clock_timestamp(), finished_at = NULL
     WHERE migration_name = $1 AND rolled_back_at IS NULL
"""
_READ: Final = """
    SELECT migration_name, checksum, finished_at IS NOT NULL AS is_complete
      FROM {table}
     WHERE rolled_back_at IS NULL
     ORDER BY started_at, finished_at NULLS LAST
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrismaBook(TableBook):
    """The table of Prisma."""

    TOOL: ClassVar[Tool] = Tool.PRISMA
    COLUMNS: ClassVar[tuple[str, ...]] = (
        "id",
        "checksum",
        "finished_at",
        "migration_name",
        "logs",
        "rolled_back_at",
        "started_at",
        "applied_steps_count",
    )

    async def begin(self, conn: Any, migration: Migration, direction: Direction) -> None:
        """A row without an end."""
        table = await self._found(conn)
        if direction is Direction.DOWN:
            await conn.execute(_REOPEN.format(table=table), migration.version)
            return
        await conn.execute(
            _BEGIN.format(table=table), str(uuid.uuid4()), migration.checksum, migration.version
        )

    async def record(self, conn: Any, migration: Migration, *, seconds: float) -> None:  # noqa: ARG002
        """A row with an end."""
        await self.begin(conn, migration, Direction.UP)
        table = await self._found(conn)
        done = await conn.execute(_FINISH.format(table=table), migration.version)
        tables.one_row(done, self.table, migration)

    async def unrecord(self, conn: Any, migration: Migration) -> None:
        """As `prisma migrate resolve --rolled-back` writes it: Prisma sees it as not applied."""
        table = await self._found(conn)
        done = await conn.execute(_ROLL_BACK.format(table=table), migration.version)
        tables.one_row(done, self.table, migration)

    async def _entries(self, conn: Any, table: str) -> Sequence[BookEntry]:
        rows = await conn.fetch(_READ.format(table=table))
        # The same migration twice: an attempt that has not ended is the one to see.
        return tuple(
            BookEntry(
                version=row["migration_name"],
                checksum=row["checksum"],
                is_complete=row["is_complete"],
            )
            for row in sorted(rows, key=lambda row: not row["is_complete"])
        )

    async def _create(self, conn: Any, table: str) -> None:
        schema = await tables.schema_of(conn, self.name)
        await tables.refuse_filled(
            conn,
            schema,
            table=self.table,
            next_step="Write down what is there already with `prisma migrate resolve --applied`.",
        )
        await conn.execute(_CREATE.format(table=table))

    async def _keys(self, conn: Any) -> Sequence[int]:  # noqa: ARG002
        return (_LOCK,)
