"""How exactly the ledger measures data loss: delays that were injected, beside what it says.

On a streaming pair the walsender is stopped, and after the delay the server is killed: what was
acknowledged meanwhile is lost, as nobody has sent it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from bench.table import Result
from postgres.cluster.ledger import Ledger, heartbeat_ages, remove
from postgres.cluster.loss import Loss
from sandbox.ha import PairSandbox

DELAYS: Final = (0.5, 2.0, 5.0)
ROWS_BEFORE: Final = 100
LIMIT: Final = timedelta(seconds=60)
_KEY: Final = "bench"


async def measure() -> list[Result]:
    """One failover for each delay; what is injected is taken between the two signals."""
    home = Path(tempfile.mkdtemp(prefix="twokey-"))
    home.chmod(0o755)
    try:
        pair = await PairSandbox.start(home / "ha")
        try:
            return [await _row(pair, delay, home) for delay in DELAYS]
        finally:
            await pair.remove()
    finally:
        shutil.rmtree(home, ignore_errors=True)


async def _row(pair: PairSandbox, delay: float, home: Path) -> Result:
    await pair.healthy()
    injected, loss = await _lose(pair, delay, home / f"ledger-{delay}")
    beat = "-" if loss.heartbeat_seconds is None else f"{loss.heartbeat_seconds:.3f} s"
    return Result(
        what=f"data loss of {delay:g} s: by the ledger / its heartbeat, beside what was injected",
        ours=f"{loss.rpo_seconds:.3f} s ({loss.lost} rows) / {beat}",
        floor=f"{injected:.3f} s",
        ratio=f"{loss.rpo_seconds - injected:+.3f} s",
        aim="within 0.2 s",
    )


async def _lose(pair: PairSandbox, delay: float, folder: Path) -> tuple[float, Loss]:
    """How long nothing was sent before the server died, and what the ledger makes of it."""
    old = await pair.primary()
    (new,) = pair.others(old)
    async with Ledger(None, pair.specs, _KEY, folder, clock=_clock) as ledger:
        assert await ledger.until(lambda now: now.acknowledged >= ROWS_BEFORE, limit=LIMIT)
        async with asyncio.timeout(LIMIT.total_seconds()):
            while (await heartbeat_ages(pair.specs, _KEY, clock=_clock))[new] is None:
                await asyncio.sleep(0.1)
        sender = int(str(await pair.query(old, "SELECT pid FROM pg_stat_replication")))
        os.kill(sender, signal.SIGSTOP)
        began = time.monotonic()
        pids = sorted(pair.host_pids(old))
        await asyncio.sleep(delay - (time.monotonic() - began))
        injected_at = _clock()
        injected = time.monotonic() - began
        for pid in pids:
            with suppress(ProcessLookupError):  # who sees its postmaster die ends by itself
                os.kill(pid, signal.SIGKILL)
        pair.kill_server(old)  # and what it had started meanwhile
        assert await pair.query(new, "SELECT pg_promote(true, 60)")
        assert await ledger.until(lambda now: now.server == new, limit=LIMIT)
        target = pair.spec(new).target
        loss = await ledger.measure(target, injected_at=injected_at)
    await remove(target, _KEY)
    return injected, loss


def _clock() -> datetime:
    return datetime.now(UTC)
