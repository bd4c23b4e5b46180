"""A throw-away server from a backup: restored, isolated, started, and always removed.

It listens on a private socket alone, runs with none of the original's configuration, archives
nothing, follows nobody, and starts no background work of extensions: a copy of production must
never act as production.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Final

from postgres.account import server_account
from postgres.backup.facts import BackupFacts
from postgres.binaries import Binaries
from postgres.dsn import Target, parse_dsn
from postgres.errors import PostgresError
from postgres.layout import Layout, Notes
from postgres.ports import free_port
from postgres.programs import Finished, run_program
from postgres.restore.folders import disk_error, give, remove_scratch, scratch_folder
from postgres.restore.laying import missing_wal, unpack
from postgres.restore.unpack import DamagedError
from postgres.server import Server

__all__ = [
    "ScratchServer",
    "missing_wal",
    "pg_verifybackup",
    "remove_scratch",
    "start_scratch",
    "unpack",
]

START_LIMIT: Final = timedelta(hours=2)
VERIFY_LIMIT: Final = timedelta(hours=12)
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
_STANDBY: Final = "standby.signal"
_LEFT_OUT: Final = (_STANDBY, "recovery.signal")


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


async def pg_verifybackup(binaries: Binaries, work_folder: Path) -> Finished:
    """Compare the unpacked files with PostgreSQL's own manifest; only before the first start."""
    data = scratch_folder(work_folder) / "data"
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
    is_standby: bool = False,
) -> Server:
    """Start what was unpacked, in isolation, and wait until it takes connections.

    As a standby it follows nobody, and takes connections as soon as it is consistent.

    Raises:
        DamagedError: it does not start, as when WAL is missing.
        PostgresError: the disk is full.
    """
    folder = scratch_folder(work_folder)
    layout = Layout(data=folder / "data", named=folder / "data")
    try:
        _rewrite_tablespace_map(folder)
        _forget_origin(layout.data)
        if is_standby:
            _make_standby(layout.data)
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
        raise disk_error(folder, error) from error
    server = Server(binaries=binaries, layout=layout, notes=notes)
    try:
        await server.start(time_limit=time_limit)
    except PostgresError as error:
        if _NO_SPACE in error.problem:
            raise disk_error(folder, OSError(_NO_SPACE)) from error
        raise DamagedError(error.problem) from error
    return server


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


def _make_standby(data: Path) -> None:
    (data / _STANDBY).touch()
    give(data / _STANDBY)


def _isolation(major: int) -> Mapping[str, str]:
    if major < _FIRST_WITH_EVENT_TRIGGERS_SWITCH:
        return _ISOLATION
    return {**_ISOLATION, "event_triggers": "off"}


def _hand_over(folder: Path) -> None:
    """From here on the server account can enter."""
    for name in ("backup_manifest", "postgresql.auto.conf", "tablespace_map"):
        if (folder / "data" / name).exists():
            give(folder / "data" / name)
    for place in (folder / "tblspc").iterdir():
        give(place)
    (folder / "tblspc").chmod(0o711)
    give(folder / "data")
