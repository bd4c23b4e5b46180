"""How a database is monitored, as the inventory says it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Final

from pydantic import SecretStr

# The guide's health check interval.
COLLECT_EVERY: Final = timedelta(seconds=30)
CACHE_FOR: Final = timedelta(minutes=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """Another server of a database's cluster: a standby, in this region or in another."""

    name: str
    dsn: SecretStr
    region: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """Where the data lies. `path`: as this worker sees it; else `total_bytes`, as it was bought."""

    path: Path | None = None
    wal_path: Path | None = None
    total_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AppPool:
    """A connection pool of an application: `instances` of it with up to `size` connections."""

    name: str
    instances: int
    size: int
    is_serverless: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertRule:
    """A rule of the inventory: a new one, or another threshold for one of ours by its name.

    None: as the rule of that name has it, or the usual. `above` False: breaches below `fire`.
    """

    name: str
    metric: str | None = None
    fire: float | None = None
    clear: float | None = None
    above: bool | None = None
    severity: str | None = None
    lasting: timedelta | None = None  # `for`: so long before it fires
    hold: timedelta | None = None  # so long below `clear` before it is over
    repeat: timedelta | None = None
    escalate: timedelta | None = None
    action: str | None = None
    runbook: str | None = None
    is_on: bool = True


class SchemaKind(StrEnum):
    """What declares a schema."""

    SQL = "sql"  # a dump or a hand-written file of DDL
    ALEMBIC = "alembic"  # MODULE:ATTRIBUTE of a sqlalchemy.MetaData
    PRISMA = "prisma"  # a schema.prisma


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaSource:
    """The source of truth of a database's schema.

    For Alembic: `metadata` is MODULE:ATTRIBUTE, found from the folder `path` by `python`, which
    has the application's packages; None: our own.
    """

    kind: SchemaKind
    path: Path
    metadata: str = ""
    python: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DigestSettings:
    """When managers get their digest, and where ('': the database's own channel)."""

    daily: str = "0 8 * * *"  # cron; '' for never
    weekly: str = "0 8 * * 1"
    zone: str = "UTC"
    channel: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitoringSettings:
    """All of it. A database that nobody wrote `monitoring` for is monitored in the usual way."""

    is_on: bool = True
    every: timedelta = COLLECT_EVERY
    dsn: SecretStr | None = None  # a login with pg_monitor alone; None: the database's own
    replicas: int | None = None  # how many standbys must stream; None: those of the inventory
    volume: Volume = field(default_factory=Volume)
    cores: int | None = None
    spindles: int = 1
    pools: tuple[AppPool, ...] = ()
    pgbouncer: SecretStr | None = None  # the admin console's DSN
    rules: Mapping[str, AlertRule] = field(default_factory=lambda: MappingProxyType({}))
    runbooks: str = ""  # a link; {alert} and {database} are filled in
    escalate_to: str = ""  # a channel's id
    digest: DigestSettings | None = None
    cache_for: timedelta = CACHE_FOR
    sensitive_tables: tuple[str, ...] = ()  # schema.table: the audit trigger is expected there
    schema: SchemaSource | None = None
