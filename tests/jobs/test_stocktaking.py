"""What has lost its files is found by the clock, and what is only away is given its time."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from jobs.operation import Database, Tier
from jobs.stocktaking import PATIENCE, Stocktaking
from store.connect import Store
from tests.commands.conftest import NOW
from tests.commands.shelf import DAY, enter, shelved


class Stock:
    """Two backups, on disk and in the catalogue, and workers that look at them."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store = store
        self.now = NOW
        self.database = Database(
            name="shop", dsn=SecretStr("postgresql://nowhere"), environment="production",
            tier=Tier.CRITICAL, channel="C0ORDERS", backup_folder=folder,
        )  # fmt: skip
        self.worker = self.a_worker("a")

    def a_worker(self, name: str) -> Stocktaking:
        return Stocktaking(
            store=self.store, databases={"shop": self.database}, worker=name,
            clock=lambda: self.now,
        )  # fmt: skip

    async def states(self) -> dict[str, str]:
        async with self.store.begin() as conn:
            found = await conn.execute(sa.text("SELECT id, state FROM backups"))
            return {row.id: row.state for row in found}


@pytest.fixture
async def stock(store: Store, tmp_path: Path) -> AsyncIterator[Stock]:
    made = Stock(store, tmp_path / "backups")
    records = [shelved(made.database, name, age * DAY) for name, age in (("a", 2), ("b", 1))]
    await enter(store, *records)
    yield made
    made.worker._leases.close()


async def test_lost_files_are_found_and_found_again(stock: Stock) -> None:
    place = stock.database.backup_folder / "a"
    place.rename(place.with_name("elsewhere.partial"))
    await stock.worker.look()
    assert await stock.states() == {"a": "lost", "b": "complete"}
    place.with_name("elsewhere.partial").rename(place)
    await stock.worker.look()
    assert await stock.states() == {"a": "complete", "b": "complete"}


async def test_a_disk_that_is_away_for_a_moment_loses_nothing(stock: Stock) -> None:
    folder = stock.database.backup_folder
    await stock.worker.look()
    folder.rename(folder.with_name("unmounted"))
    await stock.worker.look()
    stock.now += PATIENCE - timedelta(seconds=1)
    await stock.worker.look()
    assert set((await stock.states()).values()) == {"complete"}
    folder.with_name("unmounted").rename(folder)
    await stock.worker.look()
    folder.rename(folder.with_name("unmounted"))
    stock.now += timedelta(minutes=2)
    await stock.worker.look()  # its patience begins anew
    assert set((await stock.states()).values()) == {"complete"}


async def test_what_stays_away_is_lost_until_it_is_back(stock: Stock) -> None:
    folder = stock.database.backup_folder
    await stock.worker.look()
    folder.rename(folder.with_name("unmounted"))
    for _ in range(2):
        await stock.worker.look()
        stock.now += PATIENCE
    assert set((await stock.states()).values()) == {"lost"}
    folder.with_name("unmounted").rename(folder)
    await stock.worker.look()
    assert set((await stock.states()).values()) == {"complete"}


async def test_one_worker_looks_and_one_without_the_backups_never_does(
    stock: Stock,
) -> None:
    await stock.worker.look()
    shutil.rmtree(stock.database.backup_folder / "a")
    other = stock.a_worker("b")
    await other.look()
    assert (await stock.states())["a"] == "complete"  # it is the first one's to look
    stock.worker._leases.close()
    async with asyncio.timeout(30):  # until the server has seen that the session is over
        while (await stock.states())["a"] != "lost":
            await other.look()
    other._leases.close()
    shutil.rmtree(stock.database.backup_folder)
    third = stock.a_worker("c")
    stock.now += 2 * PATIENCE
    await third.look()
    assert (await stock.states())["b"] == "complete"
