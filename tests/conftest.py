"""Fixtures that every part uses: a real PostgreSQL, and a fresh store per test."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import hypothesis
import pytest

from postgres.server import Server, create, find_binaries
from store.connect import Store, connect
from store.upgrade import upgrade
from tests.temporary import use_memory

# Clusters to break: nothing is started before a test asks for one.
pytest_plugins = ["tests.ha_clusters"]
_numbers = itertools.count(1)

# Nothing that a developer has set reaches a test.
for _name in [name for name in os.environ if name.startswith(("TWOKEY_", "SLACK_"))]:
    if _name != "TWOKEY_PG_BIN":
        del os.environ[_name]

use_memory()

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile(
    "busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("busy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A fresh database on the shared server."""

    name: str
    dsn: str


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files whose tests may take long come first, so that no process ends with one alone.

    `--dist worksteal` gives each process a part of the list, and who is done the end of
    another's. A file stays together, as its tests share servers.
    """
    longest: dict[Path, float] = {}
    for item in items:
        longest[item.path] = max(longest.get(item.path, 0.0), _seconds_max(item))
    items.sort(key=lambda item: longest[item.path], reverse=True)


def _seconds_max(item: pytest.Item) -> float:
    """How long the test says that it may take; 0 for what is usual."""
    marker = item.get_closest_marker("timeout")
    return float(marker.args[0]) if marker and marker.args else 0.0


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


class Admin:
    """One connection for all tests of a process: making a new one takes half as long as its use.

    Its event loop runs only while it is asked, as the loop of a test ends with the test.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._loop = asyncio.new_event_loop()
        self._conn: asyncpg.Connection | None = None

    def execute(self, statement: str) -> None:
        """Run a statement; a test may have ended the connection."""
        self._loop.run_until_complete(self._execute(statement))

    def close(self) -> None:
        """End the connection."""
        if self._conn:
            self._loop.run_until_complete(self._conn.close(timeout=30))
        self._loop.close()

    async def _execute(self, statement: str) -> None:
        conn = self._conn
        if conn is None or conn.is_closed():
            conn = self._conn = await asyncpg.connect(self._dsn, timeout=30)
        await conn.execute(statement, timeout=60)


@pytest.fixture(scope="session")
def admin(server: Server) -> Iterator[Admin]:
    """Makes and drops databases."""
    made = Admin(server.dsn("postgres"))
    # Who connects first leaves a summary of the catalogs behind; copies then have it too.
    asyncio.run(_connect_once(server.dsn("template1")))
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="session")
def template(server: Server, admin: Admin) -> str:
    """A migrated database to copy from."""
    admin.execute("CREATE DATABASE store_template")
    asyncio.run(upgrade(server.dsn("store_template")))
    return "store_template"


@pytest.fixture
def store_name(admin: Admin, template: str) -> Iterator[str]:
    """A database of our own, migrated and empty."""
    with _database(admin, "store", f"TEMPLATE {template}") as name:
        yield name


@pytest.fixture
async def store(server: Server, store_name: str) -> AsyncIterator[Store]:
    """Our own database, migrated and empty."""
    made = connect(server.dsn(store_name))
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
def target(server: Server, admin: Admin) -> Iterator[Target]:
    """An empty database to operate on."""
    with _database(admin, "target") as name:
        yield Target(name=name, dsn=server.dsn(name))


@contextmanager
def _database(admin: Admin, kind: str, options: str = "") -> Iterator[str]:
    name = f"{kind}_{os.getpid()}_{next(_numbers)}"
    # A copy of files takes half the time: durability is off.
    admin.execute(f"CREATE DATABASE {name} {options} STRATEGY file_copy")
    try:
        yield name
    finally:
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


async def _started(binaries: object, data: Path, settings: dict[str, str]) -> Server:
    made = await create(binaries, data, settings=settings)  # type: ignore[arg-type]
    await made.start()
    return made


async def _connect_once(dsn: str) -> None:
    conn = await asyncpg.connect(dsn, timeout=30)
    await conn.close(timeout=30)


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
