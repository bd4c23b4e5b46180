"""dbmate's table: a row per version. Its source is pkg/driver/postgres/postgres.go.

dbmate itself takes no lock at all: `guard` keeps it from writing while we do, and the second
of two who apply the same version fails at the primary key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from postgres.migrate.books import tables
from postgres.migrate.words import BookEntry, Direction, Migration, Tool

USUAL: Final = "schema_migrations"
_COLUMNS: Final = ("version",)


@dataclass(frozen=True, slots=True, kw_only=True)
class DbmateBook:
    """The table of dbmate. It keeps no checksums and no flag of a beginning."""

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
        rows = await conn.fetch(f"SELECT version FROM {table} ORDER BY version")  # noqa: S608
        return tuple(BookEntry(version=row["version"]) for row in rows)

    async def ensure(self, conn: Any) -> None:
        """See Book."""
        if await self._find(conn) is None:
            table = await tables.new_table(conn, self.name)
            await conn.execute(
                f"CREATE TABLE IF NOT EXISTS {table} (version varchar(255) PRIMARY KEY)"
            )

    async def begin(self, conn: Any, migration: Migration, direction: Direction) -> None:
        """See Book: dbmate has nowhere to say it."""

    async def record(self, conn: Any, migration: Migration, *, seconds: float) -> None:  # noqa: ARG002
        """See Book."""
        table = await self._found(conn)
        await conn.execute(
            f"INSERT INTO {table} (version) VALUES ($1)",  # noqa: S608
            migration.version,
        )

    async def unrecord(self, conn: Any, migration: Migration) -> None:
        """See Book."""
        table = await self._found(conn)
        gone = await conn.execute(
            f"DELETE FROM {table} WHERE version = $1",  # noqa: S608
            migration.version,
        )
        tables.one_row(gone, self.table, migration)

    async def try_lock(self, conn: Any) -> bool:
        """See Book. The lock is ours: dbmate has none."""
        return await tables.try_locks(conn, [await tables.own_key(conn, self.name)])

    async def unlock(self, conn: Any) -> None:
        """See Book."""
        await tables.unlock(conn, [await tables.own_key(conn, self.name)])

    async def guard(self, conn: Any) -> None:
        """See Book."""
        await tables.lock_table(conn, await self._found(conn))

    async def _find(self, conn: Any) -> str | None:
        return await tables.find_table(conn, self.name, tool=Tool.DBMATE, columns=_COLUMNS)

    async def _found(self, conn: Any) -> str:
        return tables.must_be(await self._find(conn), self.table)
