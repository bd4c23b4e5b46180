"""A worker that is killed in the middle of a backfill, and a run that somebody had wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from tests.scenarios.processes import CHANNEL, Office, office

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(360)]

ROWS = 60_000
TABLE = f"""
    CREATE TABLE counted (id int PRIMARY KEY, n int NOT NULL);
    INSERT INTO counted SELECT i, 0 FROM generate_series(1, {ROWS}) i;
    ANALYZE counted;
"""
ASK = '/db backfill orders public.counted "n = n + 1" rows=500 batch-ms=20 reason="a count"'
POLICY = """
groups: {dba: S0DBA}
rules:
  - name: rows
    when: {operation: backfill}
    gates: [{id: dba, groups: [dba]}]
    read_all: false
    type_name: false
  - name: the rest
    fallback: true
    refuse: true
"""
DONE = "SELECT count(*) FROM counted WHERE n > 0"


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Office]:
    async with office(tmp_path) as made:
        yield made


async def test_a_killed_worker_leaves_no_row_out_and_none_is_done_twice(place: Office) -> None:
    target = await asyncpg.connect(place.target.dsn("orders"))
    await target.execute(TABLE)
    (place.folder / "policy.yml").write_text(POLICY)
    await place.bot()
    first = await place.worker()
    async with asyncio.timeout(60):
        # On a busy machine a process's first plan, which loads the grammar, may take too long.
        while "is stored" not in str((await place.slack.command("U0ANA", CHANNEL, ASK)).ephemerals):
            await asyncio.sleep(0.5)
    await place.approve("U0BEN", card=await place.card("Waiting"))
    async with asyncio.timeout(40):
        while not await target.fetchval(DONE):
            await asyncio.sleep(0.01)
    await place.kill(first)
    # Nobody is at it, and still somebody can say that it is to wait.
    assert (await place.slack.command("U0ANA", CHANNEL, "/db pause 1")).ok
    await place.until("SELECT 1 FROM runs WHERE paused_by = 'ana@acme.example'")
    done = await target.fetchval(DONE)
    assert 0 < done < ROWS

    await place.worker()
    await place.until("SELECT 1 FROM runs WHERE epoch > 1 AND state = 'running'")
    told = "SELECT 1 FROM run_steps WHERE name = 'change' AND attempt = 2"
    await place.until(told)
    await place.card("Paused")
    await asyncio.sleep(3)  # longer than it looks around before its first batch
    assert await target.fetchval(DONE) == done

    assert (await place.slack.command("U0ANA", CHANNEL, "/db resume 1")).ok
    await place.card("Done", seconds=60)
    counts = await target.fetch("SELECT n, count(*) FROM counted GROUP BY n")
    assert [tuple(row) for row in counts] == [(1, ROWS)]
    await target.close()
