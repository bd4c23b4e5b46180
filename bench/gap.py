"""For how long nobody could write: `python -m bench.gap FILE URL…` writes a row each 10 ms.

A process of its own, so that nothing of what is measured slows it down. Each server has a writer,
as an application has that lists them all; a standby refuses, a dead one is knocked at again. FILE
gets a line per acknowledged row: when, by the clock that all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import asyncpg

from postgres.health.connecting import FAILURES

EVERY_SECONDS: Final = 0.01
ANSWER_SECONDS_MAX: Final = 2
WAIT_SECONDS_MAX: Final = 60.0
MAKE: Final = "CREATE TABLE IF NOT EXISTS bench_gap (at timestamptz DEFAULT clock_timestamp())"
_ROW: Final = "INSERT INTO bench_gap DEFAULT VALUES"


@dataclass(frozen=True, slots=True)
class Gaps:
    """What a writer has written down so far."""

    file: Path

    def acks(self) -> list[float]:
        """When rows were acknowledged, in order; seconds of `time.monotonic`."""
        lines = self.file.read_text(encoding="ascii").split("\n")[:-1]  # the last may be a half
        return sorted(float(line) for line in lines)

    async def after(self, moment: float) -> float:
        """Wait until a row was acknowledged after `moment`; when the newest one was."""
        async with asyncio.timeout(WAIT_SECONDS_MAX):
            while not (acks := self.acks()) or acks[-1] <= moment:
                await asyncio.sleep(0.05)
        return acks[-1]

    async def longest(self, since: float) -> float:
        """The longest time without a row since `since`, once rows come again."""
        await self.after(time.monotonic())
        return longest(self.acks(), since=since)


def longest(acks: Iterable[float], *, since: float) -> float:
    """The longest time without a row that had not ended at `since`. Pure."""
    return max((b - a for a, b in pairwise(acks) if b > since), default=0.0)


@asynccontextmanager
async def writing(urls: Sequence[str], folder: Path) -> AsyncIterator[Gaps]:
    """A writer at work; `urls`: each server of a cluster. Its table must be there (`MAKE`)."""
    file = folder / "acks"
    file.unlink(missing_ok=True)
    file.touch()
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.gap", str(file), *urls, stdin=asyncio.subprocess.PIPE
    )
    gaps = Gaps(file)
    try:
        await gaps.after(time.monotonic())
        yield gaps
    finally:
        with suppress(ProcessLookupError):
            running.kill()
        await running.wait()


async def _write(url: str, file: Any) -> None:
    """Rows to one server, for as long as it takes them; never returns."""
    while True:
        try:
            conn: Any = await asyncpg.connect(url, timeout=ANSWER_SECONDS_MAX)
        except FAILURES:
            await asyncio.sleep(EVERY_SECONDS)
            continue
        try:
            await _fill(conn, file)
        except FAILURES:
            await asyncio.sleep(EVERY_SECONDS)
        finally:
            conn.terminate()


async def _fill(conn: Any, file: Any) -> None:
    while True:
        began = time.monotonic()
        # Whoever becomes the primary keeps its connections.
        with suppress(asyncpg.ReadOnlySQLTransactionError):
            await conn.execute(_ROW, timeout=ANSWER_SECONDS_MAX)
            file.write(f"{time.monotonic():.6f}\n")
        await asyncio.sleep(max(began + EVERY_SECONDS - time.monotonic(), 0.0))


async def main(path: str, urls: Sequence[str]) -> None:
    """Write until the one who started it ends it, or has ended."""
    with Path(path).open("a", encoding="ascii", buffering=1) as file:
        tasks: list[asyncio.Task[Any]] = [asyncio.create_task(_write(url, file)) for url in urls]
        tasks.append(asyncio.create_task(asyncio.to_thread(sys.stdin.read)))
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                task.result()
            task.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
