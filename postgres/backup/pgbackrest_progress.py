"""How far a running pgBackRest is: it says so with each file that it has copied."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Final

import asyncpg

from postgres.backup.progress import OnProgress, Progress
from postgres.connect import connection
from postgres.dsn import Target
from postgres.errors import PostgresError
from postgres.together import together

_LOOK_EVERY_SECONDS: Final = 0.5
_PAGES_MAX: Final = 20
_DONE: Final = re.compile(r"backup file .*\(.*, (\d+(?:\.\d+)?)%\)")
_DAMAGED: Final = re.compile(r"WARN: (invalid page checksums? found in file .*)")

TOTAL: Final = """
    SELECT sum(pg_database_size(oid))::bigint
      FROM pg_database
     WHERE has_database_privilege(oid, 'CONNECT')
"""


@dataclass(slots=True)
class Watch:
    """Listens to a backup: `fraction` of it done, 0 to 1, and `pages` with a wrong checksum."""

    target: Target
    on_progress: OnProgress | None
    fraction: float = 0.0
    pages: list[str] = field(default_factory=list)

    def hear(self, line: str) -> None:
        """One line of its log."""
        if found := _DONE.search(line):
            self.fraction = float(found[1]) / 100
        elif (found := _DAMAGED.search(line)) and len(self.pages) < _PAGES_MAX:
            self.pages.append(found[1])

    async def around(self, work: Awaitable[None]) -> None:
        """Wait for a backup, and tell how far it is."""
        if self.on_progress is None:
            await work
            return
        done = asyncio.Event()
        async with together() as group:
            group.create_task(self._tell(self.on_progress, done))
            try:
                await work
            finally:
                done.set()

    async def _tell(self, on_progress: OnProgress, done: asyncio.Event) -> None:
        total = await self._total()
        while not done.is_set():
            await on_progress(
                Progress(
                    phase="copying files (pgBackRest)",
                    done_bytes=round(self.fraction * (total or 0)),
                    total_bytes=total,
                )
            )
            try:
                async with asyncio.timeout(_LOOK_EVERY_SECONDS):
                    await done.wait()
            except TimeoutError:
                continue

    async def _total(self) -> int | None:
        """About how much there is to copy; only for people to see."""
        try:
            async with connection(self.target) as conn:
                size = await conn.fetchval(TOTAL)
        except (PostgresError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return None
        return int(size or 0)
