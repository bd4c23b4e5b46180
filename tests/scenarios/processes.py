"""Twokey as an operator runs it: real processes, a real store, real targets, and Slack."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import yaml

from postgres.server import Server, create, find_binaries
from sandbox.slack.server import SlackStandIn, start_slack
from store.upgrade import upgrade
from tests.conftest import open_to_all

ROOT = Path(__file__).parents[2]
CHANNEL = "C0ORDERS"
LOST_AFTER = "3s"
START_SECONDS_MAX = 120
ROWS = """
    CREATE TABLE orders (id int PRIMARY KEY, note text NOT NULL);
    INSERT INTO orders SELECT n, repeat(md5(n::text), 40) FROM generate_series(1, 40000) AS n;
"""
Json = Mapping[str, Any]


@dataclass(kw_only=True)
class Office:
    """Everything, with the processes that were started."""

    folder: Path
    store: Server
    target: Server
    slack: SlackStandIn
    port: int
    running: list[asyncio.subprocess.Process] = field(default_factory=list)

    async def bot(self) -> asyncio.subprocess.Process:
        """A bot that takes requests."""
        process = await self._start("bot")
        await self._ready()
        return process

    async def worker(self) -> asyncio.subprocess.Process:
        """A worker."""
        return await self._start("worker")

    async def kill(self, process: asyncio.subprocess.Process) -> None:
        """SIGKILL, and wait until it is gone."""
        process.send_signal(signal.SIGKILL)
        await process.wait()
        self.running.remove(process)

    async def card(self, says: str, *, seconds: float = 30) -> Json:
        """The newest card with these words in it."""
        return await self.slack.wait_for(lambda: self._find(says), seconds)

    async def approve(self, *people: str, card: Json) -> None:
        """Each presses Approve, and is told something."""
        for person in people:
            before = len(self.slack.ephemerals(person))
            assert (await self.slack.click(person, CHANNEL, card["ts"], "approve")).ok
            await self.slack.wait_for(
                lambda who=person, old=before: len(self.slack.ephemerals(who)) > old, 20
            )

    async def fetch(self, query: str, *values: object) -> Sequence[Any]:
        """Rows of the store."""
        conn = await asyncpg.connect(self.store.dsn("twokey"))
        try:
            return list(await conn.fetch(query, *values))
        finally:
            await conn.close()

    async def until(self, query: str, *, seconds: float = 60) -> Sequence[Any]:
        """The rows of a query of the store, as soon as there are any."""
        async with asyncio.timeout(seconds):
            while True:
                with contextlib.suppress(OSError, asyncpg.PostgresError):
                    if rows := await self.fetch(query):
                        return rows
                await asyncio.sleep(0.02)

    def thread(self, says: str) -> list[Json]:
        """Messages in any thread with these words."""
        return [
            m
            for m in self.slack.messages(CHANNEL)
            if m.get("thread_ts", m["ts"]) != m["ts"] and says in str(m.get("blocks", m["text"]))
        ]

    def _find(self, says: str) -> Json | None:
        for message in reversed(self.slack.messages(CHANNEL)):
            top = message.get("thread_ts", message["ts"]) == message["ts"]
            if top and says in str(message.get("blocks", "")):
                return message
        return None

    async def _start(self, kind: str) -> asyncio.subprocess.Process:
        with (self.folder / f"{kind}.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.scenarios.twokey", kind,
                cwd=ROOT, env=self._environ(), stderr=log, stdout=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
        self.running.append(process)
        return process

    def _environ(self) -> Mapping[str, str]:
        return {
            **os.environ,
            "TWOKEY_CONFIG": str(self.folder / "twokey.yml"),
            "TWOKEY_HOME": str(self.folder / "home"),
            "TWOKEY_STORE": self.store.dsn("twokey"),
            "TWOKEY_VOTE_KEY": "v" * 40,
            "TWOKEY_WORKER_LOST_AFTER": LOST_AFTER,
            "TWOKEY_HTTP_PORT": str(self.port),
            "SLACK_BOT_TOKEN": self.slack.bot_token,
            "SLACK_SIGNING_SECRET": self.slack.signing_secret,
            "SLACK_API_URL": self.slack.api_url,
        }

    async def _ready(self) -> None:
        url = f"http://127.0.0.1:{self.port}/readyz"
        async with asyncio.timeout(START_SECONDS_MAX), aiohttp.ClientSession() as session:
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(url) as answer:
                        if answer.status == 200:
                            return
                await asyncio.sleep(0.05)


@asynccontextmanager
async def office(folder: Path, *, prepare: bool = True) -> AsyncIterator[Office]:
    """Servers, Slack and an inventory; processes are started by the test, and ended here.

    Without `prepare` there is no store's database and no inventory yet.
    """
    open_to_all(folder)
    async with contextlib.AsyncExitStack() as stack:
        store = await _server(folder / "store", stack)
        target = await _server(folder / "orders", stack)
        if prepare:
            await _database(store, "twokey")
            await upgrade(store.dsn("twokey"))
        await _database(target, "orders", ROWS)
        slack = await start_slack(manifest=ROOT / "manifest.yml")
        stack.push_async_callback(slack.close)
        made = Office(folder=folder, store=store, target=target, slack=slack, port=_free_port())
        slack.set_request_url(f"http://127.0.0.1:{made.port}/slack/events")
        if prepare:
            _write_inventory(made)
        try:
            yield made
        finally:
            for process in list(made.running):
                with contextlib.suppress(ProcessLookupError):
                    await made.kill(process)


async def _server(data: Path, stack: contextlib.AsyncExitStack) -> Server:
    server = await create(find_binaries(os.environ), data)
    await server.start()
    stop: Callable[[], Any] = lambda: server.stop("immediate")  # noqa: E731
    stack.push_async_callback(stop)
    return server


async def _database(server: Server, name: str, content: str = "") -> None:
    conn = await asyncpg.connect(server.dsn())
    await conn.execute(f'CREATE DATABASE "{name}"')
    await conn.close()
    if content:
        conn = await asyncpg.connect(server.dsn(name))
        await conn.execute(content)
        await conn.close()


def _write_inventory(made: Office) -> None:
    policy = (ROOT / "policy.example.yml").read_text(encoding="utf-8")
    (made.folder / "policy.yml").write_text(policy)
    orders = {
        "dsn": made.target.dsn("orders"),
        "environment": "production",
        "tier": "critical",
        "channel": CHANNEL,
        "backup_folder": str(made.folder / "backups"),
        "critical_queries": [
            {"name": "orders", "sql": "SELECT count(*) FROM orders", "expect": "40000"}
        ],
    }
    content = {"policy": "policy.yml", "databases": {"orders": orders}}
    (made.folder / "twokey.yml").write_text(yaml.safe_dump(content))


def _free_port() -> int:
    for port in range(23000 + os.getpid() % 4000, 32000):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no free port")
