"""A source server that archives its WAL, for the tests of engines."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from postgres.binaries import find_binaries
from postgres.errors import PostgresError
from postgres.server import Binaries, create
from tests.postgres.backup.houses import ROWS, Source
from tests.postgres.conftest import FAST, run_sql


@pytest.fixture(scope="session")
def source_binaries() -> Binaries:
    """PostgreSQL 15, as that is what the older of these programs can back up."""
    try:
        return find_binaries(os.environ, major=15)
    except PostgresError as error:
        pytest.skip(error.problem)


@pytest.fixture(scope="session")
def source(source_binaries: Binaries) -> Iterator[Source]:
    with tempfile.TemporaryDirectory(prefix="tk", ignore_cleanup_errors=True) as name:
        home = Path(name)
        home.chmod(0o755)
        made = asyncio.run(_open(source_binaries, home))
        try:
            yield made
        finally:
            asyncio.run(made.server.remove())


async def _open(binaries: Binaries, home: Path) -> Source:
    script = home / "archive-as-pgbackrest-wants.sh"
    settings = {
        **FAST,
        "wal_level": "replica",
        "archive_mode": "on",
        "archive_command": f"{script} %p %f",
        "max_connections": "30",
    }
    made = Source(server=await create(binaries, home / "shop", settings=settings), script=script)
    made.write_script([])
    await made.server.start()
    await run_sql(made.server.dsn(), "CREATE DATABASE shop")
    await run_sql(
        made.server.dsn("shop"),
        "CREATE TABLE orders (id int PRIMARY KEY, note text);"
        f" INSERT INTO orders SELECT n, md5(n::text) FROM generate_series(1, {ROWS}) n",
    )
    return made
