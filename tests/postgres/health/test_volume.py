"""How full a disk is, as df says it, or as far as SQL can tell."""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from postgres.health import volume
from postgres.health.volume import Usage, Volumes


@dataclass(frozen=True, kw_only=True)
class Given:
    path: Path | None = None
    wal_path: Path | None = None
    total_bytes: int | None = None


async def test_a_path_is_counted_as_df_counts_it(tmp_path: Path) -> None:
    def df() -> int:
        said = subprocess.run(
            ["/usr/bin/env", "df", "--output=pcent", tmp_path],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return int(said.stdout.split()[-1].rstrip("%"))

    before = df()
    found, note = await Volumes(Given(path=tmp_path)).usage(known_bytes=None)
    # df rounds up; others write to this disk too.
    assert before - 2 <= (found.pct or 0) <= df() + 1
    assert (found.source, note) == ("path", "")


def test_what_is_kept_for_root_is_not_free() -> None:
    assert Usage(source="path", total=1000, used=450, free=500).pct == pytest.approx(47.368, 0.001)


async def test_without_a_path_what_was_bought_less_what_sql_sees() -> None:
    found, note = await Volumes(Given(total_bytes=1000)).usage(known_bytes=800)
    assert (found.source, found.pct, found.free, note) == ("configured", 80.0, 200, "")


async def test_more_than_was_bought_is_full_and_not_fuller() -> None:
    found, _ = await Volumes(Given(total_bytes=1000)).usage(known_bytes=1500)
    assert (found.pct, found.free) == (100.0, 0)


@pytest.mark.parametrize("place", [None, Given()])
async def test_nothing_given_is_unknown(place: Given | None) -> None:
    found, note = await Volumes(place).usage(known_bytes=800)
    assert (found.source, found.pct, note) == ("unknown", None, "")


async def test_a_path_that_is_not_there_is_said_and_what_was_bought_counts(tmp_path: Path) -> None:
    place = Given(path=tmp_path / "gone", total_bytes=1000)
    found, note = await Volumes(place).usage(known_bytes=100)
    assert (found.source, found.pct) == ("configured", 10.0)
    assert "gone cannot be looked at: No such file" in note


async def test_the_fuller_of_two_volumes_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.statvfs(tmp_path)

    def statvfs(path: Path) -> os.statvfs_result:
        free = real.f_blocks // (20 if path.name == "wal" else 2)
        return os.statvfs_result((*real[:3], free, free, *real[5:]))

    monkeypatch.setattr(volume.os, "statvfs", statvfs)
    found, _ = await Volumes(Given(path=tmp_path, wal_path=tmp_path / "wal")).usage(
        known_bytes=None
    )
    assert found.source == "wal_path"
    assert found.pct == pytest.approx(95, abs=1)


async def test_a_disk_that_hangs_is_asked_once_until_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, asked, real = threading.Event(), [], os.statvfs(tmp_path)

    def statvfs(path: Path) -> os.statvfs_result:
        asked.append(path)
        answer.wait(20)
        return real

    monkeypatch.setattr(volume.os, "statvfs", statvfs)
    monkeypatch.setattr(volume, "_LOOK_SECONDS_MAX", 0.02)
    volumes = Volumes(Given(path=tmp_path))
    for _ in range(3):
        found, note = await volumes.usage(known_bytes=None)
        assert (found.pct, "no answer in time" in note) == (None, True)
    assert len(asked) == 1
    answer.set()
    monkeypatch.setattr(volume, "_LOOK_SECONDS_MAX", 10)
    found, note = await volumes.usage(known_bytes=None)
    assert (found.source, note) == ("path", "")
    await asyncio.sleep(0)
