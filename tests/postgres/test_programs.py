"""Programs: bounded in time and words, run as the right account, never left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from postgres.account import server_account
from postgres.errors import PostgresError
from postgres.programs import run_program

ROOT = Path(__file__).parents[2]
SOON = timedelta(seconds=30)


def alive(mark: str) -> list[int]:
    """Processes whose command line holds the mark."""
    return [
        process.pid
        for process in psutil.process_iter(["cmdline", "status"])
        if mark in " ".join(process.info["cmdline"] or ())
        and process.info["status"] != psutil.STATUS_ZOMBIE
    ]


async def gone(mark: str) -> bool:
    end = time.monotonic() + 30
    while alive(mark):
        if time.monotonic() > end:
            return False
        await asyncio.sleep(0.02)
    return True


async def test_a_program_says_how_it_ended() -> None:
    done = await run_program(
        ["/bin/sh", "-c", "echo out; echo 'x: error: bad' >&2; exit 3"], time_limit=SOON
    )
    assert (done.code, done.stdout, done.stderr) == (3, "out\n", "x: error: bad\n")
    assert done.last_words == "bad"


async def test_a_silent_failure_still_has_last_words() -> None:
    done = await run_program(["/bin/sh", "-c", "exit 4"], time_limit=SOON)
    assert done.last_words == "exit code 4"


async def test_it_runs_as_the_server_account_or_as_ourselves() -> None:
    account = server_account()
    expected = account.uid if account else os.geteuid()
    done = await run_program(["/usr/bin/id", "-u"], time_limit=SOON)
    assert int(done.stdout) == expected
    done = await run_program(["/usr/bin/id", "-u"], time_limit=SOON, as_server=False)
    assert int(done.stdout) == os.geteuid()


async def test_nothing_of_our_environment_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "ours")
    done = await run_program(["/usr/bin/env"], time_limit=SOON, environ={"PGUSER": "bob"})
    assert "PGPASSWORD" not in done.stdout
    assert "PGUSER=bob" in done.stdout


async def test_only_the_end_of_long_output_is_kept() -> None:
    done = await run_program(
        ["/bin/sh", "-c", "head -c 5000000 /dev/zero | tr '\\0' x; echo end"], time_limit=SOON
    )
    assert len(done.stdout) == 64_000
    assert done.stdout.endswith("xend\n")


async def test_lines_of_standard_error_are_told_as_they_come() -> None:
    lines: list[str] = []
    await run_program(
        ["/bin/sh", "-c", "printf '10%%\\r20%%\\rdone\\n' >&2"],
        time_limit=SOON,
        on_line=lines.append,
    )
    assert lines == ["10%", "20%", "done"]


async def test_a_program_that_takes_too_long_is_ended_with_its_children() -> None:
    with pytest.raises(PostgresError, match="sh did not end within 0 seconds") as refusal:
        await run_program(
            ["/bin/sh", "-c", "sleep 4711.1 & sleep 4711.1; true"],
            time_limit=timedelta(seconds=0.3),
        )
    assert refusal.value.next_step
    assert await gone("sleep 4711.1")


async def test_a_program_that_ignores_the_polite_signal_is_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("postgres.programs._GRACE_SECONDS", 0.2)
    with pytest.raises(PostgresError):
        await run_program(
            ["/bin/sh", "-c", "trap '' TERM; while :; do sleep 4711.2; done"],
            time_limit=timedelta(seconds=0.3),
        )
    assert await gone("sleep 4711.2")


async def test_a_cancelled_caller_ends_the_program_and_its_children() -> None:
    task = asyncio.create_task(
        run_program(["/bin/sh", "-c", "sleep 4711.3 & sleep 4711.3; true"], time_limit=SOON)
    )
    while not alive("sleep 4711.3"):
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await gone("sleep 4711.3")


async def test_a_child_that_keeps_the_output_open_does_not_keep_us_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("postgres.programs._GRACE_SECONDS", 0.2)
    done = await run_program(["/bin/sh", "-c", "sleep 3 & echo out"], time_limit=SOON)
    assert done.stdout == "out\n"
    assert done.seconds < 3


async def test_of_a_long_answer_as_much_is_kept_as_was_asked_for() -> None:
    command = ["/bin/sh", "-c", "yes 123456789 | head -c 1000000; echo end"]
    usual = await run_program(command, time_limit=SOON)
    assert len(usual.stdout) == 64_000
    assert usual.stdout.endswith("end\n")
    long = await run_program(command, time_limit=SOON, stdout_bytes_max=2_000_000)
    assert len(long.stdout) == 1_000_004


async def test_a_missing_program_is_said(home: Path) -> None:
    with pytest.raises(PostgresError, match="cannot be started: No such file"):
        await run_program([home / "none"], time_limit=SOON)


CHILD = """
import asyncio
from datetime import timedelta
from postgres.programs import run_program

asyncio.run(run_program(["/bin/sleep", "4711.4"], time_limit=timedelta(minutes=1)))
"""


@pytest.mark.chaos
async def test_no_program_outlives_a_killed_caller() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CHILD], env={**os.environ, "PYTHONPATH": str(ROOT)}
    ) as caller:
        while not alive("sleep 4711.4"):
            assert caller.poll() is None
            await asyncio.sleep(0.02)
        caller.send_signal(signal.SIGKILL)
    assert await gone("/bin/sleep 4711.4")
