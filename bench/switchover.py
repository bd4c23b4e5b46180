"""For how long nobody can write while the primary hands over: ours beside the plainest way by hand.

Both kinds of a cluster, both ways interleaved on the same servers, in both directions alike.
Ours is what `/db failover` does: it looks, checks, changes and proves. By hand is, for Patroni,
its `POST /switchover` alone; for a pair, the commands of `BY_HAND`, in one shell, with nobody
thinking in between. By hand nothing is checked, and a pair's old primary does not follow yet.
"""

from __future__ import annotations

import asyncio
import base64
import json
import statistics
import time
import urllib.request
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

import asyncpg
from pydantic import JsonValue

from bench.clusters import Sandbox, database_on, folder
from bench.gap import MAKE, Gaps, writing
from bench.table import Result
from jobs.failing_over import Order, change_primary, confirm
from jobs.operation import Database, Job
from postgres.programs import run_program
from sandbox.ha import PairSandbox, PatroniSandbox

ROUNDS: Final = 10
LIMIT: Final = timedelta(seconds=90)
_PAIR_AIM_SECONDS: Final = 0.5
# Stop the primary; read what it wrote last; wait until the standby has replayed that; promote it.
# pg_promote returns when the standby has ended its recovery. psql connects anew for each command.
BY_HAND: Final = """\
set -e
"$BIN/pg_ctl" stop -D "$OLD" -m fast -w -s
end=$("$BIN/pg_controldata" "$OLD" | sed -n 's/^Latest checkpoint location: *//p')
until [ "$("$BIN/psql" "$NEW" -XAtc "SELECT pg_last_wal_replay_lsn() > '$end'")" = t ]; do :; done
"$BIN/psql" "$NEW" -XAtc "SELECT pg_promote(true, 60)"
"""

Way: TypeAlias = Callable[[Sandbox, str, str], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Straight:
    """As much of a run as a change of roles needs: no store, no steps."""

    database: Database
    run_key: str = "bench"
    checkpoint: JsonValue = None

    @property
    def now(self) -> datetime:
        """The time."""
        return datetime.now(UTC)

    async def report(self, text: str, *, fraction: float | None = None) -> None:
        """Nobody listens."""

    async def save(self, checkpoint: JsonValue) -> None:
        """Nothing goes on after a crash."""


async def measure(rounds: int = ROUNDS) -> list[Result]:
    """Each way `rounds` times on a pair and on a Patroni cluster."""
    async with folder() as home:
        pair = await PairSandbox.start(home / "pair")
        try:
            found = await _compared(pair, _by_hand, home, rounds)
        finally:
            await pair.remove()
        results = [_row("a pair", "the same commands by hand", found, aim=_PAIR_AIM_SECONDS)]
        patroni = await PatroniSandbox.start(home / "patroni")
        try:
            found = await _compared(patroni, _by_rest, home, rounds)
        finally:
            await patroni.remove()
        return [*results, _row("Patroni", "its bare POST /switchover", found, aim=None)]


async def _compared(
    sandbox: Sandbox, by_hand: Way, home: Path, rounds: int
) -> tuple[list[float], list[float]]:
    """Seconds without a row: ours, and by hand."""
    await _make_table(sandbox)
    ours: list[float] = []
    hand: list[float] = []
    async with writing([sandbox.dsn(name) for name in sandbox.names], home) as gaps:
        for number in range(rounds):
            # Ours first and last in turn, so that both go in both directions.
            both = [(_ours, ours), (by_hand, hand)]
            for way, found in both if number % 2 else both[::-1]:
                found.append(await _once(sandbox, way, gaps))
    return ours, hand


async def _once(sandbox: Sandbox, way: Way, gaps: Gaps) -> float:
    await sandbox.healthy()
    old = await sandbox.primary()
    (new,) = sandbox.others(old)
    await gaps.after(time.monotonic())
    began = time.monotonic()
    await way(sandbox, old, new)
    seconds = await gaps.longest(began)
    assert await sandbox.writable() == (new,)
    return seconds


async def _ours(sandbox: Sandbox, old: str, new: str) -> None:
    """What the steps of `/db failover` do."""
    straight = Straight(database=database_on(sandbox))
    job = cast("Job", straight)
    order = Order(leader=old, candidate=new, forced=False)
    await change_primary(job, straight, order)  # type: ignore[arg-type]
    await confirm(job, order)


async def _by_rest(sandbox: Sandbox, old: str, new: str) -> None:
    assert isinstance(sandbox, PatroniSandbox)
    spec = sandbox.spec(old)
    word = base64.b64encode(f"{sandbox.rest_user}:{sandbox.rest_password}".encode()).decode()
    request = urllib.request.Request(  # noqa: S310 - our own sandbox's address
        f"{spec.rest}/switchover",
        data=json.dumps({"leader": old, "candidate": new}).encode(),
        headers={"Authorization": f"Basic {word}", "Content-Type": "application/json"},
    )

    def call() -> int:
        with urllib.request.urlopen(request, timeout=LIMIT.total_seconds()) as answer:  # noqa: S310
            return int(answer.status)

    assert await asyncio.to_thread(call) == 200


async def _by_hand(sandbox: Sandbox, old: str, new: str) -> None:
    environ = {
        "BIN": str(sandbox.binaries.folder),
        "OLD": str(sandbox.data(old)),
        "NEW": sandbox.dsn(new, database="postgres"),
    }
    done = await run_program(["/bin/sh", "-c", BY_HAND], time_limit=LIMIT, environ=environ)
    assert done.code == 0, done.stderr


async def _make_table(sandbox: Sandbox) -> None:
    await sandbox.healthy()
    conn: Any = await asyncpg.connect(sandbox.dsn(await sandbox.primary()))
    try:
        await conn.execute(MAKE)
    finally:
        await conn.close()


def _row(
    kind: str, floor: str, found: tuple[Sequence[float], Sequence[float]], *, aim: float | None
) -> Result:
    ours, hand = found
    middle, theirs = statistics.median(ours), statistics.median(hand)
    return Result(
        what=f"no writes in a switchover of {kind}, median of {len(ours)} (worst); floor: {floor}",
        ours=f"{middle:.3f} s ({max(ours):.3f})",
        floor=f"{theirs:.3f} s ({max(hand):.3f})",
        ratio=f"{middle / theirs:.2f}",
        aim=f"ours below {aim:g} s" if aim else "at most 1.1",
    )
