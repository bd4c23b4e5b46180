"""An archive of WAL on disk."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from postgres.backup.sealing import KeyPair, WrongKeyError, new_identity
from postgres.backup.wal_archive import WalArchive
from postgres.backup.wal_files import Cluster
from postgres.errors import DamagedError, PostgresError
from tests.postgres.backup.wal_samples import SIZE, SYSTEM, content, name_of, write

HISTORY = "1\t0/300028\tno recovery target specified\n"
# Ends itself, as kill -9 would, at the given one of the moments that touch a file's name.
CRASHING = """
import os, sys
from pathlib import Path
from postgres.backup.wal_archive import WalArchive

left = int(sys.argv[2])

def hook(event, _):
    global left
    if event in ("os.rename", "os.remove", "os.utime"):
        left -= 1
        if left == 0:
            os._exit(9)

archive = WalArchive(Path(sys.argv[1]))
sys.addaudithook(hook)
archive._settle()
"""


@pytest.fixture
def archive(tmp_path: Path) -> WalArchive:
    return WalArchive(tmp_path / "wal")


@pytest.fixture
def keys() -> KeyPair:
    return new_identity()


async def names(archive: WalArchive) -> list[tuple[str, bool]]:
    return [(segment.name, segment.is_partial) for segment in (await archive.listing()).segments]


async def staged(archive: WalArchive, name: str, folder: Path) -> bytes:
    await archive.stage([name], folder)
    return (folder / name).read_bytes()


async def test_an_archive_that_does_not_exist_is_empty(archive: WalArchive) -> None:
    listing = await archive.listing()
    assert (listing.segments, listing.histories) == ((), {})
    assert await archive.cluster() is None
    assert await archive.settle() == ()
    assert await archive.trim(name_of(1, 9)) == 0


async def test_what_is_pushed_comes_back_as_it_was(archive: WalArchive, tmp_path: Path) -> None:
    source = write(tmp_path, 1, 5)
    assert await archive.push(source, source.name)
    assert await names(archive) == [(source.name, False)]
    assert await archive.cluster() == Cluster(system_identifier=str(SYSTEM), segment_bytes=SIZE)
    assert (archive.folder / f"{source.name}.zst").stat().st_size < SIZE * 0.6
    assert await staged(archive, source.name, tmp_path / "out") == content(1, 5)


async def test_the_same_file_can_be_pushed_again_and_a_different_one_cannot(
    archive: WalArchive, tmp_path: Path
) -> None:
    source = write(tmp_path, 1, 5)
    await archive.push(source, source.name)
    assert not await archive.push(source, source.name)
    write(tmp_path, 1, 5, seed=1)
    with pytest.raises(PostgresError, match="already holds another file") as refusal:
        await archive.push(source, source.name)
    assert refusal.value.next_step
    assert await staged(archive, source.name, tmp_path / "out") == content(1, 5)


async def test_an_encrypted_segment_needs_the_key_only_to_be_read(
    archive: WalArchive, keys: KeyPair, tmp_path: Path
) -> None:
    writer = WalArchive(archive.folder, recipient=keys.recipient)
    source = write(tmp_path, 1, 5)
    await writer.push(source, source.name)
    assert (archive.folder / f"{source.name}.zst.age").exists()
    assert content(1, 5)[64:128] not in (archive.folder / f"{source.name}.zst.age").read_bytes()
    assert not await writer.push(source, source.name)
    assert await names(writer) == [(source.name, False)]
    with pytest.raises(PostgresError, match="no key to read"):
        await writer.stage([source.name], tmp_path / "out")
    stranger = WalArchive(archive.folder, identity=new_identity().identity)
    with pytest.raises(WrongKeyError):
        await stranger.stage([source.name], tmp_path / "out")
    reader = WalArchive(archive.folder, identity=keys.identity)
    assert await staged(reader, source.name, tmp_path / "out") == content(1, 5)
    write(tmp_path, 1, 5, seed=1)
    with pytest.raises(PostgresError, match="already holds another file"):
        await writer.push(source, source.name)


@pytest.mark.parametrize("name", ["", "x", "../000000010000000000000001", "00000001.history.tmp"])
async def test_what_is_no_wal_file_is_refused(
    archive: WalArchive, tmp_path: Path, name: str
) -> None:
    source = write(tmp_path, 1, 5)
    with pytest.raises(PostgresError, match="no name of a WAL file"):
        await archive.push(source, name)
    assert await names(archive) == []


@pytest.mark.parametrize(
    ("name", "because"),
    [
        (name_of(1, 6), "WAL of another place"),
        (name_of(2, 5), None),
    ],
)
async def test_a_segment_under_another_name_is_refused(
    archive: WalArchive, tmp_path: Path, name: str, because: str | None
) -> None:
    """But the first segment of a timeline begins with the pages of the old one."""
    source = write(tmp_path, 1, 5)
    if because is None:
        assert await archive.push(source, name)
        return
    with pytest.raises(DamagedError, match=because):
        await archive.push(source, name)


async def test_a_file_of_zeros_is_no_segment(archive: WalArchive, tmp_path: Path) -> None:
    source = tmp_path / name_of(1, 5)
    source.write_bytes(b"\0" * SIZE)
    with pytest.raises(DamagedError, match="does not begin as WAL does"):
        await archive.push(source, source.name)


async def test_wal_of_another_cluster_is_refused(archive: WalArchive, tmp_path: Path) -> None:
    source = write(tmp_path, 1, 5)
    await archive.push(source, source.name)
    other = tmp_path / name_of(1, 6)
    other.write_bytes(content(1, 6, system=SYSTEM + 1))
    with pytest.raises(PostgresError, match="keeps the WAL of the cluster"):
        await archive.push(other, other.name)
    assert await names(archive) == [(source.name, False)]


async def test_labels_histories_and_ends_of_timelines_are_kept_too(
    archive: WalArchive, tmp_path: Path
) -> None:
    label = f"{name_of(1, 5)}.00000028.backup"
    (tmp_path / label).write_text("START WAL LOCATION\n")
    (tmp_path / "00000002.history").write_text(HISTORY)
    end = write(tmp_path, 1, 6, suffix=".partial")
    for name in (label, "00000002.history", end.name):
        await archive.push(tmp_path / name, name)
    assert await names(archive) == [(name_of(1, 6), True)]
    assert (await archive.listing()).histories == {2: HISTORY}


async def test_completed_segments_are_kept_and_the_newest_stays_as_well(
    archive: WalArchive, tmp_path: Path
) -> None:
    for number in (3, 4, 5):
        write(archive.incoming, 1, number)
    assert await archive.settle() == (name_of(1, 3), name_of(1, 4), name_of(1, 5))
    assert [path.name for path in archive.incoming.iterdir()] == [name_of(1, 5)]
    assert await archive.settle() == ()
    write(archive.incoming, 1, 6, suffix=".partial")
    await archive.settle()
    assert [path.name for path in archive.incoming.iterdir()] == [name_of(1, 6) + ".partial"]
    assert await names(archive) == [
        *((name_of(1, number), False) for number in (3, 4, 5)),
        (name_of(1, 6), True),
    ]
    for number in (3, 4, 5, 6):
        assert await staged(archive, name_of(1, number), tmp_path / "out") == content(1, number)


async def test_a_segment_that_was_only_made_room_for_holds_nothing(archive: WalArchive) -> None:
    archive.incoming.mkdir(parents=True)
    (archive.incoming / f"{name_of(1, 3)}.partial").write_bytes(b"\0" * SIZE)
    assert await names(archive) == []


async def test_the_end_of_an_old_timeline_is_kept_as_partial(
    archive: WalArchive, tmp_path: Path
) -> None:
    write(archive.incoming, 1, 3, suffix=".partial")
    write(archive.incoming, 2, 3, suffix=".partial", seed=2)
    (archive.incoming / "00000002.history").write_text(HISTORY)
    await archive.settle()
    assert await names(archive) == [(name_of(1, 3), True), (name_of(2, 3), True)]
    assert (archive.folder / f"{name_of(1, 3)}.partial.zst").exists()
    assert (archive.incoming / f"{name_of(2, 3)}.partial").exists()
    assert (archive.folder / "00000002.history").read_text() == HISTORY
    await archive.stage([name_of(1, 3)], tmp_path / "out")
    assert (tmp_path / "out" / name_of(1, 3)).read_bytes() == content(1, 3)
    assert (tmp_path / "out" / "00000002.history").read_text() == HISTORY


async def test_setting_aside_empties_the_folder_and_loses_nothing(archive: WalArchive) -> None:
    write(archive.incoming, 1, 3)
    write(archive.incoming, 1, 4, suffix=".partial")
    await archive.set_aside()
    assert list(archive.incoming.iterdir()) == []
    assert await names(archive) == [(name_of(1, 3), False), (name_of(1, 4), True)]


@pytest.mark.parametrize("encrypted", [False, True])
async def test_of_two_ends_of_a_segment_the_one_that_came_further_is_kept(
    archive: WalArchive, keys: KeyPair, tmp_path: Path, *, encrypted: bool
) -> None:
    """A timeline that was left is received once more, up to where it was left."""
    writer = WalArchive(archive.folder, recipient=keys.recipient if encrypted else None)
    whole = content(1, 4)
    for end in (300_000, 400_000, 200_000):
        write(archive.incoming, 1, 4, suffix=".partial")
        cut = whole[:end].ljust(SIZE, b"\0")
        (archive.incoming / f"{name_of(1, 4)}.partial").write_bytes(cut)
        await writer.set_aside()
    reader = WalArchive(archive.folder, identity=keys.identity)
    wanted = whole[:400_000].ljust(SIZE, b"\0")
    assert await staged(reader, name_of(1, 4), tmp_path / "out") == wanted


async def test_what_a_full_disk_left_of_a_segment_is_emptied_and_data_in_it_kept(
    archive: WalArchive, tmp_path: Path
) -> None:
    archive.incoming.mkdir(parents=True)
    room, cut, whole = (archive.incoming / f"{name_of(1, n)}.partial" for n in (3, 4, 5))
    room.write_bytes(bytes(SIZE // 2))
    cut.write_bytes(content(1, 4)[:-1000])
    whole.write_bytes(content(1, 5))
    await archive.mend(SIZE)
    assert [path.stat().st_size for path in (room, cut, whole)] == [0, 0, SIZE]
    assert await names(archive) == [(name_of(1, 4), True), (name_of(1, 5), True)]
    await archive.settle()
    assert await names(archive) == [(name_of(1, 4), True), (name_of(1, 5), True)]
    wanted = content(1, 4)[:-1000].ljust(SIZE, b"\0")
    assert await staged(archive, name_of(1, 4), tmp_path / "out") == wanted


async def test_a_segment_that_is_not_kept_is_not_let_go(archive: WalArchive) -> None:
    path = write(archive.incoming, 1, 3)
    archive._let_go(path.name)
    assert path.exists()


async def test_a_starting_point_for_the_receiver_is_no_segment(archive: WalArchive) -> None:
    write(archive.incoming, 1, 3)
    await archive.set_aside(begin_after=name_of(1, 5))
    assert [path.name for path in archive.incoming.iterdir()] == [name_of(1, 5)]
    assert (archive.incoming / name_of(1, 5)).stat().st_size == SIZE
    assert await names(archive) == [(name_of(1, 3), False)]
    assert await archive.settle() == ()
    write(archive.incoming, 1, 6, suffix=".partial")
    await archive.settle()
    assert await names(archive) == [(name_of(1, 3), False), (name_of(1, 6), True)]
    assert not (archive.incoming / name_of(1, 5)).exists()


# 11 times a name or a time of a file is changed; the twelfth moment is after the end.
@pytest.mark.parametrize("moment", [1, 2, 3, 4, 6, 7, 10, 11, 12])
async def test_a_crash_at_any_moment_leaves_every_segment(
    archive: WalArchive, tmp_path: Path, moment: int
) -> None:
    for number in (3, 4):
        write(archive.incoming, 1, number)
    write(archive.incoming, 1, 5, suffix=".partial")
    command = [sys.executable, "-c", CRASHING, str(archive.folder), str(moment)]
    done = subprocess.run(command, check=False, cwd=Path.cwd(), timeout=150)
    assert done.returncode == (9 if moment < 12 else 0)
    wanted = [(name_of(1, 3), False), (name_of(1, 4), False), (name_of(1, 5), True)]
    assert await names(archive) == wanted
    for number in (3, 4):
        out = tmp_path / "before"
        assert await staged(archive, name_of(1, number), out) == content(1, number)
    await archive.settle()
    assert await names(archive) == wanted
    assert [path.name for path in archive.incoming.iterdir()] == [f"{name_of(1, 5)}.partial"]
    for number in (3, 4):
        out = tmp_path / "after"
        assert await staged(archive, name_of(1, number), out) == content(1, number)


async def test_a_different_segment_is_never_thrown_away(archive: WalArchive) -> None:
    path = write(archive.incoming, 1, 3)
    write(archive.incoming, 1, 4, suffix=".partial")
    await archive.push(write(archive.folder.parent, 1, 3, seed=9), name_of(1, 3))
    with pytest.raises(PostgresError, match="already holds another file"):
        await archive.settle()
    assert path.exists()


async def test_a_flipped_byte_is_found_when_a_segment_is_staged(
    archive: WalArchive, keys: KeyPair, tmp_path: Path
) -> None:
    sealed = WalArchive(tmp_path / "sealed", recipient=keys.recipient, identity=keys.identity)
    source = write(tmp_path, 1, 5)
    for kept in (archive, sealed):
        await kept.push(source, source.name)
        [path] = [
            path for path in kept.folder.iterdir() if path.name.startswith(source.name + ".z")
        ]
        body = bytearray(path.read_bytes())
        body[len(body) // 2] ^= 1
        path.write_bytes(body)
        with pytest.raises(DamagedError):
            await kept.stage([source.name], tmp_path / "out")
        assert not (tmp_path / "out" / source.name).exists()


async def test_a_segment_that_was_cut_short_is_found(archive: WalArchive, tmp_path: Path) -> None:
    source = write(tmp_path, 1, 5)
    await archive.push(source, source.name)
    path = archive.folder / f"{source.name}.zst"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(DamagedError, match="cut short"):
        await archive.stage([source.name], tmp_path / "out")


async def test_a_plain_segment_of_another_cluster_is_not_staged(
    archive: WalArchive, tmp_path: Path
) -> None:
    source = write(tmp_path, 1, 5)
    await archive.push(source, source.name)
    (archive.folder / name_of(1, 6)).write_bytes(content(1, 6, system=SYSTEM + 1))
    with pytest.raises(PostgresError, match="another cluster"):
        await archive.stage([name_of(1, 6)], tmp_path / "out")
    assert not (tmp_path / "out" / name_of(1, 6)).exists()


async def test_a_missing_segment_is_named(archive: WalArchive, tmp_path: Path) -> None:
    with pytest.raises(PostgresError, match=f"{name_of(1, 7)} is not in"):
        await archive.stage([name_of(1, 7)], tmp_path / "out")


async def test_trimming_removes_what_is_older_on_all_timelines(
    archive: WalArchive, keys: KeyPair, tmp_path: Path
) -> None:
    writer = WalArchive(archive.folder, recipient=keys.recipient)
    for timeline, number in ((1, 3), (1, 4), (2, 4), (2, 5)):
        source = write(tmp_path, timeline, number)
        await writer.push(source, source.name)
    (tmp_path / "00000002.history").write_text(HISTORY)
    await writer.push(tmp_path / "00000002.history", "00000002.history")
    assert await archive.trim(name_of(2, 4)) > 0
    assert not list(archive.folder.glob(f"{name_of(1, 3)}*"))
    assert await names(archive) == [
        (name_of(1, 4), False),
        (name_of(2, 4), False),
        (name_of(2, 5), False),
    ]
    assert (await archive.listing()).histories == {2: HISTORY}
    assert await archive.trim(name_of(2, 4)) == 0
