"""What every backup engine can do: the contract, and the values that pass through it.

An engine takes backups, knows its own, and lays one out as a data folder. What happens with
that folder (isolation, start, recovery target, checks) is the same for all of them and stands
in `postgres.restore`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

from postgres.backup.facts import BackupFacts, BackupKind, EngineName, FileFact, Listing
from postgres.backup.progress import OnProgress

OnText = Callable[[str], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that is not as it should be, and what to do about it."""

    problem: str
    next_step: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What an engine is here and what it can do; with `findings` it may not be usable."""

    name: EngineName
    version: str
    kinds: tuple[BackupKind, ...]
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeOrder:
    """A backup to take. `base`: for an incremental, the backup that it builds on."""

    backup_id: str
    kind: BackupKind = "full"
    base: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One WAL file that is kept: its name (24 hexadecimal digits), and when it was completed.

    `is_partial`: it is still being written, or its writer died.
    """

    name: str
    size_bytes: int
    at: datetime
    is_partial: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """The WAL that an engine keeps. `histories`: timeline number -> text of its history file."""

    segments: tuple[Segment, ...] = ()
    histories: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class LaidOut:
    """A data folder that has all files of a backup and was not started yet.

    `settings` are what its start needs besides isolation: with a `restore_command` there, a
    recovery gets all WAL through it, also that of the backup itself; without, the backup's own
    WAL stands in `pg_wal`, and later WAL comes from `Engine.stage_wal`. `read` are files of
    the backup that were hashed on the way.
    """

    data: Path
    settings: Mapping[str, str]
    read: tuple[FileFact, ...] = ()


class Engine(Protocol):
    """A backup engine for one database. Every call raises `PostgresError` for what it cannot do."""

    @property
    def name(self) -> EngineName:
        """Which engine it is."""
        ...

    async def probe(self) -> Probe:
        """What is installed and configured. Never raises for what is missing: it is a finding."""
        ...

    async def take(self, order: TakeOrder, *, on_progress: OnProgress | None = None) -> BackupFacts:
        """Take a backup; one of that id that is complete already is given back as it is.

        Raises:
            PostgresError: it failed, and nothing of it counts as a backup.
        """
        ...

    async def backups(self) -> Listing:
        """All complete backups, oldest first."""
        ...

    async def archive(self) -> Archive:
        """The WAL that is kept."""
        ...

    async def inspect(self, backup_id: str) -> Sequence[str]:
        """What is wrong with a backup, as far as it shows without a restore; nothing: fine."""
        ...

    async def lay_out(
        self, backup_id: str, work_folder: Path, *, on_step: OnText | None = None
    ) -> LaidOut:
        """Lay a backup out in `<work_folder>/scratch/data`, closed to everybody else.

        Raises:
            postgres.restore.unpack.DamagedError: the backup is damaged.
            PostgresError: no room, no such backup, or no PostgreSQL of its major version.
        """
        ...

    async def stage_wal(self, names: Sequence[str], folder: Path) -> int:
        """Put kept WAL segments into `folder` under their plain names; how many bytes that are.

        `names` are segments as PostgreSQL calls them; one that is kept as a partial segment
        alone is staged as if it were whole. The history files of all timelines come too. The
        folder exists and is ours; it is on the disk of the data folder, and its files are
        moved into `pg_wal`: they must be copies, never links to what is kept.

        An engine that fetches WAL by a `restore_command` of its own (in `LaidOut.settings`)
        stages nothing and gives 0.

        Raises:
            postgres.errors.DamagedError: a file is damaged; the text names it.
            PostgresError: a file is not there, or there is no key or no room.
        """
        ...

    async def remove(self, backup_id: str) -> int:
        """Remove a backup; how many bytes that freed. Harmless where it is gone already.

        Raises:
            PostgresError: another kept backup builds on it, or it cannot be removed.
        """
        ...

    async def trim(self, before: str) -> int:
        """Remove WAL files older than the one called `before`; how many bytes that freed."""
        ...
