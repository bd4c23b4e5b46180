"""A scratch server that outlives its maker, lets one login in, and is removed without a trace."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from postgres.backup.facts import read_backup
from postgres.errors import PostgresError
from postgres.ports import free_port
from postgres.postmaster import live_postmaster
from postgres.process import clean_environment
from postgres.restore import lasting
from postgres.restore.lasting import (
    BusyError,
    Lasting,
    alone,
    is_alive,
    make_lasting,
    read_lasting,
    remove_all,
)
from postgres.restore.scratch import remove_scratch, start_scratch, unpack
from postgres.server import Binaries
from tests.postgres.conftest import Shop

# Makes a lasting server and dies at once, without any clean-up.
MAKER = """
import asyncio, os, signal, sys
from pathlib import Path
from postgres.backup.facts import read_backup
from postgres.binaries import find_binaries
from postgres.restore.lasting import alone, make_lasting
from postgres.restore.scratch import start_scratch, unpack

async def main(backups, backup_id, folder):
    facts = read_backup(backups, backup_id)
    binaries = find_binaries(os.environ)
    with alone(folder, make=True):
        await unpack(binaries, backups / backup_id, facts, folder)
        server = await start_scratch(binaries, facts, folder)
        await make_lasting(server, facts, folder)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])))
"""


@pytest.fixture(scope="module")
def survivor(shop: Shop) -> Iterator[Lasting]:
    """A lasting copy of the shop, whose maker was killed."""
    with tempfile.TemporaryDirectory(prefix="tk", ignore_cleanup_errors=True) as name:
        home = Path(name)
        home.chmod(0o755)
        folder = home / "scratch" / "shop-7"
        command = [sys.executable, "-c", MAKER, str(shop.folder), shop.facts.id, str(folder)]
        root = Path(__file__).parents[3]
        done = subprocess.run(command, cwd=root, timeout=120, check=False)
        assert done.returncode == -signal.SIGKILL
        try:
            yield read_lasting(folder)
        finally:
            asyncio.run(remove_all(home))


@asynccontextmanager
async def entered(dsn: str) -> AsyncIterator[Any]:
    conn = await asyncpg.connect(dsn, timeout=30)
    try:
        yield conn
    finally:
        await conn.close()


async def test_it_outlives_its_maker_and_its_connection_string_works(survivor: Lasting) -> None:
    assert is_alive(survivor.folder)
    async with entered(survivor.dsn) as conn:
        assert await conn.fetchval("SELECT count(*) FROM orders") == 20_000
        assert await conn.fetchval("SELECT current_user || ' ' || current_database()") == (
            "twokey shop"
        )


async def test_psql_takes_the_connection_string_as_it_is(
    survivor: Lasting, binaries: Binaries
) -> None:
    done = subprocess.run(
        [binaries.program("psql"), "-XAtc", "SELECT 1 + 1", survivor.dsn],
        env=clean_environment(binaries.folder), capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("2\n", "")


async def test_people_can_write_but_are_no_superusers(survivor: Lasting) -> None:
    async with entered(survivor.dsn) as conn:
        await conn.execute("DELETE FROM orders WHERE id = 1; CREATE SCHEMA mine")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await conn.execute("COPY (SELECT 1) TO PROGRAM 'true'")
        assert await conn.fetchval("SHOW autovacuum") == "on"
        assert await conn.fetchval("SHOW archive_mode") == "off"
        assert await conn.fetchval("SHOW listen_addresses") == "127.0.0.1"


async def test_who_has_no_password_does_not_get_in(survivor: Lasting) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(survivor.dsn.partition("?")[0], password="guess", timeout=30)


async def test_no_login_of_production_gets_in(survivor: Lasting) -> None:
    async with entered(survivor.local().url()) as conn:
        await conn.execute("ALTER ROLE postgres PASSWORD 'known'")
    with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError, match="no pg_hba"):
        await asyncpg.connect(
            f"postgresql://postgres@127.0.0.1:{survivor.port}/shop", password="known", timeout=10
        )


def test_the_password_stands_in_one_file_that_only_we_can_read(survivor: Lasting) -> None:
    assert stat.S_IMODE(survivor.passfile.stat().st_mode) == 0o600
    *_, password = survivor.passfile.read_text().strip().split(":")
    others = [
        path for path in survivor.folder.rglob("*")
        if path.is_file() and path != survivor.passfile and password.encode() in path.read_bytes()
    ]  # fmt: skip
    assert others == []
    assert password not in survivor.dsn


async def test_a_login_of_our_name_in_the_copy_is_left_alone_and_a_taken_port_passed_over(
    shop: Shop, binaries: Binaries, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.chmod(0o700)  # closed to the server's account: as root its data stands elsewhere
    facts, folder = read_backup(shop.folder, shop.facts.id), home / "scratch" / "shop-8"
    ports = iter([shop.server.port])
    monkeypatch.setattr(lasting, "free_port", lambda: next(ports, None) or free_port())
    with alone(folder, make=True):
        await unpack(binaries, shop.folder / facts.id, facts, folder)
        server = await start_scratch(binaries, facts, folder)
        async with entered(server.dsn("shop")) as conn:
            await conn.execute("CREATE ROLE twokey SUPERUSER")
        made = await make_lasting(server, facts, folder)
    assert made.port != shop.server.port
    async with entered(made.dsn) as conn:
        assert await conn.fetchval("SELECT current_user") == "twokey_scratch"
    found = live_postmaster(server.data)
    assert found is not None
    assert await remove_all(home) == ("shop-8",)
    assert live_postmaster(server.data) is None
    assert not server.data.exists()
    assert not Path(f"/proc/{found.pid}/cwd").exists()
    assert not (home / "scratch").exists()
    assert await remove_all(home) == ()


async def test_a_path_that_a_shell_would_understand_is_refused(
    shop: Shop, binaries: Binaries, home: Path
) -> None:
    facts, folder = read_backup(shop.folder, shop.facts.id), home / "$(id)" / "shop-9"
    await unpack(binaries, shop.folder / facts.id, facts, folder)
    server = await start_scratch(binaries, facts, folder)
    try:
        with pytest.raises(PostgresError, match="a shell would understand"):
            await make_lasting(server, facts, folder)
        assert live_postmaster(server.data) is None
    finally:
        await remove_scratch(folder)


def test_one_at_a_time_works_on_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "scratch" / "shop-1"
    with alone(folder, make=True):  # noqa: SIM117
        with pytest.raises(BusyError, match="shop-1"), alone(folder):
            raise AssertionError
    with alone(folder):
        pass
    with pytest.raises(FileNotFoundError), alone(tmp_path / "scratch" / "shop-2"):
        raise AssertionError


def test_a_lock_that_was_removed_keeps_nobody_away(tmp_path: Path) -> None:
    folder = tmp_path / "shop-1"
    with alone(folder, make=True):
        (folder / "lock").unlink()
        with alone(folder):
            assert (folder / "lock").exists()


def test_a_lock_file_that_was_replaced_while_we_took_it_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real = tmp_path / "lock", fcntl.flock
    taken: list[int] = []

    def slow(handle: int, operation: int) -> None:
        if not taken:  # somebody removes the folder, and another one makes it anew
            path.unlink()
            path.touch()
        taken.append(handle)
        real(handle, operation)

    monkeypatch.setattr(fcntl, "flock", slow)
    handle = lasting._lock(path)
    try:
        assert os.path.samestat(os.fstat(handle), path.stat())
        assert len(taken) == 2
    finally:
        os.close(handle)
