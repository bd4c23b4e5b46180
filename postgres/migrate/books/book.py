"""What every tool's bookkeeping can do, whatever its table looks like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from postgres.migrate.words import BookEntry, Direction, Migration


class Book(Protocol):
    """The table in which a tool writes what it has applied. `conn` is an asyncpg connection.

    All of it raises PostgresError when the table is another than the tool's: nothing has been
    written then.
    """

    @property
    def table(self) -> str:
        """The table's name for people, with its schema where the settings name one."""
        ...

    async def read(self, conn: Any) -> Sequence[BookEntry] | None:
        """What is applied. None: there is no table yet. Of `conn` it needs `fetch` alone."""
        ...

    async def ensure(self, conn: Any) -> None:
        """Have the table, as the tool itself would make it. Not inside a transaction."""
        ...

    async def begin(self, conn: Any, migration: Migration, direction: Direction) -> None:
        """Say that a migration that is not one transaction begins; saying it twice says it once.

        A tool that keeps no such flag says nothing.
        """
        ...

    async def record(self, conn: Any, migration: Migration, *, seconds: float) -> None:
        """Write down that it is applied, inside the caller's transaction."""
        ...

    async def unrecord(self, conn: Any, migration: Migration) -> None:
        """Write down that it has been taken back, inside the caller's transaction."""
        ...

    async def try_lock(self, conn: Any) -> bool:
        """Take the tool's own lock for this session, or say False at once; never wait.

        Not inside a transaction: who waits with a snapshot and who builds an index concurrently
        wait for each other. False: try again after a moment.
        """
        ...

    async def unlock(self, conn: Any) -> None:
        """Give the lock back."""
        ...

    async def guard(self, conn: Any) -> None:
        """Inside a transaction: until its end nobody else writes the table. Then read it again.

        Waits as long as `lock_timeout` lets it.
        """
        ...
