"""A worker, and then the server, that is killed in the middle of a migration: real processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import yaml

from tests.scenarios.processes import CHANNEL, Office, office

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(360)]

FILES = {
    "0001_seen.sql": "-- migrate:up\nALTER TABLE public.orders ADD COLUMN seen boolean;\n"
    "-- migrate:down\nALTER TABLE public.orders DROP COLUMN seen;\n",
    "0002_by_note.sql": "-- migrate:up transaction:false\n"
    "CREATE INDEX CONCURRENTLY orders_by_note ON public.orders (left(note, 8));\n"
    "-- migrate:down transaction:false\nDROP INDEX CONCURRENTLY public.orders_by_note;\n",
}
POLICY = """
groups: {dba: S0DBA}
rules:
  - name: migrations
    when: {operation: migrate}
    gates: [{id: dba, groups: [dba]}]
  - name: the rest
    fallback: true
    refuse: true
"""
BUILDING = """
    SELECT pid FROM pg_stat_activity
     WHERE query LIKE 'CREATE INDEX CONCURRENTLY%' AND wait_event_type = 'Lock'
"""
INDEX = """
    SELECT i.indisvalid FROM pg_index i WHERE i.indexrelid = to_regclass('public.orders_by_note')
"""
VERSIONS = "SELECT string_agg(version, ',' ORDER BY version) FROM schema_migrations"


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Office]:
    async with office(tmp_path) as made:
        folder = tmp_path / "migrations"
        folder.mkdir()
        for name, text in FILES.items():
            (folder / name).write_text(text)
        (tmp_path / "policy.yml").write_text(POLICY)
        content = yaml.safe_load((tmp_path / "twokey.yml").read_text())
        content["databases"]["orders"]["migrations"] = {"folder": "migrations"}
        (tmp_path / "twokey.yml").write_text(yaml.safe_dump(content))
        yield made


async def asked(place: Office, command: str) -> None:
    async with asyncio.timeout(60):
        # On a busy machine a process's first plan, which loads the grammar, may take too long.
        while "is stored" not in str(
            (await place.slack.command("U0ANA", CHANNEL, command)).ephemerals
        ):
            await asyncio.sleep(0.5)


async def soon(conn: Any, query: str) -> Any:
    async with asyncio.timeout(60):
        while (found := await conn.fetchval(query)) is None:
            await asyncio.sleep(0.02)
    return found


async def test_a_killed_worker_and_a_killed_server_leave_a_migration_that_is_gone_on_with(
    place: Office,
) -> None:
    target = await asyncpg.connect(place.target.dsn("orders"))
    reader = await asyncpg.connect(place.target.dsn("orders"))
    await reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM pg_class")
    await place.bot()
    first = await place.worker()
    await asked(place, "/db migrate orders")
    await place.approve("U0BEN", card=await place.card("Waiting"))

    # The first file stands; the second waits for the reader's snapshot.
    await soon(target, BUILDING)
    assert await target.fetchval(VERSIONS) == "0001"
    await place.kill(first)
    await reader.close()
    second = await place.worker()
    await place.until("SELECT 1 FROM runs WHERE epoch > 1 AND state = 'running'")
    card = await place.card("Done", seconds=90)
    assert "2 migrations applied on orders" in str(card["blocks"])
    assert await target.fetchval(VERSIONS) == "0001,0002"
    assert await target.fetchval(INDEX) is True
    lives = await place.fetch("SELECT attempt FROM run_steps WHERE name = '0001:up'")
    assert [row["attempt"] for row in lives] == [1]

    # Back again, and now the server dies while the way back waits for a lock.
    await asked(place, "/db migrate orders rollback 0001")
    holder = await asyncpg.connect(place.target.dsn("orders"))
    await holder.execute("BEGIN; LOCK TABLE public.orders IN ACCESS SHARE MODE")
    await place.approve("U0BEN", card=await place.card("Waiting"))
    await soon(target, "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' LIMIT 1")
    await place.target.stop("immediate")
    await place.target.start()
    await place.until(
        "SELECT 1 FROM runs WHERE request_id = 2 AND state IN ('done', 'failed')", seconds=120
    )
    target = await asyncpg.connect(place.target.dsn("orders"))
    assert await target.fetchval(VERSIONS) is None
    assert await target.fetchval(INDEX) is None
    columns = (
        "SELECT count(*) FROM pg_attribute WHERE attrelid = 'orders'::regclass AND attname = 'seen'"
    )
    assert await target.fetchval(columns) == 0
    await target.close()
    await place.kill(second)
