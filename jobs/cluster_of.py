"""From the inventory's words about a cluster to what can look at it and change its roles."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import assert_never

from jobs.cluster_settings import ClusterSettings, FailoverLimits
from jobs.operation import Database, JobError
from postgres.cluster.adapter import Cluster
from postgres.cluster.checks import Limits
from postgres.cluster.words import ClusterKind, NodeSpec
from postgres.dsn import parse_dsn
from postgres.errors import PostgresError


def cluster_of(database: Database, *, clock: Callable[[], datetime]) -> Cluster:
    """The cluster of a database; `close()` it after use. It connects when it is first asked.

    Raises:
        JobError: the inventory does not name the database's servers, or a DSN cannot be read.
    """
    settings = database.cluster
    if settings is None:
        raise JobError(
            f"The inventory does not name the servers of {database.name}.",
            next_step=f"Write `cluster:` for it: see /db replication {database.name}.",
        )
    try:
        nodes = specs_of(settings)
    except PostgresError as error:
        raise JobError(error.problem, next_step=error.next_step) from error
    match settings.kind:
        case ClusterKind.PATRONI:
            # Imported here: an HTTP client is heavy, and most that starts never asks for one.
            from postgres.cluster.patroni import PatroniCluster  # noqa: PLC0415

            return PatroniCluster(
                nodes, user=settings.user, password=settings.password, ca=settings.ca, clock=clock
            )
        case ClusterKind.PAIR:
            from postgres.cluster.pair import PairCluster  # noqa: PLC0415

            return PairCluster(nodes, clock=clock)
        case _:
            assert_never(settings.kind)


def specs_of(settings: ClusterSettings) -> tuple[NodeSpec, ...]:
    """The servers that the inventory names, in its order.

    Raises:
        PostgresError: a DSN cannot be understood.
    """
    return tuple(
        NodeSpec(
            name=node.name,
            target=parse_dsn(node.dsn.get_secret_value()),
            region=node.region,
            rest=node.rest,
            host=node.host,
        )
        for node in settings.nodes
    )


def limits_of(limits: FailoverLimits) -> Limits:
    """What is still good enough for a change of roles."""
    return Limits(
        lag_bytes=limits.lag_bytes,
        lag=limits.lag,
        reply_age=limits.reply_age,
        transaction_age=limits.transaction_age,
    )
