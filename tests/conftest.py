"""Fixtures that every part uses: a real PostgreSQL, and a fresh store per test."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from postgres.server import Server, create, find_binaries
from store.connect import Store, connect
from store.upgrade import upgrade
from tests.temporary import use_memory

_numbers = itertools.count(1)

# Nothing that a developer has set reaches a test.
for _name in [name for name in os.environ if name.startswith(("TWOKEY_", "SLACK_"))]:
    if _name != "TWOKEY_PG_BIN":
        del os.environ[_name]

use_memory()


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A fresh database on the shared server."""

    name: str
    dsn: str


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip by name what needs a program that this machine lacks."""
    for marker in item.iter_markers("needs"):
        for program in marker.args:
            if shutil.which(program) is None:
                pytest.skip(f"{program} is not installed")


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """One server for all tests of this process; durability off, as nobody keeps its data."""
    binaries = find_binaries(os.environ)
    home = folder_of_its_own()
    settings = {
        "fsync": "off",
        "synchronous_commit": "off",
        "full_page_writes": "off",
        "max_connections": "200",
        "wal_level": "replica",
        "max_wal_senders": "10",
    }
    made = asyncio.run(_started(binaries, home / "data", settings))
    try:
        yield made
    finally:
        asyncio.run(made.stop("immediate"))
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def template(server: Server) -> str:
    """A migrated database to copy from."""
    asyncio.run(_make_template(server))
    return "store_template"


@pytest.fixture
async def store(server: Server, template: str) -> AsyncIterator[Store]:
    """Our own database, migrated and empty."""
    name = f"store_{os.getpid()}_{next(_numbers)}"
    # A copy of files takes half the time: durability is off.
    await _admin(server, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    made = connect(server.dsn(name))
    try:
        yield made
    finally:
        await made.close()
        await _admin(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def target(server: Server) -> AsyncIterator[Target]:
    """An empty database to operate on."""
    name = f"target_{os.getpid()}_{next(_numbers)}"
    await _admin(server, f"CREATE DATABASE {name}")
    try:
        yield Target(name=name, dsn=server.dsn(name))
    finally:
        await _admin(server, f"DROP DATABASE {name} WITH (FORCE)")


async def _started(binaries: object, data: Path, settings: dict[str, str]) -> Server:
    made = await create(binaries, data, settings=settings)  # type: ignore[arg-type]
    await made.start()
    return made


async def _make_template(server: Server) -> None:
    await _admin(server, "CREATE DATABASE store_template")
    await upgrade(server.dsn("store_template"))


async def _admin(server: Server, statement: str) -> None:
    conn = await asyncpg.connect(server.dsn("postgres"), timeout=10)
    try:
        await conn.execute(statement)
    finally:
        await conn.close()


def folder_of_its_own() -> Path:
    """A folder for a server: pytest's own are closed when another run of it begins."""
    home = Path(tempfile.mkdtemp(prefix="twokey-"))
    home.chmod(0o755)
    return home


def open_to_all(folder: Path) -> None:
    """As root the server runs as another user, who must be able to walk to its folder."""
    for part in (folder, *folder.parents):
        if part.stat().st_uid == os.getuid() and part.stat().st_mode & 0o005 != 0o005:
            part.chmod(part.stat().st_mode | 0o055)
