"""How far a running pg_dump is, from what it says of each table that it begins."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from postgres.backup.progress import OnProgress, Progress

_LOOK_EVERY_SECONDS: Final = 0.5
_BEGINS: Final = re.compile(r'dumping contents of table "(.*)"$')


@dataclass(slots=True)
class DumpProgress:
    """The tables of the database that is being dumped, by their sizes in bytes.

    pg_dump names a table when it begins it; with so many `jobs`, all but the last so many are
    taken for done.
    """

    jobs: int
    database: str = ""
    sizes: Mapping[str, int] = field(default_factory=dict)
    begun: list[str] = field(default_factory=list)
    earlier_bytes: int = 0

    def begin(self, database: str, sizes: Mapping[str, int]) -> None:
        """Another database."""
        self.database, self.sizes = database, sizes
        self.begun.clear()

    def end(self) -> None:
        """All of it is dumped."""
        self.earlier_bytes += sum(self.sizes.values())
        self.sizes = {}
        self.begun.clear()

    def line(self, text: str) -> None:
        """A line of what pg_dump says."""
        if found := _BEGINS.search(text):
            self.begun.append(found[1])

    def now(self) -> Progress:
        """How it stands: sizes are those of tables, not of what is written."""
        done = sum(self.sizes.get(name, 0) for name in self.begun[: -self.jobs])
        return Progress(
            phase=f"dumping {self.database}".strip(),
            done_bytes=self.earlier_bytes + done,
            total_bytes=self.earlier_bytes + sum(self.sizes.values()) or None,
        )


async def tell_of_dumps(
    progress: DumpProgress, on_progress: OnProgress, done: asyncio.Event
) -> None:
    """Tell how far it is, until `done`."""
    while not done.is_set():
        await on_progress(progress.now())
        try:
            async with asyncio.timeout(_LOOK_EVERY_SECONDS):
                await done.wait()
        except TimeoutError:
            continue
