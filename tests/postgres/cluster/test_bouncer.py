"""Clients that wait in a real pgbouncer, and what lets them go."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from postgres.account import identity_of, server_account
from postgres.cluster.bouncer import Bouncer, held, let_go
from postgres.dsn import parse_dsn
from postgres.errors import PostgresError
from postgres.health.pgbouncer import simple_query
from postgres.ports import free_port
from postgres.server import Server
from tests.conftest import Target, folder_of_its_own

LIMIT = timedelta(seconds=10)
pytestmark = pytest.mark.needs("pgbouncer")

# A worker that holds clients and is killed.
HOLDER = """
import asyncio, sys
from datetime import timedelta
from postgres.cluster.bouncer import Bouncer, held
from postgres.dsn import parse_dsn

async def main():
    bouncer = Bouncer(admin=parse_dsn(sys.argv[1]), database="shop")
    async with held([bouncer], limit=timedelta(seconds=50)):
        print("held", flush=True)
        await asyncio.sleep(50)

asyncio.run(main())
"""


@pytest.fixture
async def bouncer(server: Server, target: Target) -> AsyncIterator[Bouncer]:
    """One that leads `shop` to the test's database."""
    home = folder_of_its_own()
    home.chmod(0o777)
    port = free_port()
    config = home / "pgbouncer.ini"
    config.write_text(f"""
[databases]
shop = host={server.sockets} port={server.port} dbname={target.name} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
admin_users = admin
""")
    config.chmod(0o666)
    running = await asyncio.create_subprocess_exec(
        str(shutil.which("pgbouncer")), config, stderr=asyncio.subprocess.DEVNULL,
        **identity_of(server_account()),
    )  # fmt: skip
    made = Bouncer(
        admin=parse_dsn(f"postgresql://admin@127.0.0.1:{port}/pgbouncer?sslmode=disable"),
        database="shop",
    )
    try:
        async with asyncio.timeout(30):
            while True:
                try:
                    await simple_query(made.admin, "SHOW VERSION")
                    break
                except OSError:
                    await asyncio.sleep(0.02)
        yield replace(made, config=config)
    finally:
        running.terminate()
        await running.wait()
        shutil.rmtree(home, ignore_errors=True)


async def is_paused(bouncer: Bouncer) -> bool:
    names, rows = await simple_query(bouncer.admin, "SHOW DATABASES")
    found = [dict(zip(names, row, strict=True)) for row in rows]
    return next(row["paused"] for row in found if row["name"] == "shop") == "1"


async def until_let_go(bouncer: Bouncer) -> None:
    async with asyncio.timeout(30):
        while await is_paused(bouncer):
            await asyncio.sleep(0.02)


@asynccontextmanager
async def client(bouncer: Bouncer) -> AsyncIterator[Any]:
    port = bouncer.admin.words["port"]
    conn = await asyncpg.connect(
        f"postgresql://app@127.0.0.1:{port}/shop", statement_cache_size=0, timeout=30
    )
    try:
        yield conn
    finally:
        conn.terminate()


def without_config(bouncer: Bouncer) -> Bouncer:
    return replace(bouncer, config=None)


async def test_clients_wait_within_the_block_and_lose_nothing(bouncer: Bouncer) -> None:
    async with client(bouncer) as conn:
        async with held([without_config(bouncer)], limit=LIMIT):
            assert await is_paused(bouncer)
            waiting = asyncio.create_task(conn.fetchval("SELECT 1"))
            await asyncio.sleep(0.05)
            assert not waiting.done()
        assert await waiting == 1
    assert not await is_paused(bouncer)


async def test_they_are_let_go_when_the_work_fails_or_is_cancelled(bouncer: Bouncer) -> None:
    with pytest.raises(RuntimeError):
        async with held([without_config(bouncer)], limit=LIMIT):
            raise RuntimeError
    assert not await is_paused(bouncer)

    async def hold() -> None:
        async with held([without_config(bouncer)], limit=LIMIT):
            await asyncio.sleep(60)

    task = asyncio.create_task(hold())
    async with asyncio.timeout(30):
        while not await is_paused(bouncer):
            await asyncio.sleep(0.02)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    assert not await is_paused(bouncer)


async def test_an_open_transaction_that_does_not_end_holds_nobody(bouncer: Bouncer) -> None:
    async with client(bouncer) as conn:
        async with conn.transaction():
            await conn.execute("SELECT 1")
            with pytest.raises(PostgresError, match=r"not at rest within 0 s") as caught:
                async with held([without_config(bouncer)], limit=timedelta(seconds=0.3)):
                    raise AssertionError
            assert caught.value.next_step
        assert not await is_paused(bouncer)
        assert await conn.fetchval("SELECT 2") == 2


async def test_a_killed_worker_leaves_nobody_waiting(bouncer: Bouncer) -> None:
    words = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    holder = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLDER, bouncer.admin.url(),
        stdout=asyncio.subprocess.PIPE, env=words, cwd="/",
    )  # fmt: skip
    assert holder.stdout is not None
    async with asyncio.timeout(30):
        assert await holder.stdout.readline() == b"held\n"
    assert await is_paused(bouncer)
    holder.send_signal(signal.SIGKILL)
    await holder.wait()
    await until_let_go(bouncer)


async def test_time_is_up_for_a_worker_that_hangs(
    bouncer: Bouncer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postgres.cluster.bouncer._SPARE", timedelta(0))
    async with held([without_config(bouncer)], limit=timedelta(seconds=1)):
        await until_let_go(bouncer)


async def test_they_find_the_new_place_when_they_are_let_go(
    bouncer: Bouncer, server: Server
) -> None:
    elsewhere = parse_dsn(f"postgresql://x@/postgres?host={server.sockets}&port=1")
    async with held([bouncer], limit=LIMIT) as clients:
        await clients.lead(elsewhere)
    assert bouncer.config is not None
    assert f"shop = host={server.sockets} port=1 dbname=" in bouncer.config.read_text()
    names, rows = await simple_query(bouncer.admin, "SHOW DATABASES")
    found = [dict(zip(names, row, strict=True)) for row in rows]
    assert next(row["port"] for row in found if row["name"] == "shop") == "1"


async def test_a_configuration_that_cannot_be_used_is_said_before_anybody_waits(
    bouncer: Bouncer,
) -> None:
    assert bouncer.config is not None
    bouncer.config.write_text("[databases]\nother = host=a\n")
    with pytest.raises(PostgresError, match="names shop 0 times"):
        async with held([bouncer], limit=LIMIT):
            raise AssertionError
    assert not await is_paused(bouncer)


async def test_a_console_that_is_away_is_an_error_for_people() -> None:
    nobody = Bouncer(
        admin=parse_dsn(f"postgresql://admin@127.0.0.1:{free_port()}/pgbouncer"), database="shop"
    )
    with pytest.raises(PostgresError, match="may still hold clients") as caught:
        await let_go([nobody])
    assert "RESUME" in caught.value.next_step


async def test_letting_go_of_nobody_changes_nothing(bouncer: Bouncer) -> None:
    await let_go([bouncer])
    assert not await is_paused(bouncer)
