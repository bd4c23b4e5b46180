"""Real worker processes that can be killed, paused, or made to die at a given statement.

A process that has imported everything and started nothing forks them, so one costs
milliseconds. `python -m tests.jobs.nursery` is that process: each line on its input names
a worker, and its pid comes back.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from approvals.words import RunId
from jobs.engine import Verdict
from store.connect import connect
from tests.jobs.support import HASTY, Bench, SmallApprovals

ROOT = Path(__file__).parents[2]
DYING = replace(HASTY, concurrency=1, stale=timedelta(minutes=5))
IN_RUN: contextvars.ContextVar[bool] = contextvars.ContextVar("IN_RUN", default=False)


class Nursery:
    """Starts worker processes and remembers their pids."""

    def __init__(self) -> None:
        self._parent = subprocess.Popen(
            [sys.executable, "-m", "tests.jobs.nursery"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._pids: list[int] = []

    def start(self, bench: Bench, *, die_at: int = 0) -> int:
        """The pid of a new worker.

        With `die_at` it takes one run at a time, leaves those of dead workers alone, and
        kills itself before its `die_at`th statement about a run.
        """
        wanted = {
            "store": bench.store.dsn.get_secret_value(),
            "target": bench.target_dsn,
            "home": str(bench.home),
            "names": bench.names,
            "every": bench.every,
            "die_at": die_at,
        }
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        self._parent.stdin.write(json.dumps(wanted) + "\n")
        self._parent.stdin.flush()
        pid = int(self._parent.stdout.readline())
        self._pids.append(pid)
        return pid

    def kill(self, pid: int, number: int = signal.SIGKILL) -> None:
        """Send a signal to a worker that was started here."""
        assert pid in self._pids
        os.kill(pid, number)
        if number == signal.SIGKILL:
            self._pids.remove(pid)

    def close(self) -> None:
        """Kill what still lives."""
        for pid in list(self._pids):
            try:
                self.kill(pid)
            except ProcessLookupError:
                self._pids.remove(pid)
        self._parent.communicate(timeout=60)


async def work(wanted: dict[str, Any]) -> None:
    """Be a worker until somebody ends it."""
    store = connect(wanted["store"], size=5)
    bench = Bench(
        store=store,
        target_dsn=wanted["target"],
        home=Path(wanted["home"]),
        approvals=SmallApprovals(store),
        names=tuple(wanted["names"]),
        every=wanted["every"],
    )
    worker = bench.worker(DYING if wanted["die_at"] else HASTY)
    if wanted["die_at"]:
        _die_at(worker, wanted["die_at"])
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await worker.run(stop)
    await store.close()


def _die_at(worker: Any, number: int) -> None:
    """Count the statements and commits of runs, not those of the loops beside them."""
    deliver = worker._runner.deliver
    left = number

    async def counted(run_id: RunId) -> Verdict:
        IN_RUN.set(True)  # tasks that the run starts inherit it
        verdict: Verdict = await deliver(run_id)
        return verdict

    def count(*_: object, **__: object) -> None:
        nonlocal left
        left -= IN_RUN.get()
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

    def counting(call: Any) -> Any:
        async def called(*args: object) -> Any:
            count()
            return await call(*args)

        return called

    worker._runner.deliver = counted
    for beside, name in ((worker.given.store.quick, "rows"), (worker.given.queue, "_settle")):
        setattr(beside, name, counting(getattr(beside, name)))
    engine = worker.given.store.engine.sync_engine
    sa.event.listen(engine, "before_cursor_execute", count)
    sa.event.listen(engine, "commit", count)


def main() -> None:
    """Fork a worker for each line."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            devnull = os.open(os.devnull, os.O_RDWR)
            os.dup2(devnull, 0)
            os.dup2(devnull, 1)
            asyncio.run(work(json.loads(line)))
            os._exit(0)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
