"""What the tests of PostgreSQL servers share."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest
from pydantic import SecretStr

from postgres.account import server_account
from postgres.backup.facts import BackupFacts
from postgres.backup.native import take_backup
from postgres.server import Binaries, Server, create, find_binaries

FAST = {"fsync": "off", "shared_buffers": "16MB", "max_connections": "20"}


@pytest.fixture(scope="session")
def binaries() -> Binaries:
    """The programs that this environment would use."""
    return find_binaries(os.environ)


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder with a short path that every account can walk through."""
    with tempfile.TemporaryDirectory(prefix="tk", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
async def fresh(binaries: Binaries, home: Path) -> AsyncIterator[Server]:
    """A server of the test's own that does not run yet."""
    made = await create(binaries, home / "orders", settings=FAST, sync=False)
    try:
        yield made
    finally:
        await made.remove()


@pytest.fixture(scope="session")
def other_python() -> str:
    """A Python of our version that the server account can run."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    account = server_account()
    if account is None:
        pytest.skip("only root can start something as another account")
    for candidate in (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        real = Path(candidate).resolve()
        if real.exists() and all(part.stat().st_mode & 0o001 for part in real.parents):
            return candidate
    pytest.skip(f"no {version} that the account {account.name} can run")


SHOP = """
    CREATE TABLE orders (id int PRIMARY KEY, note text NOT NULL);
    INSERT INTO orders SELECT n, md5(n::text) FROM generate_series(1, 20000) AS n;
    CREATE TABLE empty ();
    CREATE UNLOGGED TABLE drafts AS SELECT 1 AS one;
    CREATE TABLE "odd ""name" AS SELECT 1 AS one;
    CREATE TABLE parted (n int) PARTITION BY RANGE (n);
    CREATE TABLE part_1 PARTITION OF parted FOR VALUES FROM (0) TO (10);
    INSERT INTO parted SELECT generate_series(0, 9);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    """A running server with a database `shop`, and one good backup of it."""

    server: Server
    dsn: str
    folder: Path
    facts: BackupFacts

    def damaged_copy(self, into: Path) -> Path:
        """The backup's folder once more; its files may be replaced but not written to."""
        return Path(
            shutil.copytree(
                self.folder / self.facts.id, into / self.facts.id, copy_function=_link_or_copy
            )
        )


@pytest.fixture(scope="session")
def shop(binaries: Binaries) -> Iterator[Shop]:
    """Shared by all tests of a process: do not change what it holds."""
    with tempfile.TemporaryDirectory(prefix="tk", ignore_cleanup_errors=True) as name:
        home = Path(name)
        home.chmod(0o755)
        made = asyncio.run(_open_shop(binaries, home))
        try:
            yield made
        finally:
            asyncio.run(made.server.remove())


async def _open_shop(binaries: Binaries, home: Path) -> Shop:
    settings = {**FAST, "wal_level": "replica", "autovacuum": "off"}
    server = await create(binaries, home / "shop", settings=settings, sync=False)
    await server.start()
    await run_sql(server.dsn(), "CREATE DATABASE shop")
    await run_sql(server.dsn("shop"), SHOP)
    facts = await take_backup(
        binaries, SecretStr(server.dsn("shop")), home / "backups", backup_id="shop-1"
    )
    return Shop(server=server, dsn=server.dsn("shop"), folder=home / "backups", facts=facts)


async def run_sql(dsn: str, statements: str) -> None:
    """Run statements and forget what they say."""
    conn = await asyncpg.connect(dsn, timeout=30)
    try:
        await conn.execute(statements, timeout=30)
    finally:
        await conn.close()


def _link_or_copy(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target
