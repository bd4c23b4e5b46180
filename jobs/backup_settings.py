"""How a database is backed up, as the inventory says it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Final

from pydantic import SecretStr


class Engine(StrEnum):
    """What takes backups and keeps WAL."""

    NATIVE = "native"  # PostgreSQL's own programs
    PGBACKREST = "pgbackrest"


class BackupTier(StrEnum):
    """What a backup is kept for. One backup can serve several."""

    CONTINUOUS = "continuous"  # any moment of the last days, out of a full backup and WAL
    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"


class ArchiveMethod(StrEnum):
    """How WAL comes to us."""

    RECEIVE = "receive"  # a pg_receivewal that a worker supervises, with a slot
    COMMAND = "command"  # the server's archive_command calls `twokey wal push`
    ENGINE = "engine"  # the engine's own way (pgbackrest)
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class TierSchedule:
    """When backups of a tier are taken, how long they are kept, and of what kind they are.

    `cron` has five fields, in the database's `zone`.
    """

    cron: str
    keep: timedelta
    kind: str = "full"  # full, incremental, logical


# The guide's: 02:00 daily, Sunday 03:00, day 1 of the month 04:00.
TIERS: Final[Mapping[BackupTier, TierSchedule]] = MappingProxyType(
    {
        BackupTier.DAILY: TierSchedule(cron="0 2 * * *", keep=timedelta(days=30)),
        BackupTier.WEEKLY: TierSchedule(cron="0 3 * * 0", keep=timedelta(days=90)),
        BackupTier.MONTHLY: TierSchedule(cron="0 4 1 * *", keep=timedelta(days=365)),
    }
)
CONTINUOUS_KEEP: Final = timedelta(days=7)
VERIFY_CRON: Final = "0 0 * * 0"
PRUNE_CRON: Final = "0 5 * * *"
GIB: Final = 1024**3


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveSettings:
    """Continuous archiving of WAL. `slot_bytes_max`: so much WAL may a slot of ours hold back."""

    method: ArchiveMethod = ArchiveMethod.NONE
    keep: timedelta = CONTINUOUS_KEEP
    slot: str = ""  # '' for twokey_<database>
    slot_bytes_max: int = 10 * GIB
    lag_max: timedelta = timedelta(minutes=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class EncryptionKeys:
    """age's keys: whoever has the recipient can write, only the identity can read."""

    recipient: str
    identity: SecretStr | None = None  # only where backups are read: restore, verify


@dataclass(frozen=True, slots=True, kw_only=True)
class ScratchSettings:
    """Scratch servers: how long they live, and where they listen on the worker's host."""

    lifetime: timedelta = timedelta(hours=4)
    lifetime_max: timedelta = timedelta(hours=48)
    open_max: int = 3
    host: str = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceSettings:
    """The server on the worker's own host that `restore --into place` may replace.

    `start` and `stop` are commands with their arguments; empty: pg_ctl, with the options that
    the server was started with.
    """

    data: Path
    start: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositorySettings:
    """An engine's own configuration: pgBackRest's stanza."""

    config: Path
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupSettings:
    """All of it. The default takes backups by hand only, as an inventory without `backups` does.

    `share_within`: a tier that is due takes a full backup that is at most so old for its own.
    """

    engine: Engine = Engine.NATIVE
    zone: str = "UTC"
    tiers: Mapping[BackupTier, TierSchedule] = field(default_factory=lambda: MappingProxyType({}))
    archive: ArchiveSettings = field(default_factory=ArchiveSettings)
    verify_cron: str = ""  # '' for never by the clock
    prune_cron: str = ""
    share_within: timedelta = timedelta(hours=3)
    rate_max_bytes: int | None = None  # per second, over the network
    workers: int = 4
    compression: str = "auto"  # auto, zstd, gzip, none
    encryption: EncryptionKeys | None = None
    scratch: ScratchSettings = field(default_factory=ScratchSettings)
    place: PlaceSettings | None = None
    repository: RepositorySettings | None = None

    def keep_of(self, tier: BackupTier) -> timedelta:
        """How long a backup of this tier is kept, also of a tier that is not scheduled."""
        if tier is BackupTier.CONTINUOUS:
            return self.archive.keep
        return self.tiers.get(tier, TIERS[tier]).keep

    def slot_of(self, database: str) -> str:
        """The replication slot of our pg_receivewal."""
        return self.archive.slot or f"twokey_{database.replace('-', '_')}"[:63]
