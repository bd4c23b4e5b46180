"""An office in which every secret is a canary, and the places where none may ever sing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import aiohttp
import asyncpg
import psutil
import yaml

from postgres.server import Server, find_binaries
from sandbox.slack import wire
from tests.scenarios.processes import CHANNEL, ROOT, Office, office

MARK = "c4n4ry"
# With characters that a URL, a conninfo string, JSON and Python spell in their own ways.
PASSWORDS = {
    "owner": "c4n4ry/owner+of%store",
    "app": "c4n4ry:app@store 'quoted'",
    "orders": 'c4n4ry"orders"\\of/target',
    "wrong": "c4n4ry-wrong-password",
    "away": "c4n4ry-of-nobody's-server",
    "store_wrong": "c4n4ry-wrong-for-the-store",
}
KEY, KEY_BEFORE = "c4n4ry-vote-key-" + "k" * 32, "c4n4ry-vote-key-before-" + "k" * 32
TYPED = "c4n4ry-typed-by-hand"
TYPED_DSN = f"postgresql://bob:{TYPED}@db1:5432/orders"


@dataclass(kw_only=True)
class Aviary:
    """The office, what its commands said, and what processes were seen with."""

    place: Office
    environ: Mapping[str, str]
    said: dict[str, str] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    issued: set[str] = field(default_factory=set)

    async def start(self) -> asyncio.subprocess.Process:
        """Bot, worker and scheduler, with an operation that breaks."""
        with (self.place.folder / "serve.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.scenarios.crashing", "serve",
                cwd=ROOT, env=self.environ, stderr=log, stdout=log,
            )  # fmt: skip
        self.place.running.append(process)
        await self.place._ready()
        return process

    async def run(self, *arguments: str, **environ: str) -> int:
        """A command of the command line; what it said is kept."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.scenarios.crashing", *arguments,
            cwd=ROOT, env={**self.environ, **environ},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        async with asyncio.timeout(180):
            out, _ = await process.communicate()
        self.said[f"{len(self.said)}: twokey {' '.join(arguments)}"] = out.decode()
        return process.returncode or 0

    async def watch(self) -> None:
        """Note the command lines and the environments of every process that is not the test's."""
        while True:
            for line in processes():
                self.seen.add(line)
            await asyncio.sleep(0.1)

    async def metrics(self) -> str:
        """What Prometheus would read."""
        url = f"http://127.0.0.1:{self.place.port}/metrics"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return await answer.text()

    def dumped(self) -> str:
        """Every table of the store."""
        program = find_binaries(os.environ).program("pg_dump")
        return subprocess.run(
            [program, "--inserts", self.place.store.dsn("twokey", tcp=True)],
            capture_output=True, text=True, check=True, timeout=180,
        ).stdout  # fmt: skip

    def told(self) -> Iterator[tuple[str, str]]:
        """Everything that Slack got from us, and everything that stands there."""
        for entry in self.place.slack.wire:
            content = json.loads(entry.body)
            given = content.get("args", "") if entry.direction == "from_app" else ""
            yield f"Slack: {entry.kind} {entry.n}", json.dumps([given, content.get("answer")])
        workspace = self.place.slack.workspace
        for name in ("_messages", "_ephemerals", "homes", "stacks"):
            yield f"Slack: {name}", repr(getattr(workspace, name))

    def kept(self) -> Iterator[tuple[str, str]]:
        """Every file that we wrote, but the data of servers and copies of it."""
        for path in self.place.folder.rglob("*"):
            is_ours = path.suffix in {".log", ".json", ".html", ".txt", ".label"} or (
                self.place.folder / "home" in path.parents
            )
            in_data = {"base", "global", "pg_wal"} & set(path.parts)
            if path.is_file() and is_ours and not in_data:
                yield str(path), path.read_bytes().decode(errors="replace")


def processes() -> Iterator[str]:
    """The command line of each process that we started, and of PostgreSQL's the environment."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error, OSError):
            line = " ".join(process.cmdline())
            yield f"cmdline: {line}"
            if "bin/pg_" in line or "bin/postgres" in line:
                pairs = [f"{name}={value}" for name, value in process.environ().items()]
                yield f"environ of {line}: {' '.join(pairs)}"


def dsn(user: str, password: str, port: int, database: str) -> str:
    """A DSN over TCP, where a password is asked for."""
    return f"postgresql://{user}:{quote(password, safe='')}@127.0.0.1:{port}/{database}"


@asynccontextmanager
async def aviary(folder: Path) -> AsyncIterator[Aviary]:
    """An office whose secrets are all canaries; nothing of ours runs yet."""
    async with office(folder, prepare=False) as place:
        platform = place.slack._platform
        platform.bot_token = "xoxb-12-34-c4n4ry"
        platform.signing_secret = "c4n4ry-signing-secret"
        await _roles(place)
        _policy_and_inventory(place)
        made = Aviary(place=place, environ=_environ(place))
        task = asyncio.create_task(made.watch())
        try:
            yield made
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _roles(place: Office) -> None:
    await _run(
        place.store,
        "CREATE ROLE keeper LOGIN SUPERUSER PASSWORD %s",
        PASSWORDS["owner"],
        "CREATE DATABASE twokey OWNER keeper",
    )
    await _run(
        place.target,
        "CREATE ROLE backups LOGIN REPLICATION PASSWORD %s",
        PASSWORDS["orders"],
        "GRANT pg_monitor, pg_read_all_data TO backups",
    )


async def _run(server: Server, create: str, password: str, then: str) -> None:
    conn = await asyncpg.connect(server.dsn())
    try:
        await conn.execute(create.replace("%s", "'" + password.replace("'", "''") + "'"))
        await conn.execute(then)
    finally:
        await conn.close()


def _policy_and_inventory(place: Office) -> None:
    policy = yaml.safe_load((ROOT / "policy.example.yml").read_text(encoding="utf-8"))
    policy["rules"].insert(0, {"name": "crash", "when": {"operation": "crash"}, "gates": []})
    policy.pop("never_alone", None)
    (place.folder / "policy.yml").write_text(yaml.safe_dump(policy))
    (place.folder / "wrong.dsn").write_text(
        dsn("backups", PASSWORDS["wrong"], place.target.port, "orders")
    )
    (place.folder / "wrong.dsn").chmod(0o600)
    common = {"environment": "production", "tier": "critical", "channel": CHANNEL}
    databases = {
        name: {**common, "dsn": given, "backup_folder": str(place.folder / "backups" / name)}
        for name, given in {
            "orders": "env:ORDERS_DSN",
            "wrong": f"file:{place.folder}/wrong.dsn",
            "away": {"env": "AWAY_DSN"},
        }.items()
    }
    content = {"policy": "policy.yml", "databases": databases}
    (place.folder / "twokey.yml").write_text(yaml.safe_dump(content))


def _environ(place: Office) -> dict[str, str]:
    return {
        **place._environ(),
        "TWOKEY_STORE": dsn("app", PASSWORDS["app"], place.store.port, "twokey"),
        "TWOKEY_STORE_OWNER": "env:OWNER_DSN",
        "OWNER_DSN": dsn("keeper", PASSWORDS["owner"], place.store.port, "twokey"),
        "ORDERS_DSN": dsn("backups", PASSWORDS["orders"], place.target.port, "orders"),
        "AWAY_DSN": dsn("bob", PASSWORDS["away"], 1, "away"),
        "TWOKEY_VOTE_KEY": KEY,
        "TWOKEY_VOTE_KEY_PREVIOUS": KEY_BEFORE,
        "TWOKEY_PLAN_LIMIT": "10s",  # several commands start at once here, on a busy machine
        "SLACK_BOT_TOKEN": place.slack.bot_token,
        "SLACK_SIGNING_SECRET": place.slack.signing_secret,
        "SLACK_SIGNING_SECRET_PREVIOUS": "c4n4ry-signing-before",
    }


def singing(text: str, more: set[str]) -> list[str]:
    """Each canary in a text with its surroundings."""
    expression = "|".join([MARK, *map(re.escape, sorted(more))])
    return [
        text[max(0, m.start() - 80) : m.end() + 40]
        for m in re.finditer(expression, text, re.IGNORECASE)
    ]


@contextlib.contextmanager
def whole_wire() -> Iterator[None]:
    """Keep everything that went over the wire."""
    before, wire.BODY_CHARS_MAX = wire.BODY_CHARS_MAX, 10_000_000
    try:
        yield
    finally:
        wire.BODY_CHARS_MAX = before
