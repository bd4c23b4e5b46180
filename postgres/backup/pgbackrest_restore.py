"""Lay a backup of pgBackRest out as a data folder, without touching what is in production.

All that it writes goes below the work folder: data, tablespaces, even its lock, so that a
restore for a check neither waits for one in earnest nor is in its way.
"""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Final

from postgres.account import make_private, server_account
from postgres.backup.engine import LaidOut, OnText
from postgres.backup.facts import BackupFacts
from postgres.backup.parity import parity_of
from postgres.backup.pgbackrest_json import Taken
from postgres.backup.pgbackrest_program import CHECKSUM, PgBackRest, failure, home
from postgres.backup.source import wal_files
from postgres.binaries import find_binaries
from postgres.errors import DamagedError
from postgres.restore.folders import disk_error, give, remove_scratch, scratch_folder
from postgres.restore.laying import check_room, make_closed

RESTORE_LIMIT: Final = timedelta(hours=24)
_FETCHED_AT_ONCE_MAX: Final = 4
_NO_SPACE: Final = "No space left on device"


async def lay_out_pgbackrest(
    program: PgBackRest,
    taken: Taken,
    facts: BackupFacts,
    work_folder: Path,
    *,
    environ: Mapping[str, str],
    workers: int,
    on_step: OnText | None,
) -> LaidOut:
    """Restore a backup into the work folder, with the WAL that it needs to start.

    Raises:
        DamagedError: a file is not what was written, or WAL is missing.
        PostgresError: no room, no fitting PostgreSQL, or the repository cannot be reached.
    """
    binaries = await asyncio.to_thread(find_binaries, environ, major=facts.major)
    await remove_scratch(work_folder)
    folder = scratch_folder(work_folder)
    await asyncio.to_thread(_prepare, folder, taken, facts)
    if on_step:
        await on_step(f"Restoring {facts.id} with pgBackRest")
    await _restore(program, taken, folder, workers=workers)
    own = _options(folder)
    if on_step:
        await on_step("Fetching its WAL")
    await _fetch(program, facts, folder, own)
    command = program.command("archive-get", *own, "--log-level-file=off")
    settings = {
        **await parity_of(binaries, folder / "data"),
        # PostgreSQL replaces %f and %p, so a percent sign of ours is doubled.
        "restore_command": shlex.join(["env", f"HOME={home()}", *command]).replace("%", "%%")
        + ' %f "%p"',
    }
    return LaidOut(data=folder / "data", settings=settings)


def _options(folder: Path) -> tuple[str, ...]:
    """What keeps a copy's commands apart from those of the original."""
    return (
        f"--pg1-path={folder / 'data'}",
        f"--lock-path={folder / 'lock'}",
        "--no-archive-async",
        "--repo=1",
    )


def _prepare(folder: Path, taken: Taken, facts: BackupFacts) -> None:
    """Empty folders with room for the backup, which the server account alone can enter."""
    try:
        check_room(folder, facts, facts.data_bytes)
        make_closed(folder)
        make_private(folder / "lock", server_account())
        for oid in taken.tablespaces:
            (folder / "tblspc" / str(oid)).mkdir(mode=0o700)
            give(folder / "tblspc" / str(oid))
        (folder / "tblspc").chmod(0o711)
        give(folder / "data")
    except OSError as error:
        raise disk_error(folder, error) from error


async def _restore(program: PgBackRest, taken: Taken, folder: Path, *, workers: int) -> None:
    done = await program.run(
        "restore",
        f"--set={taken.label}",
        f"--pg1-path={folder / 'data'}",
        f"--lock-path={folder / 'lock'}",
        *(f"--tablespace-map={oid}={folder / 'tblspc' / str(oid)}" for oid in taken.tablespaces),
        "--type=none",
        "--archive-mode=off",
        "--repo=1",
        f"--process-max={max(workers, 1)}",
        "--log-level-file=off",
        time_limit=RESTORE_LIMIT,
    )
    if not done.code:
        return
    error = failure("restore", done)
    if _NO_SPACE in done.stderr:
        raise disk_error(folder, OSError(_NO_SPACE))
    if done.code == CHECKSUM or re.search(r"ERROR: \[0?(26|29)\]", done.stderr):
        raise DamagedError(error.problem)
    raise error


async def _fetch(
    program: PgBackRest, facts: BackupFacts, folder: Path, own: tuple[str, ...]
) -> None:
    """The WAL of the backup itself, so that it starts without any recovery being asked for."""
    turns = asyncio.Semaphore(_FETCHED_AT_ONCE_MAX)

    async def fetch(name: str) -> None:
        async with turns:
            goal = folder / "data" / "pg_wal" / name
            options = (*own, "--log-level-file=off")
            done = await program.run("archive-get", *options, arguments=(name, str(goal)))
        if done.code:
            said = failure("archive-get", done).problem if done.code != 1 else "it is missing"
            raise DamagedError(f"WAL {name} cannot be had from the archive: {said}")

    names = wal_files(facts.start_wal, facts.end_wal, facts.wal_segment_bytes)
    # gather, not a group: the first error is the one to tell, and all end by themselves.
    for outcome in await asyncio.gather(*map(fetch, names), return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome
