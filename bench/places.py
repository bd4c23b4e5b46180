"""Where benchmarks run: servers with durability on, a stand-in for Slack, and app processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import asyncpg
import yaml

from postgres.server import Server, create, find_binaries
from sandbox.slack.server import SlackStandIn, start_slack
from store.upgrade import upgrade

ROOT = Path(__file__).parents[1]
KEY = "k" * 32
START_SECONDS_MAX = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A store, a target called `orders`, a Slack, and an inventory that names them."""

    folder: Path
    server: Server
    slack: SlackStandIn
    store_dsn: str
    target_dsn: str

    def environ(self, **more: str) -> Mapping[str, str]:
        """What a Twokey process needs to be told."""
        return {
            **os.environ,
            "TWOKEY_CONFIG": str(self.folder / "twokey.yml"),
            "TWOKEY_HOME": str(self.folder / "home"),
            "TWOKEY_STORE": self.store_dsn,
            "TWOKEY_VOTE_KEY": KEY,
            "SLACK_BOT_TOKEN": self.slack.bot_token,
            "SLACK_SIGNING_SECRET": self.slack.signing_secret,
            "SLACK_API_URL": self.slack.api_url,
            **more,
        }


@asynccontextmanager
async def place() -> AsyncIterator[Place]:
    """All of it, on the disk that the checkout is on, removed at the end."""
    (ROOT / ".bench").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / ".bench", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        async with contextlib.AsyncExitStack() as stack:
            server = await create(
                find_binaries(os.environ),
                folder / "pg",
                settings={"max_connections": "200", "shared_buffers": "256MB"},
            )
            await server.start()
            stack.push_async_callback(server.stop, "immediate")
            await make_database(server, "twokey")
            await upgrade(server.dsn("twokey"))
            await make_database(server, "orders")
            slack = await start_slack(manifest=ROOT / "manifest.yml")
            stack.push_async_callback(slack.close)
            made = Place(
                folder=folder, server=server, slack=slack, store_dsn=server.dsn("twokey"),
                target_dsn=server.dsn("orders"),
            )  # fmt: skip
            write_inventory(made)
            yield made


def write_inventory(where: Place) -> None:
    """An inventory with one production database, under the example policy."""
    policy = (ROOT / "policy.example.yml").read_text(encoding="utf-8")
    (where.folder / "policy.yml").write_text(policy)
    orders = {
        "dsn": where.target_dsn,
        "environment": "production",
        "tier": "critical",
        "channel": "C0ORDERS",
        "backup_folder": str(where.folder / "backups"),
    }
    content = {"policy": "policy.yml", "databases": {"orders": orders}}
    (where.folder / "twokey.yml").write_text(yaml.safe_dump(content))


async def make_database(server: Server, name: str) -> None:
    """An empty database."""
    conn = await asyncpg.connect(server.dsn("postgres"))
    try:
        await conn.execute(f'CREATE DATABASE "{name}"')
    finally:
        await conn.close()


@asynccontextmanager
async def process(*command: str, environ: Mapping[str, str]) -> AsyncIterator[int]:
    """A process that serves HTTP on TWOKEY_HTTP_PORT, once it is ready; its pid."""
    running = await asyncio.create_subprocess_exec(*command, env=environ)
    try:
        await _ready(f"http://127.0.0.1:{environ['TWOKEY_HTTP_PORT']}/readyz")
        yield running.pid
    finally:
        running.terminate()
        await running.wait()


@asynccontextmanager
async def floor(secret: str) -> AsyncIterator[str]:
    """The floor app in a process of its own; its URL."""
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.floor", secret, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert running.stdout is not None
        port = int(await running.stdout.readline())
        yield f"http://127.0.0.1:{port}/slack/events"
    finally:
        running.terminate()
        await running.wait()


def free_port() -> int:
    """A port that is free now, below the range of outgoing connections."""
    for port in range(21000, 32000):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no free port")


async def _ready(url: str) -> None:
    async with asyncio.timeout(START_SECONDS_MAX), aiohttp.ClientSession() as session:
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(url) as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.1)
