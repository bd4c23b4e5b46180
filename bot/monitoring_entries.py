"""How the inventory says that a database is monitored: `monitoring:`, `replicas:`, `region:`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Final, Literal

from pydantic import Field, SecretStr, StringConstraints

from bot.entry_values import Cron, Size, SlackChannel, Span, Strict, Text
from jobs.alert_rules import rules_of
from jobs.crontab import cron_trigger
from jobs.health_settings import (
    CACHE_FOR,
    COLLECT_EVERY,
    AlertRule,
    AppPool,
    DigestSettings,
    MonitoringSettings,
    SchemaKind,
    SchemaSource,
    Volume,
)
from postgres.health.metrics import METRICS

EXAMPLES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "monitoring": "monitoring: {every: 30s, volume: {path: /var/lib/postgresql}, cores: 8}",
        "replicas": "replicas: [{name: west, region: us-west-2, dsn: env:ORDERS_WEST_DSN}]",
        "rules": "rules: {ReplicationLag: {fire: 30000}, TooManyTemp: {metric: temp_bytes_s, ...}}",
        "volume": "volume: {path: /var/lib/postgresql}   or   volume: {total: 500GB}",
        "pools": "pools: [{name: web, instances: 4, size: 10}]",
        "digest": 'digest: {daily: "0 8 * * *", weekly: "0 8 * * 1", channel: C0MANAGERS}',
        "schema": "schema: {kind: prisma, path: prisma/schema.prisma}",
        "sensitive_tables": "sensitive_tables: [public.users]",
    }
)
_Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
_RuleName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,62}$")]
_Table = Annotated[str, StringConstraints(pattern=r"^[^.\s]{1,63}\.[^.\s]{1,63}$")]
_RULES_MAX: Final = 100


class ReplicaEntry(Strict):
    """Another server of a database's cluster."""

    name: _Name
    dsn: Annotated[SecretStr, Field(min_length=1)]
    region: str = ""


class _Volume(Strict):
    path: Path | None = None
    wal: Path | None = None
    total: Size | None = None


class _Pool(Strict):
    name: Text
    instances: Annotated[int, Field(ge=1, le=100_000)] = 1
    size: Annotated[int, Field(ge=1, le=100_000)]
    serverless: bool = False


class _Rule(Strict):
    metric: str | None = None
    fire: float | None = None
    clear: float | None = None
    above: bool | None = None
    severity: Literal["warning", "critical"] | None = None
    lasting: Annotated[Span | None, Field(alias="for")] = None
    hold: Span | None = None
    repeat: Span | None = None
    escalate: Span | None = None
    action: Text | None = None
    runbook: Text | None = None


class _Digest(Strict):
    daily: Cron | Literal[False] = "0 8 * * *"
    weekly: Cron | Literal[False] = "0 8 * * 1"
    zone: str = "UTC"
    channel: SlackChannel | None = None


class _Schema(Strict):
    kind: SchemaKind
    path: Path
    metadata: str = ""
    python: Path | None = None


class MonitoringEntry(Strict):
    """`monitoring:` of one database. What it leaves out is usual."""

    # Within less a look is a load; more apart two looks give no rates (postgres.health.deltas).
    every: Annotated[Span, Field(ge=timedelta(seconds=1), le=timedelta(hours=1))] = COLLECT_EVERY
    replicas: Annotated[int, Field(ge=0, le=100)] | None = None
    volume: _Volume = _Volume()
    cores: Annotated[int, Field(ge=1, le=4096)] | None = None
    spindles: Annotated[int, Field(ge=0, le=4096)] = 1
    pools: tuple[_Pool, ...] = ()
    dsn: Annotated[SecretStr, Field(min_length=1)] | None = None
    pgbouncer: Annotated[SecretStr, Field(min_length=1)] | None = None
    rules: Annotated[Mapping[_RuleName, _Rule | Literal[False]], Field(max_length=_RULES_MAX)] = (
        Field(default_factory=dict)
    )
    runbooks: str = ""
    escalate_to: SlackChannel | None = None
    digest: _Digest | Literal[False] = False
    cache: Span = CACHE_FOR
    sensitive_tables: tuple[_Table, ...] = ()
    schema_: Annotated[_Schema | None, Field(alias="schema")] = None


def monitoring_of(
    entry: MonitoringEntry | Literal[False] | None,
    *,
    folder: Path,
    secret: Callable[[SecretStr], SecretStr],
) -> MonitoringSettings:
    """What an entry says; without one a database is monitored in the usual way.

    `folder`: relative paths count from here. `secret` reads what a reference names.

    Raises:
        BadInputError: a cron text or the zone cannot be used.
        ValueError: settings that do not go together, or a metric that nobody knows.
    """
    if entry is None:
        return MonitoringSettings()
    if entry is False:
        return MonitoringSettings(is_on=False)
    settings = MonitoringSettings(
        every=entry.every,
        dsn=secret(entry.dsn) if entry.dsn else None,
        replicas=entry.replicas,
        volume=Volume(
            path=_at(entry.volume.path, folder),
            wal_path=_at(entry.volume.wal, folder),
            total_bytes=entry.volume.total,
        ),
        cores=entry.cores,
        spindles=entry.spindles,
        pools=tuple(
            AppPool(
                name=pool.name,
                instances=pool.instances,
                size=pool.size,
                is_serverless=pool.serverless,
            )
            for pool in entry.pools
        ),
        pgbouncer=secret(entry.pgbouncer) if entry.pgbouncer else None,
        rules=MappingProxyType({name: _rule(name, rule) for name, rule in entry.rules.items()}),
        runbooks=entry.runbooks,
        escalate_to=entry.escalate_to or "",
        digest=_digest(entry.digest) if entry.digest else None,
        cache_for=entry.cache,
        sensitive_tables=entry.sensitive_tables,
        schema=_schema(entry.schema_, folder) if entry.schema_ else None,
    )
    rules_of(settings)  # whatever cannot be used is said now, and not when it should fire
    return settings


def _at(path: Path | None, folder: Path) -> Path | None:
    return folder / path.expanduser() if path else None


def _rule(name: str, rule: _Rule | Literal[False]) -> AlertRule:
    if rule is False:
        return AlertRule(name=name, is_on=False)
    if rule.metric is not None and rule.metric not in METRICS:
        raise ValueError(f"rule {name}: there is no metric {rule.metric}; see docs/health.md")
    return AlertRule(name=name, **rule.model_dump())


def _digest(given: _Digest) -> DigestSettings:
    settings = DigestSettings(
        daily=given.daily or "",
        weekly=given.weekly or "",
        zone=given.zone,
        channel=given.channel or "",
    )
    for cron in (settings.daily, settings.weekly):
        if cron:
            cron_trigger(cron, settings.zone)
    return settings


def _schema(given: _Schema, folder: Path) -> SchemaSource:
    if given.kind is SchemaKind.ALEMBIC and ":" not in given.metadata:
        raise ValueError("schema of kind alembic needs `metadata: MODULE:ATTRIBUTE`")
    return SchemaSource(
        kind=given.kind,
        path=folder / given.path.expanduser(),
        metadata=given.metadata,
        python=_at(given.python, folder),
    )
