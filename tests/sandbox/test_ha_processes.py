"""Hosts are told apart by where their processes work, and what is left of them is ended."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sandbox import ha_processes
from sandbox.ha_processes import (
    end_all,
    freeze_all,
    is_alive,
    is_zombie,
    start_keeper,
    thaw_all,
    working_in,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc tells where they work")
SECONDS_MAX = 30
SLEEP = shutil.which("sleep") or "/bin/sleep"


@contextmanager
def sleeper(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that works in the folder, without a terminal."""
    folder.mkdir(exist_ok=True)
    child = subprocess.Popen([SLEEP, "300"], cwd=folder, start_new_session=True)
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def wait_for(happened: Callable[[], object]) -> None:
    end = time.monotonic() + SECONDS_MAX
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_host_is_what_works_in_its_folders(tmp_path: Path) -> None:
    with sleeper(tmp_path / "a") as mine, sleeper(tmp_path / "b") as other:
        assert working_in([tmp_path / "a"]) == [mine.pid]
        assert is_alive(mine.pid, tmp_path / "a")
        assert not is_alive(other.pid, tmp_path / "a")
        end_all([tmp_path / "a"])
        assert mine.wait(timeout=SECONDS_MAX) == -signal.SIGKILL
        assert other.poll() is None


def test_a_killed_process_that_nobody_asked_about_is_no_living_one(tmp_path: Path) -> None:
    with sleeper(tmp_path / "a") as mine:
        os.kill(mine.pid, signal.SIGKILL)
        wait_for(lambda: is_zombie(mine.pid))
        assert not is_alive(mine.pid, tmp_path / "a")
        assert working_in([tmp_path / "a"]) == []
        mine.wait()
        assert not is_zombie(mine.pid)


def test_a_frozen_host_goes_on_after_a_thaw_and_can_be_ended_without_one(tmp_path: Path) -> None:
    with sleeper(tmp_path / "a") as mine:
        freeze_all([tmp_path / "a"])
        wait_for(lambda: state(mine.pid) == "T")
        thaw_all([tmp_path / "a"])
        wait_for(lambda: state(mine.pid) == "S")
        freeze_all([tmp_path / "a"])
        end_all([tmp_path / "a"])
        assert mine.wait(timeout=SECONDS_MAX) == -signal.SIGKILL


def test_somebodys_shell_in_a_data_folder_is_left_alone(tmp_path: Path) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        os.execv(SLEEP, [SLEEP, "300"])  # noqa: S606  (the child of a fork)
    try:
        wait_for(lambda: is_alive(pid, tmp_path))
        assert working_in([tmp_path]) == []
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)


HOLDER = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import ha_processes
ha_processes.start_keeper([Path(sys.argv[2])])
print("ready", flush=True)
time.sleep(300)
"""


def test_the_keeper_ends_what_outlives_its_starter_however_that_ends(tmp_path: Path) -> None:
    folder = Path(ha_processes.__file__).parent
    with sleeper(tmp_path / "a") as mine, sleeper(tmp_path / "b") as other:
        command = [sys.executable, "-c", HOLDER, str(folder), str(tmp_path / "a")]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
            assert holder.stdout
            assert holder.stdout.readline() == b"ready\n"
            assert mine.poll() is None
            holder.kill()
        assert mine.wait(timeout=SECONDS_MAX) == -signal.SIGKILL
        assert other.poll() is None


def test_the_keeper_ends_with_what_it_keeps_when_it_is_told_to(tmp_path: Path) -> None:
    with sleeper(tmp_path / "a") as mine:
        keeper = start_keeper([tmp_path / "a"])
        assert keeper.stdin
        keeper.stdin.close()
        assert keeper.wait(timeout=SECONDS_MAX) == 0
        assert mine.wait(timeout=SECONDS_MAX) == -signal.SIGKILL
