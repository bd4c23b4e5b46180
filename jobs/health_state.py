"""How databases do, as the store knows it: their nodes' last samples, and what fires.

A few statements, whatever the number of databases. Nothing here asks a database.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from jobs.alert_rule import stale_after
from jobs.operation import Database
from store.samples import NodeRow, nodes_of

PRIMARY: Final = "primary"
_ALERTS_MAX: Final = 1000

# The worst first. One of a database may stand there several times, with different labels.
FIRING: Final = sa.text("""
    SELECT database, name, label, severity, problem, next_step, fired_at, acked_by, detail
      FROM alerts
     WHERE state = 'firing'
       AND database = ANY(:names)
     ORDER BY severity = 'critical' DESC, acked_by <> '', fired_at, id
     LIMIT :rows_max
""").bindparams(sa.bindparam("names", type_=ARRAY(sa.Text())))


@dataclass(frozen=True, slots=True, kw_only=True)
class FiringAlert:
    """An alert that fires now. `label`: which of several of its name, or ''.

    `detail`: of `store.incidents.AlertRow`; `muted` there is why nobody is told, or ''.
    """

    name: str
    label: str
    severity: str
    problem: str
    next_step: str
    fired_at: datetime
    acked_by: str
    detail: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Such as "ReplicaMissing west"."""
        return f"{self.name} {self.label}".strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthState:
    """One database. `nodes`: those that were ever looked at; `alerts`: the worst first."""

    database: Database
    nodes: tuple[NodeRow, ...] = ()
    alerts: tuple[FiringAlert, ...] = ()

    @property
    def main(self) -> NodeRow | None:
        """The node that takes writes; without one, that of the inventory's own DSN."""
        seen = [node for node in self.nodes if node.seen_at is not None]
        named = (node for node in self.nodes if node.node == self.database.name)
        return next((node for node in seen if role_of(node) == PRIMARY), next(named, None))

    @property
    def numbers(self) -> Mapping[str, float | None]:
        """The last numbers of the main node; empty when there are none."""
        return self.main.numbers if self.main is not None else {}

    @property
    def detail(self) -> Mapping[str, Any]:
        """What those numbers are about."""
        return self.main.detail if self.main is not None else {}

    @property
    def seen_at(self) -> datetime | None:
        """When the main node was last looked at with success."""
        return self.main.seen_at if self.main is not None else None

    def is_blind(self, now: datetime) -> bool:
        """Whether any node that was ever seen has not been for too long."""
        return any(is_stale(node, self.database, now) for node in self.nodes)


def role_of(node: NodeRow) -> str:
    """`primary`, `standby`, or '' where nobody knows."""
    role = node.detail.get("role")
    return role if isinstance(role, str) else ""


def is_stale(node: NodeRow, database: Database, now: datetime) -> bool:
    """Whether a node was seen once and then for too long not any more: as alerts count it."""
    return node.seen_at is not None and now - node.seen_at > stale_after(database.monitoring)


async def health_states(
    conn: AsyncConnection, databases: Iterable[Database]
) -> Sequence[HealthState]:
    """How each of these databases does, in their order."""
    wanted = list(databases)
    names = [database.name for database in wanted]
    nodes: dict[str, list[NodeRow]] = {name: [] for name in names}
    for node in await nodes_of(conn, names):
        nodes[node.database].append(node)
    alerts: dict[str, list[FiringAlert]] = {name: [] for name in names}
    values = {"names": names, "rows_max": _ALERTS_MAX}
    for row in (await conn.execute(FIRING, values)).mappings():
        told = {name: value for name, value in row.items() if name != "database"}
        alerts[row["database"]].append(FiringAlert(**told))
    return [
        HealthState(
            database=database,
            nodes=_expected(database, nodes[database.name]),
            alerts=tuple(alerts[database.name]),
        )
        for database in wanted
    ]


def _expected(database: Database, nodes: Sequence[NodeRow]) -> tuple[NodeRow, ...]:
    """The nodes of the inventory in its order; what was taken out of it is no node any more."""
    order = [database.name, *(replica.name for replica in database.replicas)]
    kept = [node for node in nodes if node.node in order]
    return tuple(sorted(kept, key=lambda node: order.index(node.node)))
