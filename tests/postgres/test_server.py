"""Servers: made, started, reused, stopped, and never left behind."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest

from postgres.account import identity_of, server_account
from postgres.errors import PostgresError
from postgres.postmaster import live_postmaster
from postgres.server import (
    Binaries,
    Server,
    create,
    find_binaries,
    open_server,
    remove_server,
    standby,
)
from tests.postgres.conftest import FAST

ROOT = Path(__file__).parents[2]

CHILD = """
import asyncio, os, signal, sys
from pathlib import Path
from postgres.server import create, find_binaries

async def main():
    # A shell's background job, as this may be, begins with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    binaries = find_binaries(os.environ)
    server = await create(binaries, Path(sys.argv[1]), settings={"fsync": "off"}, sync=False)
    await server.start()
    print(os.geteuid(), flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


async def ask(dsn: str, query: str) -> object:
    conn = await asyncpg.connect(dsn, timeout=30)
    try:
        return await conn.fetchval(query, timeout=10)
    finally:
        await conn.close()


async def wait_until_gone(data: Path, seconds: float = 30) -> bool:
    end = time.monotonic() + seconds
    while live_postmaster(data):
        if time.monotonic() > end:
            return False
        await asyncio.sleep(0.02)
    return True


async def test_a_new_server_answers_on_its_socket_and_on_loopback(fresh: Server) -> None:
    await fresh.start()
    assert await ask(fresh.dsn(), "SELECT 1") == 1
    assert await ask(fresh.dsn(tcp=True), "SHOW listen_addresses") == "127.0.0.1"
    assert await ask(fresh.dsn(), "SHOW data_checksums") == "on"
    assert fresh.port < 32768
    assert await fresh.is_running()


async def test_loopback_asks_for_a_password(fresh: Server) -> None:
    await fresh.start()
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(
            host="127.0.0.1", port=fresh.port, user="postgres", password="guess", timeout=10
        )


async def test_only_the_server_account_can_enter_the_socket_folder(fresh: Server) -> None:
    await fresh.start()
    assert stat.S_IMODE(fresh.sockets.stat().st_mode) == 0o700
    assert stat.S_IMODE((fresh.data.with_name("orders.run") / "password").stat().st_mode) == 0o600
    assert len(os.fsencode(fresh.sockets / f".s.PGSQL.{fresh.port}")) <= 107


async def test_a_long_path_gets_its_socket_elsewhere(binaries: Binaries, home: Path) -> None:
    server = await create(binaries, home / ("d" * 100), settings=FAST, sync=False)
    try:
        await server.start()
        assert await ask(server.dsn(), "SELECT 1") == 1
    finally:
        await server.remove()
    assert not server.sockets.exists()


async def test_a_database_name_with_odd_characters_is_quoted_in_the_dsn(fresh: Server) -> None:
    await fresh.start()
    await ask(fresh.dsn(), 'CREATE DATABASE "a/b ?c"')
    assert await ask(fresh.dsn("a/b ?c"), "SELECT current_database()") == "a/b ?c"


async def test_a_second_start_uses_the_running_server(binaries: Binaries, fresh: Server) -> None:
    await fresh.start()
    again = open_server(binaries, fresh.data)
    await again.start()
    assert not again.started_here
    assert again.dsn() == fresh.dsn()
    async with again.running():
        pass
    assert await fresh.is_running()


async def test_two_starts_at_once_end_in_one_server(binaries: Binaries, fresh: Server) -> None:
    other = open_server(binaries, fresh.data)
    await asyncio.gather(fresh.start(), other.start())
    assert fresh.started_here != other.started_here
    assert await ask(other.dsn(), "SELECT 1") == 1
    await other.stop()


async def test_a_server_keeps_its_data_and_port_over_a_restart(fresh: Server) -> None:
    await fresh.start()
    await ask(fresh.dsn(), "CREATE TABLE kept ()")
    before = fresh.dsn()
    await fresh.stop()
    assert not await fresh.is_running()
    await fresh.start()
    assert fresh.dsn() == before
    assert await ask(fresh.dsn(), "SELECT count(*) FROM kept") == 0


async def test_another_handle_can_stop_the_server(binaries: Binaries, fresh: Server) -> None:
    await fresh.start()
    await open_server(binaries, fresh.data).stop()
    assert not fresh.started_here


async def test_a_start_after_kill_9_of_the_server_recovers(fresh: Server) -> None:
    await fresh.start()
    await ask(fresh.dsn(), "CREATE TABLE kept ()")
    found = live_postmaster(fresh.data)
    assert found
    os.kill(found.pid, signal.SIGKILL)
    assert await wait_until_gone(fresh.data)
    await fresh.start()
    assert await ask(fresh.dsn(), "SELECT count(*) FROM kept") == 0


async def test_a_stale_note_whose_number_belongs_to_another_process_is_passed_over(
    fresh: Server,
) -> None:
    await fresh.start()
    note = fresh.data / "postmaster.pid"
    lines = note.read_text().splitlines()
    await fresh.stop("immediate")
    with subprocess.Popen(["/bin/sleep", "60"], **identity_of(server_account())) as foreign:
        note.write_text("\n".join([str(foreign.pid), *lines[1:]]) + "\n")
        await fresh.start()
        assert foreign.poll() is None
        foreign.kill()
    assert await ask(fresh.dsn(), "SELECT 1") == 1


async def test_a_port_that_was_asked_for_and_is_taken_is_named(
    binaries: Binaries, home: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as foreign:
        port = foreign.getsockname()[1]
        server = await create(binaries, home / "orders", port=port, settings=FAST, sync=False)
        with pytest.raises(PostgresError, match=f"Port {port} .* taken") as refusal:
            await server.start()
        assert "ss -ltnp" in refusal.value.next_step
        assert not await server.is_running()
    await server.remove()


async def test_a_free_port_that_was_lost_meanwhile_is_replaced(fresh: Server) -> None:
    lost = fresh.port
    with socket.create_server(("127.0.0.1", lost)):
        await fresh.start()
    assert fresh.port != lost
    assert await ask(fresh.dsn(tcp=True), "SELECT 1") == 1


async def test_a_folder_that_is_not_empty_is_left_alone(binaries: Binaries, home: Path) -> None:
    (home / "orders").mkdir()
    (home / "orders" / "letter").write_text("keep me")
    with pytest.raises(PostgresError, match="not empty"):
        await create(binaries, home / "orders", sync=False)
    assert (home / "orders" / "letter").read_text() == "keep me"
    assert sorted(path.name for path in home.iterdir()) == ["orders"]


async def test_a_wrong_setting_is_named_and_nothing_is_left_running(
    binaries: Binaries, home: Path
) -> None:
    server = await create(binaries, home / "orders", settings={"no_such": "1"}, sync=False)
    with pytest.raises(PostgresError, match="orders") as refusal:
        await server.start()
    assert str(server.log) in refusal.value.next_step
    assert not server.started_here
    await server.remove()


async def test_initdb_that_fails_leaves_no_half_made_folder(
    binaries: Binaries, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postgres.initialise._locale", lambda binaries: ["--no-such-option"])
    with pytest.raises(PostgresError, match="initdb could not make"):
        await create(binaries, home / "orders", sync=False)
    assert not (home / "orders").exists()
    assert not (home / "orders.partial").exists()


async def test_a_folder_without_a_server_is_said(binaries: Binaries, home: Path) -> None:
    with pytest.raises(PostgresError, match="no data folder"):
        open_server(binaries, home / "nothing")


async def test_a_folder_of_another_major_version_is_said(fresh: Server, binaries: Binaries) -> None:
    (fresh.data / "PG_VERSION").write_text("12\n")
    with pytest.raises(PostgresError, match=f"of PostgreSQL 12, .* of {binaries.major}"):
        open_server(binaries, fresh.data)


async def test_a_server_that_obeys_no_signal_is_killed(fresh: Server) -> None:
    await fresh.start()
    found = live_postmaster(fresh.data)
    assert found
    os.kill(found.pid, signal.SIGSTOP)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("postgres.server._LAST_SECONDS", 0.3)
        await fresh.stop(time_limit=timedelta(seconds=0.3))
        assert live_postmaster(fresh.data) is None


async def test_a_standby_follows_and_can_be_promoted(fresh: Server, home: Path) -> None:
    await fresh.start()
    replica = await standby(fresh, home / "replica-1", settings=FAST)
    try:
        await replica.start()
        assert await ask(replica.dsn(), "SELECT pg_is_in_recovery()") is True
        assert await ask(fresh.dsn(), "SELECT slot_name FROM pg_replication_slots") == "replica_1"
        await replica.promote()
        assert await ask(replica.dsn(), "SELECT pg_is_in_recovery()") is False
        await ask(replica.dsn(), "CREATE TABLE writable ()")
    finally:
        await replica.remove()


async def test_promoting_a_stopped_standby_says_what_to_do(fresh: Server) -> None:
    with pytest.raises(PostgresError, match="cannot be reached") as refusal:
        await fresh.promote()
    assert "Start it" in refusal.value.next_step


async def test_a_cancelled_start_leaves_no_process(fresh: Server) -> None:
    task = asyncio.create_task(fresh.start())
    while not fresh.started_here:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert live_postmaster(fresh.data) is None


@pytest.mark.chaos
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
async def test_no_server_outlives_the_process_that_started_it(
    home: Path, number: signal.Signals
) -> None:
    await _kill_the_starter([sys.executable], home, number)


@pytest.mark.chaos
async def test_all_of_it_works_without_root(home: Path, other_python: str) -> None:
    account = server_account()
    assert account
    os.chown(home, account.uid, account.gid)
    euid = await _kill_the_starter(
        ["runuser", "-u", account.name, "--", "env", f"PYTHONPATH={_path()}", other_python],
        home,
        signal.SIGKILL,
    )
    assert euid == account.uid


async def _kill_the_starter(command: list[str], home: Path, number: signal.Signals) -> int:
    """Start a server in another process and end that process; its user id."""
    environ = {**os.environ, "PYTHONPATH": _path()}
    # In a session of its own: runuser passes a deadly signal on only to what it started.
    starter = subprocess.Popen(
        [*command, "-c", CHILD, str(home / "orders")],
        env=environ,
        cwd="/",
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert starter.stdout
    with starter, starter.stdout:
        euid = int(await asyncio.to_thread(starter.stdout.readline))
        found = live_postmaster(home / "orders")
        assert found
        assert found.ready
        os.killpg(starter.pid, number)
    assert await wait_until_gone(home / "orders")
    return euid


def _path() -> str:
    return os.pathsep.join([str(ROOT), *(p for p in sys.path if p.endswith("site-packages"))])


@pytest.mark.skipif(os.geteuid() != 0, reason="a folder of ours is never closed to ourselves")
async def test_a_home_that_is_closed_to_the_server_account_is_replaced_by_an_open_one(
    binaries: Binaries, home: Path
) -> None:
    home.chmod(0o700)
    server = await create(binaries, home / "orders", settings=FAST, sync=False)
    try:
        assert (home / "orders").is_symlink()
        async with open_server(binaries, home / "orders").running():
            assert await ask(server.dsn(), "SELECT 1") == 1
    finally:
        await server.remove()
    assert not server.data.parent.exists()
    assert not (home / "orders").is_symlink()


async def test_a_server_of_the_systems_version_works_too(home: Path) -> None:
    try:
        binaries = find_binaries(os.environ, major=15)
    except PostgresError:
        pytest.skip("PostgreSQL 15 is not installed")
    server = await create(binaries, home / "orders", settings=FAST, sync=False)
    async with server.running():
        assert str(await ask(server.dsn(), "SHOW server_version")).startswith("15.")
    await server.remove()


async def test_a_server_behind_a_closed_folder_is_removed_where_it_really_stands(
    binaries: Binaries, tmp_path: Path
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    data = closed / "orders"
    await create(binaries, data, settings=FAST, sync=False)
    shutil.rmtree(closed)
    closed.mkdir(mode=0o700)
    await remove_server(data)
    again = await create(binaries, data, settings=FAST, sync=False)
    await again.start()
    with pytest.raises(PostgresError, match="is running"):
        await remove_server(data)
    await again.stop("immediate")
    await remove_server(data)
    assert not data.exists()
    assert not data.is_symlink()
