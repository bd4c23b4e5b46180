"""Lay a logical backup out: a new cluster, its roles, and `pg_restore` of every database.

In the work folder, besides what `laying` names:

    scratch/dump/   what was unpacked of the backup; removed then

Tablespaces, subscriptions and passwords of roles are not restored: the first two would reach
out of the copy, the last are in no logical backup.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Final

from pydantic import SecretStr, ValidationError

from postgres.account import make_private, server_account
from postgres.backup.engine import OnText
from postgres.backup.facts import BackupFacts, FileFact
from postgres.backup.hashing import hash_file
from postgres.backup.logical import GLOBALS, INDEX, DumpedDatabase, DumpIndex
from postgres.backup.sealing import SEALED, open_sealed
from postgres.binaries import Binaries
from postgres.connect import connection
from postgres.dsn import parse_dsn
from postgres.errors import DamagedError, PostgresError
from postgres.programs import Finished, run_program
from postgres.restore.folders import disk_error, give, remove_scratch, scratch_folder
from postgres.restore.laying import check_key, check_programs, check_room, make_closed
from postgres.restore.scratch import start_scratch
from postgres.restore.unpack import unpack_archives
from postgres.server import Server

LIMIT: Final = timedelta(hours=24)
_INITDB_LIMIT: Final = timedelta(minutes=5)
_STOP_LIMIT: Final = timedelta(minutes=30)
_JOBS_MAX: Final = 8
_NO_SPACE: Final = "No space left on device"
# What the machine lacks, not what the backup lacks.
_SURROUNDINGS: Final = (
    "is not available",  # an extension
    "could not access file",  # its library
    "invalid locale name",
    "could not create locale",
    "could not open collator",
    "could not load library",
)


async def load(
    binaries: Binaries,
    backup: Path,
    facts: BackupFacts,
    work_folder: Path,
    *,
    identity: SecretStr | None = None,
    on_step: OnText | None = None,
) -> tuple[FileFact, ...]:
    """Make a data folder of a logical backup in the work folder; what was read of the backup.

    Raises:
        DamagedError: a file is damaged or missing, or pg_restore refuses what is in it.
        WrongKeyError: it is encrypted, and this is not its key.
        PostgresError: there is no room, no such PostgreSQL, or an extension or a locale that
            the databases need is missing here.
    """
    check_programs(binaries, facts)
    check_key(facts, identity)
    for name in ("psql", "pg_restore"):
        binaries.program(name)
    await remove_scratch(work_folder)
    folder = scratch_folder(work_folder)
    try:
        check_room(folder, facts, facts.data_bytes + facts.size_bytes)
        make_closed(folder)
        make_private(folder / "dump", server_account())
        index = await asyncio.to_thread(_check_and_copy, backup, facts, folder / "dump", identity)
        read = await unpack_archives(
            [(backup / one.archive, _place(folder, one)) for one in index.databases],
            server_account(),
            identity,
        )
        await _fill(binaries, facts, work_folder, index, on_step)
        await asyncio.to_thread(shutil.rmtree, folder / "dump")
    except OSError as error:
        raise disk_error(folder, error) from error
    return read


def _check_and_copy(
    backup: Path, facts: BackupFacts, goal: Path, identity: SecretStr | None
) -> DumpIndex:
    """Compare all files with their hashes first: what is in them is run as a superuser."""
    for file in facts.files:
        path = backup / file.name
        if not path.is_file():
            raise DamagedError(f"{file.name} is missing")
        if hash_file(path) != file:
            raise DamagedError(f"{file.name} is not what was written: its SHA-256 differs")
    (goal / GLOBALS).write_bytes(_small(backup, GLOBALS, identity))
    give(goal / GLOBALS)
    try:
        index = DumpIndex.model_validate_json(_small(backup, INDEX, identity))
    except ValidationError as error:
        raise DamagedError(f"{INDEX} cannot be understood") from error
    names = {file.name for file in facts.files}
    if strangers := [one.archive for one in index.databases if one.archive not in names]:
        raise DamagedError(f"{INDEX} names {strangers[0]}, which is none of the backup's files")
    for one in index.databases:
        make_private(_place(goal.parent, one), server_account())
    return index


def _small(backup: Path, name: str, identity: SecretStr | None) -> bytes:
    sealed = backup / f"{name}{SEALED}"
    if identity is not None and sealed.exists():
        with open_sealed(sealed, identity) as reader:
            return reader.read()
    try:
        return (backup / name).read_bytes()
    except FileNotFoundError:
        raise DamagedError(f"{name} is missing") from None


def _place(folder: Path, one: DumpedDatabase) -> Path:
    return folder / "dump" / one.archive.split(".")[0]


async def _fill(
    binaries: Binaries,
    facts: BackupFacts,
    work_folder: Path,
    index: DumpIndex,
    on_step: OnText | None,
) -> None:
    folder = scratch_folder(work_folder)
    await _initdb(binaries, facts, folder / "data")
    server = await start_scratch(binaries, facts, work_folder)
    try:
        await _load_globals(server, facts, folder / "dump" / GLOBALS)
        for number, one in enumerate(index.databases):
            if on_step:
                await on_step(f"Loading {one.name} ({number + 1} of {len(index.databases)})")
            await _load_database(server, facts, _place(folder, one), one.name)
        await server.stop("fast", time_limit=_STOP_LIMIT)
    except BaseException:
        await asyncio.shield(server.stop("immediate"))
        raise


async def _initdb(binaries: Binaries, facts: BackupFacts, data: Path) -> None:
    """Databases bring their own encoding and locale; this one's are of the templates alone."""
    give(data)
    done = await run_program(
        [
            binaries.program("initdb"),
            *("--pgdata", data, "--username", facts.superuser, "--auth=trust"),
            *("--encoding=UTF8", "--locale=C", "--no-sync"),
            f"--wal-segsize={facts.wal_segment_bytes // 1024**2}",
            *(["--data-checksums"] if facts.page_checksums else ()),
        ],
        time_limit=_INITDB_LIMIT,
    )
    if done.code:
        raise PostgresError(
            f"initdb could not make {data}: {done.last_words}",
            next_step="Mend what it names (often a full disk), then try again.",
        )


async def _load_globals(server: Server, facts: BackupFacts, path: Path) -> None:
    """All roles but the one that exists: the cluster was made with it."""
    target = parse_dsn(server.dsn("postgres", facts.superuser))
    async with connection(target) as conn:
        own = await conn.fetchval("SELECT format('CREATE ROLE %I;', $1::text)", facts.superuser)
    await asyncio.to_thread(_leave_out, path, str(own))
    done = await run_program(
        [
            server.binaries.program("psql"),
            *("--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--single-transaction"),
            *("--output=/dev/null", "--file", path),
        ],
        time_limit=_INITDB_LIMIT,
        environ=target.environ(),
    )
    if done.code:
        raise DamagedError(f"the roles could not be restored: {done.last_words}")


def _leave_out(path: Path, unwanted: str) -> None:
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if line.rstrip("\n") != unwanted))


async def _load_database(server: Server, facts: BackupFacts, place: Path, name: str) -> None:
    """Created anew by pg_restore, with its encoding, locale, owner and settings."""
    done = await run_program(
        [
            server.binaries.program("pg_restore"),
            *("--clean", "--if-exists", "--create", "--exit-on-error"),
            *("--no-tablespaces", "--no-subscriptions", "--no-password"),
            f"--jobs={min(_JOBS_MAX, os.cpu_count() or 1)}",
            *("--dbname", "template1", place),
        ],
        time_limit=LIMIT,
        environ=parse_dsn(server.dsn("template1", facts.superuser)).environ(),
    )
    if done.code:
        raise _failure(name, done)


def _failure(name: str, done: Finished) -> DamagedError | PostgresError | OSError:
    said = done.stderr
    if _NO_SPACE in said:
        return OSError(_NO_SPACE)
    if any(text in said for text in _SURROUNDINGS):
        return PostgresError(
            f"{name} cannot be restored on this machine: {done.last_words}",
            next_step="Install the extension or the locale that it names, then try again.",
        )
    return DamagedError(f"{name} could not be restored: {done.last_words}")
