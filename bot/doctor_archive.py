"""Doctor's look at what continuous archiving needs on a database's server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, assert_never

from approvals.words import ExplainedError
from bot.finding import Finding
from jobs.backup_settings import ArchiveMethod
from jobs.operation import Database, Reader
from jobs.text import span_text
from postgres.sizes import pretty_bytes

LIMIT: Final = timedelta(seconds=10)
UNLIMITED: Final = -1
_MIB: Final = 1024**2
# Our receiver takes one, and a backup two: one for the data, one for the WAL beside it.
SENDERS: Final = 3

SETTINGS: Final = """
    SELECT current_setting('wal_level')                                    AS wal_level,
           current_setting('max_wal_senders')::int                         AS senders_max,
           current_setting('max_replication_slots')::int                   AS slots_max,
           (SELECT setting::int FROM pg_settings
             WHERE name = 'max_slot_wal_keep_size')                        AS keep_size_mb,
           (SELECT count(*)::int FROM pg_replication_slots)                AS slots,
           (SELECT count(*)::int FROM pg_replication_slots
             WHERE slot_name = $1)                                         AS ours,
           current_setting('archive_mode')                                 AS archive_mode,
           current_setting('archive_command', true)                        AS archive_command,
           (SELECT setting::int FROM pg_settings
             WHERE name = 'archive_timeout')                               AS archive_seconds
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server's settings. `keep_size_mb`: -1 for no limit; `archive_seconds`: 0 for never."""

    wal_level: str
    senders_max: int
    slots_max: int
    keep_size_mb: int
    slots: int
    ours: int
    archive_mode: str
    archive_command: str | None
    archive_seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wrong:
    says: str
    fix: str


async def examine_archive(database: Database, reader: Reader) -> list[Finding]:
    """One finding that all is well, or one for each thing that is not; none without an archive."""
    name = f"WAL archive of {database.name}"
    slot = database.backups.slot_of(database.name)
    try:
        async with asyncio.timeout(LIMIT.total_seconds()):
            [row] = await reader.rows(SETTINGS, slot)
    except (ExplainedError, TimeoutError):
        return []  # that it cannot be reached is a finding of its own
    server = Server(**{field: row[field] for field in Server.__slots__})
    wrong = [
        Finding(name=name, ok=False, says=each.says, fix=each.fix)
        for each in _wrong(database, server)
    ]
    if wrong or database.backups.archive.method is ArchiveMethod.NONE:
        return wrong
    return [Finding(name=name, ok=True, says=_good(database, server))]


def _wrong(database: Database, server: Server) -> Iterator[_Wrong]:
    match database.backups.archive.method:
        case ArchiveMethod.RECEIVE:
            yield from _received(database, server)
        case ArchiveMethod.COMMAND:
            yield from _archived(server)
            yield from _commanded(database, server)
        case ArchiveMethod.ENGINE:
            yield from _archived(server)
        case ArchiveMethod.NONE:
            yield from _left_over(database, server)
        case method:
            assert_never(method)


def _received(database: Database, server: Server) -> Iterator[_Wrong]:
    if server.wal_level == "minimal":
        yield _Wrong(
            says="wal_level is minimal there: its WAL is of no use for a recovery.",
            fix="ALTER SYSTEM SET wal_level = replica; and restart the server.",
        )
    if server.senders_max < SENDERS:
        yield _Wrong(
            says=f"max_wal_senders is {server.senders_max} there; a receiver and a backup need "
            f"{SENDERS}.",
            fix="ALTER SYSTEM SET max_wal_senders = 10; and restart the server.",
        )
    if not server.ours and server.slots >= server.slots_max:
        yield _Wrong(
            says=f"All {server.slots_max} replication slots there are taken.",
            fix="ALTER SYSTEM SET max_replication_slots = 10; and restart the server, or drop one.",
        )
    if server.keep_size_mb == UNLIMITED:
        limit = pretty_bytes(database.backups.archive.slot_bytes_max)
        yield _Wrong(
            says=f"max_slot_wal_keep_size has no limit there: while no worker runs to drop it at "
            f"{limit}, our slot can fill the server's disk.",
            fix=f"ALTER SYSTEM SET max_slot_wal_keep_size = '"
            f"{database.backups.archive.slot_bytes_max // _MIB}MB'; SELECT pg_reload_conf();",
        )


def _archived(server: Server) -> Iterator[_Wrong]:
    if server.archive_mode == "off":
        yield _Wrong(
            says="archive_mode is off there: nothing is archived.",
            fix="ALTER SYSTEM SET archive_mode = on; and restart the server.",
        )


def _commanded(database: Database, server: Server) -> Iterator[_Wrong]:
    command = server.archive_command or ""
    if server.archive_mode != "off" and str(database.backup_folder) not in command:
        yield _Wrong(
            says=f"archive_command there does not name {database.backup_folder}.",
            fix="ALTER SYSTEM SET archive_command = 'twokey wal push --folder "
            f"{database.backup_folder} %p %f'; SELECT pg_reload_conf();",
        )
    lag = database.backups.archive.lag_max
    if not 0 < server.archive_seconds <= lag.total_seconds():
        every = timedelta(seconds=server.archive_seconds)
        now = span_text(every) if every else "off"
        yield _Wrong(
            says=f"archive_timeout is {now} there: a quiet database "
            f"hands nothing over within {span_text(lag)}.",
            fix="ALTER SYSTEM SET archive_timeout = 60; SELECT pg_reload_conf();",
        )


def _left_over(database: Database, server: Server) -> Iterator[_Wrong]:
    slot = database.backups.slot_of(database.name)
    if server.ours:
        yield _Wrong(
            says=f"The slot {slot} is there, but nobody receives through it: it fills the disk.",
            fix=f"SELECT pg_drop_replication_slot('{slot}');",
        )


def _good(database: Database, server: Server) -> str:
    if database.backups.archive.method is ArchiveMethod.RECEIVE:
        limit = pretty_bytes(server.keep_size_mb * _MIB)
        slot = database.backups.slot_of(database.name)
        return f"can be received through the slot {slot}, limited to {limit}"
    return "the server archives by itself"
