"""Full backups of a real server."""

from __future__ import annotations

import asyncio
import hashlib
import os
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest
from pydantic import SecretStr

from postgres.backup.manner import Manner
from postgres.backup.native import list_backups, read_backup, take_backup
from postgres.backup.progress import Progress
from postgres.errors import PostgresError
from postgres.server import Binaries, Server, find_binaries
from tests.postgres.conftest import Shop, run_sql


def test_a_backup_is_described_completely(shop: Shop) -> None:
    facts, place = shop.facts, shop.folder / shop.facts.id
    assert read_backup(shop.folder, "shop-1") == facts
    assert facts.size_bytes == sum(file.size_bytes for file in facts.files)
    assert facts.data_bytes > 1_000_000
    assert facts.database == "shop"
    assert facts.page_checksums
    assert facts.ended_at >= facts.began_at
    assert facts.start_wal <= facts.end_wal
    assert int(facts.system_identifier) > 0
    assert facts.settings["max_connections"] == "20"
    for file in facts.files:
        body = (place / file.name).read_bytes()
        assert (len(body), hashlib.sha256(body).hexdigest()) == (file.size_bytes, file.sha256)


def test_permanent_tables_are_counted_and_others_not(shop: Shop) -> None:
    counts = {table.table: (table.before, table.after) for table in shop.facts.tables}
    assert counts == {
        "public.orders": (20000, 20000),
        "public.empty": (0, 0),
        'public."odd ""name"': (1, 1),
        "public.part_1": (10, 10),
    }


def test_nobody_else_can_read_a_backup(shop: Shop) -> None:
    for path in [shop.folder, *shop.folder.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path


async def test_the_same_name_again_gives_the_same_backup(shop: Shop, binaries: Binaries) -> None:
    again = await take_backup(binaries, SecretStr(shop.dsn), shop.folder, backup_id="shop-1")
    assert again == shop.facts


async def test_what_a_dead_attempt_left_is_replaced(
    shop: Shop, binaries: Binaries, home: Path
) -> None:
    (home / "b.partial").mkdir()
    (home / "b.partial" / "base.tar.zst").write_bytes(b"half")
    facts = await take_backup(binaries, SecretStr(shop.dsn), home, backup_id="b")
    assert [backup.id for backup in list_backups(home).backups] == ["b"]
    assert facts.size_bytes > 1000
    assert not (home / "b.partial").exists()


async def test_progress_is_told(shop: Shop, binaries: Binaries, home: Path) -> None:
    seen: list[Progress] = []

    async def note(progress: Progress) -> None:
        seen.append(progress)

    await run_sql(shop.dsn, "SELECT pg_switch_wal()")
    await take_backup(binaries, SecretStr(shop.dsn), home, backup_id="b", on_progress=note)
    assert all(moment.phase for moment in seen)
    assert all(moment.fraction is None or 0 <= moment.fraction <= 1 for moment in seen)


async def test_whoever_listens_to_progress_can_end_the_backup(
    shop: Shop, binaries: Binaries, home: Path
) -> None:
    async def refuse(progress: Progress) -> None:
        raise LookupError(progress.phase)

    for attempt in range(20):  # a small backup may be over before the first look
        try:
            await take_backup(
                binaries, SecretStr(shop.dsn), home, backup_id=f"b{attempt}", on_progress=refuse
            )
        except LookupError:
            break
    else:
        pytest.fail("the listener's error was swallowed")
    assert not (home / f"b{attempt}").exists()
    assert not (home / f"b{attempt}.partial").exists()


async def test_a_cancelled_backup_leaves_nothing(
    shop: Shop, binaries: Binaries, home: Path
) -> None:
    task = asyncio.create_task(take_backup(binaries, SecretStr(shop.dsn), home, backup_id="b"))
    while not (home / "b.partial").exists():
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list(home.iterdir()) == []


async def test_an_unreachable_server_is_said_without_its_password(
    binaries: Binaries, home: Path
) -> None:
    with pytest.raises(PostgresError, match=r"127\.0\.0\.1:1 cannot be reached") as refusal:
        await take_backup(
            binaries, SecretStr("postgresql://bob:sesame@127.0.0.1:1/shop"), home, backup_id="b"
        )
    assert "sesame" not in str(refusal.value) + refusal.value.next_step
    assert list(home.iterdir()) == []


async def test_a_role_with_replication_alone_can_take_one(
    shop: Shop, binaries: Binaries, home: Path
) -> None:
    await run_sql(shop.dsn, "CREATE ROLE backups LOGIN REPLICATION PASSWORD 'it''s a: /@ secret'")
    secret = "it%27s%20a%3A%20%2F%40%20secret"
    dsn = f"postgresql://backups:{secret}@127.0.0.1:{shop.server.port}/shop"
    facts = await take_backup(binaries, SecretStr(dsn), home, backup_id="b")
    notes = {table.note for table in facts.tables}
    assert notes == {"not counted: this user may not read it"}
    assert facts.superuser == "postgres"


async def test_a_role_without_replication_is_told_what_it_needs(
    shop: Shop, binaries: Binaries, home: Path
) -> None:
    await run_sql(shop.dsn, "CREATE ROLE nobody LOGIN")
    with pytest.raises(PostgresError, match=r"pg_basebackup on .* failed") as refusal:
        await take_backup(
            binaries, SecretStr(shop.server.dsn("shop", "nobody")), home, backup_id="b"
        )
    assert "REPLICATION" in refusal.value.next_step
    assert list(home.iterdir()) == []


async def test_tables_are_left_uncounted_when_the_time_is_up(
    shop: Shop, binaries: Binaries, home: Path
) -> None:
    facts = await take_backup(
        binaries,
        SecretStr(shop.dsn),
        home,
        backup_id="b",
        manner=Manner(counting_limit=timedelta(0)),
    )
    assert {table.note for table in facts.tables} == {"not counted: the time for counting was up"}
    assert all(table.bounds() is None for table in facts.tables)


async def test_a_damaged_page_of_the_server_is_said_and_nothing_is_kept(
    fresh: Server, binaries: Binaries, home: Path
) -> None:
    await fresh.start()
    await run_sql(fresh.dsn(), "CREATE TABLE t AS SELECT generate_series(1, 5000) AS n")
    # Settles the hint bits: a page that is dirty would be written again, and so be healed.
    await run_sql(fresh.dsn(), "VACUUM t")
    await run_sql(fresh.dsn(), "CHECKPOINT")
    conn = await asyncpg.connect(fresh.dsn())
    file = await conn.fetchval("SELECT pg_relation_filepath('t')")
    await conn.close()
    with (fresh.data / file).open("r+b") as heap:
        heap.seek(8192 + 4000)
        heap.write(b"damage")
    with pytest.raises(PostgresError, match=f"damaged pages.*{file}"):
        await take_backup(binaries, SecretStr(fresh.dsn()), home / "backups", backup_id="b")
    assert list((home / "backups").iterdir()) == []


async def test_a_newer_program_backs_up_an_older_server_but_not_the_reverse(
    shop: Shop, home: Path
) -> None:
    try:
        old = find_binaries(os.environ, major=15)
    except PostgresError:
        pytest.skip("PostgreSQL 15 is not installed")
    with pytest.raises(PostgresError, match="cannot back up"):
        await take_backup(old, SecretStr(shop.dsn), home, backup_id="b")


async def test_passwords_are_on_no_command_line(
    shop: Shop, binaries: Binaries, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    real = asyncio.BaseEventLoop.subprocess_exec

    async def spy(loop: object, factory: object, *command: str, **options: object) -> object:
        seen.extend(command)
        return await real(loop, factory, *command, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(asyncio.BaseEventLoop, "subprocess_exec", spy)
    dsn = shop.server.dsn("shop", tcp=True)
    await take_backup(binaries, SecretStr(dsn), home, backup_id="b")
    password = dsn.split(":")[2].split("@")[0]
    assert seen
    assert not any(password in part for part in seen)
