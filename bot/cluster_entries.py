"""How the inventory names a database's servers, and which may be lost on purpose: `cluster:`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Final

from pydantic import Field, SecretStr, StringConstraints

from bot.entry_values import Cron, Size, Span, Strict, Text
from jobs.cluster_settings import (
    DATA_LOSS_MAX,
    DRILL_CRON,
    FAILOVER_TIMEOUT,
    BouncerSettings,
    ClusterNode,
    ClusterSettings,
    DrillKind,
    DrillSettings,
    FailoverLimits,
)
from jobs.crontab import cron_trigger
from postgres.cluster.words import ClusterKind, HostSettings

EXAMPLES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "cluster": "cluster: {kind: patroni, nodes: [{name: east, dsn: env:EAST_DSN, rest: ...}]}",
        "nodes": "nodes: [{name: east, region: us-east-1, dsn: env:EAST_DSN,"
        " rest: http://10.0.0.1:8008}]",
        "rest": "rest: http://10.0.0.1:8008",
        "host": "host: {via: [ssh, db1], data: /var/lib/postgresql/15/main,"
        " programs: /usr/lib/postgresql/15/bin}",
        "endpoint": "endpoint: env:ORDERS_APP_DSN",
        "bouncers": "bouncers: [{admin: env:BOUNCER_DSN, database: orders}]",
        "limits": "limits: {lag_bytes: 16MB, lag: 10s, backup_age: 2d, timeout: 60s}",
        "drills": "drills: {kinds: [switchover, primary-crash], schedule: '0 0 1 */3 *'}",
    }
)
_NODES_MAX: Final = 16
_Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]
_Address = Annotated[str, StringConstraints(pattern=r"^https?://[^\s/?#@]+$")]
_Secret = Annotated[SecretStr, Field(min_length=1)]
_Command = Annotated[tuple[Text, ...], Field(max_length=50)]


class _Host(Strict):
    via: _Command = ()
    data: Path
    programs: Path
    agent_pid: Path | None = None
    agent_start: _Command = ()
    start: _Command = ()
    network_cut: _Command = ()
    network_mend: _Command = ()


class _Node(Strict):
    name: _Name
    dsn: _Secret
    region: str = ""
    rest: _Address | None = None
    host: _Host | None = None


class _Bouncer(Strict):
    admin: _Secret
    database: Text
    config: Path | None = None


class _Limits(Strict):
    lag_bytes: Size = 16 * 2**20
    lag: Span = timedelta(seconds=10)
    reply_age: Span = timedelta(seconds=15)
    transaction_age: Span = timedelta(minutes=5)
    backup_age: Span = timedelta(hours=48)
    timeout: Annotated[Span, Field(le=timedelta(minutes=30))] = FAILOVER_TIMEOUT
    pause: Annotated[Span, Field(le=timedelta(minutes=2))] = timedelta(seconds=15)


class _Drills(Strict):
    kinds: Annotated[tuple[DrillKind, ...], Field(max_length=len(DrillKind))] = ()
    schedule: Cron | None = DRILL_CRON
    zone: str = "UTC"
    kind: DrillKind | None = None
    every: Span = timedelta(days=92)
    rto: Span | None = None
    rpo: Annotated[Span, Field(le=timedelta(hours=24))] = DATA_LOSS_MAX
    hard_limit: Annotated[Span, Field(le=timedelta(hours=6))] = timedelta(minutes=30)
    leaves: Annotated[int, Field(ge=1, le=_NODES_MAX)] | None = None


class ClusterEntry(Strict):
    """`cluster:` of one database. What it leaves out is usual."""

    kind: ClusterKind
    nodes: Annotated[tuple[_Node, ...], Field(min_length=1, max_length=_NODES_MAX)]
    endpoint: _Secret | None = None
    user: str = ""
    password: _Secret | None = None
    ca: Path | None = None
    synchronous: bool = False
    sandbox: bool = False
    bouncers: Annotated[tuple[_Bouncer, ...], Field(max_length=_NODES_MAX)] = ()
    limits: _Limits = _Limits()
    drills: _Drills = _Drills()


def cluster_of(
    entry: ClusterEntry | None, *, folder: Path, secret: Callable[[SecretStr], SecretStr]
) -> ClusterSettings | None:
    """What an entry says; None where there is none.

    `folder`: relative paths count from here. `secret` reads what a reference names.

    Raises:
        BadInputError: a cron text or the zone cannot be used.
        ValueError: settings that do not go together.
    """
    if entry is None:
        return None
    _check(entry)
    return ClusterSettings(
        kind=entry.kind,
        nodes=tuple(_node(each, secret) for each in entry.nodes),
        endpoint=secret(entry.endpoint) if entry.endpoint else None,
        user=entry.user,
        password=secret(entry.password) if entry.password else None,
        ca=_at(entry.ca, folder),
        is_synchronous=entry.synchronous,
        is_sandbox=entry.sandbox,
        bouncers=tuple(
            BouncerSettings(
                admin=secret(each.admin), database=each.database, config=_at(each.config, folder)
            )
            for each in entry.bouncers
        ),
        limits=FailoverLimits(**entry.limits.model_dump()),
        drills=_drills(entry),
    )


def _check(entry: ClusterEntry) -> None:
    names = [each.name for each in entry.nodes]
    if len(set(names)) < len(names):
        raise ValueError("each node needs a name of its own")
    without = [each.name for each in entry.nodes if each.rest is None]
    if entry.kind is ClusterKind.PATRONI and without:
        raise ValueError(f"node {without[0]} needs `rest`, the address of its Patroni")
    if entry.kind is ClusterKind.PAIR and len(names) != 2:  # noqa: PLR2004 - that is a pair
        raise ValueError("a pair has two nodes")
    if entry.drills.kind and entry.drills.kind not in entry.drills.kinds:
        raise ValueError(f"drills.kind {entry.drills.kind} is not among drills.kinds")
    if DrillKind.NETWORK_SPLIT in entry.drills.kinds and not entry.sandbox:
        raise ValueError("network-split is for clusters with `sandbox: true`")
    if entry.drills.schedule:
        cron_trigger(entry.drills.schedule, entry.drills.zone)


def _node(each: _Node, secret: Callable[[SecretStr], SecretStr]) -> ClusterNode:
    host = each.host
    return ClusterNode(
        name=each.name,
        dsn=secret(each.dsn),
        region=each.region,
        rest=each.rest or "",
        host=HostSettings(
            via=host.via,
            data=host.data,
            programs=host.programs,
            agent_pid=host.agent_pid,
            agent_start=host.agent_start,
            start=host.start,
            network_cut=host.network_cut,
            network_mend=host.network_mend,
        )
        if host
        else None,
    )


def _drills(entry: ClusterEntry) -> DrillSettings:
    given = entry.drills
    return DrillSettings(
        kinds=given.kinds,
        schedule=(given.schedule or "") if given.kinds else "",
        zone=given.zone,
        kind=given.kind or (given.kinds[0] if given.kinds else DrillKind.SWITCHOVER),
        every=given.every,
        rto=given.rto,
        rpo=timedelta(0) if entry.synchronous else given.rpo,
        hard_limit=given.hard_limit,
        leaves=given.leaves,
    )


def _at(path: Path | None, folder: Path) -> Path | None:
    return folder / path.expanduser() if path else None
