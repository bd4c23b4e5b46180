"""A server is replaced on a real machine: killed at every point, refusing to stop, or Debian's."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest
from pydantic import SecretStr

from postgres.account import make_private, server_account
from postgres.errors import PostgresError
from postgres.postmaster import live_postmaster
from postgres.process import send
from postgres.programs import run_program
from postgres.restore.branch import branch
from postgres.restore.control import Instance, start, stop
from postgres.restore.place import Replacement, replace_server, way_out
from postgres.restore.ways import Ways, ways_of_restore
from postgres.server import Binaries, Server, create, find_binaries
from tests.conftest import folder_of_its_own

LIMIT = timedelta(seconds=60)
SETTINGS = {"fsync": "off", "shared_buffers": "16MB", "autovacuum": "off"}
# In the order of the work; the exchange happens after "settled".
BEFORE = ("noted", "archiving", "closed", "quiet", "archived", "stopped", "settled")
RESUMED = ("noted", "closed", "stopped", "settled")
AFTER = ("left before", "left between", "started")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A running server, and a copy of it that stands ready. The copy lacks the row 2."""

    server: Server
    copy: Path

    def order(self, mark: int, coming: Path) -> Replacement:
        data = self.server.data
        ways = Ways(
            data=data, mark=mark, coming=coming, leaving=data.with_name(f"{data.name}-left-{mark}")
        )
        return Replacement(ways=ways, dsn=SecretStr(self.server.dsn()), take_files=True)

    async def rows(self) -> list[int]:
        conn = await asyncpg.connect(self.server.dsn(), timeout=30)
        try:
            return [row["n"] for row in await conn.fetch("SELECT n FROM t ORDER BY n")]
        finally:
            await conn.close()


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    home = folder_of_its_own()
    binaries = find_binaries(os.environ, major=17)
    server = await create(binaries, home / "orders", settings=SETTINGS, sync=False)
    try:
        await server.start()
        yield Pair(server=server, copy=await _copied(binaries, server))
    finally:
        await server.remove()
        await _removed(home)


@pytest.mark.timeout(240)
async def test_killed_at_any_point_the_next_worker_ends_it_or_gives_the_server_back(
    pair: Pair,
) -> None:
    coming = pair.copy
    for mark, point in enumerate((*BEFORE, *AFTER), start=1):
        order = pair.order(mark, coming)
        rows = await pair.rows()
        await _killed_at(point, order)
        if point in BEFORE:
            # The server is given back, open to everybody, as if nothing had been.
            said = await way_out(order)
            assert "as it was, and everybody can use it" in said, point
            assert await pair.rows() == rows, point
            if point in RESUMED:
                await _killed_at(point, order)
        await replace_server(order, on_step=_say)
        assert sorted([rows, await pair.rows()]) == [[1], [1, 2]], point
        await replace_server(order, on_step=_say)  # once more is harmless
        assert not list(pair.server.data.parent.glob("*/hba.conf.twokey*")), point
        coming = order.ways.leaving


async def test_a_server_that_refuses_to_stop_goes_on_as_it_was(pair: Pair) -> None:
    refuses = replace(
        pair.order(1, pair.copy), stop_command=("false",), stop_limit=timedelta(seconds=1)
    )
    with pytest.raises(PostgresError, match=r"did not stop within 1 seconds .it is up"):
        await replace_server(refuses, on_step=_say)
    with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
        await asyncpg.connect(pair.server.dsn(), timeout=30)
    assert await way_out(refuses) == (
        "The server runs on as it was, and everybody can use it as before."
    )
    assert await pair.rows() == [1, 2]

    # A process of it that hangs: the stop begins, and does not end.
    (walwriter,) = await _pids(pair.server, "walwriter")
    os.kill(walwriter, signal.SIGSTOP)
    hangs = replace(pair.order(2, pair.copy), stop_limit=timedelta(seconds=1))
    with pytest.raises(PostgresError, match="it is stopping"):
        await replace_server(hangs, on_step=_say)
    assert await way_out(hangs) == (
        "The server was started again as it was, and everybody can use it as before."
    )
    assert await pair.rows() == [1, 2]


async def test_whoever_was_cut_off_cannot_come_back_before_it_is_open_again(pair: Pair) -> None:
    order = pair.order(1, pair.copy)
    talker = await asyncpg.connect(pair.server.dsn(), timeout=30)
    refused: list[str] = []

    async def knock() -> None:
        try:
            await asyncpg.connect(pair.server.dsn(), timeout=30)
        except asyncpg.InvalidAuthorizationSpecificationError as error:
            refused.append(str(error))

    async def say(text: str) -> None:
        if text == "Stopping the old server":
            await knock()

    await replace_server(order, on_step=say)
    assert len(refused) == 1
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await talker.fetchval("SELECT 1")
    talker.terminate()
    assert await pair.rows() == [1]


async def test_another_cluster_never_takes_the_place(pair: Pair) -> None:
    home = pair.server.data.parent
    other = await create(pair.server.binaries, home / "other", settings=SETTINGS, sync=False)
    try:
        await other.start()
        await other.stop()
        with pytest.raises(PostgresError, match="is another cluster"):
            await replace_server(pair.order(1, other.data), on_step=_say)
        assert await pair.rows() == [1, 2]
    finally:
        await other.remove()


async def test_debians_server_with_its_configuration_inside_is_replaced_with_all_of_it() -> None:
    """Started by pg_ctl alone: postgresql.conf, an include and pg_hba.conf stand in its data."""
    try:
        binaries = find_binaries(os.environ, major=15)
    except PostgresError:
        pytest.skip("PostgreSQL 15 is not installed")
    home = folder_of_its_own()
    made = await create(binaries, home / "made", settings=SETTINGS, sync=False)
    data = home / "main"
    try:
        await made.start()
        copy = await _copied(binaries, made)
        await made.stop()
        made.data.rename(data)
        copy = copy.rename(ways_of_restore(data, 1).coming)
        _configure(data, made)
        instance = Instance(
            data=data, program=binaries.folder / "postgres", arguments=(), log=home / "log"
        )
        await start(instance, time_limit=LIMIT)
        # What the backup had is older than what counts.
        (copy / "postgresql.conf").write_text("port = 1\n")
        order = Replacement(
            ways=ways_of_restore(data, 1), dsn=SecretStr(made.dsn()), take_files=True
        )
        await replace_server(order, on_step=_say)
        conn = await asyncpg.connect(made.dsn(), timeout=30)
        assert await conn.fetchval("SHOW work_mem") == "7MB"
        assert await conn.fetchval("SHOW fsync") == "on"
        assert await conn.fetchval("SHOW autovacuum") == "on"
        assert await conn.fetch("SELECT n FROM t") == [(1,)]
        await conn.close()
        assert not (data / "standby.signal").exists()
        assert (data / "pg_hba.conf").read_text() == "local all all trust\n"
        await stop(instance, time_limit=LIMIT)
    finally:
        if found := live_postmaster(data):
            send(found.pid, signal.SIGQUIT)
        await made.remove()
        await _removed(home)


def _configure(data: Path, made: Server) -> None:
    lines = (
        f"port = {made.port}",
        "listen_addresses = ''",
        f"unix_socket_directories = '{made.sockets}'",
        "include 'more.conf'",
    )
    for name, text in (
        ("postgresql.conf", "\n".join(lines) + "\n"),
        ("more.conf", "work_mem = '7MB'\n"),
        ("pg_hba.conf", "local all all trust\n"),
    ):
        (data / name).write_text(text)
        if account := server_account():
            os.chown(data / name, account.uid, account.gid)


async def _copied(binaries: Binaries, server: Server) -> Path:
    """A stopped copy of the server on a timeline of its own, before the row 2 came."""
    conn = await asyncpg.connect(server.dsn(), timeout=30)
    await conn.execute("CREATE TABLE t AS SELECT 1 AS n")
    copy = server.data.with_name("copy")
    make_private(copy, server_account())
    done = await run_program(
        [binaries.program("pg_basebackup"), "-D", copy, "-c", "fast", "-X", "stream"],
        time_limit=LIMIT,
        environ={
            "PGHOST": str(server.sockets),
            "PGPORT": str(server.port),
            "PGUSER": "postgres",
        },
    )
    assert done.code == 0, done.stderr
    await branch(copy, binaries.folder, {})
    await conn.execute("INSERT INTO t VALUES (2)")
    await conn.close()
    return copy


async def _killed_at(point: str, order: Replacement) -> None:
    """Another process does the work, and is gone at this point."""
    script = Path(__file__).with_name("replace_until.py")
    ways = order.ways
    words = (str(ways.data), str(ways.mark), str(ways.coming), str(ways.leaving))
    child = await asyncio.create_subprocess_exec(
        sys.executable, script, order.dsn.get_secret_value(), point, *words,
        cwd=Path(__file__).parents[3],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )  # fmt: skip
    assert await child.wait() == -signal.SIGKILL


async def _pids(server: Server, kind: str) -> list[int]:
    conn = await asyncpg.connect(server.dsn(), timeout=30)
    try:
        query = "SELECT pid FROM pg_stat_activity WHERE backend_type = $1"
        return [row["pid"] for row in await conn.fetch(query, kind)]
    finally:
        await conn.close()


async def _removed(home: Path) -> None:
    await asyncio.to_thread(shutil.rmtree, home, ignore_errors=True)


async def _say(text: str) -> None:
    del text
