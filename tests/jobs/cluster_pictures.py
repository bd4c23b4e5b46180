"""A database with a named cluster, and its servers as a look would see them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import SecretStr

from jobs.cluster_settings import ClusterNode, ClusterSettings
from jobs.operation import Database
from postgres.cluster.words import ClusterKind, NodeSeen, Role

BEGAN = datetime(2026, 11, 1, tzinfo=UTC)


def clustered(database: Database, *names: str) -> Database:
    """The same database with servers of these names."""
    nodes = tuple(
        ClusterNode(name=name, dsn=SecretStr(f"postgresql://u@{name}.example/x"))
        for name in names or ("east", "west")
    )
    return replace(database, cluster=ClusterSettings(kind=ClusterKind.PAIR, nodes=nodes))


def primary(name: str = "east", **changes: Any) -> NodeSeen:
    """One that takes writes."""
    usual = NodeSeen(
        name=name, region="", role=Role.PRIMARY, is_writable=True, system_identifier="77",
        timeline=3, position=2**24, started_at=BEGAN + timedelta(seconds=len(name)),
    )  # fmt: skip
    return replace(usual, **changes)


def standby(name: str = "west", **changes: Any) -> NodeSeen:
    """One that follows."""
    usual = replace(
        primary(name), role=Role.STANDBY, is_writable=False, started_at=BEGAN - timedelta(days=1)
    )
    return replace(usual, **changes)


def away(name: str = "west") -> NodeSeen:
    """One that does not answer."""
    return NodeSeen(name=name, region="", problem=f"connection refused by {name}.example:5432")


def promoted(name: str = "west") -> NodeSeen:
    """One that was promoted while the other lived."""
    return primary(name, timeline=4, started_at=BEGAN - timedelta(days=1))
