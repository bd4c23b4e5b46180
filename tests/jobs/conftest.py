"""A bench for runs: a fresh store and a fresh target."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import pytest

from store.connect import Store
from tests.conftest import Target
from tests.jobs.support import TABLES, Bench, SmallApprovals


@pytest.fixture
async def bench(store: Store, target: Target, tmp_path: Path) -> Bench:
    conn = await asyncpg.connect(target.dsn)
    await conn.execute(TABLES)
    await conn.close()
    return Bench(
        store=store,
        target_dsn=target.dsn,
        home=tmp_path,
        approvals=SmallApprovals(store),
    )
