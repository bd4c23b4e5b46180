"""Recovering to a moment, on real servers: every kind of target, and what can go wrong."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest
from pydantic import SecretStr

from postgres.backup.engine import Engine, LaidOut, OnText
from postgres.backup.facts import read_backup
from postgres.backup.native_engine import NativeEngine
from postgres.backup.wal import lsn_number
from postgres.backup.wal_archive import WalArchive
from postgres.errors import PostgresError
from postgres.postmaster import live_postmaster
from postgres.restore.folders import scratch_folder
from postgres.restore.recovery import Recovered, plan_recovery, recover
from postgres.restore.scratch import remove_scratch
from postgres.restore.target import END, LATEST, RecoveryTarget, at_time, parse_target
from postgres.restore.window import Choice
from tests.postgres.restore.conftest import History, flip

ROOT = Path(__file__).parents[3]
THIRD = "000000010000000000000003"


def target_of(history: History, text: str) -> RecoveryTarget:
    """What `at one`, `lsn at one` and `xid after one` say of the moment `one`."""
    if text in ("latest", "end", "point before the mistake"):
        return parse_target(text, now=history.moments["quiet"].at)
    kind, _, name = text.rpartition(" ")
    moment = history.moments[name]
    words = {
        "at": str(at_time(moment.at)),
        "lsn at": f"lsn {moment.lsn}",
        "xid after": f"xid {moment.xid}",
        "before xid after": f"before xid {moment.xid}",
    }
    return parse_target(words[kind], now=moment.at)


async def choice_of(
    history: History, target: RecoveryTarget, backup_id: str | None = None
) -> Choice:
    return await plan_recovery(history.engine, target, marks=history.marks, backup_id=backup_id)


async def rows(recovered: Recovered) -> list[str]:
    conn = await asyncpg.connect(recovered.dsn.url(), timeout=30)
    try:
        return [row["note"] for row in await conn.fetch("SELECT note FROM rows")]
    finally:
        await conn.close()


def assert_nothing_left(home: Path) -> None:
    assert live_postmaster(scratch_folder(home / "work") / "data") is None
    assert not list((home / "work").glob("*"))


@pytest.mark.parametrize(
    ("text", "wanted", "timeline"),
    [
        ("at two", ["one", "two"], 2),
        ("before xid after one", ["one"], 2),
        ("point before the mistake", ["one", "two"], 2),
        ("at raised", ["raised"], 2),
        ("at quiet", ["raised", "promoted", "last"], 2),
        ("latest", ["raised", "promoted", "last"], 2),
    ],
)
async def test_a_recovery_has_all_that_was_committed_by_then_and_nothing_later(
    history: History, home: Path, text: str, wanted: list[str], timeline: int
) -> None:
    target = target_of(history, text)
    choice = await choice_of(history, target)
    recovered = await recover(history.engine, history.binaries, choice, home / "work")
    try:
        assert await rows(recovered) == wanted
    finally:
        await recovered.server.stop("immediate")
        await remove_scratch(home / "work")
    assert (recovered.target, recovered.timeline) == (target, timeline)
    assert recovered.seconds > 0
    assert recovered.wal_bytes > 0
    assert recovered.reached_at is not None
    assert target.at is None or recovered.reached_at <= target.at
    assert text != "at quiet" or "Nothing was written from" in recovered.note
    assert_nothing_left(home)


async def test_from_before_a_switch_the_new_timeline_is_reached_and_the_copy_may_stay_paused(
    history: History, home: Path
) -> None:
    choice = await choice_of(history, target_of(history, "at promoted"), "first")
    steps: list[str] = []

    async def note(text: str) -> None:
        steps.append(text)

    recovered = await recover(
        history.engine, history.binaries, choice, home / "work", action="pause", on_step=note
    )
    try:
        assert await rows(recovered) == ["raised", "promoted"]
        assert recovered.is_paused
        conn = await asyncpg.connect(recovered.dsn.url(), timeout=30)
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            await conn.execute("DELETE FROM rows")
        isolated = await conn.fetchrow(
            "SELECT current_setting('archive_mode') AS a, current_setting('listen_addresses') AS l,"
            " current_setting('primary_conninfo') AS p, current_setting('max_connections') AS m"
        )
        await conn.close()
        assert tuple(isolated) == ("off", "", "", "35")
    finally:
        await recovered.server.stop("immediate")
        await remove_scratch(home / "work")
    assert steps[0].startswith("Unpacking")
    assert "of WAL" in steps[0]
    assert steps[1].startswith("Starting the copy")


async def test_a_backup_alone_is_recovered_to_its_own_end(history: History, home: Path) -> None:
    choice = await choice_of(history, END, "second")
    recovered = await recover(history.engine, history.binaries, choice, home / "work")
    try:
        assert await rows(recovered) == ["raised", "promoted"]
        assert recovered.reached_lsn == history.backups["second"].end_lsn
    finally:
        await recovered.server.stop("immediate")
        await remove_scratch(home / "work")


async def test_a_target_that_is_not_in_the_wal_is_said_with_where_the_wal_ends(
    history: History, home: Path
) -> None:
    target = parse_target("point never made", now=history.moments["quiet"].at)
    choice = await choice_of(history, target, "second")
    because = r"no point never made in the WAL from second on, .* LSN 0/9.*, where the last commit"
    with pytest.raises(PostgresError, match=because) as refusal:
        await recover(history.engine, history.binaries, choice, home / "work")
    assert "Name another target" in refusal.value.next_step
    assert_nothing_left(home)


async def test_damaged_wal_is_named_also_where_postgresql_would_take_it_for_the_end(
    history: History, home: Path
) -> None:
    own = history.copy(home)
    flip(own.folder / "wal" / THIRD, 0x90)
    choice = await choice_of(own, LATEST, "first")
    with pytest.raises(PostgresError, match=rf"WAL file {THIRD}, although WAL up to .* is there"):
        await recover(own.engine, own.binaries, choice, home / "work")
    assert_nothing_left(home)


async def test_a_flipped_byte_in_the_archive_is_found_before_anything_runs(
    history: History, home: Path
) -> None:
    own = history.copy(home)
    plain = own.folder / "wal" / THIRD
    plain.rename(home / THIRD)
    await WalArchive(own.folder / "wal").push(home / THIRD, THIRD)
    kept = plain.with_name(f"{THIRD}.zst")
    flip(kept, kept.stat().st_size // 2)
    choice = await choice_of(own, target_of(own, "at two"))
    with pytest.raises(PostgresError, match=rf"first cannot be recovered to .*{THIRD}.* damaged"):
        await recover(own.engine, own.binaries, choice, home / "work")
    assert_nothing_left(home)


async def test_a_flipped_byte_in_the_backup_is_found_while_it_is_unpacked(
    history: History, home: Path
) -> None:
    own = history.copy(home)
    # As if it were in the tar's padding, where neither zstd nor tar would see it.
    facts = own.backups["first"]
    wrong = facts.model_copy(
        update={
            "files": tuple(
                file.model_copy(update={"sha256": "0" * 64}) if "base" in file.name else file
                for file in facts.files
            )
        }
    )
    choice = Choice(target=END, backup=wrong, timeline=1)
    with pytest.raises(PostgresError, match=r"base.tar.zst is not what was written"):
        await recover(own.engine, own.binaries, choice, home / "work")
    assert_nothing_left(home)


async def test_what_a_receiver_had_got_when_the_server_died_is_recovered_too(
    history: History, home: Path
) -> None:
    own = history.copy(home)
    moment = own.moments["last"]
    whole = own.folder / "wal" / "000000020000000000000008"
    body = bytearray(whole.read_bytes())
    end = lsn_number(moment.lsn) % len(body)
    whole.unlink()
    incoming = own.folder / "wal" / "incoming"
    incoming.mkdir()
    # pg_receivewal makes room for all of a segment and fills it as it comes.
    (incoming / f"{whole.name}.partial").write_bytes(body[:end] + bytes(len(body) - end))
    choice = await choice_of(own, LATEST)
    assert choice.is_open
    recovered = await recover(own.engine, own.binaries, choice, home / "work")
    try:
        assert await rows(recovered) == ["raised", "promoted", "last"]
    finally:
        await recovered.server.stop("immediate")
        await remove_scratch(home / "work")
    assert recovered.reached_lsn == moment.lsn


@dataclass(frozen=True, slots=True, kw_only=True)
class FullDisk(NativeEngine):
    """The disk under one table of the copy is full, for every account."""

    table: str

    async def lay_out(
        self, backup_id: str, work_folder: Path, *, on_step: OnText | None = None
    ) -> LaidOut:
        laid = await NativeEngine.lay_out(self, backup_id, work_folder, on_step=on_step)
        file = scratch_folder(work_folder) / "data" / self.table
        file.unlink()
        file.symlink_to("/dev/full")
        return laid


async def test_a_disk_that_is_full_while_wal_is_replayed_is_said_and_given_back(
    history: History, home: Path
) -> None:
    engine: Engine = FullDisk(
        dsn=SecretStr("postgresql:///unused"), folder=history.folder, table=history.table
    )
    choice = await choice_of(history, target_of(history, "at two"))
    with pytest.raises(PostgresError, match=r"No space left on device.* are free there") as error:
        await recover(engine, history.binaries, choice, home / "work")
    assert "TWOKEY_HOME" in error.value.next_step
    assert_nothing_left(home)


@pytest.fixture
def small_disk(home: Path) -> Iterator[Path]:
    """A file system that has room for the backup, but not for its WAL."""
    place = home / "work"
    place.mkdir()
    mounted = subprocess.run(
        ["/bin/mount", "-t", "tmpfs", "-o", "size=48m,mode=755", "tmpfs", place],
        check=False,
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip("this account cannot mount a small file system")
    yield place
    subprocess.run(["/bin/umount", "--lazy", place], check=True)


async def test_a_disk_that_is_too_small_is_said_before_or_while_it_fills(
    history: History, home: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choice = await choice_of(history, target_of(history, "at promoted"), "first")
    with pytest.raises(PostgresError, match=r"needs .* MB, .* of it for WAL, but .* free"):
        await recover(history.engine, history.binaries, choice, small_disk)
    monkeypatch.setattr("postgres.restore.recovery._check_room", lambda *_: None)
    monkeypatch.setattr("postgres.restore.laying.check_room", lambda *_: None)
    with pytest.raises(PostgresError, match="No space left on device"):
        await recover(history.engine, history.binaries, choice, small_disk)
    assert_nothing_left(home)


@dataclass(frozen=True, slots=True, kw_only=True)
class TornWal(NativeEngine):
    """The backup's own WAL ends before the record that makes it consistent."""

    async def lay_out(
        self, backup_id: str, work_folder: Path, *, on_step: OnText | None = None
    ) -> LaidOut:
        laid = await NativeEngine.lay_out(self, backup_id, work_folder, on_step=on_step)
        facts = read_backup(self.folder, backup_id)
        file = scratch_folder(work_folder) / "data" / "pg_wal" / facts.end_wal
        end = lsn_number(facts.end_lsn) % facts.wal_segment_bytes
        body = file.read_bytes()
        file.write_bytes(body[: end - 40] + bytes(len(body) - end + 40))
        return laid


async def test_a_copy_that_waits_for_wal_before_it_is_consistent_waits_for_nothing(
    history: History, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postgres.restore.replay._STUCK_SECONDS", 1.0)
    own = history.copy(home)
    # So that the backup's own, torn one is used.
    (own.folder / "wal" / own.backups["first"].end_wal).unlink()
    engine: Engine = TornWal(dsn=SecretStr("postgresql:///unused"), folder=own.folder)
    choice = await choice_of(own, target_of(own, "at two"))
    with pytest.raises(PostgresError, match=r"before the backup is consistent, at .* 0+10+2"):
        await recover(engine, own.binaries, choice, home / "work")
    assert_nothing_left(home)


# A standby that is told to wait with each commit never gets to the target.
SLOW = {"recovery_min_apply_delay": "1h"}


async def test_a_replay_that_takes_too_long_is_ended(history: History, home: Path) -> None:
    choice = await choice_of(history, target_of(history, "at two"))
    with pytest.raises(PostgresError, match=r"was not reached within 0:00:02"):
        await recover(
            history.engine,
            history.binaries,
            choice,
            home / "work",
            settings=SLOW,
            time_limit=timedelta(seconds=2),
        )
    assert_nothing_left(home)


CHILD = """
import asyncio, os, sys
from pathlib import Path
from pydantic import SecretStr
from postgres.backup.facts import read_backup
from postgres.backup.native_engine import NativeEngine
from postgres.restore.recovery import plan_recovery, recover
from postgres.restore.target import LATEST
from postgres.server import find_binaries

async def main():
    engine = NativeEngine(dsn=SecretStr("postgresql:///unused"), folder=Path(sys.argv[1]))
    choice = await plan_recovery(engine, LATEST)
    slow = {"recovery_min_apply_delay": "1h"}
    await recover(engine, find_binaries(os.environ), choice, Path(sys.argv[2]), settings=slow)

asyncio.run(main())
"""


@pytest.mark.chaos
async def test_a_recovery_whose_worker_is_killed_in_the_middle_leaves_nothing_that_runs(
    history: History, home: Path
) -> None:
    data = scratch_folder(home / "work") / "data"
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, history.folder, home / "work"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as child:
        async with asyncio.timeout(30):
            while not ((found := live_postmaster(data)) and found.ready):
                await asyncio.sleep(0.05)
        child.send_signal(signal.SIGKILL)
    assert data.exists()
    await remove_scratch(home / "work")
    assert_nothing_left(home)
