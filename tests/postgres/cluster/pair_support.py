"""What the tests of the pair adapter share."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from postgres.cluster.pair import PairCluster
from postgres.errors import PostgresError
from sandbox.ha import PairSandbox
from sandbox.ha_servers import Servers

LIMIT = timedelta(seconds=30)


class Died(BaseException):
    """Our process is gone, as far as the code under test can tell."""


@dataclass(slots=True)
class Said:
    """What people were told."""

    lines: list[str] = field(default_factory=list)

    async def __call__(self, line: str) -> None:
        self.lines.append(line)


def cluster_of(pair: PairSandbox) -> PairCluster:
    return PairCluster(pair.specs, clock=lambda: datetime.now(UTC))


async def roles(sandbox: Servers) -> tuple[str, str]:
    """The primary, and the other."""
    primary = await sandbox.primary()
    return primary, sandbox.others(primary)[0]


async def ask(pair: PairSandbox, name: str, query: str, *args: object) -> object:
    """One value from a node's database."""
    conn = await asyncpg.connect(pair.dsn(name), timeout=30)
    try:
        return await conn.fetchval(query, *args, timeout=30)
    finally:
        conn.terminate()


async def until(fact: Callable[[], Awaitable[object]]) -> None:
    """Wait for a fact."""
    end = time.monotonic() + 30
    while not await fact():
        if time.monotonic() > end:
            raise AssertionError("it did not happen")
        await asyncio.sleep(0.05)


async def slots(pair: PairSandbox, name: str) -> object:
    """The names of a node's slots, in order."""
    return await ask(
        pair, name, "SELECT array_agg(slot_name::text ORDER BY 1) FROM pg_replication_slots"
    )


def send(pid: object, number: signal.Signals) -> None:
    os.kill(int(str(pid)), number)


@dataclass(slots=True)
class Writer:
    """One row every 10 ms to whoever is the primary. `acks`: when, and which."""

    dsn: str
    acks: list[tuple[float, int]] = field(default_factory=list)
    stopped: bool = False

    async def run(self) -> None:
        number, conn = 0, None
        while not self.stopped:
            try:
                if conn is None:
                    conn = await asyncpg.connect(self.dsn, timeout=2, command_timeout=10)
                number += 1
                await conn.execute("INSERT INTO acked VALUES ($1)", number)
                self.acks.append((time.monotonic(), number))
                await asyncio.sleep(0.01)
            except Exception:  # noqa: BLE001 - whatever a failover does to a client
                if conn:
                    conn.terminate()
                conn = None
                await asyncio.sleep(0.005)
        if conn:
            conn.terminate()

    @property
    def gap(self) -> float:
        """The longest time without an acknowledgement, in seconds."""
        return max(b[0] - a[0] for a, b in zip(self.acks, self.acks[1:], strict=False))


@asynccontextmanager
async def writing(pair: PairSandbox) -> AsyncIterator[Writer]:
    """A writer through a list of both nodes, until the end."""
    primary = await pair.primary()
    conn = await asyncpg.connect(pair.dsn(primary), timeout=30)
    await conn.execute("DROP TABLE IF EXISTS acked; CREATE TABLE acked (n int PRIMARY KEY)")
    await conn.close()
    places = ",".join(f"127.0.0.1:{pair.port(name)}" for name in pair.names)
    login = f"{pair.superuser}:{pair.password}"
    writer = Writer(f"postgresql://{login}@{places}/{pair.database}?target_session_attrs=primary")
    task = asyncio.create_task(writer.run())
    try:
        await until(lambda: _has(writer, 20))
        yield writer
    finally:
        writer.stopped = True
        await task


async def _has(writer: Writer, count: int) -> bool:
    return len(writer.acks) >= count


async def lost(pair: PairSandbox, writer: Writer) -> int:
    """Acknowledged rows that the primary does not have."""
    primary = await pair.primary()
    conn = await asyncpg.connect(pair.dsn(primary), timeout=30)
    try:
        there = {row["n"] for row in await conn.fetch("SELECT n FROM acked")}
    finally:
        await conn.close()
    return len({number for _, number in writer.acks} - there)


async def refusal(work: Awaitable[object]) -> PostgresError:
    """The error with which something is refused."""
    try:
        await work
    except PostgresError as error:
        return error
    raise AssertionError("it was not refused")


def run_after(
    monkeypatch: pytest.MonkeyPatch,
    where: type,
    step: str,
    then: Callable[[], object],
    *,
    times: int = 1,
) -> None:
    """Have something happen right after a step has been done so many times."""
    real: Callable[..., Awaitable[object]] = getattr(where, step)
    done: list[str] = []

    async def patched(*args: object, **words: object) -> object:
        answer = await real(*args, **words)
        done.append(step)
        if len(done) == times:
            then()
        return answer

    monkeypatch.setattr(where, step, patched)


def die_after(monkeypatch: pytest.MonkeyPatch, where: type, step: str, *, times: int = 1) -> None:
    """Have our process die there, as far as the code under test can tell."""

    def die() -> None:
        raise Died

    run_after(monkeypatch, where, step, die, times=times)
