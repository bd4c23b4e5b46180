"""What the tests of backfills share.

`python -m tests.postgres.migrate.backfill.support` is a process that runs one until it is killed.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from postgres.dsn import parse_dsn
from postgres.migrate.backfill.engine import run_backfill
from postgres.migrate.backfill.spec import BackfillLimits, BackfillOutcome, BackfillSpec, Keep

# Batches as small as they get, so that a few thousand rows take many; others are not looked at.
SMALL = BackfillLimits(
    rows=100,
    rows_min=10,
    rows_max=100,
    batch=timedelta(seconds=5),  # however slow the machine is, none gets smaller
    look=timedelta(milliseconds=20),
    before=timedelta(0),
    tell_every=timedelta(milliseconds=20),
    slower_max=0,
    lock=timedelta(milliseconds=200),
)
# Not idempotent: a row that is done twice shows.
COUNT = BackfillSpec(
    key="count", schema="public", table="rows", assignments_sql="n = n + 1", ranges=2
)
KEPT = replace(COUNT, keep=Keep(name="rows_kept", bytes_max=2**30))
ROWS = """
    CREATE TABLE rows (id bigint PRIMARY KEY, n int NOT NULL DEFAULT 0, note text);
    INSERT INTO rows (id, note) SELECT i, 'Note ' || i FROM generate_series(1, {rows}) AS i;
"""
# A batch sleeps so long, and is the slower one however busy the machine is, until it is hurried.
SLOW = """
    CREATE TABLE pace (seconds float);
    INSERT INTO pace VALUES ({seconds});
    CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_sleep((SELECT seconds FROM public.pace)); RETURN NULL; END $$;
    CREATE TRIGGER slowly AFTER UPDATE ON rows FOR EACH STATEMENT EXECUTE FUNCTION slowly();
"""
HURRY = "UPDATE pace SET seconds = 0"
DONE = "SELECT n, count(*) FROM rows GROUP BY n ORDER BY n"


@dataclass(slots=True)
class Switch:
    """Asks for a pause when it is told to."""

    is_paused: bool = False


@dataclass(slots=True)
class Told:
    """Keeps what it is told."""

    texts: list[str] = field(default_factory=list)

    async def __call__(self, text: str, fraction: float | None) -> None:
        self.texts.append(text)

    def has(self, text: str) -> bool:
        return any(text in each for each in self.texts)


async def do(dsn: str, spec: BackfillSpec = COUNT, **more: Any) -> BackfillOutcome:
    """Run it with what a test does not care about."""
    given: dict[str, Any] = {"control": Switch(), "tell": Told(), "limits": SMALL, **more}
    return await run_backfill(parse_dsn(dsn), spec, **given)


async def counts(conn: Any) -> dict[int, int]:
    """How many rows were done how often."""
    return {row["n"]: row["count"] for row in await conn.fetch(DONE)}


async def until(probe: Any) -> Any:
    """What a probe finds at last; fails after thirty seconds."""
    async with asyncio.timeout(30):
        while not (found := await probe()):
            await asyncio.sleep(0.01)
        return found


async def _run_until_killed(dsn: str, ranges: int, *, keeps: bool) -> None:
    spec = replace(KEPT if keeps else COUNT, ranges=ranges)
    await do(dsn, spec, limits=replace(SMALL, rows=20, rows_max=20))


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    asyncio.run(_run_until_killed(asked["dsn"], asked["ranges"], keeps=asked.get("keeps", False)))
