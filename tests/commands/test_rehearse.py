"""`/db rehearse`: migrations are tried on a copy, and nothing of it stays."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from commands import rehearse
from commands.rehearse import Params
from jobs.migrating import look
from jobs.migration_settings import MigrationSettings
from jobs.operation import Answer, Database, JobError, Mode, Risk, Tier
from jobs.reader import Readers
from jobs.rehearsals import Rehearsal, WayBack, expected_of, from_json
from jobs.rehearsing import rehearse as rehearse_units
from jobs.rehearsing_back import way_back_of
from postgres.backup.engine import TakeOrder
from postgres.backup.facts import BackupFacts
from postgres.backup.native_engine import NativeEngine
from postgres.migrate.apply_words import Unit
from postgres.migrate.words import Direction, Lock, Tool
from postgres.server import Server
from store.backups import Verification, record_backup, record_verification
from store.connect import Store, connect
from store.rehearsals import RehearsalRow, newest_rehearsal
from tests.commands.archived import add_request, record_of
from tests.commands.conftest import NOW, DirectJob, connected, facts
from tests.conftest import folder_of_its_own, open_to_all

SHOP = Params(database="shop")
ORDERS = "public.orders"
UP, DOWN = "-- migrate:up\n", "-- migrate:down\n"
GOOD = {
    "01_note.sql": f"{UP}ALTER TABLE orders ADD COLUMN note text;\n"
    f"UPDATE orders SET cents = cents WHERE id <= 100;\n"
    f"{DOWN}ALTER TABLE orders DROP COLUMN note;\n",
    "02_wide.sql": f"{UP}ALTER TABLE orders ALTER cents TYPE bigint;\n"
    f"{DOWN}ALTER TABLE orders ALTER cents TYPE int;\n",
    "03_index.sql": "-- migrate:up transaction:false\n"
    "CREATE INDEX CONCURRENTLY by_cents ON orders (cents);\n"
    "-- migrate:down transaction:false\nDROP INDEX CONCURRENTLY by_cents;\n",
}
LOSSY = {
    "01_drop.sql": f"{UP}ALTER TABLE orders DROP COLUMN cents;\n"
    f"{DOWN}ALTER TABLE orders ADD COLUMN cents int NOT NULL DEFAULT 0;\n"
    "ALTER TABLE orders ALTER cents DROP DEFAULT;\n",
}
FAILING = {
    "01_note.sql": f"{UP}ALTER TABLE orders ADD COLUMN note text;\n{DOWN}",
    "02_bad.sql": f"{UP}SELECT 1;\nALTER TABLE orders ADD CHECK (cents > 10);\n{DOWN}",
}
AGAIN = {"01_new.sql": f"{UP}CREATE TABLE new (id int);\n{DOWN}SELECT 1;\n"}
UNWRITTEN = {"01_note.sql": "ALTER TABLE orders ADD COLUMN note text;\n"}

PARTNER = """
    CREATE EXTENSION postgres_fdw;
    CREATE SERVER partner FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host 'partner.example');
"""
PLACES = "SELECT srvoptions[1] FROM pg_foreign_server"

Maker = Callable[..., DirectJob]


@pytest.fixture(scope="module")
def shelf(shop: Server) -> Iterator[tuple[Path, BackupFacts]]:
    """A backup of the shop; all rehearsals of this file are restored from it."""
    home = folder_of_its_own()
    engine = NativeEngine(dsn=SecretStr(shop.dsn("shop")), folder=home / "backups")

    async def take() -> BackupFacts:
        async with connected(shop) as conn:
            await conn.execute(PARTNER)
            try:
                return await engine.take(TakeOrder(backup_id="shop-1"))
            finally:
                await conn.execute("DROP EXTENSION postgres_fdw CASCADE")

    yield home, asyncio.run(take())
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
async def make(
    shop: Server, store: Store, shelf: tuple[Path, BackupFacts], tmp_path: Path
) -> AsyncIterator[Maker]:
    """Jobs of a shop with these migrations; its backup is in the catalogue, and proven."""
    open_to_all(tmp_path)
    home, taken = shelf
    readers = Readers()
    first = await add_request(store)
    await enter(store, taken)

    def made(files: Mapping[str, str], *, tool: Tool = Tool.DBMATE, name: str = "one") -> DirectJob:
        folder = tmp_path / name / "migrations"
        folder.mkdir(parents=True)
        for file, text in files.items():
            (folder / file).write_text(text)
        database = Database(
            name="shop", dsn=SecretStr(shop.dsn("shop")), environment="production",
            tier=Tier.CRITICAL, channel="C0ORDERS", backup_folder=home / "backups",
            migrations=MigrationSettings(folder=folder, tool=tool),
        )  # fmt: skip
        work = tmp_path / name / "run"
        work.mkdir()
        open_to_all(work)
        return DirectJob(
            database=database, store=store, reader=readers.of(database), folder=work,
            request_id=first, now=max(NOW, taken.ended_at),
        )  # fmt: skip

    try:
        yield made
    finally:
        await readers.close()


async def enter(store: Store, taken: BackupFacts) -> None:
    proof = Verification(
        backup_id=taken.id, at=taken.ended_at, ok=True, restore_seconds=2.0, total_seconds=3.0,
        checks=[("restore", True, "")], request_id=None, data_bytes=taken.data_bytes,
    )  # fmt: skip
    async with store.begin() as conn:
        await record_backup(conn, record_of(taken))
        await record_verification(conn, proof)


async def rehearsed(job: DirectJob) -> Answer:
    return await rehearse.run(job, SHOP, await rehearse.plan(job, SHOP))


async def row_of(job: DirectJob) -> RehearsalRow:
    outlook = await look(job, version="", direction=Direction.UP)
    async with job.store.begin() as conn:
        row = await newest_rehearsal(conn, "shop", outlook.subject)
    assert row is not None
    return row


async def columns(server: Server) -> list[str]:
    async with connected(server) as conn:
        rows = await conn.fetch(
            "SELECT attname FROM pg_attribute WHERE attrelid = 'orders'::regclass"
            " AND attnum > 0 ORDER BY attnum"
        )
    return [row["attname"] for row in rows]


async def test_a_rehearsal_needs_a_proven_backup(
    make: Maker, store: Store, shelf: tuple[Path, BackupFacts]
) -> None:
    job = make(GOOD)
    job.database = replace(job.database, name="bazaar")
    unproven = replace(record_of(shelf[1], database="bazaar"), id="bazaar-1")
    async with store.begin() as conn:
        await record_backup(conn, unproven)
    with pytest.raises(JobError, match="a backup of bazaar that was proven") as refused:
        await rehearse.plan(job, SHOP)
    assert "/db verify bazaar" in refused.value.next_step


async def test_the_plan_says_which_backup_how_proven_and_what_it_takes(make: Maker) -> None:
    job = make(GOOD)
    plan = await rehearse.plan(job, SHOP)
    assert plan.title == "Rehearse 3 migrations of shop: 01 note, 02 wide, 03 index"
    said = facts(plan)
    assert said["Backup"].startswith("shop-1, ")
    assert said["Proven"].endswith("ago, 1 check")
    assert "MB" in said["Needs on the worker's disk"]
    assert said["Restore"] == "expected 2 s"
    assert plan.attributes["files"] == 3
    assert plan.steps[0] == "Restore shop-1 to its own end into a server that nobody can reach"
    assert await rehearse.pins(job, SHOP, plan) == plan.pins
    assert rehearse.OPERATION.risk is Risk.NONE
    assert rehearse.OPERATION.is_beside


async def test_up_to_a_version_leaves_the_rest_out(make: Maker) -> None:
    job = make(GOOD)
    plan = await rehearse.plan(job, Params(database="shop", version="01"))
    assert plan.title == "Rehearse 1 migration of shop: 01 note"


async def test_what_no_run_may_do_is_not_rehearsed_either(make: Maker) -> None:
    job = make({"01_out.sql": f"{UP}COPY orders TO PROGRAM 'cat';\n{DOWN}"})
    with pytest.raises(JobError, match=r"01_out\.sql, line 2"):
        await rehearse.plan(job, SHOP)


async def test_files_that_have_changed_since_the_plan_are_not_tried(make: Maker) -> None:
    job = make(UNWRITTEN, tool=Tool.PLAIN)
    plan = await rehearse.plan(job, SHOP)
    folder = job.database.migrations.folder
    assert folder is not None
    (folder / "01_note.sql").write_text("ALTER TABLE orders ADD COLUMN other text;\n")
    assert await rehearse.pins(job, SHOP, plan) != plan.pins
    with pytest.raises(JobError, match="no longer those of the plan"):
        await rehearse.run(job, SHOP, plan)


async def test_a_whole_rehearsal_and_the_way_back_is_exact(make: Maker, shop: Server) -> None:
    job = make(GOOD)
    before = await columns(shop)
    answer = await rehearsed(job)
    assert answer.title.startswith("3 migrations of shop rehearsed: applied in ")
    said = facts(answer)
    assert said["Reads wait"].endswith("on public.orders (ACCESS EXCLUSIVE)")
    assert said["Rewritten"] == ORDERS
    assert said["Rows changed"] == "100 of public.orders"
    assert said["Way back"].startswith("exact: definitions and contents are as before")
    assert answer.table is not None
    rows = {row[0]: row for row in answer.table.rows}
    assert list(rows) == ["01 note:2", "01 note:3", "02 wide:2", "03 index:2"]
    assert rows["03 index:2"][2] == (
        "SHARE UPDATE EXCLUSIVE on public.orders, blocks other DDL and VACUUM"
    )
    assert rows["01 note:2"][2].startswith("ACCESS EXCLUSIVE on public.orders, blocks reads")
    assert "schema_migrations" not in str(answer.table.rows)
    assert answer.suggestions[0].operation == "migrate"
    # It is stored, and a real run goes by it.
    row = await row_of(job)
    assert (row.ok, row.problem, row.backup_id) == (True, "", "shop-1")
    assert row.request_id == job.request_id
    expected = expected_of(row, "02:up", 3.0)
    assert expected is not None
    assert expected.locks[0][ORDERS] is Lock.ACCESS_EXCLUSIVE
    # Nothing of it stays, and the target is as it was.
    assert job.steps == [("rehearse", Mode.RETRYABLE)]
    assert list(job.folder.iterdir()) == []
    assert await columns(shop) == before
    async with connected(shop) as conn:
        assert await conn.fetchval("SELECT to_regclass('schema_migrations')") is None


async def test_some_at_once_a_lossy_way_back_a_file_that_fails_and_one_that_does_not_return(
    make: Maker,
) -> None:
    lossy, failing = make(LOSSY, name="lossy"), make(FAILING, name="failing")
    again = make(AGAIN, name="again")

    async def not_again() -> Rehearsal:
        outlook = await look(again, version="", direction=Direction.UP)
        return await rehearse_units(again, outlook.units, outlook.stood.book)

    told, failed, stuck = await asyncio.gather(rehearsed(lossy), rehearsed(failing), not_again())
    assert stuck.way_back.outcome is WayBack.FAILED
    assert "01 new cannot be applied again" in stuck.way_back.problem
    assert stuck.way_back.differences == ("class public.new is new",)
    assert facts(told)["Way back"].startswith("lossy")
    assert "public.orders has other values" in facts(told)["Way back"]
    assert told.numbers["way_back"] == "lossy"
    assert failed.title == "02 bad FAILS on a copy of shop"
    assert "Line 3 of 02 bad fails" in failed.lines[0]
    assert "break a constraint" in failed.lines[0]
    assert failed.suggestions == ()
    row = await row_of(failing)
    assert not row.ok
    assert row.problem.startswith("02 bad, line 3: ")
    assert expected_of(row, "01:up", 3.0) is None
    # What went well before it was seen.
    found = from_json(row.detail)
    assert [len(unit.statements) for unit in found.units] == [1, 1]
    assert found.way_back.outcome is WayBack.NONE
    assert list(lossy.folder.iterdir()) == list(failing.folder.iterdir()) == []


async def test_a_copy_that_lacks_a_migration_of_the_target_is_given_up(
    make: Maker, shop: Server
) -> None:
    job = make({"00_first.sql": f"{UP}SELECT 1;\n{DOWN}", **LOSSY})
    async with connected(shop) as conn:
        await conn.execute(
            "CREATE TABLE schema_migrations (version varchar(128) PRIMARY KEY);"
            "INSERT INTO schema_migrations VALUES ('00')"
        )
        try:
            with pytest.raises(JobError, match="00 was applied to shop after what can be restored"):
                await rehearsed(job)
        finally:
            await conn.execute("DROP TABLE schema_migrations")
    assert list(job.folder.iterdir()) == []


async def test_after_a_kill_the_next_attempt_finds_the_way_back_that_nobody_wrote(
    make: Maker,
) -> None:
    """What the dead attempt left is gone, and the new copy leads nowhere."""
    job = make(UNWRITTEN, tool=Tool.PLAIN)
    await killed_while_it_applies(job)
    left = list(job.folder.iterdir())

    seen: list[tuple[int, str]] = []

    async def look_around(conn: Any, unit: Unit) -> Unit | str:
        seen.append(await conn.fetchrow(f"SELECT count(*), ({PLACES}) FROM orders"))
        return await way_back_of(conn, unit)

    outlook = await look(job, version="", direction=Direction.UP)
    found = await rehearse_units(job, outlook.units, outlook.stood.book, way_back=look_around)
    assert left
    assert found.way_back.outcome is WayBack.EXACT
    assert not found.way_back.is_written
    assert [tuple(row) for row in seen] == [(5000, "host=/nonexistent")]
    assert list(job.folder.iterdir()) == []


async def killed_while_it_applies(job: DirectJob) -> None:
    """A worker dies with its copy running, and the copy's server with it."""
    wanted = {
        "store": job.store.dsn.get_secret_value(),
        "dsn": job.database.dsn.get_secret_value(),
        "backups": str(job.database.backup_folder),
        "folder": str(job.folder),
        "migrations": str(job.database.migrations.folder),
        "request_id": job.request_id,
        "now": job.now.isoformat(),
    }
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.commands.test_rehearse", json.dumps(wanted),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert child.stdout is not None
    async with asyncio.timeout(60):
        postmaster = int(await child.stdout.readline())
    os.kill(child.pid, signal.SIGKILL)
    await child.wait()
    async with asyncio.timeout(30):
        while is_there(postmaster):
            await asyncio.sleep(0.05)


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def work(wanted: Mapping[str, Any]) -> None:
    """Rehearse as another worker, and hang once the copy runs."""
    store = connect(wanted["store"], size=2)
    database = Database(
        name="shop", dsn=SecretStr(wanted["dsn"]), environment="production", tier=Tier.CRITICAL,
        channel="C0ORDERS", backup_folder=Path(wanted["backups"]),
        migrations=MigrationSettings(folder=Path(wanted["migrations"]), tool=Tool.PLAIN),
    )  # fmt: skip
    job = DirectJob(
        database=database, store=store, reader=Readers().of(database),
        folder=Path(wanted["folder"]), request_id=wanted["request_id"],
        now=datetime.fromisoformat(wanted["now"]),
    )  # fmt: skip

    async def hang(conn: Any, _: Unit) -> str:
        file = await conn.fetchval("SELECT pg_read_file('postmaster.pid')")
        sys.stdout.write(file.splitlines()[0] + "\n")
        sys.stdout.flush()
        await asyncio.sleep(120)
        return ""

    outlook = await look(job, version="", direction=Direction.UP)
    await rehearse_units(job, outlook.units, outlook.stood.book, way_back=hang)


if __name__ == "__main__":
    asyncio.run(work(json.loads(sys.argv[1])))
