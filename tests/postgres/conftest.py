"""What the tests of PostgreSQL servers share."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from postgres.account import server_account
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
