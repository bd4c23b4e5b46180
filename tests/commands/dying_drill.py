"""A worker process that a drill's test kills: `python -m tests.commands.dying_drill POINT`.

On its input comes the pickled `Worksite`. It takes runs as any worker does, and is gone by SIGKILL
at a point of the drill, before anything of it is stored.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import pickle
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from commands import drill
from jobs.cluster_settings import ClusterSettings
from jobs.health_settings import MonitoringSettings
from jobs.limits import Limits
from jobs.operation import Database, Tier
from jobs.worker import Worker
from store.connect import Store, connect
from tests.jobs.support import QUICK, People, SmallApprovals, clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """Where it dies: when this function is called, or when it has done its work."""

    module: str
    name: str
    is_after: bool = True


POINTS: Final[Mapping[str, Point]] = MappingProxyType(
    {
        # The fault is in force, and nobody has written down that it is.
        "injected": Point(module="jobs.drill_hands", name="inject"),
        # Clients are held, the old primary is fenced, nobody takes writes.
        "fenced": Point(module="postgres.cluster.pair", name="take_over", is_after=False),
        # Clients are held, another takes writes, and pgbouncer does not lead to it.
        "promoted": Point(module="postgres.cluster.pair", name="take_over"),
        # Clients are held, the old one takes writes, and pgbouncer does not lead to it.
        "switched back": Point(module="postgres.cluster.pair", name="hand_over"),
        # All is done, and nobody was told.
        "report": Point(module="commands.drill", name="keep", is_after=False),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Worksite:
    """What workers share."""

    store: str
    cluster: ClusterSettings
    home: Path

    @property
    def database(self) -> Database:
        """The target, that nobody measures."""
        return Database(
            name="orders",
            dsn=self.cluster.nodes[0].dsn,
            environment="staging",
            tier=Tier.CRITICAL,
            channel="C0ORDERS",
            backup_folder=self.home / "backups",
            monitoring=MonitoringSettings(is_on=False),
            cluster=self.cluster,
        )

    def worker(self, store: Store, limits: Limits = QUICK) -> Worker:
        """One that knows drills of this database."""
        return Worker(
            store=store,
            approvals=SmallApprovals(store),
            directory=People(),
            operations={"drill": drill.OPERATION},
            databases={"orders": self.database},
            home=self.home,
            clock=clock,
            limits=limits,
        )


def die_at(point: Point) -> None:
    """Have this process killed there."""
    module = importlib.import_module(point.module)
    real = getattr(module, point.name)

    async def dying(*args: Any, **words: Any) -> Any:
        if point.is_after:
            await real(*args, **words)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(module, point.name, dying)


async def work(site: Worksite) -> None:
    """Be a worker until the end comes."""
    await site.worker(connect(site.store, size=5)).run(asyncio.Event())


if __name__ == "__main__":
    die_at(POINTS[sys.argv[1]])
    asyncio.run(work(pickle.load(sys.stdin.buffer)))  # noqa: S301 - our own test wrote it
