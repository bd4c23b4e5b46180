"""Flyway's table: a row per run.

Its sources are PostgreSQLDatabase.java and JdbcTableSchemaHistory.java. A way back takes the row
away: the free Flyway knows no undo rows, and sees a version without a row as pending, as every
edition does. While a file that is no transaction runs, its row says `success = false`, which
makes Flyway refuse to go on if we die.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

from postgres.migrate.books import tables
from postgres.migrate.books.base import TableBook
from postgres.migrate.folders.flyway import (
    canonical,
    description,
    repeatable_key,
    written_version,
)
from postgres.migrate.words import BookEntry, Direction, Migration, Tool

USUAL: Final = "flyway_schema_history"
_LOCK_MAGIC: Final = int.from_bytes(b"\x46\x6c\x79\x77\x61\x79")  # "Flyway"
_CREATE: Final = """
    CREATE TABLE {table} (
        "installed_rank" INT NOT NULL,
        "version"        VARCHAR(50),
        "description"    VARCHAR(200) NOT NULL,
        "type"           VARCHAR(20) NOT NULL,
        "script"         VARCHAR(1000) NOT NULL,
        "checksum"       INTEGER,
        "installed_by"   VARCHAR(100) NOT NULL,
        "installed_on"   TIMESTAMP NOT NULL DEFAULT now(),
        "execution_time" INTEGER NOT NULL,
        "success"        BOOLEAN NOT NULL
    );
    ALTER TABLE {table} ADD CONSTRAINT {pk} PRIMARY KEY ("installed_rank");
    CREATE INDEX {index} ON {table} ("success")
"""
_INSERT: Final = """
    INSERT INTO {table} (installed_rank, version, description, type, script, checksum,
                         installed_by, execution_time, success)
    SELECT coalesce(max(installed_rank), 0) + 1, $1::varchar, $2, 'SQL', $3, $4::int,
           current_user, $5, $6
      FROM {table}
"""
_UPDATE: Final = """
    UPDATE {table} SET success = $2, execution_time = $3 WHERE installed_rank = $1
"""
_DELETE: Final = "DELETE FROM {table} WHERE installed_rank = $1"
_READ: Final = """
    SELECT installed_rank, version, description, type, checksum, success
      FROM {table}
     ORDER BY installed_rank
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlywayBook(TableBook):
    """The table of Flyway."""

    TOOL: ClassVar[Tool] = Tool.FLYWAY
    COLUMNS: ClassVar[tuple[str, ...]] = (
        "installed_rank",
        "version",
        "description",
        "type",
        "script",
        "checksum",
        "installed_by",
        "installed_on",
        "execution_time",
        "success",
    )
    folder: Path | None = None  # scripts are written down by their path within it

    async def begin(self, conn: Any, migration: Migration, direction: Direction) -> None:
        """A row that says it has failed, until we say otherwise."""
        newest = await self._newest(conn, migration)
        if direction is Direction.DOWN:
            tables.must_be_of(newest is not None, self.table, migration)
            await self._flag(conn, newest, success=False, seconds=0)
        elif newest is None or newest["success"]:  # a repeatable one has a row of each run
            await self._insert(conn, migration, success=False, seconds=0)

    async def record(self, conn: Any, migration: Migration, *, seconds: float) -> None:
        """A row that says it has succeeded."""
        newest = await self._newest(conn, migration)
        if newest is not None and not newest["success"]:
            await self._flag(conn, newest, success=True, seconds=seconds)
            return
        tables.must_be_of(newest is None or migration.is_repeatable, self.table, migration)
        await self._insert(conn, migration, success=True, seconds=seconds)

    async def unrecord(self, conn: Any, migration: Migration) -> None:
        """The row goes."""
        newest = await self._newest(conn, migration)
        tables.must_be_of(newest is not None, self.table, migration)
        rank = newest["installed_rank"] if newest else None
        await conn.execute(_DELETE.format(table=await self._found(conn)), rank)

    async def _newest(self, conn: Any, migration: Migration) -> Any | None:
        """The newest row of this migration."""
        rows = await conn.fetch(_READ.format(table=await self._found(conn)))
        return next((row for row in reversed(rows) if _key(row) == migration.version), None)

    async def _flag(self, conn: Any, row: Any, *, success: bool, seconds: float) -> None:
        statement = _UPDATE.format(table=await self._found(conn))
        await conn.execute(statement, row["installed_rank"], success, round(seconds * 1000))

    async def _insert(
        self, conn: Any, migration: Migration, *, success: bool, seconds: float
    ) -> None:
        await conn.execute(
            _INSERT.format(table=await self._found(conn)),
            written_version(migration.path),
            description(migration.path),
            self._script(migration),
            int(migration.checksum) if migration.checksum else None,
            round(seconds * 1000),
            success,
        )

    def _script(self, migration: Migration) -> str:
        path = migration.path
        if self.folder and path.is_relative_to(self.folder):
            return path.relative_to(self.folder).as_posix()
        return path.name

    async def _entries(self, conn: Any, table: str) -> Sequence[BookEntry]:
        return entries(await conn.fetch(_READ.format(table=table)))

    async def _create(self, conn: Any, table: str) -> None:
        await tables.refuse_filled(
            conn,
            await tables.schema_of(conn, self.name),
            table=self.table,
            next_step="Say which version it stands at with `flyway baseline`.",
        )
        name = self.name.name
        await conn.execute(
            _CREATE.format(
                table=table, pk=tables.quoted(f"{name}_pk"), index=tables.quoted(f"{name}_s_idx")
            )
        )

    async def _keys(self, conn: Any) -> Sequence[int]:
        schema = await tables.schema_of(conn, self.name)
        return (lock_number(schema, self.name.name),)


def entries(rows: Iterable[Any]) -> tuple[BookEntry, ...]:
    """What the rows, in the order of their ranks, say is applied now. Pure."""
    found: dict[str, BookEntry] = {}
    for row in rows:
        if row["type"] == "SCHEMA":  # Flyway has made the schema: no migration
            continue
        key, name = _key(row), row["description"]
        if row["type"] == "DELETE" or row["type"].startswith("UNDO"):
            found.pop(key, None)
            if not row["success"]:
                found[key] = BookEntry(version=key, name=name, is_complete=False)
            continue
        is_baseline = row["type"] in {"BASELINE", "INIT", "SQL_BASELINE"}
        found[key] = BookEntry(
            version=key,
            name=name,
            checksum="" if row["checksum"] is None or is_baseline else str(row["checksum"]),
            is_complete=row["success"],
            covers_earlier=is_baseline,
            is_baseline=is_baseline,
        )
    return tuple(found.values())


def lock_number(schema: str, table: str) -> int:
    """Flyway's number: "Flyway" and the hash that Java has for the quoted name of the table."""
    hashed = 0
    units = tables.identifier(schema, table).encode("utf-16-be")
    for at in range(0, len(units), 2):
        hashed = (31 * hashed + int.from_bytes(units[at : at + 2])) % 2**32
    return _LOCK_MAGIC + (hashed - 2**32 if hashed >= 2**31 else hashed)


def _key(row: Any) -> str:
    """The version of a row, as Migration has it."""
    return canonical(row["version"]) if row["version"] else repeatable_key(row["description"])
