"""How the time of a verification grows with the database, from 0.2 to 5 GB."""

from __future__ import annotations

import os
import time

from pydantic import SecretStr

from bench.backup import tool
from bench.places import place
from bench.table import Result
from postgres.backup.engine import TakeOrder
from postgres.backup.native_engine import NativeEngine
from postgres.restore.verification import verify_backup

SCALES = (14, 70, 345)  # pgbench: about 0.2, 1 and 5 GB


async def measure() -> list[Result]:
    """One verification of each size; the ratio is to the one before, beside that of the sizes."""
    found: list[tuple[int, float, float]] = []
    async with place() as where:
        native = NativeEngine(dsn=SecretStr(where.target_dsn), folder=where.folder / "backups")
        for scale in SCALES:
            await tool(
                where.server, "pgbench", "--initialize", f"--scale={scale}", "--quiet", "orders"
            )
            await tool(where.server, "psql", "--quiet", "-d", "orders", "-c", "CHECKPOINT")
            facts = await native.take(TakeOrder(backup_id=f"orders-{scale}"))
            began = time.perf_counter()
            report = await verify_backup(native, facts, where.folder / "work", environ=os.environ)
            assert report.ok, report.problems
            seconds = time.perf_counter() - began
            found.append((facts.data_bytes, seconds, report.restore_seconds or 0.0))
            await native.remove(facts.id)
    return [_row(*each, before=before) for each, before in zip(found, [None, *found], strict=False)]


def _row(
    size: int, seconds: float, restored: float, *, before: tuple[int, float, float] | None
) -> Result:
    return Result(
        what=f"verification of {size / 1e9:.2f} GB: whole / until it took connections",
        ours=f"{seconds:.1f} / {restored:.1f} s",
        floor=f"{size / before[0]:.1f} times the data" if before else "",
        ratio=f"{seconds / before[1]:.1f} times the time" if before else "",
    )
