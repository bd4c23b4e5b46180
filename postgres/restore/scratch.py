"""A throw-away server from a backup: restored, isolated, started, and always removed.

It listens on a private socket alone, runs with none of the original's configuration, archives
nothing, follows nobody, and starts no background work of extensions: a copy of production must
never act as production.

    <work folder>/scratch/data      the restored data folder
    <work folder>/scratch/tblspc/   its tablespaces
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Final

from postgres.account import OPEN_HOME, make_open, reachable, server_account
from postgres.backup.facts import BackupFacts, FileFact, read_facts
from postgres.backup.source import wal_files
from postgres.binaries import Binaries
from postgres.dsn import Target, parse_dsn
from postgres.errors import PostgresError
from postgres.layout import Layout, Notes
from postgres.ports import free_port
from postgres.postmaster import live_postmaster
from postgres.process import send
from postgres.programs import Finished, run_program
from postgres.restore.unpack import DamagedError, unpack_archives
from postgres.server import Server
from postgres.sizes import pretty_bytes

START_LIMIT: Final = timedelta(hours=2)
VERIFY_LIMIT: Final = timedelta(hours=12)
_STOP_SECONDS: Final = 10.0
_LOOK_EVERY_SECONDS: Final = 0.05
_MARGIN_BYTES: Final = 256 * 1024 * 1024
_ARCHIVES: Final = (".tar", ".tar.gz", ".tar.zst")
_NO_SPACE: Final = "No space left on device"
_FIRST_WITH_EVENT_TRIGGERS_SWITCH: Final = 17
# Durability is off: nobody keeps this data, and it is gone after a power cut anyway.
_ISOLATION: Final[Mapping[str, str]] = MappingProxyType(
    {
        "listen_addresses": "",
        "archive_mode": "off",
        "archive_command": "",
        "restore_command": "",
        "primary_conninfo": "",
        "primary_slot_name": "",
        "shared_preload_libraries": "",
        "session_preload_libraries": "",
        "local_preload_libraries": "",
        "max_logical_replication_workers": "0",
        "autovacuum": "off",
        "ssl": "off",
        "jit": "off",
        "fsync": "off",
        "full_page_writes": "off",
        "synchronous_commit": "off",
        "checkpoint_timeout": "1h",
        "max_wal_size": "16GB",
        "shared_buffers": "128MB",
        "maintenance_work_mem": "256MB",
    }
)
_LEFT_OUT: Final = ("standby.signal", "recovery.signal")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScratchServer:
    """A restored server that takes connections.

    `restore_seconds` is from the first byte unpacked until it took connections.
    """

    server: Server
    facts: BackupFacts
    restore_seconds: float

    @property
    def target(self) -> Target:
        """The database that was backed up, as the superuser."""
        return parse_dsn(self.server.dsn(self.facts.database, self.facts.superuser))


@asynccontextmanager
async def scratch_server(
    binaries: Binaries,
    backup: Path,
    work_folder: Path,
    *,
    settings: Mapping[str, str] | None = None,
) -> AsyncIterator[ScratchServer]:
    """Restore the backup in the folder `backup`, start it, and remove all of it at the end.

    `settings` override those of the scratch server.

    Raises:
        PostgresError: the backup is damaged, or there is no room or no fitting PostgreSQL.
    """
    facts = _read(backup)
    began = time.monotonic()
    server: Server | None = None
    try:
        try:
            await unpack(binaries, backup, facts, work_folder)
            _believe(await pg_verifybackup(binaries, work_folder))
            server = await start_scratch(binaries, facts, work_folder, settings=settings)
        except DamagedError as error:
            raise PostgresError(
                f"The backup {backup.name} is damaged: {str(error).removesuffix('.')}.",
                next_step="Restore an older backup, and take a new one.",
            ) from error
        yield ScratchServer(
            server=server, facts=facts, restore_seconds=round(time.monotonic() - began, 3)
        )
    finally:
        if server is not None:
            await asyncio.shield(server.stop("immediate"))
        await remove_scratch(work_folder)


async def unpack(
    binaries: Binaries, backup: Path, facts: BackupFacts, work_folder: Path
) -> tuple[FileFact, ...]:
    """Unpack a backup into the work folder, closed to everybody else; what was read of it.

    Whatever an earlier attempt left there is removed first.

    Raises:
        DamagedError: an archive is damaged or missing.
        PostgresError: there is no room, or PostgreSQL is of another major version.
    """
    if binaries.major != facts.major:
        raise PostgresError(
            f"The backup {facts.id} is of PostgreSQL {facts.major}, but the programs here are of "
            f"{binaries.major}.",
            next_step=f"Install PostgreSQL {facts.major}, or name it in TWOKEY_PG_BIN.",
        )
    await remove_scratch(work_folder)
    folder = _folder(work_folder)
    try:
        _check_room(folder, facts)
        _make_closed(folder)
        read = await unpack_archives(_archives(backup, facts, folder), server_account())
        _copy_manifest(backup, folder)
        _link_tablespaces(folder)
    except OSError as error:
        raise _disk_error(folder, error) from error
    return read


def missing_wal(facts: BackupFacts, work_folder: Path) -> list[str]:
    """The WAL files that a start from this backup needs and that were not in it."""
    folder = _folder(work_folder) / "data" / "pg_wal"
    needed = wal_files(facts.start_wal, facts.end_wal, facts.wal_segment_bytes)
    return [name for name in needed if not (folder / name).is_file()]


async def pg_verifybackup(binaries: Binaries, work_folder: Path) -> Finished:
    """Compare the unpacked files with PostgreSQL's own manifest; only before the first start."""
    data = _folder(work_folder) / "data"
    return await run_program(
        [binaries.program("pg_verifybackup"), "--quiet", data],
        time_limit=VERIFY_LIMIT,
        as_server=False,
    )


async def start_scratch(
    binaries: Binaries,
    facts: BackupFacts,
    work_folder: Path,
    *,
    settings: Mapping[str, str] | None = None,
    time_limit: timedelta = START_LIMIT,
) -> Server:
    """Start what was unpacked, in isolation, and wait until it takes connections.

    Raises:
        DamagedError: it does not start, as when WAL is missing.
        PostgresError: the disk is full.
    """
    folder = _folder(work_folder)
    layout = Layout(data=folder / "data", named=folder / "data")
    try:
        _rewrite_tablespace_map(folder)
        _forget_origin(layout.data)
        _hand_over(folder)
        layout.make_run()
        notes = Notes(
            port=free_port(),
            pinned=False,
            sockets=str(layout.choose_sockets(server_account())),
            settings={**facts.settings, **_isolation(facts.major), **(settings or {})},
            isolated=True,
        )
        layout.save(notes)
    except OSError as error:
        raise _disk_error(folder, error) from error
    server = Server(binaries=binaries, layout=layout, notes=notes)
    try:
        await server.start(time_limit=time_limit)
    except PostgresError as error:
        if _NO_SPACE in error.problem:
            raise _disk_error(folder, OSError(_NO_SPACE)) from error
        raise DamagedError(error.problem) from error
    return server


async def remove_scratch(work_folder: Path) -> None:
    """Stop and remove a scratch server, also one that a dead process left; harmless otherwise."""
    folder = _folder(work_folder)
    if not folder.exists():
        return
    data = folder / "data"
    if live_postmaster(data):
        await asyncio.shield(_stop(data))
    await asyncio.shield(asyncio.to_thread(_remove, folder))


def _believe(proof: Finished) -> None:
    if proof.code:
        raise DamagedError(proof.last_words)


def _folder(work_folder: Path) -> Path:
    return reachable(work_folder / "scratch", server_account())


def _read(backup: Path) -> BackupFacts:
    try:
        return read_facts(backup)
    except FileNotFoundError as error:
        raise PostgresError(
            f"There is no backup in {backup}.",
            next_step="List the backups, and name one of them.",
        ) from error


def _check_room(folder: Path, facts: BackupFacts) -> None:
    wal_bytes = sum(file.size_bytes for file in facts.files if file.name.startswith("pg_wal"))
    needed = facts.data_bytes + wal_bytes + facts.data_bytes // 20 + _MARGIN_BYTES
    parent = next(part for part in folder.parents if part.exists())
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise PostgresError(
            f"Restoring {facts.id} needs {pretty_bytes(needed)}, but {parent} has "
            f"{pretty_bytes(free)} free.",
            next_step="Free some space there, or set TWOKEY_HOME to a larger disk.",
        )


def _make_closed(folder: Path) -> None:
    """Folders that only we can enter until they are handed over."""
    make_open(folder, server_account())
    (folder / "tblspc").mkdir(mode=0o700)
    (folder / "data").mkdir(mode=0o700)


def _archives(backup: Path, facts: BackupFacts, folder: Path) -> list[tuple[Path, Path]]:
    """Every archive and where it goes; base first, as it brings the folders of the others."""
    names = sorted(
        (file.name for file in facts.files if file.name.endswith(_ARCHIVES)),
        key=lambda name: (not name.startswith("base."), name),
    )
    if not names or not names[0].startswith("base."):
        raise DamagedError("its facts name no base archive")
    found = []
    for name in names:
        if not (backup / name).is_file():
            raise DamagedError(f"{name} is missing")
        found.append((backup / name, _goal(folder, name.split(".")[0])))
    return found


def _goal(folder: Path, stem: str) -> Path:
    match stem:
        case "base":
            return folder / "data"
        case "pg_wal":
            return folder / "data" / "pg_wal"
        case oid if oid.isdigit():
            return folder / "tblspc" / oid
        case _:
            raise DamagedError(f"its facts name an archive that is none of PostgreSQL's: {stem}")


def _copy_manifest(backup: Path, folder: Path) -> None:
    try:
        shutil.copyfile(backup / "backup_manifest", folder / "data" / "backup_manifest")
    except FileNotFoundError:
        raise DamagedError("backup_manifest is missing") from None


def _link_tablespaces(folder: Path) -> None:
    for place in (folder / "tblspc").iterdir():
        link = folder / "data" / "pg_tblspc" / place.name
        link.symlink_to(place)
        _give(link)


def _rewrite_tablespace_map(folder: Path) -> None:
    """Point at our own copies: the original's paths may be those of a live server here."""
    places = sorted((folder / "tblspc").iterdir())
    if places:
        lines = "".join(f"{place.name} {place}\n" for place in places)
        (folder / "data" / "tablespace_map").write_text(lines)


def _forget_origin(data: Path) -> None:
    """Nothing that the original was told may act here; `server.conf` says everything."""
    for name in _LEFT_OUT:
        (data / name).unlink(missing_ok=True)
    # PostgreSQL reads it after all others; it need not exist, but ALTER SYSTEM wants it.
    (data / "postgresql.auto.conf").write_text("")


def _isolation(major: int) -> Mapping[str, str]:
    if major < _FIRST_WITH_EVENT_TRIGGERS_SWITCH:
        return _ISOLATION
    return {**_ISOLATION, "event_triggers": "off"}


def _hand_over(folder: Path) -> None:
    """From here on the server account can enter."""
    for name in ("backup_manifest", "postgresql.auto.conf", "tablespace_map"):
        if (folder / "data" / name).exists():
            _give(folder / "data" / name)
    for place in (folder / "tblspc").iterdir():
        _give(place)
    (folder / "tblspc").chmod(0o711)
    _give(folder / "data")


def _give(path: Path) -> None:
    if account := server_account():
        os.chown(path, account.uid, account.gid, follow_symlinks=False)


async def _stop(data: Path) -> None:
    """End a server that a dead process of ours left, if it did not end with it."""
    for number in (signal.SIGQUIT, signal.SIGKILL):
        end = time.monotonic() + _STOP_SECONDS
        while (found := live_postmaster(data)) and time.monotonic() < end:
            send(found.pid, number)
            await asyncio.sleep(_LOOK_EVERY_SECONDS)


def _remove(folder: Path) -> None:
    layout = Layout(data=folder / "data", named=folder / "data")
    layout.remove()
    shutil.rmtree(folder, ignore_errors=True)
    if folder.parent.parent == OPEN_HOME:
        with suppress(OSError):  # not empty: another one is at work there
            folder.parent.rmdir()


def _disk_error(folder: Path, error: OSError) -> PostgresError:
    parent = next(part for part in (folder, *folder.parents) if part.exists())
    return PostgresError(
        f"The restore to {folder} failed: {error.strerror or error}. "
        f"{pretty_bytes(shutil.disk_usage(parent).free)} are free there.",
        next_step="Free some space there, or set TWOKEY_HOME to a larger disk, then try again.",
    )
