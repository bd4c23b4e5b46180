"""What a backup must know about the server that it is taken of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from postgres.connect import connection
from postgres.dsn import Target
from postgres.errors import PostgresError

OLDEST_MAJOR: Final = 13
FIRST_WITH_SERVER_COMPRESSION: Final = 15
# A server that is lower in one of these refuses to replay the WAL of one that was higher.
PARITY: Final = (
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
)

# The values that wal_compression takes tell what the server was built with, to everybody.
SOURCE: Final = """
    SELECT current_setting('server_version_num')::int / 10000      AS major,
           current_setting('server_version')                       AS version,
           current_setting('data_checksums') = 'on'                AS checksums,
           pg_size_bytes(current_setting('wal_segment_size'))      AS segment_bytes,
           (SELECT system_identifier::text FROM pg_control_system()) AS system_identifier,
           (SELECT timeline_id FROM pg_control_checkpoint())       AS timeline,
           pg_is_in_recovery()                                     AS standby,
           coalesce(current_setting('summarize_wal', true) = 'on', false) AS summarizes_wal,
           pg_get_userbyid(10)                                     AS superuser,
           coalesce((SELECT 'zstd' = ANY (enumvals)
                       FROM pg_settings
                      WHERE name = 'wal_compression'), false)      AS zstd
"""
SETTINGS: Final = "SELECT name, setting FROM pg_settings WHERE name = ANY ($1)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The server, as far as it matters for a backup and its restore."""

    major: int
    version: str
    page_checksums: bool
    segment_bytes: int
    system_identifier: str
    timeline: int
    standby: bool
    summarizes_wal: bool
    superuser: str
    zstd: bool
    settings: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What `backup_manifest` says in all: bytes of data, and the WAL that a restore needs."""

    data_bytes: int
    timeline: int
    start_lsn: str
    end_lsn: str


async def look_at(target: Target) -> Source:
    """Ask the server.

    Raises:
        PostgresError: it cannot be reached, or is too old.
    """
    async with connection(target) as conn:
        row: Mapping[str, Any] = await conn.fetchrow(SOURCE)
        settings = {found["name"]: found["setting"] for found in await conn.fetch(SETTINGS, PARITY)}
    if row["major"] < OLDEST_MAJOR:
        raise PostgresError(
            f"{target.place} runs PostgreSQL {row['version']}, which makes no backup manifests.",
            next_step=f"Upgrade it to {OLDEST_MAJOR} or later.",
        )
    return Source(
        major=row["major"],
        version=row["version"],
        page_checksums=row["checksums"],
        segment_bytes=row["segment_bytes"],
        system_identifier=row["system_identifier"],
        timeline=row["timeline"],
        standby=row["standby"],
        summarizes_wal=row["summarizes_wal"],
        superuser=row["superuser"],
        zstd=row["zstd"],
        settings=settings,
    )


def read_manifest(path: Path) -> Manifest:
    """The facts of a manifest.

    Raises:
        PostgresError: it is damaged.
    """
    try:
        body = json.loads(path.read_bytes())
        ranges = body["WAL-Ranges"]
        return Manifest(
            data_bytes=sum(file["Size"] for file in body["Files"]),
            timeline=ranges[-1]["Timeline"],
            start_lsn=ranges[0]["Start-LSN"],
            end_lsn=ranges[-1]["End-LSN"],
        )
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise PostgresError(
            f"The manifest {path} cannot be read.",
            next_step="Do not rely on this backup; take a new one.",
        ) from error


def wal_file(timeline: int, lsn: str, segment_bytes: int, *, is_end: bool = False) -> str:
    """The name of the WAL file that holds an LSN such as 1/6B000028.

    An end is the first byte that is not needed, so it belongs to the byte before it.
    """
    high, low = (int(part, 16) for part in lsn.split("/"))
    return _name(timeline, ((high << 32) + low - is_end) // segment_bytes, segment_bytes)


def wal_files(start: str, end: str, segment_bytes: int) -> tuple[str, ...]:
    """All names from one WAL file to another one of the same timeline."""
    timeline, per_log = int(start[:8], 16), (1 << 32) // segment_bytes
    first, last = (int(name[8:16], 16) * per_log + int(name[16:], 16) for name in (start, end))
    return tuple(_name(timeline, number, segment_bytes) for number in range(first, last + 1))


def _name(timeline: int, number: int, segment_bytes: int) -> str:
    per_log = (1 << 32) // segment_bytes
    return f"{timeline:08X}{number // per_log:08X}{number % per_log:08X}"
