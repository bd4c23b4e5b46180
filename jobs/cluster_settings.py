"""A database's servers and who may be lost on purpose, as the inventory says it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from postgres.cluster.words import ClusterKind, HostSettings

# The guide's figures.
FAILOVER_TIMEOUT: Final = timedelta(seconds=60)
DATA_LOSS_MAX: Final = timedelta(seconds=60)
DRILL_CRON: Final = "0 0 1 */3 *"


class DrillKind(StrEnum):
    """What a drill does to a cluster."""

    SWITCHOVER = "switchover"  # planned: nothing dies
    PRIMARY_CRASH = "primary-crash"  # the server process, its agent lives
    HOST_LOSS = "host-loss"  # agent and server
    REPLICA_LOSS = "replica-loss"
    NETWORK_SPLIT = "network-split"  # on sandbox clusters alone
    RESTORE = "restore"  # rebuild from a backup elsewhere


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterNode:
    """A server. `dsn` leads to this very one; `rest`: its Patroni's address."""

    name: str
    dsn: SecretStr
    region: str = ""
    rest: str = ""
    host: HostSettings | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BouncerSettings:
    """A pgbouncer before the cluster. `admin`: its console; `database`: what is paused there.

    `config`: the file in which the database's host and port are rewritten; None: it leads to an
    endpoint that follows by itself.
    """

    admin: SecretStr
    database: str
    config: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FailoverLimits:
    """What a pre-flight check insists on. Bytes, and seconds as spans."""

    lag_bytes: int = 16 * 2**20
    lag: timedelta = timedelta(seconds=10)
    reply_age: timedelta = timedelta(seconds=15)
    transaction_age: timedelta = timedelta(minutes=5)
    backup_age: timedelta = timedelta(hours=48)
    timeout: timedelta = FAILOVER_TIMEOUT
    pause: timedelta = timedelta(seconds=15)  # how long pgbouncer may hold clients


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillSettings:
    """Which disasters may be rehearsed here. `kinds` (): none.

    `rto` None: the tier's. `rpo`: the guide's, 0 for synchronous replication. `hard_limit`: a
    drill that takes longer is aborted, whatever it does. `leaves`: so many servers must be well
    beside the one that is lost; None: two in production, else one.
    """

    kinds: tuple[DrillKind, ...] = ()
    schedule: str = DRILL_CRON  # cron; '' for never
    zone: str = "UTC"
    kind: DrillKind = DrillKind.SWITCHOVER  # which one is scheduled
    every: timedelta = timedelta(days=92)  # older than this is overdue
    rto: timedelta | None = None
    rpo: timedelta = DATA_LOSS_MAX
    hard_limit: timedelta = timedelta(minutes=30)
    leaves: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSettings:
    """A database's cluster.

    `endpoint`: what applications connect to, with their own role, through the same HAProxy,
    pgbouncer or name. `user`, `password`: Patroni's REST API; `ca`: its certificate authority.
    """

    kind: ClusterKind
    nodes: tuple[ClusterNode, ...]
    endpoint: SecretStr | None = None
    user: str = ""
    password: SecretStr | None = None
    ca: Path | None = None
    is_synchronous: bool = False
    is_sandbox: bool = False  # on this machine, to be broken: allows network-split
    bouncers: tuple[BouncerSettings, ...] = ()
    limits: FailoverLimits = field(default_factory=FailoverLimits)
    drills: DrillSettings = field(default_factory=DrillSettings)
