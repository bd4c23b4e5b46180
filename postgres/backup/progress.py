"""How far a running pg_basebackup is, as the server tells."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import asyncpg

from postgres.connect import connection
from postgres.dsn import Target
from postgres.errors import PostgresError

_LOOK_EVERY_SECONDS: Final = 0.5

PROGRESS: Final = """
    SELECT p.phase,
           p.backup_streamed AS done_bytes,
           p.backup_total    AS total_bytes
      FROM pg_stat_progress_basebackup p
      JOIN pg_stat_activity a USING (pid)
     WHERE a.application_name = $1
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A moment of a running backup. `fraction` is 0 to 1; None: not known."""

    phase: str
    done_bytes: int
    total_bytes: int | None

    @property
    def fraction(self) -> float | None:
        """How much of the estimated size has been sent."""
        if not self.total_bytes:
            return None
        return min(self.done_bytes / self.total_bytes, 1.0)

    def seconds_left(self, seconds: float) -> float | None:
        """How long it will take, if it goes on as in the `seconds` so far; None: not known."""
        fraction = self.fraction
        if not fraction or seconds <= 0:
            return None
        return seconds * (1 - fraction) / fraction


OnProgress = Callable[[Progress], Awaitable[None]]


async def watch(target: Target, name: str, on_progress: OnProgress, done: asyncio.Event) -> None:
    """Tell how far the backup of this application name is, until `done`.

    It is only for people to see: a server that does not answer the question ends the telling,
    not the backup.
    """
    try:
        async with connection(target) as conn:
            while not done.is_set():
                row = await conn.fetchrow(PROGRESS, name)
                if row:
                    await on_progress(
                        Progress(
                            phase=row["phase"],
                            done_bytes=row["done_bytes"] or 0,
                            total_bytes=row["total_bytes"],
                        )
                    )
                await _pause(done)
    except (PostgresError, OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        await done.wait()


async def _pause(done: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(_LOOK_EVERY_SECONDS):
            await done.wait()
    except TimeoutError:
        return
