"""What goes wrong in the middle of a backfill: no row is missed then, and none done twice."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from postgres.account import server_account
from postgres.dsn import parse_dsn
from postgres.errors import PostgresError
from postgres.migrate.backfill.spec import BackfillOutcome, BatchDone
from postgres.server import Server
from tests.conftest import Target
from tests.postgres.migrate.backfill.conftest import Pair
from tests.postgres.migrate.backfill.support import (
    COUNT,
    DONE,
    HURRY,
    ROWS,
    SLOW,
    SMALL,
    Switch,
    Told,
    counts,
    do,
    until,
)

ROOT = Path(__file__).parents[4]
PASSED = "SELECT coalesce(sum(passed), 0) FROM twokey_migrate.backfill_ranges"
REPLACED = """
    ALTER TABLE rows RENAME TO old;
    CREATE TABLE rows (LIKE old INCLUDING ALL);
    INSERT INTO rows SELECT * FROM old;
"""
GUILTLESS = "UPDATE rows SET note = 'fine' WHERE id = 777"


@pytest.mark.chaos
@pytest.mark.parametrize("ranges", [1, 2])
async def test_kills_of_the_process_leave_no_row_missed_and_none_done_twice(
    conn: Any, target: Target, ranges: int
) -> None:
    asked = json.dumps({"dsn": target.dsn, "ranges": ranges})
    await conn.execute("CREATE SCHEMA IF NOT EXISTS twokey_migrate")
    await conn.execute(SLOW.format(seconds=0.03))
    stood = -1
    for share in (0.1, 0.4, 0.7):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.postgres.migrate.backfill.support", asked, cwd=ROOT
        )
        await until(lambda least=share * 2000: _passed(conn, least))
        process.kill()
        await process.wait()
        now = await conn.fetchval(PASSED)
        assert stood < now < 2000
        stood = now
    await conn.execute(HURRY)
    outcome = await do(target.dsn, replace(COUNT, ranges=ranges))
    assert outcome.rows == 2000
    assert await counts(conn) == {1: 2000}


async def _passed(conn: Any, least: float) -> bool:
    if await conn.fetchval("SELECT to_regclass('twokey_migrate.backfill_ranges') IS NULL"):
        return False
    return bool(await conn.fetchval(PASSED) > least)


@pytest.mark.parametrize("at", [1, 2, 9])
@pytest.mark.parametrize("moment", ["before the commit", "after the commit"])
async def test_a_connection_that_breaks_about_a_commit_costs_no_row(
    conn: Any, target: Target, server: Server, at: int, moment: str
) -> None:
    spec = replace(COUNT, ranges=1)
    async with cut_at(server, at, is_committed=moment == "after the commit") as port:
        dsn = server.dsn(target.name, tcp=True).replace(f":{server.port}/", f":{port}/")
        with pytest.raises(PostgresError, match="connection to the server was lost") as lost:
            await do(dsn, spec)
    assert "goes on from there" in lost.value.next_step
    done = (await counts(conn)).get(1, 0)
    assert done == 100 * (at if moment == "after the commit" else at - 1)
    assert (await do(target.dsn, spec)).rows == 2000
    assert await counts(conn) == {1: 2000}


@asynccontextmanager
async def cut_at(server: Server, nth: int, *, is_committed: bool) -> AsyncIterator[int]:
    """A port before the server that hangs up at the n-th COMMIT of a batch.

    Before the server hears of it, or before the client hears the answer.
    """
    commits = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", server.port)
        is_last = asyncio.Event()

        async def upwards() -> None:
            nonlocal commits
            wrote_rows = False
            while data := await reader.read(65536):
                wrote_rows |= b"SET reached = $3" in data
                if b"COMMIT;" in data and wrote_rows:
                    commits += 1
                if commits == nth:
                    if is_committed:
                        is_last.set()
                        up_writer.write(data)
                        await up_writer.drain()
                    else:
                        writer.close()
                        up_writer.close()
                    return
                up_writer.write(data)
                await up_writer.drain()
            up_writer.close()

        async def downwards() -> None:
            while data := await up_reader.read(65536):
                if is_last.is_set():
                    break
                writer.write(data)
                await writer.drain()
            writer.close()
            up_writer.close()

        await asyncio.gather(upwards(), downwards(), return_exceptions=True)

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()
        await listening.wait_closed()


async def test_a_crash_of_the_server_costs_no_row(pair: Pair) -> None:
    async with _rows_on(pair.primary, 2000) as dsn:
        async with _connected(dsn) as conn:
            await conn.execute(SLOW.format(seconds=0.5))
        seen: list[BatchDone] = []
        work = asyncio.create_task(do(dsn, on_batch=seen.append))
        await until(lambda: _length(seen))
        await pair.primary.stop("immediate")
        with pytest.raises(PostgresError, match=r"lost|reached|does not answer") as lost:
            await work
        assert lost.value.next_step
        await pair.primary.start()
        async with _connected(dsn) as conn:
            await conn.execute(HURRY)
        assert (await do(dsn)).rows == 2000
        async with _connected(dsn) as conn:
            assert await counts(conn) == {1: 2000}


async def _length(seen: list[BatchDone]) -> int:
    return len(seen)


async def test_a_row_that_is_held_for_a_moment_is_waited_for(conn: Any, target: Target) -> None:
    told = Told()
    async with _holding(target) as other:
        work = asyncio.create_task(do(target.dsn, tell=told, limits=replace(SMALL, retries=1000)))
        await until(lambda: _has(told, "tried again (1 of 1000): rows were held by process"))
        await other.execute("COMMIT")
        outcome = await work
    assert outcome.retries >= 1
    assert await counts(conn) == {1: 2000}


async def test_a_row_that_is_held_for_ever_stops_it_and_says_by_whom(
    conn: Any, target: Target
) -> None:
    limits = replace(SMALL, lock=timedelta(milliseconds=100), retries=1)
    async with _holding(target) as other:
        with pytest.raises(PostgresError) as held:
            await do(target.dsn, limits=limits)
        pid = other.get_server_pid()
    assert f"held by process {pid} of shop (idle in transaction" in held.value.problem
    assert "again 1 times, in public.rows, id after" in held.value.problem
    assert "/db locks" in held.value.next_step
    assert (await do(target.dsn)).rows == 2000
    assert await counts(conn) == {1: 2000}


@asynccontextmanager
async def _holding(target: Target) -> AsyncIterator[Any]:
    """Somebody who has changed a row, and does not end."""
    async with _connected(target.dsn) as other:
        await other.execute("BEGIN")
        await other.execute(GUILTLESS)
        yield other


@asynccontextmanager
async def _connected(dsn: str) -> AsyncIterator[Any]:
    conn = await asyncpg.connect(dsn, server_settings={"application_name": "shop"})
    try:
        yield conn
    finally:
        await conn.close()


async def _has(told: Told, text: str) -> bool:
    return told.has(text)


async def test_a_deadlock_with_an_application_is_survived(conn: Any, target: Target) -> None:
    """It changes rows in the other order."""
    limits = replace(SMALL, lock=timedelta(seconds=5), retries=5)
    await conn.execute(f"ALTER DATABASE {target.name} SET deadlock_timeout = '100ms'")
    async with _connected(target.dsn) as other:
        await other.execute("SET deadlock_timeout = '10s'")  # it does not look: the batch does
        await other.execute("BEGIN")
        await other.execute("UPDATE rows SET note = 'x' WHERE id = 90")
        work = asyncio.create_task(do(target.dsn, replace(COUNT, ranges=1), limits=limits))
        await until(lambda: conn.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            " AND application_name LIKE 'twokey backfill%' AND datname = current_database()"
        ))  # fmt: skip
        await other.execute("UPDATE rows SET note = 'x' WHERE id = 5; COMMIT", timeout=30)
        outcome = await work
    assert outcome.retries >= 1
    assert await counts(conn) == {1: 2000}
    assert await conn.fetchval("SELECT count(*) FROM rows WHERE note = 'x'") == 2


async def test_a_unique_violation_is_said_with_its_keys_and_mended(
    conn: Any, target: Target
) -> None:
    await conn.execute(
        "ALTER TABLE rows ADD u int; CREATE UNIQUE INDEX rows_u ON rows (u);"
        "UPDATE rows SET note = CASE id WHEN 1502 THEN '1501' ELSE id::text END"
    )
    spec = replace(COUNT, assignments_sql="u = note::int, n = n + 1", ranges=1)
    with pytest.raises(PostgresError, match=r"rows_u forbids it in public.rows") as violated:
        await do(target.dsn, spec)
    first, last = _interval(violated.value.problem)
    assert first < 1502 <= last
    assert last - first <= 10
    assert "Mend those rows" in violated.value.next_step
    assert (await counts(conn)).get(1, 0) >= 1490
    await conn.execute("UPDATE rows SET note = '1502' WHERE id = 1502")
    await do(target.dsn, spec)
    assert await counts(conn) == {1: 2000}


def _interval(text: str) -> tuple[int, int]:
    words = text.rstrip(".").split()
    return int(words[-4]), int(words[-1])


async def test_a_value_that_cannot_be_computed_is_said_without_the_value(
    conn: Any, target: Target
) -> None:
    await conn.execute("UPDATE rows SET note = 'secret' WHERE id = 60")
    spec = replace(COUNT, assignments_sql="n = length(note) + note::int", where_sql="id = 60")
    with pytest.raises(PostgresError, match="cannot be computed") as failed:
        await do(target.dsn, spec)
    assert "secret" not in str(failed.value) + failed.value.next_step


@pytest.mark.parametrize(
    ("meanwhile", "because"),
    [
        ("DROP TABLE rows", r"rows.* does not exist|dropped or replaced"),
        ("ALTER TABLE rows DROP n", r'column "n" does not exist'),
        (
            REPLACED,
            r"was dropped or replaced while it was worked on",
        ),
    ],
)
async def test_a_table_that_changes_meanwhile_stops_it(
    conn: Any, target: Target, meanwhile: str, because: str
) -> None:
    with pytest.raises(PostgresError, match=because) as stopped:
        await _while_paused(conn, target, meanwhile)
    assert stopped.value.next_step


async def test_a_key_that_becomes_wider_meanwhile_is_walked_to_its_end(
    conn: Any, target: Target
) -> None:
    await conn.execute("ALTER TABLE rows ALTER id TYPE int")
    outcome = await _while_paused(conn, target, "ALTER TABLE rows ALTER id TYPE bigint")
    assert outcome.rows == 2000
    assert await counts(conn) == {1: 2000}


async def _while_paused(conn: Any, target: Target, statement: str) -> BackfillOutcome:
    switch, told, seen = Switch(), Told(), list[BatchDone]()

    def pause(done: BatchDone) -> None:
        seen.append(done)
        switch.is_paused |= len(seen) == 3

    work = asyncio.create_task(do(target.dsn, control=switch, tell=told, on_batch=pause))
    await until(lambda: _has(told, "paused: it holds no lock"))
    await conn.execute(statement)
    switch.is_paused = False
    return await work


async def test_batches_that_take_too_long_are_said_to(conn: Any, target: Target) -> None:
    spec = replace(COUNT, assignments_sql="n = CASE WHEN pg_sleep(1) IS NULL THEN 1 ELSE 1 END")
    limits = replace(SMALL, statement=timedelta(milliseconds=50), retries=1)
    with pytest.raises(PostgresError, match=r"took more than 0.05 s, in public.rows"):
        await do(target.dsn, spec, limits=limits)
    assert await counts(conn) == {0: 2000}


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of a few MB that the server may write to."""
    place = Path(f"/tmp/tk-disk-{os.getpid()}")
    place.mkdir()
    account = server_account()
    owner = f",uid={account.uid}" if account else ""
    mounted = subprocess.run(
        ["/bin/mount", "-t", "tmpfs", "-o", f"size=1536k,mode=700{owner}", "tmpfs", place],
        check=False,
        capture_output=True,
    )
    if mounted.returncode:
        place.rmdir()
        pytest.skip("this account cannot mount a small file system")
    yield place
    subprocess.run(["/bin/umount", "--lazy", place], check=True)
    place.rmdir()


async def test_a_full_disk_stops_it_and_more_room_lets_it_go_on(
    server: Server, conn: Any, target: Target, small_disk: Path
) -> None:
    space = f"small_{target.name}"
    await conn.execute(f"CREATE TABLESPACE {space} LOCATION '{small_disk}'")
    try:
        await conn.execute(f"ALTER TABLE rows SET TABLESPACE {space}")
        spec = replace(COUNT, assignments_sql="n = n + 1, note = repeat(md5(id::text), 30)")
        with pytest.raises(PostgresError, match="disk is full") as full:
            await do(target.dsn, spec)
        assert "Make room there" in full.value.next_step
        done = (await counts(conn)).get(1, 0)
        assert 0 < done < 2000
        await conn.execute("ALTER TABLE rows SET TABLESPACE pg_default")
        assert (await do(target.dsn, spec)).rows == 2000
        assert await counts(conn) == {1: 2000}
    finally:
        await conn.execute("ALTER TABLE rows SET TABLESPACE pg_default")
        await conn.execute(f"DROP TABLESPACE {space}")


async def test_it_waits_for_a_disk_that_somebody_says_is_full(conn: Any, target: Target) -> None:
    told, free = Told(), [10]

    async def free_bytes() -> int:
        return free[0]

    work = asyncio.create_task(do(target.dsn, tell=told, free_bytes=free_bytes))
    await until(lambda: _has(told, "waiting: 10 B of the disk are free (at least 1 GB)"))
    assert await counts(conn) == {0: 2000}  # the first look comes before the first batch
    free[0] = 2**31
    outcome = await work
    assert outcome.waited["free disk"] > 0
    assert await counts(conn) == {1: 2000}


async def test_it_waits_for_a_standby_that_falls_behind(pair: Pair) -> None:
    limits = replace(SMALL, lag_bytes_max=200_000)
    async with _rows_on(pair.primary, 4000) as dsn, _connected(pair.standby.dsn()) as copy:
        told = Told()
        await copy.execute("SELECT pg_wal_replay_pause()")
        try:
            work = asyncio.create_task(do(dsn, tell=told, limits=limits))
            await until(lambda: _has(told, "waiting: two is "))
        finally:
            await copy.execute("SELECT pg_wal_replay_resume()")
        outcome = await work
        assert outcome.waited["replica lag"] > 0
        async with _connected(dsn) as conn:
            assert await conn.fetch(DONE) == [(1, 4000)]


async def test_a_standby_is_asked_itself_and_one_that_is_gone_does_not_count_for_ever(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postgres.migrate.backfill.signals.GONE_AFTER", timedelta(milliseconds=100))
    nobody = parse_dsn("postgresql://postgres@127.0.0.1:1/postgres")
    limits = replace(SMALL, before=timedelta(milliseconds=300))
    async with _rows_on(pair.primary, 1000) as dsn:
        told = Told()
        outcome = await do(
            dsn, tell=told, limits=limits, replicas=(parse_dsn(pair.standby.dsn()), nobody)
        )
    assert told.has("The standby on 127.0.0.1:1 has not answered")
    assert sum("has not answered" in note for note in outcome.notes) == 1


async def test_a_standby_that_is_late_on_purpose_holds_nothing_up(pair: Pair) -> None:
    limits = replace(SMALL, lag_bytes_max=1, unwatched=frozenset({"two"}))
    async with _rows_on(pair.primary, 1000) as dsn, _connected(pair.standby.dsn()) as copy:
        await copy.execute("SELECT pg_wal_replay_pause()")
        try:
            assert (await do(dsn, limits=limits)).rows == 1000
        finally:
            await copy.execute("SELECT pg_wal_replay_resume()")


async def test_a_standby_is_not_written_to(pair: Pair) -> None:
    with pytest.raises(PostgresError, match="is a standby"):
        await do(pair.standby.dsn())


@asynccontextmanager
async def _rows_on(server: Server, rows: int) -> AsyncIterator[str]:
    """A database with rows in it on this server; where."""
    async with _connected(server.dsn()) as admin:
        await admin.execute("DROP DATABASE IF EXISTS shop WITH (FORCE)")
        await admin.execute("CREATE DATABASE shop")
    async with _connected(server.dsn("shop")) as conn:
        await conn.execute(ROWS.format(rows=rows))
    try:
        yield server.dsn("shop")
    finally:
        async with _connected(server.dsn()) as admin:
            await admin.execute("DROP DATABASE shop WITH (FORCE)")
