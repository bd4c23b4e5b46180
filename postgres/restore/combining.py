"""Lay an incremental backup out: every link of its chain unpacked, and made one by PostgreSQL.

In the work folder, besides what `laying` names:

    scratch/part-0/   the full backup, and one such folder for each incremental; removed then
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from postgres.account import Account, server_account
from postgres.backup.engine import OnText
from postgres.backup.facts import BackupFacts, FileFact
from postgres.backup.source import read_manifest
from postgres.binaries import Binaries
from postgres.errors import DamagedError, PostgresError
from postgres.programs import run_program
from postgres.restore.folders import disk_error, remove_scratch, scratch_folder
from postgres.restore.laying import (
    check_key,
    check_programs,
    check_room,
    make_closed,
    unpack_into,
    wal_bytes,
)

LIMIT: Final = timedelta(hours=12)
_NO_SPACE: Final = "No space left on device"


async def combine(
    binaries: Binaries,
    folder: Path,
    chain: Sequence[BackupFacts],
    work_folder: Path,
    *,
    identity: SecretStr | None = None,
    on_step: OnText | None = None,
) -> tuple[FileFact, ...]:
    """Lay out the last backup of a chain, whose links are in `folder`; what was read of the last.

    The older links are compared with what was written of them here, by their SHA-256.

    Raises:
        DamagedError: a link is damaged, or they do not belong together.
        WrongKeyError: one is encrypted, and this is not its key.
        PostgresError: there is no room, or PostgreSQL is of another major version.
    """
    for facts in chain:
        check_programs(binaries, facts)
        check_key(facts, identity)
    binaries.program("pg_combinebackup")
    await remove_scratch(work_folder)
    goal = scratch_folder(work_folder)
    try:
        check_room(goal, chain[-1], _room(folder, chain))
        make_closed(goal)
        read = await _unpack_all(folder, chain, goal, identity, on_step)
        if on_step:
            await on_step(f"Combining {len(chain)} backups")
        await _combine(binaries, goal, len(chain))
        await asyncio.to_thread(_tidy, goal, len(chain), server_account())
    except OSError as error:
        raise disk_error(goal, error) from error
    return read


def _room(folder: Path, chain: Sequence[BackupFacts]) -> int:
    """All that was copied for each link, and the whole once more."""
    try:
        copied = sum(
            read_manifest(folder / link.id / "backup_manifest").data_bytes for link in chain
        )
    except PostgresError as error:
        raise DamagedError(error.problem) from error
    return copied + chain[-1].data_bytes + wal_bytes(chain[-1])


async def _unpack_all(
    folder: Path,
    chain: Sequence[BackupFacts],
    goal: Path,
    identity: SecretStr | None,
    on_step: OnText | None,
) -> tuple[FileFact, ...]:
    read: tuple[FileFact, ...] = ()
    for number, facts in enumerate(chain):
        if on_step:
            await on_step(f"Unpacking {facts.id} ({number + 1} of {len(chain)})")
        is_last, part = number == len(chain) - 1, _part(goal, number)
        make_closed(part)
        try:
            read = await unpack_into(folder / facts.id, facts, part, identity=identity, wal=is_last)
        except DamagedError as error:
            raise DamagedError(f"{facts.id}: {error}") from error
        wrong = [file.name for file in read if file not in facts.files]
        if wrong and not is_last:
            raise DamagedError(
                f"{facts.id}: {wrong[0]} is not what was written: its SHA-256 differs"
            )
    return read


async def _combine(binaries: Binaries, goal: Path, links: int) -> None:
    last = _part(goal, links - 1)
    moved = [
        f"--tablespace-mapping={place}={goal / 'tblspc' / place.name}"
        for place in sorted((last / "tblspc").iterdir())
    ]
    done = await run_program(
        [
            binaries.program("pg_combinebackup"),
            *(_part(goal, number) / "data" for number in range(links)),
            *("--output", goal / "data", "--manifest-checksums=SHA256", "--no-sync"),
            *moved,
        ],
        time_limit=LIMIT,
        as_server=False,
    )
    if done.code and _NO_SPACE in done.stderr:
        raise OSError(_NO_SPACE)
    if done.code < 0:
        raise PostgresError(
            f"pg_combinebackup was ended by signal {-done.code}.",
            next_step="See who ended it (the kernel's log names a lack of memory), try again.",
        )
    if done.code:
        raise DamagedError(f"pg_combinebackup refused the chain: {done.last_words}")


def _tidy(goal: Path, links: int, account: Account | None) -> None:
    """Remove the parts, and give what was written by us to the server account."""
    for number in range(links):
        shutil.rmtree(_part(goal, number))
    if account is None:
        return
    for top in (goal / "data", goal / "tblspc"):
        for folder, folders, files in os.walk(top):
            for name in (*folders, *files):
                os.chown(Path(folder, name), account.uid, account.gid, follow_symlinks=False)


def _part(goal: Path, number: int) -> Path:
    return goal / f"part-{number}"
