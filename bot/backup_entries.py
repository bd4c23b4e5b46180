"""How the inventory says that a database is backed up: `backups:` of a database."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Final, Literal

from pydantic import Field, SecretStr, StringConstraints

from bot.entry_values import Cron, Size, Span, Strict
from jobs.backup_settings import (
    CONTINUOUS_KEEP,
    PRUNE_CRON,
    TIERS,
    VERIFY_CRON,
    ArchiveMethod,
    ArchiveSettings,
    BackupSettings,
    BackupTier,
    EncryptionKeys,
    Engine,
    PlaceSettings,
    RepositorySettings,
    ScratchSettings,
    TierSchedule,
)
from jobs.crontab import cron_trigger

EXAMPLES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "keep": "keep: 30d",
        "cron": 'cron: "0 2 * * *"',
        "rate_max": "rate_max: 40MB   (per second)",
        "encryption": "encryption: {recipient: age1..., identity: env:ORDERS_BACKUP_IDENTITY}",
        "archive": "archive: {method: receive, keep: 7d}",
        "place": "place: {data: /var/lib/postgresql/15/main, stop: [systemctl, stop, ...], ...}",
        "repository": "repository: {config: /etc/pgbackrest/pgbackrest.conf, name: orders}",
        "backups": "backups: {engine: native, archive: {method: receive}}",
    }
)


_Slot = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{1,63}$")]
_Command = Annotated[tuple[str, ...], Field(min_length=1)]


class _Archive(Strict):
    method: ArchiveMethod = ArchiveMethod.RECEIVE
    keep: Span = CONTINUOUS_KEEP
    slot: _Slot | None = None
    slot_max: Size = 10 * 1024**3
    lag_max: Span = timedelta(minutes=5)


class _Tier(Strict):
    cron: Cron | None = None
    keep: Span | None = None
    kind: Literal["full", "incremental", "logical"] = "full"


class _Encryption(Strict):
    recipient: Annotated[str, StringConstraints(pattern=r"^age1[a-z0-9]{20,100}$")]
    identity: SecretStr | None = None


class _Scratch(Strict):
    lifetime: Span = timedelta(hours=4)
    lifetime_max: Span = timedelta(hours=48)
    open_max: Annotated[int, Field(ge=1, le=50)] = 3
    host: str = "127.0.0.1"


class _Place(Strict):
    data: Path
    start: _Command | None = None
    stop: _Command | None = None


class _Repository(Strict):
    config: Path
    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]


class BackupsEntry(Strict):
    """`backups:` of one database. What it leaves out is as the guide wants it."""

    engine: Engine = Engine.NATIVE
    zone: str = "UTC"
    archive: _Archive | None = None
    daily: _Tier | Literal[False] = _Tier()
    weekly: _Tier | Literal[False] = _Tier()
    monthly: _Tier | Literal[False] = _Tier()
    verify: Cron | Literal[False] = VERIFY_CRON
    prune: Cron | Literal[False] = PRUNE_CRON
    share_within: Span = timedelta(hours=3)
    rate_max: Size | None = None
    workers: Annotated[int, Field(ge=1, le=64)] = 4
    compression: Literal["auto", "zstd", "gzip", "none"] = "auto"
    encryption: _Encryption | None = None
    scratch: _Scratch = _Scratch()
    place: _Place | None = None
    repository: _Repository | None = None


def settings_of(
    entry: BackupsEntry | None, *, folder: Path, secret: Callable[[SecretStr], SecretStr]
) -> BackupSettings:
    """What an entry says; without one, backups are taken by hand only.

    `folder`: relative paths count from here. `secret` reads what a reference names.

    Raises:
        BadInputError: a cron text or the zone cannot be used.
        ValueError: settings that do not go together.
    """
    if entry is None:
        return BackupSettings()
    if entry.engine is not Engine.NATIVE and entry.repository is None:
        raise ValueError(f"engine {entry.engine} needs `repository`")
    settings = BackupSettings(
        engine=entry.engine,
        zone=entry.zone,
        tiers=MappingProxyType(_tiers(entry)),
        archive=_archive(entry),
        verify_cron=entry.verify or "",
        prune_cron=entry.prune or "",
        share_within=entry.share_within,
        rate_max_bytes=entry.rate_max,
        workers=entry.workers,
        compression=entry.compression,
        encryption=_encryption(entry.encryption, secret),
        scratch=ScratchSettings(**entry.scratch.model_dump()),
        place=_place(entry.place),
        repository=_repository(entry.repository, folder),
    )
    for cron in (
        *(tier.cron for tier in settings.tiers.values()), settings.verify_cron, settings.prune_cron
    ):  # fmt: skip
        if cron:
            cron_trigger(cron, settings.zone)
    return settings


def _tiers(entry: BackupsEntry) -> dict[BackupTier, TierSchedule]:
    found: dict[BackupTier, TierSchedule] = {}
    for tier, given in (
        (BackupTier.DAILY, entry.daily),
        (BackupTier.WEEKLY, entry.weekly),
        (BackupTier.MONTHLY, entry.monthly),
    ):
        if isinstance(given, _Tier):
            usual = TIERS[tier]
            found[tier] = TierSchedule(
                cron=given.cron or usual.cron, keep=given.keep or usual.keep, kind=given.kind
            )
    return found


def _archive(entry: BackupsEntry) -> ArchiveSettings:
    given = entry.archive or _Archive(
        method=ArchiveMethod.RECEIVE if entry.engine is Engine.NATIVE else ArchiveMethod.ENGINE
    )
    return ArchiveSettings(
        method=given.method,
        keep=given.keep,
        slot=given.slot or "",
        slot_bytes_max=given.slot_max,
        lag_max=given.lag_max,
    )


def _encryption(
    given: _Encryption | None, secret: Callable[[SecretStr], SecretStr]
) -> EncryptionKeys | None:
    if given is None:
        return None
    identity = secret(given.identity) if given.identity else None
    return EncryptionKeys(recipient=given.recipient, identity=identity)


def _place(given: _Place | None) -> PlaceSettings | None:
    if given is None:
        return None
    return PlaceSettings(data=given.data, start=given.start or (), stop=given.stop or ())


def _repository(given: _Repository | None, folder: Path) -> RepositorySettings | None:
    if given is None:
        return None
    return RepositorySettings(config=folder / given.config.expanduser(), name=given.name)
