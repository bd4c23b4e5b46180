"""Keepers of WAL archives, on a real server and a real store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from jobs.archive_keeper import Pace
from jobs.archiving import ArchiveKeeper
from jobs.backup_settings import ArchiveMethod, ArchiveSettings, BackupSettings
from jobs.operation import Database, Tier
from jobs.reader import Readers
from postgres.server import Server
from store.archives import ArchiveState, find_archive, list_archives, save_archive
from store.backups import BackupRecord, record_backup
from store.connect import Store
from store.marks import WalMark, mark_at, marks_between, trim_marks, write_mark

QUICK = Pace(
    look=timedelta(seconds=0.1),
    mark=timedelta(seconds=0.2),
    listing=timedelta(seconds=0.2),
    pause_max=timedelta(seconds=0.3),
    settle=timedelta(seconds=0.1),
)
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
Make = Callable[..., Database]


@pytest.fixture
async def orders(server: Server, tmp_path: Path) -> AsyncIterator[Make]:
    """Makes the inventory's entry; its slot is dropped at the end."""

    def make(
        method: ArchiveMethod = ArchiveMethod.RECEIVE, *, dsn: str = "", **more: Any
    ) -> Database:
        archive = ArchiveSettings(method=method, slot="keeper_test", **more)
        return Database(
            name="orders",
            dsn=SecretStr(dsn or server.dsn()),
            environment="production",
            tier=Tier.CRITICAL,
            channel="C0ORDERS",
            backup_folder=tmp_path / "backups",
            backups=BackupSettings(archive=archive),
        )

    yield make
    assert receivers(tmp_path) == []
    await value(server, DROP_SLOT)


DROP_SLOT = """
    SELECT count(pg_drop_replication_slot(slot_name))
      FROM pg_replication_slots WHERE slot_name = 'keeper_test'
"""


@asynccontextmanager
async def keeping(store: Store, database: Database, worker: str = "w1") -> AsyncIterator[None]:
    readers = Readers()
    keeper = ArchiveKeeper(
        store=store,
        databases={database.name: database},
        readers=readers,
        worker=worker,
        clock=lambda: datetime.now(UTC),
        pace=QUICK,
    )
    task = asyncio.create_task(keeper.run())
    try:
        yield
    finally:
        assert not task.done(), task.result()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await readers.close()


def receivers(folder: Path) -> list[psutil.Process]:
    children = psutil.Process().children()
    return [each for each in children if any(str(folder) in word for word in each.cmdline())]


async def value(server: Server, query: str) -> Any:
    conn = await asyncpg.connect(server.dsn(), timeout=30)
    try:
        return await conn.fetchval(query)
    finally:
        await conn.close()


async def soon(question: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await question():
            await asyncio.sleep(0.05)


async def row(store: Store) -> ArchiveState | None:
    async with store.begin() as conn:
        return await find_archive(conn, "orders")


async def row_with(store: Store, **wanted: str) -> ArchiveState:
    """The archive's row, once its fields hold these words."""

    async def has() -> bool:
        found = await row(store)
        return found is not None and all(
            words in (getattr(found, name) or "") for name, words in wanted.items()
        )

    await soon(has)
    found = await row(store)
    assert found is not None
    return found


async def test_a_keeper_receives_marks_and_tells(
    store: Store, server: Server, orders: Make
) -> None:
    began = await value(server, "SELECT clock_timestamp()")
    async with keeping(store, orders()):
        state = await row_with(store, state="streaming", received_lsn="/", problem="no backup")
        assert (state.keeper, state.method, state.slot) == ("w1", "receive", "keeper_test")
        assert (state.slot_state, state.timeline) == ("active", 1)
        segment = await value(server, "SELECT pg_walfile_name(pg_current_wal_lsn())")
        await value(server, "SELECT pg_switch_wal()::text")
        await row_with(store, last_segment=segment[:20])
        lsn = await value(server, "SELECT pg_current_wal_lsn()::text")
        until = await value(server, "SELECT clock_timestamp()")

        async def marked() -> bool:
            async with store.begin() as conn:
                return len(await marks_between(conn, "orders", until, until + WEEK)) > 0

        await soon(marked)
    async with store.begin() as conn:
        first, *_ = await marks_between(conn, "orders", began, until + WEEK)
        assert first.system_identifier == await value(
            server, "SELECT system_identifier::text FROM pg_control_system()"
        )
        [after, *_] = await marks_between(conn, "orders", until, until + WEEK)
        assert (after.timeline, after.next_xid >= first.next_xid) == (1, True)
        assert await value(server, f"SELECT '{after.lsn}'::pg_lsn >= '{lsn}'::pg_lsn")


WEEK = timedelta(days=7)


async def test_of_two_keepers_one_works_and_the_other_takes_over(
    store: Store, server: Server, orders: Make
) -> None:
    database = orders()
    async with keeping(store, database, "w2"):
        await row_with(store, keeper="w2", state="streaming")
        async with keeping(store, database, "w3"):

            async def has_tried() -> bool:
                query = await value(
                    server,
                    "SELECT query FROM pg_stat_activity WHERE application_name = 'archives:w3'",
                )
                return "pg_try_advisory_lock" in (query or "")

            await soon(has_tried)
            assert len(receivers(database.backup_folder)) == 1
            state = await row_with(store, state="streaming")
            assert state.keeper == "w2"
    async with keeping(store, database, "w4"):
        await row_with(store, keeper="w4", state="streaming")


async def test_losing_the_lease_s_session_does_not_stop_the_stream(
    store: Store, server: Server, orders: Make
) -> None:
    database = orders()
    async with keeping(store, database):
        await row_with(store, state="streaming")
        [before] = receivers(database.backup_folder)
        ended = await value(
            server,
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE application_name = 'archives:w1'",
        )
        assert ended == 1
        stopped_at = datetime.now(UTC)

        async def goes_on() -> bool:
            state = await row(store)
            return state is not None and state.at > stopped_at + timedelta(seconds=0.5)

        await soon(goes_on)
        [after] = receivers(database.backup_folder)
        assert after.pid == before.pid


async def test_a_database_that_is_away_is_told_and_leaves_no_mark(
    store: Store, orders: Make
) -> None:
    async with keeping(store, orders(dsn="postgresql://postgres@127.0.0.1:1/orders")):
        state = await row_with(store, state="broken", problem="cannot be reached")
        assert state.next_step
        assert state.received_lsn is None
    async with store.begin() as conn:
        assert await mark_at(conn, "orders", datetime.now(UTC)) is None


async def test_a_slot_that_holds_back_too_much_is_dropped_told_and_made_anew(
    store: Store, server: Server, orders: Make
) -> None:
    await value(server, "SELECT pg_create_physical_replication_slot('keeper_test', true)::text")
    await value(server, "SELECT pg_logical_emit_message(false, 'x', repeat('x', 3000000))::text")
    held_back = "SELECT restart_lsn::text FROM pg_replication_slots WHERE slot_name = 'keeper_test'"
    before = await value(server, held_back)
    async with keeping(store, orders(slot_bytes_max=2_000_000)):
        state = await row_with(store, state="broken", problem="it is dropped")
        assert "/db backup orders" in state.next_step
        await row_with(store, slot_state="active")
    assert await value(server, held_back) != before


async def test_a_segment_that_is_lost_after_the_last_backup_is_noticed(
    store: Store, server: Server, orders: Make
) -> None:
    database = orders()
    async with keeping(store, database):
        await row_with(store, state="streaming", received_lsn="/")
        end_lsn = await value(server, "SELECT pg_current_wal_lsn()::text")
        for _ in range(3):
            await value(server, "SELECT pg_logical_emit_message(true, 'x', 'x')::text")
            await value(server, "SELECT pg_switch_wal()::text")
        await value(server, "SELECT pg_logical_emit_message(true, 'x', 'x')::text")
        async with store.begin() as conn:
            await record_backup(conn, backup(end_lsn))
        wal = database.backup_folder / "wal"

        async def three() -> bool:
            return len(list(wal.glob("*.zst"))) >= 3

        await soon(three)

        async def joined() -> bool:
            state = await row(store)
            return state is not None and (state.state, state.problem) == ("streaming", "")

        await soon(joined)
        lost = sorted(wal.glob("*.zst"))[1]
        lost.unlink()
        state = await row_with(store, state="broken", problem=f"lacks {lost.name[:24]}")
        assert [gap["first"] for gap in state.gaps] == [lost.name[:24]]
        assert "/db backup orders" in state.next_step


async def test_a_server_that_archives_nothing_itself_is_told_to(store: Store, orders: Make) -> None:
    async with keeping(store, orders(ArchiveMethod.COMMAND)):
        state = await row_with(store, state="broken", problem="archive_mode is off")
        assert (state.slot, state.slot_state, state.slot_bytes) == ("", "", None)
    async with store.begin() as conn:
        assert await mark_at(conn, "orders", datetime.now(UTC)) is not None


async def test_a_database_that_is_archived_no_more_has_no_row(store: Store, orders: Make) -> None:
    async with store.begin() as conn:
        await save_archive(
            conn,
            ArchiveState(
                database="orders", at=NOW, keeper="w0", method="receive", state="streaming",
                gaps=({"first": "A"},),
            ),
        )  # fmt: skip
        [kept] = await list_archives(conn)
    assert kept.gaps == [{"first": "A"}]
    async with keeping(store, orders(ArchiveMethod.NONE)):

        async def gone() -> bool:
            return await row(store) is None

        await soon(gone)


async def test_marks_are_found_by_their_time_and_trimmed(store: Store) -> None:
    def mark(minute: int) -> WalMark:
        return WalMark(
            database="orders", at=NOW + timedelta(minutes=minute), system_identifier="7",
            timeline=1, lsn=f"0/{minute}000000", next_xid=700 + minute,
        )  # fmt: skip

    async with store.begin() as conn:
        for minute in (1, 2, 3, 3):
            await write_mark(conn, mark(minute))
        assert await mark_at(conn, "orders", NOW) is None
        assert await mark_at(conn, "orders", NOW + timedelta(minutes=2)) == mark(2)
        assert await mark_at(conn, "orders", NOW + WEEK) == mark(3)
        assert await mark_at(conn, "others", NOW + WEEK) is None
        assert await marks_between(
            conn, "orders", NOW + timedelta(minutes=2), NOW + timedelta(minutes=3)
        ) == [mark(2), mark(3)]
        assert await trim_marks(conn, "orders", NOW + timedelta(minutes=3)) == 2
        left = await conn.execute(sa.text("SELECT count(*) FROM wal_marks"))
        assert left.scalar_one() == 1


def backup(end_lsn: str) -> BackupRecord:
    return BackupRecord(
        id="orders-1", database="orders", kind="full", engine="native", state="complete",
        folder="/backups", started_at=NOW, ended_at=NOW, seconds=1.0, size_bytes=1, data_bytes=1,
        start_lsn=end_lsn, end_lsn=end_lsn, timeline=1, system_identifier="7", major=17,
        manifest_sha256="", row_counts={}, request_id=None,
    )  # fmt: skip
