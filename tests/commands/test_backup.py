"""`/db backup`: planned read-only, taken once, entered into the catalogue."""

from __future__ import annotations

from datetime import timedelta

import pytest

from commands import backup
from commands.backup import Params
from jobs.operation import JobError, Mode
from jobs.pinned import planned
from postgres.server import Server
from store.backups import list_backups, newest_backup
from store.connect import Store
from tests.commands.conftest import NOW, JobMaker, connected, facts

SHOP = Params(database="shop")


async def test_the_plan_says_what_and_how_much_and_pins_the_cluster(
    job: JobMaker, shop: Server
) -> None:
    plan = await planned(backup.OPERATION, job(), SHOP)
    async with connected(shop) as conn:
        identifier = await conn.fetchval("SELECT system_identifier::text FROM pg_control_system()")
    assert plan.title == "Back up shop (full)"
    assert facts(plan)["Newest backup"] == "there is none"
    assert facts(plan)["Size"].endswith("MB")
    assert plan.pins["system_identifier"] == identifier
    assert plan.pins["timeline"] == "1"
    assert plan.pins["primary"].endswith(f":{shop.port} (primary)")
    assert plan.estimate_seconds is None


async def test_a_user_that_may_not_replicate_is_told_what_to_grant(job: JobMaker) -> None:
    with pytest.raises(JobError, match="no REPLICATION attribute") as refused:
        await backup.plan(job(user="looker"), SHOP)
    assert "ALTER ROLE" in refused.value.next_step


async def test_a_backup_is_taken_and_entered_into_the_catalogue(
    job: JobMaker, store: Store
) -> None:
    made = job()
    answer = await backup.run(made, SHOP, await backup.plan(made, SHOP))
    async with store.begin() as conn:
        recorded = await newest_backup(conn, "shop")
    assert recorded is not None
    assert recorded.id == "shop-20261122T120000Z-1"
    assert recorded.row_counts["shop public.orders"] == [5000, 5000]
    assert recorded.size_bytes > 0
    assert recorded.request_id == 1
    assert answer.numbers["backup"] == recorded.id
    assert "/db verify shop" in answer.lines[0]
    assert {mode for _, mode in made.steps} == {Mode.RETRYABLE}


async def test_running_it_again_after_a_crash_takes_no_second_backup(
    job: JobMaker, store: Store
) -> None:
    made = job()
    plan = await backup.plan(made, SHOP)
    first = await backup.run(made, SHOP, plan)
    assert await backup.run(job(), SHOP, plan) == first
    async with store.begin() as conn:
        assert len(await list_backups(conn, "shop")) == 1


async def test_the_next_plan_knows_how_long_the_last_one_took(job: JobMaker) -> None:
    made = job()
    await backup.run(made, SHOP, await backup.plan(made, SHOP))
    made.now = NOW + timedelta(days=20000)
    plan = await backup.plan(made, SHOP)
    assert plan.estimate_seconds is not None
    assert plan.estimate_seconds >= 1
    assert facts(plan)["Newest backup"].endswith("old")


async def test_progress_is_told_in_bytes(job: JobMaker) -> None:
    made = job()
    await backup.run(made, SHOP, await backup.plan(made, SHOP))
    assert all("B" in said for said in made.said)


async def test_a_folder_that_cannot_be_written_is_said_and_nothing_is_recorded(
    job: JobMaker, store: Store
) -> None:
    made = job()
    made.database.backup_folder.write_text("a file stands in the way")
    plan = await backup.plan(made, SHOP)
    with pytest.raises(Exception, match="could not be written") as failed:
        await backup.run(made, SHOP, plan)
    assert failed.value.next_step  # type: ignore[attr-defined]
    async with store.begin() as conn:
        assert await newest_backup(conn, "shop") is None


async def test_two_runs_within_one_second_take_two_backups(job: JobMaker, store: Store) -> None:
    first, second = job(), job()
    second.request_id = 2
    plan = await backup.plan(first, SHOP)
    await backup.run(first, SHOP, plan)
    await backup.run(second, SHOP, plan)
    async with store.begin() as conn:
        assert len(await list_backups(conn, "shop")) == 2
