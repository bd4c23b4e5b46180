"""A restore drill from pgBackRest's repository, which goes on to grow."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator

import pytest

from jobs import backup_settings
from jobs.backup_settings import (
    ArchiveMethod,
    ArchiveSettings,
    BackupSettings,
    RepositorySettings,
)
from jobs.drill_words import Phase
from jobs.operation import CriticalQuery, Database, Tier
from postgres.backup.engine import TakeOrder
from postgres.binaries import find_binaries
from postgres.connect import connection
from postgres.dsn import parse_dsn
from postgres.server import create
from store.connect import Store
from tests.conftest import folder_of_its_own
from tests.jobs.drill_restores import ROWS, Drill, enter, made_job, said
from tests.postgres.backup.houses import STANZA, PgBackRestHouse, Source
from tests.postgres.conftest import FAST

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
async def house() -> AsyncIterator[PgBackRestHouse]:
    """A server that archives into pgBackRest's repository."""
    home = folder_of_its_own()
    script = home / "archive-as-pgbackrest-wants.sh"
    settings = {
        **FAST, "wal_level": "replica", "archive_mode": "on", "archive_command": f"{script} %p %f",
    }  # fmt: skip
    server = await create(find_binaries(os.environ, major=15), home / "shop", settings=settings)
    made = PgBackRestHouse(source=Source(server=server, script=script), home=home / "kept")
    try:
        made.source.write_script([])
        await server.start()
        async with connection(parse_dsn(server.dsn())) as conn:
            await conn.execute("CREATE DATABASE shop")
        await made.source.sql("CREATE TABLE orders (id int)", "SELECT 1")
        await made.open()
        made.source.write_script([made])
        yield made
    finally:
        await server.remove()
        shutil.rmtree(home, ignore_errors=True)


@pytest.mark.needs("pgbackrest")
async def test_pgbackrest_restores_no_file_that_came_after_the_disaster(
    house: PgBackRestHouse, store: Store
) -> None:
    database = Database(
        name="shop", dsn=house.source.dsn, environment="production", tier=Tier.CRITICAL,
        channel="C0ORDERS", backup_folder=house.home / "notes",
        backups=BackupSettings(
            engine=backup_settings.Engine.PGBACKREST,
            archive=ArchiveSettings(method=ArchiveMethod.ENGINE),
            repository=RepositorySettings(config=house.config, name=STANZA),
        ),
        critical_queries=(
            CriticalQuery(name="in time", sql="SELECT count(*) FROM orders", expect="1"),
        ),
    )  # fmt: skip
    facts = await house.engine.take(TakeOrder(backup_id="shop-1"))
    await house.source.sql("INSERT INTO orders VALUES (1)", "SELECT 1")
    last = await house.source.switch()

    async def archive_more() -> None:
        await house.source.sql("INSERT INTO orders VALUES (2)", "SELECT 1")
        await house.source.switch()

    async with made_job(database, store) as job:
        await enter(store, facts)
        drilled = await Drill(job=job, after={Phase.INJECTED: archive_more}).run()
    assert drilled.is_connected, drilled.connectivity
    assert drilled.cost is not None
    assert drilled.cost.acknowledged == drilled.cost.lost >= ROWS
    assert last in said(drilled)["Archive then"]
    assert drilled.seconds is not None
