"""An archive as it stood at a moment, although it goes on to grow."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest
from pydantic import SecretStr

from postgres.backup.engine import Archive, LaidOut, OnText, Segment, TakeOrder
from postgres.backup.frozen import FrozenEngine, Stand, as_it_stood, bounded, freeze
from postgres.backup.native_engine import NativeEngine
from postgres.errors import PostgresError
from tests.postgres.backup.wal_samples import content, name_of, write

AT: Final = datetime(2026, 11, 22, tzinfo=UTC)
LAST: Final = name_of(1, 5)


def engine_in(folder: Path) -> NativeEngine:
    return NativeEngine(dsn=SecretStr("postgresql:///unused"), folder=folder)


def names(archive: Archive) -> list[str]:
    return [each.name for each in archive.segments]


def segment(timeline: int, number: int, *, is_partial: bool = False) -> Segment:
    return Segment(name=name_of(timeline, number), size_bytes=1, at=AT, is_partial=is_partial)


def test_segments_histories_and_ends_that_came_later_are_not_there() -> None:
    grown = Archive(
        segments=(segment(1, 4), segment(1, 5), segment(1, 6), segment(2, 6)),
        histories={2: "1\t0/600000\tlater"},
    )
    was = as_it_stood(grown, Stand(last=LAST, is_open=True))
    assert names(was) == [name_of(1, 4), LAST]
    assert [each.is_partial for each in was.segments] == [False, True]
    assert was.histories == {}
    whole = as_it_stood(grown, Stand(last=LAST))
    assert [each.is_partial for each in whole.segments] == [False, False]
    assert as_it_stood(grown, Stand(last=name_of(2, 6))).histories == grown.histories
    assert as_it_stood(grown, Stand()) == Archive()


@pytest.mark.parametrize(
    ("wanted", "is_given"),
    [
        (name_of(1, 4), True),
        (LAST, True),
        (name_of(1, 6), False),
        (name_of(2, 4), False),
        ("00000002.history", False),
        ("00000001.history", True),
    ],
)
def test_a_command_gives_what_was_there_and_nothing_later(wanted: str, *, is_given: bool) -> None:
    line = bounded('echo got %f "%p"', Stand(last=LAST))
    shell = line.replace("%f", wanted).replace("%p", "pg_wal/X")
    done = subprocess.run(["/bin/sh", "-c", shell], capture_output=True, check=False)
    assert (done.returncode == 0) is is_given
    assert done.stdout.decode() == (f"got {wanted} pg_wal/X\n" if is_given else "")


async def test_what_was_being_received_is_kept_as_it_was(tmp_path: Path) -> None:
    write(tmp_path / "wal", 1, 4)
    incoming = tmp_path / "wal" / "incoming"
    growing = write(incoming, 1, 5, suffix=".partial")
    engine = engine_in(tmp_path)
    stand = await freeze(engine, tmp_path / "frozen")
    assert stand == Stand(last=LAST, is_open=True)
    # It is completed, and two more come.
    growing.unlink()
    write(incoming, 1, 5, seed=1)
    write(incoming, 1, 6)
    frozen = FrozenEngine(engine=engine, stand=stand, folder=tmp_path / "frozen")
    archive = await frozen.archive()
    assert names(archive) == [name_of(1, 4), LAST]
    assert archive.segments[-1].is_partial
    (tmp_path / "copy").mkdir()
    size = await frozen.stage_wal([name_of(1, 4), LAST], tmp_path / "copy")
    assert size == 2 * len(content(1, 5))
    assert (tmp_path / "copy" / LAST).read_bytes() == content(1, 5)
    assert (tmp_path / "copy" / name_of(1, 4)).read_bytes() == content(1, 4)


async def test_without_its_copy_the_open_segment_counts_as_never_come(tmp_path: Path) -> None:
    """On another machine nobody knows how far it was: then none of it."""
    write(tmp_path / "wal", 1, 4)
    write(tmp_path / "wal" / "incoming", 1, 5)
    frozen = FrozenEngine(
        engine=engine_in(tmp_path), stand=Stand(last=LAST, is_open=True), folder=tmp_path / "gone"
    )
    assert names(await frozen.archive()) == [name_of(1, 4)]


async def test_an_empty_archive_and_a_file_that_is_not_whole_hold_nothing(tmp_path: Path) -> None:
    engine, folder = engine_in(tmp_path), tmp_path / "frozen"
    assert await freeze(engine, folder) == Stand()
    made = write(tmp_path / "wal" / "incoming", 1, 5, suffix=".partial")
    made.write_bytes(bytes(len(content(1, 5))))
    assert await freeze(engine, folder) == Stand(), "room was made for it alone"
    made.write_bytes(content(1, 5)[:5000])
    assert await freeze(engine, folder) == Stand(), "as a full disk leaves it"
    write(tmp_path / "wal", 1, 4)
    assert await freeze(engine, folder) == Stand(last=name_of(1, 4))
    made.unlink()
    assert await freeze(engine, folder) == Stand(last=name_of(1, 4))


@dataclass(frozen=True, slots=True)
class WithCommand(NativeEngine):
    """An engine that fetches WAL by a command of its own."""

    async def lay_out(
        self, backup_id: str, work_folder: Path, *, on_step: OnText | None = None
    ) -> LaidOut:
        del backup_id, on_step
        settings = {"restore_command": 'get %f "%p"', "max_connections": "7"}
        return LaidOut(data=work_folder, settings=settings)

    async def stage_wal(self, names: Sequence[str], folder: Path) -> int:
        del names, folder
        return 0


async def test_only_the_command_is_bounded_and_all_else_is_the_engines(tmp_path: Path) -> None:
    inner = WithCommand(dsn=SecretStr("postgresql:///unused"), folder=tmp_path)
    frozen = FrozenEngine(engine=inner, stand=Stand(last=LAST), folder=tmp_path / "frozen")
    laid = await frozen.lay_out("shop-1", tmp_path)
    assert laid.settings == {
        "restore_command": bounded('get %f "%p"', frozen.stand), "max_connections": "7",
    }  # fmt: skip
    assert frozen.name == "native"
    assert (await frozen.backups()) == (await inner.backups())
    assert (await frozen.probe()).name == "native"
    assert await replace(frozen, stand=Stand()).stage_wal([], tmp_path) == 0


async def test_nothing_can_be_changed_through_it(tmp_path: Path) -> None:
    frozen = FrozenEngine(engine=engine_in(tmp_path), stand=Stand(), folder=tmp_path)
    for change in (
        frozen.take(TakeOrder(backup_id="shop-1")), frozen.remove("shop-1"), frozen.trim(LAST),
    ):  # fmt: skip
        with pytest.raises(PostgresError, match="nothing is changed"):
            await change
