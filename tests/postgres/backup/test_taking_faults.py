"""What happens while a backup is taken: kills, a full disk, a second one at the same time.

A throttle of 32 kB a second makes sure that whatever is killed is in the middle of its work.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from pydantic import SecretStr

from postgres.backup.facts import list_backups
from postgres.backup.logical import take_logical
from postgres.backup.manner import Manner
from postgres.backup.native import take_backup
from postgres.backup.partial import begun, sweep
from postgres.backup.sealing import new_identity
from postgres.errors import PostgresError
from postgres.postmaster import live_postmaster
from postgres.server import Binaries, Server
from tests.postgres.conftest import Shop

SLOW = Manner(rate_max_bytes=1, compression="none")
KEYS = new_identity()
LOCKED = replace(SLOW, recipient=KEYS.recipient)
WORKER = """
import asyncio, os, sys
from pathlib import Path
from pydantic import SecretStr
from postgres.backup.manner import Manner
from postgres.backup.native import take_backup
from postgres.binaries import find_binaries

asyncio.run(take_backup(
    find_binaries(os.environ), SecretStr(sys.argv[1]), Path(sys.argv[2]), backup_id="b",
    manner=Manner(rate_max_bytes=1, compression="none"),
))
"""


@asynccontextmanager
async def halfway(
    binaries: Binaries, dsn: str, folder: Path, manner: Manner = SLOW
) -> AsyncIterator[tuple[asyncio.Task[object], psutil.Process]]:
    """A backup that has written something and has far to go, and its pg_basebackup."""
    task: asyncio.Task[object] = asyncio.create_task(
        take_backup(binaries, SecretStr(dsn), folder, backup_id="b", manner=manner)
    )
    try:
        await _written(folder / "b.partial", task)
        (child,) = [
            process
            for process in psutil.Process().children(recursive=True)
            if process.name() == "pg_basebackup"
            and str(folder) in " ".join(process.cmdline())
            and process.ppid() == os.getpid()
        ]
        yield task, child
    finally:
        task.cancel()
        await asyncio.wait([task])


@pytest.mark.parametrize("manner", [SLOW, LOCKED])
async def test_a_pg_basebackup_that_is_killed_leaves_nothing(
    shop: Shop, binaries: Binaries, home: Path, manner: Manner
) -> None:
    async with halfway(binaries, shop.dsn, home, manner) as (task, child):
        group = os.getpgid(child.pid)
        child.kill()
        with pytest.raises(PostgresError, match="was ended by signal 9") as refusal:
            await task
        assert "ask for the backup again" in refusal.value.next_step
    assert list(home.iterdir()) == []
    async with asyncio.timeout(30):  # its receiver of WAL is a process of its own
        while _living(group):
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("manner", [SLOW, LOCKED])
async def test_a_server_that_is_killed_breaks_the_backup_off_and_is_told_from_bad_rights(
    fresh: Server, binaries: Binaries, home: Path, manner: Manner
) -> None:
    await fresh.start()
    async with halfway(binaries, fresh.dsn(), home / "backups", manner) as (task, _):
        server = live_postmaster(fresh.data)
        assert server is not None
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(PostgresError, match="broke off the backup") as refusal:
            await task
        assert "server's log" in refusal.value.next_step
    assert list((home / "backups").iterdir()) == []


@pytest.mark.chaos
async def test_a_worker_that_is_killed_leaves_half_a_backup_that_the_next_attempt_replaces(
    shop: Shop, binaries: Binaries, home: Path
) -> None:
    worker = subprocess.Popen([sys.executable, "-c", WORKER, shop.dsn, home])
    try:
        await _written(home / "b.partial", None)
        with pytest.raises(PostgresError, match="being taken by another process") as refusal:
            await take_backup(binaries, SecretStr(shop.dsn), home, backup_id="b")
        assert "Wait for it" in refusal.value.next_step
    finally:
        worker.kill()
        worker.wait()
    assert (home / "b.partial" / "base.tar").exists()
    assert list_backups(home).backups == ()
    await take_backup(binaries, SecretStr(shop.dsn), home, backup_id="b")
    assert [path.name for path in home.iterdir()] == ["b"]


async def test_two_backups_at_once_are_two_backups(
    shop: Shop, binaries: Binaries, home: Path
) -> None:
    dsn = SecretStr(shop.dsn)
    await asyncio.gather(
        take_backup(binaries, dsn, home, backup_id="a"),
        take_backup(binaries, dsn, home, backup_id="b"),
        take_logical(binaries, dsn, home, backup_id="c"),
    )
    assert sorted(facts.id for facts in list_backups(home).backups) == ["a", "b", "c"]


async def test_a_cancelled_dump_leaves_nothing(shop: Shop, binaries: Binaries, home: Path) -> None:
    task = asyncio.create_task(
        take_logical(binaries, SecretStr(shop.dsn), home, backup_id="b", manner=LOCKED)
    )
    async with asyncio.timeout(30):
        while not list(home.glob("b.partial/dump-*")):
            await asyncio.sleep(0)
            assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("kind", ["full", "sealed", "logical"])
async def test_a_full_disk_is_said_and_nothing_is_kept(
    shop: Shop, binaries: Binaries, small_disk: Path, kind: str
) -> None:
    manner = Manner(recipient=KEYS.recipient if kind == "sealed" else None, compression="none")
    take = take_logical if kind == "logical" else take_backup
    with pytest.raises(PostgresError, match=r"No space left on device.* are free there") as refusal:
        await take(binaries, SecretStr(shop.dsn), small_disk, backup_id="b", manner=manner)
    assert "Free some space" in refusal.value.next_step
    assert [path.name for path in small_disk.iterdir() if path.name != "lost+found"] == []


def test_what_died_long_ago_is_swept_and_what_lives_is_not(home: Path) -> None:
    now = time.time()
    for name in ("old", "young", "held"):
        (home / f"{name}.partial" / "dump").mkdir(parents=True)
        (home / f"{name}.partial" / "dump" / "file").write_bytes(b"half")
    (home / "whole").mkdir()
    later = now + timedelta(days=2).total_seconds()
    os.utime(home / "young.partial" / "dump" / "file", (later, later))
    with begun(home, "held"):
        assert sweep(home, now=later) == ("old.partial",)
    left = sorted(path.name for path in home.iterdir())
    assert left == ["whole", "young.partial"]
    assert sweep(home / "nothing", now=later) == ()


def _living(group: int) -> list[int]:
    """The processes of a group that run; init may not have collected the dead ones yet."""
    found = []
    for process in psutil.process_iter(["pid", "status"]):
        with suppress(ProcessLookupError):
            if os.getpgid(process.pid) == group and process.info["status"] != "zombie":
                found.append(process.pid)
    return found


async def _written(partial: Path, task: asyncio.Task[object] | None) -> None:
    """Wait until an archive has some bytes."""
    async with asyncio.timeout(30):
        while not any(path.stat().st_size for path in partial.glob("base.tar*")):
            assert task is None or not task.done(), task
            await asyncio.sleep(0.02)


@pytest.fixture
def small_disk(home: Path) -> Iterator[Path]:
    """A file system of half a megabyte."""
    place = home / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["/bin/mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", place],
        check=False,
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip("this account cannot mount a small file system")
    yield place
    subprocess.run(["/bin/umount", "--lazy", place], check=True)
