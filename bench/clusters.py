"""Clusters for benchmarks: durability on, and as an inventory would name them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeAlias

from pydantic import SecretStr

from bench.places import ROOT
from jobs.cluster_settings import ClusterNode, ClusterSettings, DrillKind, DrillSettings
from jobs.operation import Database, Tier
from postgres.cluster.words import ClusterKind
from sandbox.ha import PairSandbox, PatroniSandbox

Sandbox: TypeAlias = PairSandbox | PatroniSandbox


@asynccontextmanager
async def folder() -> AsyncIterator[Path]:
    """On the disk that the checkout is on; removed at the end."""
    (ROOT / ".bench").mkdir(exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=ROOT / ".bench", prefix="ha-"))
    made.chmod(0o755)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def database_on(sandbox: Sandbox) -> Database:
    """A cluster as the target of operations, every kind of drill allowed."""
    settings = ClusterSettings(
        kind=ClusterKind.PAIR if isinstance(sandbox, PairSandbox) else ClusterKind.PATRONI,
        nodes=tuple(
            ClusterNode(
                name=each.name,
                dsn=SecretStr(sandbox.dsn(each.name)),
                region=each.region,
                rest=each.rest,
                host=each.host,
            )
            for each in sandbox.specs
        ),
        user="" if isinstance(sandbox, PairSandbox) else sandbox.rest_user,
        password=None if isinstance(sandbox, PairSandbox) else SecretStr(sandbox.rest_password),
        drills=DrillSettings(kinds=tuple(DrillKind)),
    )
    return Database(
        name="bench",
        dsn=SecretStr(sandbox.dsn(sandbox.names[0])),
        environment="test",
        tier=Tier.STANDARD,
        channel="C0BENCH",
        backup_folder=Path(os.devnull),
        cluster=settings,
    )
