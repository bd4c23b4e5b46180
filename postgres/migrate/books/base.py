"""What the books of all tools have in common: one table, and advisory locks around it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from postgres.errors import PostgresError
from postgres.migrate.books import tables
from postgres.migrate.words import BookEntry, Direction, Migration, Tool


@dataclass(frozen=True, slots=True, kw_only=True)
class TableBook(ABC):
    """A book that is one table. See `book.Book` for what each method promises."""

    TOOL: ClassVar[Tool]
    COLUMNS: ClassVar[tuple[str, ...]]  # exactly these, in any order

    name: tables.TableName

    @property
    def table(self) -> str:
        """The table's name for people."""
        return str(self.name)

    async def read(self, conn: Any) -> Sequence[BookEntry] | None:
        """What is applied, or None."""
        table = await self._find(conn)
        return None if table is None else await self._entries(conn, table)

    async def ensure(self, conn: Any) -> None:
        """Have the table."""
        if await self._find(conn) is None:
            await self._create(conn, await tables.new_table(conn, self.name))

    async def begin(  # noqa: B027  (most tools have nowhere to say it)
        self, conn: Any, migration: Migration, direction: Direction
    ) -> None:
        """Say that it begins."""

    @abstractmethod
    async def record(self, conn: Any, migration: Migration, *, seconds: float) -> None:
        """Write down that it is applied."""

    @abstractmethod
    async def unrecord(self, conn: Any, migration: Migration) -> None:
        """Write down that it has been taken back."""

    async def try_lock(self, conn: Any) -> bool:
        """Take the locks, or say False at once."""
        return await tables.try_locks(conn, await self._keys(conn))

    async def unlock(self, conn: Any) -> None:
        """Give the locks back."""
        await tables.unlock(conn, await self._keys(conn))

    async def guard(self, conn: Any) -> None:
        """Nobody else writes the table until this transaction ends."""
        await tables.lock_table(conn, await self._found(conn))

    @abstractmethod
    async def _entries(self, conn: Any, table: str) -> Sequence[BookEntry]:
        """The rows of the table."""

    @abstractmethod
    async def _create(self, conn: Any, table: str) -> None:
        """Make the table as the tool does."""

    async def _keys(self, conn: Any) -> Sequence[int]:
        """The numbers of the advisory locks: ours, for a tool that takes none."""
        return (await tables.own_key(conn, self.name),)

    async def _find(self, conn: Any) -> str | None:
        return await tables.find_table(conn, self.name, tool=self.TOOL, columns=self.COLUMNS)

    async def _found(self, conn: Any) -> str:
        table = await self._find(conn)
        if table is None:
            raise PostgresError(
                f"The table {self.table}, in which applied migrations are written down, is gone.",
                next_step="Find out who dropped it, and restore it from a backup.",
            )
        return table
