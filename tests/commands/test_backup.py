"""`/db backup`: planned read-only, taken once, entered into the catalogue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest

from commands import backup
from commands.backup import Params, progress_text
from jobs.backup_settings import BackupSettings, EncryptionKeys
from jobs.operation import JobError, Mode
from jobs.pinned import planned
from postgres.backup.facts import read_backup
from postgres.backup.progress import Progress
from postgres.backup.sealing import new_identity
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


@pytest.fixture
async def summarizing(shop: Server) -> AsyncIterator[None]:
    """The server notes which blocks change, and no longer afterwards."""

    async def switch(statement: str, wanted: str) -> None:
        async with connected(shop) as conn, asyncio.timeout(30):
            await conn.execute(statement)
            await conn.execute("SELECT pg_reload_conf()")
            while await conn.fetchval("SHOW summarize_wal") != wanted:
                await asyncio.sleep(0.02)

    await switch("ALTER SYSTEM SET summarize_wal = on", "on")
    yield
    await switch("ALTER SYSTEM RESET summarize_wal", "off")


async def test_an_incremental_builds_on_the_newest_backup_and_says_so(
    job: JobMaker, store: Store, summarizing: None
) -> None:
    full, incremental = job(), Params(database="shop", kind="incremental", tier="daily")
    await backup.run(full, SHOP, await backup.plan(full, SHOP))
    made = job()
    made.request_id, made.now = 2, NOW + timedelta(hours=1)
    plan = await backup.plan(made, incremental)
    assert facts(plan)["Builds on"] == "shop-20261122T120000Z-1"
    assert facts(plan)["Kept for"] == "daily: 30 d"
    answer = await backup.run(made, incremental, plan)
    async with store.begin() as conn:
        recorded = await newest_backup(conn, "shop")
    assert recorded is not None
    assert (recorded.kind, recorded.base) == ("incremental", "shop-20261122T120000Z-1")
    assert recorded.tiers == ["daily"]
    assert dict(answer.facts)["Builds on"] == recorded.base


async def test_an_incremental_that_the_server_cannot_make_is_refused_when_it_is_planned(
    job: JobMaker,
) -> None:
    with pytest.raises(JobError, match="summarize_wal is off") as refused:
        await backup.plan(job(), Params(database="shop", kind="incremental"))
    assert "ALTER SYSTEM" in refused.value.next_step


async def test_an_incremental_needs_something_to_build_on(job: JobMaker, summarizing: None) -> None:
    with pytest.raises(JobError, match="no backup of shop that an incremental"):
        await backup.plan(job(), Params(database="shop", kind="incremental"))


async def test_a_dump_is_recorded_with_its_kind_and_its_own_fingerprint(
    job: JobMaker, store: Store
) -> None:
    made, dump = job(), Params(database="shop", kind="logical")
    plan = await backup.plan(made, dump)
    assert "can be restored to its own moment alone" in plan.warnings[0]
    answer = await backup.run(made, dump, plan)
    async with store.begin() as conn:
        recorded = await newest_backup(conn, "shop")
    assert recorded is not None
    assert (recorded.kind, recorded.tiers, len(recorded.manifest_sha256)) == ("logical", [], 64)
    assert "WAL" not in dict(answer.facts)
    assert recorded.row_counts["shop public.orders"] == [5000, 5000]


async def test_the_pace_of_a_dump_says_nothing_of_a_full_backup(job: JobMaker) -> None:
    made, dump = job(), Params(database="shop", kind="logical")
    await backup.run(made, dump, await backup.plan(made, dump))
    plan = await backup.plan(made, SHOP)
    assert plan.estimate_seconds is None
    assert facts(plan)["Newest backup"] != "there is none"
    assert (await backup.plan(made, dump)).estimate_seconds is not None


async def test_a_throttle_and_a_key_are_shown_and_used(job: JobMaker, store: Store) -> None:
    keys, made = new_identity(), job()
    settings = BackupSettings(
        rate_max_bytes=50 * 1024**2, encryption=EncryptionKeys(recipient=keys.recipient)
    )
    made.database = replace(made.database, backups=settings)
    plan = await backup.plan(made, SHOP)
    assert facts(plan)["Throttle"] == "50 MB per second, compressed"
    assert facts(plan)["Encrypted for"] == keys.recipient
    answer = await backup.run(made, SHOP, plan)
    found = read_backup(made.database.backup_folder, str(answer.numbers["backup"]))
    assert (found.encryption, found.recipient) == ("age", keys.recipient)
    async with store.begin() as conn:
        recorded = await newest_backup(conn, "shop")
    assert recorded is not None
    assert recorded.encryption == "age"


@pytest.mark.parametrize(
    ("done", "total", "seconds", "text"),
    [
        (12_900_000, 97_500_000, 8.0, "x: 12.3 MB of 93 MB, about 52 s left"),
        (12_900_000, 97_500_000, 0.5, "x: 12.3 MB of 93 MB"),
        (12_900_000, None, 8.0, "x: 12.3 MB"),
        (97_500_000, 97_500_000, 8.0, "x: 93 MB of 93 MB"),
    ],
)
def test_progress_says_how_far_and_how_long(
    done: int, total: int | None, seconds: float, text: str
) -> None:
    progress = Progress(phase="x", done_bytes=done, total_bytes=total)
    assert progress_text(progress, seconds) == text
