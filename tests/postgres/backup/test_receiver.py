"""A supervised pg_receivewal on real servers."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import asyncpg
import psutil
import pytest

from postgres.account import server_account
from postgres.backup.receiver import Receiver, drop_slot
from postgres.backup.wal import contiguous_end, gaps, newest_timeline, segment_at
from postgres.backup.wal_archive import WalArchive
from postgres.binaries import Binaries, find_binaries
from postgres.dsn import parse_dsn
from postgres.errors import PostgresError
from postgres.server import Server, create

SIZE = 16 * 1024 * 1024
SETTINGS = {
    "fsync": "off",
    "shared_buffers": "16MB",
    "max_connections": "20",
    "wal_level": "replica",
    "max_wal_senders": "10",
    "max_replication_slots": "20",
    "autovacuum": "off",
    "min_wal_size": "32MB",
    "max_wal_size": "1GB",
}


@pytest.fixture(scope="module")
def primary(binaries: Binaries) -> Iterator[Server]:
    """A server that the tests of this file restart and promote; each has a slot of its own."""
    with tempfile.TemporaryDirectory(prefix="tk", ignore_cleanup_errors=True) as name:
        home = Path(name)
        home.chmod(0o755)
        made = asyncio.run(create(binaries, home / "orders", settings=SETTINGS, sync=False))
        asyncio.run(made.start())
        try:
            yield made
        finally:
            asyncio.run(made.remove())


class Watched:
    """A receiver, its archive, and questions about both."""

    def __init__(self, server: Server, archive: WalArchive, slot: str) -> None:
        self.server, self.archive, self.slot = server, archive, slot
        self.receiver = Receiver(
            binaries=find_binaries(os.environ),
            target=parse_dsn(server.dsn()),
            archive=archive,
            slot=slot,
            pause_max=timedelta(seconds=0.3),
            settle_every=timedelta(seconds=0.1),
        )

    def child(self) -> psutil.Process | None:
        wanted = {str(self.archive.incoming), f"--slot={self.slot}"}
        for process in psutil.Process().children():
            if wanted <= set(process.cmdline()):
                return process
        return None

    async def caught_up(self) -> str:
        """Wait until all WAL of now has come; the name of the segment that holds its end."""
        lsn = await value(self.server, "SELECT pg_current_wal_flush_lsn()::text")

        async def come() -> bool:
            here = await value(
                self.server,
                f"SELECT bool_or(flush_lsn >= '{lsn}') FROM pg_stat_replication"
                f" WHERE application_name = 'twokey wal {self.slot}'",
            )
            return bool(here)

        await soon(come)
        timeline = newest_timeline(await self.archive.listing())
        assert timeline
        return segment_at(timeline, lsn, SIZE)

    async def streams(self) -> None:
        try:
            await soon(lambda: ready(self.receiver.report.streaming))
        except TimeoutError:
            pytest.fail(f"it does not stream: {self.receiver.report}")

    async def says(self, words: str) -> None:
        await soon(lambda: ready(words in self.receiver.report.problem))

    async def notes(self, words: str) -> None:
        await soon(lambda: ready(words in self.receiver.report.note))


@asynccontextmanager
async def receiving(server: Server, archive: WalArchive, slot: str) -> AsyncIterator[Watched]:
    watched = Watched(server, archive, slot)
    task = asyncio.create_task(watched.receiver.run())
    try:
        yield watched
    finally:
        assert not task.done(), task.result()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert watched.child() is None


@pytest.fixture
def archive(tmp_path: Path) -> WalArchive:
    return WalArchive(tmp_path / "wal")


@pytest.fixture(autouse=True)
async def _no_slot_is_left(primary: Server) -> AsyncIterator[None]:
    """A slot of another test would hold back WAL that this one wants gone."""
    yield
    drop = "SELECT count(pg_drop_replication_slot(slot_name)) FROM pg_replication_slots"
    await value(primary, drop)


async def ready(value: bool) -> bool:  # noqa: FBT001
    return value


async def soon(question: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await question():
            await asyncio.sleep(0.05)


async def value(server: Server, query: str) -> str:
    conn = await asyncpg.connect(server.dsn(), timeout=30)
    try:
        return await conn.fetchval(query)
    finally:
        await conn.close()


async def fill(server: Server, segments: int) -> None:
    """Complete so many segments, and forget those that nobody holds."""
    conn = await asyncpg.connect(server.dsn(), timeout=30)
    try:
        await conn.execute("CREATE TABLE IF NOT EXISTS filler (n int)")
        for _ in range(segments):
            await conn.execute("INSERT INTO filler VALUES (1)")
            await conn.execute("SELECT pg_switch_wal()")
        await conn.execute("INSERT INTO filler VALUES (2)")
    finally:
        await conn.close()


async def forget_wal(server: Server) -> None:
    """Have the server remove the WAL that nobody holds back."""
    await fill(server, 4)
    await value(server, "CHECKPOINT")


async def promote(server: Server) -> None:
    """Let the server begin a new timeline, as a standby that is promoted does."""
    await server.stop("fast")
    await begin_timeline(server)


async def begin_timeline(server: Server) -> None:
    note = server.data / "standby.signal"
    note.touch()
    if account := server_account():
        os.chown(note, account.uid, account.gid)
    await server.start()
    await server.promote()


async def no_hole(watched: Watched, start: str) -> None:
    end = await watched.caught_up()
    listing = await watched.archive.listing()
    timeline = newest_timeline(listing)
    assert timeline
    reached = contiguous_end(listing, timeline=timeline, start_wal=start, segment_bytes=SIZE)
    assert (reached, gaps(listing, SIZE)) == (end, ())


async def current(server: Server) -> str:
    return await value(server, "SELECT pg_walfile_name(pg_current_wal_lsn())")


async def test_what_is_committed_is_here_a_moment_later(
    primary: Server, archive: WalArchive, tmp_path: Path
) -> None:
    start = await current(primary)
    async with receiving(primary, archive, "plain") as watched:
        await watched.streams()
        await fill(primary, 2)
        await no_hole(watched, start)
        marker = "the very last commit"
        await value(primary, f"SELECT pg_logical_emit_message(true, 'x', '{marker}')::text")
        end = await watched.caught_up()
        await archive.stage([end], tmp_path / "out")
        assert marker.encode() in (tmp_path / "out" / end).read_bytes()
        kept = [path.name for path in archive.folder.iterdir()]
        assert f"{start}.zst" in kept
        assert watched.receiver.report.problem == ""


async def test_a_killed_receiver_is_started_again_and_misses_nothing(
    primary: Server, archive: WalArchive
) -> None:
    start = await current(primary)
    async with receiving(primary, archive, "killed") as watched:
        await watched.streams()
        first = watched.child()
        assert first
        first.send_signal(signal.SIGKILL)
        await soon(lambda: ready(watched.receiver.report.ends == 1))
        await fill(primary, 2)
        await no_hole(watched, start)
        second = watched.child()
        assert second
        assert second.pid != first.pid
        await soon(lambda: ready(watched.receiver.report.problem == ""))


async def test_a_receiver_goes_on_where_the_last_one_ended(
    primary: Server, archive: WalArchive
) -> None:
    start = await current(primary)
    async with receiving(primary, archive, "paused") as watched:
        await watched.streams()
        await fill(primary, 1)
        await watched.caught_up()
    await forget_wal(primary)
    async with receiving(primary, archive, "paused") as watched:
        await no_hole(watched, start)


CHILD_OF_A_WORKER = """
import asyncio, os, sys
from pathlib import Path
from postgres.backup.receiver import Receiver
from postgres.backup.wal_archive import WalArchive
from postgres.binaries import find_binaries
from postgres.dsn import parse_dsn

receiver = Receiver(
    binaries=find_binaries(os.environ), target=parse_dsn(sys.argv[1]),
    archive=WalArchive(Path(sys.argv[2])), slot="worker",
)
asyncio.run(receiver.run())
"""


async def test_a_killed_worker_leaves_no_receiver_and_its_successor_misses_nothing(
    primary: Server, archive: WalArchive
) -> None:
    start = await current(primary)
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD_OF_A_WORKER, primary.dsn(), str(archive.folder), cwd=Path.cwd()
    )
    active = "SELECT active_pid FROM pg_replication_slots WHERE slot_name = 'worker'"
    await soon(lambda: holds(primary, active))
    [child] = psutil.Process(worker.pid).children()
    worker.kill()  # the child has nothing to say, so no broken pipe ends it
    await worker.wait()
    assert psutil.wait_procs([child], timeout=60)[1] == []
    await fill(primary, 1)
    async with receiving(primary, archive, "worker") as watched:
        await no_hole(watched, start)


async def holds(server: Server, query: str) -> bool:
    return await value(server, query) is not None


async def test_the_primary_may_restart(primary: Server, archive: WalArchive) -> None:
    start = await current(primary)
    async with receiving(primary, archive, "restart") as watched:
        await watched.streams()
        await primary.stop("immediate")
        await watched.says("cannot be reached")
        assert watched.receiver.report.next_step
        await primary.start()
        await fill(primary, 1)
        await no_hole(watched, start)


async def test_a_slot_that_was_dropped_is_made_anew_without_a_hole(
    primary: Server, archive: WalArchive
) -> None:
    start = await current(primary)
    async with receiving(primary, archive, "dropped") as watched:
        await watched.streams()
        await watched.caught_up()
    await value(primary, "SELECT pg_drop_replication_slot('dropped')::text")
    async with receiving(primary, archive, "dropped") as watched:
        await fill(primary, 1)
        await no_hole(watched, start)


async def test_wal_that_the_server_no_longer_has_is_a_hole_and_the_rest_goes_on(
    primary: Server, archive: WalArchive
) -> None:
    async with receiving(primary, archive, "hole") as watched:
        await watched.streams()
        await watched.caught_up()
    await value(primary, "SELECT pg_drop_replication_slot('hole')::text")
    await forget_wal(primary)
    async with receiving(primary, archive, "hole") as watched:
        await watched.notes("no longer has WAL")
        await watched.caught_up()
        listing = await archive.listing()
    [gap] = gaps(listing, SIZE)
    assert gap.count >= 1
    assert [segment.is_partial for segment in listing.segments].count(True) == 2


async def test_a_slot_that_the_server_gave_up_is_made_anew(
    primary: Server, archive: WalArchive, tmp_path: Path
) -> None:
    async with receiving(primary, archive, "lost") as watched:
        await watched.streams()
        await watched.caught_up()
    await value(primary, "ALTER SYSTEM SET max_slot_wal_keep_size = '16MB'")
    try:
        await value(primary, "SELECT pg_reload_conf()::text")
        await forget_wal(primary)
        lost = "SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'lost'"
        assert await value(primary, lost) == "lost"
    finally:
        await value(primary, "ALTER SYSTEM RESET max_slot_wal_keep_size")
        await value(primary, "SELECT pg_reload_conf()::text")
    fresh = WalArchive(tmp_path / "fresh")
    async with receiving(primary, fresh, "lost") as watched:
        await watched.streams()
        await watched.caught_up()
        assert await value(primary, lost) == "reserved"
        assert watched.receiver.report.ends == 0
        assert "had given up the slot" in watched.receiver.report.note


async def test_two_receivers_never_share_a_folder(primary: Server, archive: WalArchive) -> None:
    async with receiving(primary, archive, "first") as watched:
        await watched.streams()
        async with receiving(primary, archive, "second") as other:
            await other.says("Another process receives WAL into")
            assert not other.receiver.report.streaming
        assert watched.receiver.report.streaming


async def test_a_slot_that_another_receiver_uses_is_said_to_be(
    primary: Server, archive: WalArchive, tmp_path: Path
) -> None:
    async with receiving(primary, archive, "shared") as watched:
        await watched.streams()
        await fill(primary, 1)
        await watched.caught_up()
        async with receiving(primary, WalArchive(tmp_path / "other"), "shared") as other:
            await other.says("is used by another receiver")
            assert other.receiver.report.next_step


async def test_a_slot_is_dropped_when_its_receiver_has_ended(
    primary: Server, archive: WalArchive
) -> None:
    async with receiving(primary, archive, "droppable") as watched:
        await watched.streams()
        with pytest.raises(PostgresError, match="cannot be dropped"):
            await drop_slot(parse_dsn(primary.dsn()), "droppable")
    await drop_slot(parse_dsn(primary.dsn()), "droppable")
    await drop_slot(parse_dsn(primary.dsn()), "droppable")
    count = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'droppable'"
    assert await value(primary, count) == 0


async def test_another_cluster_is_not_received_into_the_same_archive(
    primary: Server, archive: WalArchive
) -> None:
    archive.folder.mkdir()
    (archive.folder / "cluster").write_text(f"1234567 {SIZE}\n")
    async with receiving(primary, archive, "stranger") as watched:
        await watched.says("is another cluster")
    assert (await archive.listing()).segments == ()
    count = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'stranger'"
    assert await value(primary, count) == 0


async def test_a_folder_without_room_is_named_and_receiving_goes_on_later(
    primary: Server, archive: WalArchive
) -> None:
    """A file stands where a folder is needed: as good as a full disk, also for root."""
    archive.folder.parent.mkdir(exist_ok=True)
    archive.folder.touch()
    async with receiving(primary, archive, "full") as watched:
        await watched.says("cannot be written")
        archive.folder.unlink()
        await watched.streams()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for a few segments."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["/bin/mount", "-t", "tmpfs", "-o", "size=64m,mode=755", "tmpfs", place],
        check=False,
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip("this account cannot mount a small file system")
    yield place
    subprocess.run(["/bin/umount", "--lazy", place], check=True)


async def test_a_disk_that_is_full_is_named_and_nothing_is_missed_when_it_has_room_again(
    primary: Server, small_disk: Path
) -> None:
    # A new slot begins at the last checkpoint: what other tests have written since is not for here.
    await value(primary, "CHECKPOINT")
    start = await current(primary)
    other = small_disk / "other"
    async with receiving(primary, WalArchive(small_disk / "wal"), "small") as watched:
        await watched.streams()
        await watched.caught_up()
        other.write_bytes(bytes(shutil.disk_usage(small_disk).free - SIZE // 2))
        await fill(primary, 2)
        await watched.says("There is no room for WAL in")
        other.unlink()
        await no_hole(watched, start)


async def test_a_segment_that_differs_is_told_while_the_stream_goes_on(
    primary: Server, archive: WalArchive
) -> None:
    start = await current(primary)
    async with receiving(primary, archive, "differs") as watched:
        await watched.streams()
        (archive.folder / start).write_bytes(b"not that")
        await fill(primary, 2)
        await watched.says("already holds another file")
        await watched.caught_up()
        assert watched.receiver.report.streaming
        (archive.folder / start).unlink()
        await soon(lambda: ready(watched.receiver.report.problem == ""))
        await no_hole(watched, start)


async def test_a_switch_of_timelines_is_followed_while_it_streams(
    primary: Server, archive: WalArchive
) -> None:
    start = await current(primary)
    before = int(start[:8], 16)
    async with receiving(primary, archive, "switch") as watched:
        await watched.streams()
        await fill(primary, 1)
        await watched.caught_up()
        await promote(primary)
        await fill(primary, 1)
        await soon(lambda: timeline_is(archive, before + 1))
        await no_hole(watched, start)
    listing = await archive.listing()
    assert newest_timeline(listing) == before + 1
    assert before + 1 in listing.histories


async def timeline_is(archive: WalArchive, timeline: int) -> bool:
    listing = await archive.listing()
    return listing.segments[-1].name.startswith(f"{timeline:08X}")


@pytest.fixture
async def keeps_wal(primary: Server) -> AsyncIterator[None]:
    """Have the server keep WAL without a slot, as most do for a while."""
    await value(primary, "ALTER SYSTEM SET wal_keep_size = '1GB'")
    await value(primary, "SELECT pg_reload_conf()::text")
    yield
    await value(primary, "ALTER SYSTEM RESET wal_keep_size")
    await value(primary, "SELECT pg_reload_conf()::text")


async def test_a_server_that_came_back_from_an_earlier_moment_is_followed(
    primary: Server, archive: WalArchive, keeps_wal: None
) -> None:
    """As after a restore into place: the new timeline left the old one before its end.

    Its slot is gone too, and a new one begins after the fork.
    """
    start = await current(primary)
    before = int(start[:8], 16)
    await primary.stop("fast")
    copy = primary.data.with_name("copy")
    shutil.copytree(primary.data, copy, symlinks=True)
    await primary.start()
    async with receiving(primary, archive, "back") as watched:
        await watched.streams()
        await fill(primary, 3)
        ahead = await watched.caught_up()
    await primary.stop("fast")
    shutil.rmtree(primary.data)
    copy.rename(primary.data)
    if account := server_account():
        for path in (primary.data, *primary.data.rglob("*")):
            os.chown(path, account.uid, account.gid, follow_symlinks=False)
    await begin_timeline(primary)
    await forget_wal(primary)
    async with receiving(primary, archive, "back") as watched:
        await watched.notes("The server's history left the one that was received")
        await soon(lambda: timeline_known(archive, before + 1))
        await no_hole(watched, start)
    listing = await archive.listing()
    names = [segment.name for segment in listing.segments]
    assert ahead in names
    reached = contiguous_end(listing, timeline=before, start_wal=start, segment_bytes=SIZE)
    assert reached == ahead


async def timeline_known(archive: WalArchive, timeline: int) -> bool:
    return timeline in (await archive.listing()).histories
