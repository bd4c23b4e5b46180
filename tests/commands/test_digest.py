"""`/db digest`: what managers get by the clock, at once."""

from __future__ import annotations

import pytest

from bot.command_text import parse
from commands import digest
from commands.digest import OPERATION, Params
from jobs.digest import Period
from jobs.operation import JobError
from store.connect import Store
from store.samples import record
from tests.commands.conftest import NOW, JobMaker
from tests.jobs.health import a_node
from tests.jobs.test_timetable import a_database


async def test_one_database_or_all_are_told_of(job: JobMaker, store: Store) -> None:
    made = job()
    made.database = a_database()
    made.databases = {name: a_database(name) for name in ("orders", "billing")}
    async with store.begin() as conn:
        await record(conn, [a_node(at=NOW)])
    one = await digest.answer(made, Params(database="orders", period=Period.DAILY))
    assert one.title == "Daily digest: orders"
    assert one.lines[0] == "orders is healthy."
    assert one.lines[-1] == (
        "2026-11-21 12:00 to 2026-11-22 12:00 UTC, compared with the day before."
    )
    assert one.table is None
    every = await digest.answer(made, Params())
    assert every.title == "Weekly digest: billing, orders"
    assert every.lines[0].startswith("1 of 2 databases are healthy. billing is unknown: No worker")
    assert every.table is not None
    assert [row[0] for row in every.table.rows] == ["billing", "orders"]


def test_the_period_is_typed_after_the_database() -> None:
    operations = {"digest": OPERATION}
    assert parse("digest", ["orders", "daily"], operations).params == Params(
        database="orders", period=Period.DAILY
    )
    assert parse("digest", ["period=daily"], operations).params == Params(period=Period.DAILY)
    assert parse("digest", ["daily"], operations).params == Params(period=Period.DAILY)
    assert parse("digest", [], operations).params == Params()


async def test_an_inventory_without_databases_is_said(job: JobMaker) -> None:
    with pytest.raises(JobError, match="no database in the inventory"):
        await digest.answer(job(), Params())
