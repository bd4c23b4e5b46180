"""The folder in memory that a run of the tests has for itself."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import temporary

ROOT = Path(__file__).parents[1]
RUN = """
import sys, tempfile
from pathlib import Path
from tests import temporary
temporary.FREE_BYTES_MIN = int(sys.argv[2])
temporary.use_memory(Path(sys.argv[1]))
Path(tempfile.mkdtemp(), "file").touch()
print(tempfile.gettempdir(), flush=True)
sys.stdin.read()
"""
LATER = 61.0


@contextmanager
def a_run(
    memory: Path, *, free: int = 1, **environ: str
) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """A process that uses the memory, and its folder; it ends with its input."""
    kept = {name: value for name, value in os.environ.items() if name != "TMPDIR"}
    with subprocess.Popen(
        [sys.executable, "-c", RUN, str(memory), str(free)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=kept | environ,
    ) as process:  # fmt: skip
        assert process.stdout
        yield Path(process.stdout.readline().strip()), process


def test_the_folder_goes_when_the_run_ends(tmp_path: Path) -> None:
    with a_run(tmp_path) as (folder, _):
        assert folder.parent == tmp_path
        assert folder.stat().st_mode & 0o7777 == 0o1777
    assert list(tmp_path.iterdir()) == []


def test_the_next_run_removes_what_a_killed_one_left_and_nothing_of_a_living_one(
    tmp_path: Path,
) -> None:
    with a_run(tmp_path) as (dead, process):
        process.kill()
        process.wait()
    with a_run(tmp_path) as (living, _):
        temporary.sweep(tmp_path, now=time.time())
        assert dead.is_dir(), "it might be about to lock it"
        temporary.sweep(tmp_path, now=time.time() + LATER)
        assert not dead.exists()
        assert any(living.glob("*/file"))


def test_who_says_where_things_go_is_heard(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    with a_run(tmp_path, TMPDIR=str(mine)) as (folder, _):
        assert folder == mine


def test_too_little_memory_is_left_alone(tmp_path: Path) -> None:
    with a_run(tmp_path, free=1 << 60) as (folder, _):
        assert tmp_path not in folder.parents


@pytest.mark.parametrize("place", ["/no/such/folder", "/proc"])
def test_what_is_no_place_for_programs_has_no_room(place: str) -> None:
    assert temporary.free_bytes(Path(place)) == 0
