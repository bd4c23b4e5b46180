"""The command line of `pg_basebackup`, and what its failures mean for people."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final, Literal

from postgres.backup.manner import Compression, Manner
from postgres.backup.partial import disk_error
from postgres.backup.source import FIRST_WITH_SERVER_COMPRESSION, Source
from postgres.binaries import Binaries
from postgres.dsn import Target
from postgres.errors import PostgresError
from postgres.programs import Finished, run_program

# Where it is compressed, and how.
Method = Literal["server-zstd", "client-zstd", "gzip", "none"]

TIME_LIMIT: Final = timedelta(hours=24)
# What --max-rate takes.
_RATE_KB_MIN: Final = 32
_RATE_KB_MAX: Final = 1024 * 1024
_NO_SPACE: Final = "No space left on device"
_QUOTA: Final = "Disk quota exceeded"
_LOST: Final = (
    "server closed the connection",
    "terminating connection",
    "connection not open",
    "could not receive data from",
    "connection to server was lost",
    "shutting down",
    "unexpected termination of replication stream",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Copying:
    """One run of pg_basebackup. `manifest`: that of the backup that an incremental builds on."""

    binaries: Binaries
    target: Target
    backup_id: str
    goal: Path
    method: Method
    manner: Manner
    manifest: Path | None = None

    @property
    def name(self) -> str:
        """How the server knows us while we copy."""
        return f"twokey backup {self.backup_id}"[:63]


def method_of(wish: Compression, binaries: Binaries, source: Source) -> Method:
    """What both sides can do: zstd on the server costs the least time.

    Raises:
        PostgresError: zstd was asked for, and neither side has it.
    """
    if wish in ("gzip", "none"):
        return "gzip" if wish == "gzip" else "none"
    new = binaries.major >= FIRST_WITH_SERVER_COMPRESSION
    if new and source.major >= FIRST_WITH_SERVER_COMPRESSION and source.zstd:
        return "server-zstd"
    if new and binaries.zstd:
        return "client-zstd"
    if wish == "auto":
        return "gzip"
    raise PostgresError(
        f"Neither PostgreSQL {source.version} on the server nor {binaries.version} here can"
        " compress a backup with zstd.",
        next_step="Set `compression: auto` or `gzip` in the inventory.",
    )


async def copy(copying: Copying) -> Finished:
    """Run it to its end."""
    finished = await _attempt(copying, threads=True)
    if finished.code and "compression worker" in finished.stderr:  # a library without threads
        await asyncio.to_thread(_empty, copying.goal)
        finished = await _attempt(copying, threads=False)
    return finished


def rate_kb(rate_max_bytes: int) -> int:
    """A rate as --max-rate takes it: in kilobytes, within its bounds."""
    return min(max(rate_max_bytes // 1024, _RATE_KB_MIN), _RATE_KB_MAX)


def failure(copying: Copying, finished: Finished) -> PostgresError:
    """What it said, for people."""
    for full in (_NO_SPACE, _QUOTA):
        if full in finished.stderr:
            return disk_error(copying.goal.parent, OSError(full))
    refused = _refused_increment(copying, finished) if copying.manifest else None
    return refused or _known(copying.target.place, finished) or _other(copying, finished)


def _known(place: str, finished: Finished) -> PostgresError | None:
    """What we have met before, or None."""
    said = finished.stderr
    if "checksum verification failed" in said or "checksum error" in said:
        damaged = [line for line in said.splitlines() if "checksum verification failed" in line]
        first = (damaged or [finished.last_words])[0].removeprefix("WARNING:").strip()
        return PostgresError(
            f"The server has damaged pages, so the backup was not kept: {first}",
            next_step="Find out what is damaged (`/db integrity`, the disk's health), and keep "
            "the older backups until it is mended.",
        )
    if "max_wal_senders" in said:
        return PostgresError(
            f"{place} has no replication connection left for a backup.",
            next_step="Wait for another backup to end, or raise max_wal_senders.",
        )
    if finished.code < 0:
        return PostgresError(
            f"pg_basebackup of {place} was ended by signal {-finished.code}.",
            next_step="See who ended it (the kernel's log names a lack of memory), then ask for"
            " the backup again.",
        )
    if any(text in said for text in _LOST):
        return PostgresError(
            f"{place} broke off the backup: {finished.last_words}",
            next_step="See in the server's log why it ended or restarted; ask for the backup"
            " again when it runs.",
        )
    return None


def _other(copying: Copying, finished: Finished) -> PostgresError:
    return PostgresError(
        f"pg_basebackup on {copying.target.place} failed: {finished.last_words}",
        next_step="The user needs the REPLICATION attribute and a line for replication in "
        "pg_hba.conf; see also the server's log.",
    )


def _refused_increment(copying: Copying, finished: Finished) -> PostgresError | None:
    """Why the server makes no incremental of this base, or None when it says nothing of it."""
    said = finished.stderr
    if "manifest checksum mismatch" in said or "could not parse backup manifest" in said:
        why = "its manifest is damaged"
    elif "system identifier" in said:
        why = "it is of another cluster"
    elif "not in this server's history" in said or "initial timeline" in said:
        why = "the server has left that timeline since (a restore, or a failover)"
    elif "WAL summar" in said:
        why = "the server does not have the WAL summaries since then (wal_summary_keep_time)"
    else:
        return None
    return PostgresError(
        f"No incremental backup can build on {copying.manifest and copying.manifest.parent.name}:"
        f" {why}. {finished.last_words}",
        next_step="Take a full backup; later incrementals build on that one.",
    )


async def _attempt(copying: Copying, *, threads: bool) -> Finished:
    manner = copying.manner
    zstd = "zstd:level=1" + (f",workers={manner.workers}" if threads else "")
    match copying.method:
        case "server-zstd":
            method = [f"--compress=server-{zstd}"]
        case "client-zstd":
            method = [f"--compress=client-{zstd}"]
        case "gzip":
            method = ["--gzip", "--compress=1"]
        case "none":
            method = []
    return await run_program(
        [
            copying.binaries.program("pg_basebackup"),
            "--pgdata",
            copying.goal,
            "--format=tar",
            "--wal-method=stream",
            "--checkpoint=fast",
            "--manifest-checksums=SHA256",
            "--no-password",
            f"--label=twokey {copying.backup_id}",
            *method,
            *([f"--max-rate={rate_kb(manner.rate_max_bytes)}"] if manner.rate_max_bytes else ()),
            *([f"--incremental={copying.manifest}"] if copying.manifest else ()),
        ],
        time_limit=TIME_LIMIT,
        as_server=False,  # the backup belongs to us, out of reach of the servers' account
        environ=copying.target.environ(application_name=copying.name),
    )


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
