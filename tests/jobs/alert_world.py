"""A database, its servers as they were measured, and looks at it, without a store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import SecretStr

from jobs.alert_cluster import cluster_signals
from jobs.alert_engine import Decision, Look, decide
from jobs.alert_machine import Memory
from jobs.alert_readings import metric_signals, servers_of
from jobs.alert_signal import Key
from jobs.health_settings import MonitoringSettings, Node
from jobs.operation import Database
from store.incidents import AlertRow, IncidentRow
from store.samples import NodeRow
from store.silences import SilenceRow
from tests.jobs.test_timetable import a_database

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
SECOND, MINUTE, HOUR, DAY = (
    timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
)  # fmt: skip
# All that the rules ask for, well.
WELL: Mapping[str, float | None] = {
    "pool_usage_pct": 20, "connections_waiting": 0, "slow_queries": 1, "replication_lag_ms": 5,
    "disk_usage_pct": 40, "deadlocks": 0, "replicas_missing": 0, "slots_inactive": 0,
    "slot_retained_bytes_max": 0, "archive_failing_s": 0, "xid_age_pct": 3, "mxid_age_pct": 1,
    "checksum_failures": 0, "days_until_full": 400, "lock_wait_s_max": 0,
    "idle_in_transaction_s_max": 0, "transaction_s_max": 1, "invalid_indexes": 0,
    "pending_restart": 0,
}  # fmt: skip


def orders(*replicas: str, **monitoring: Any) -> Database:
    """The database `orders` with replicas of these names."""
    nodes = tuple(Node(name=name, dsn=SecretStr("postgresql://x")) for name in replicas)
    settings = MonitoringSettings(**monitoring)
    return replace(a_database(), replicas=nodes, monitoring=settings)


def a_node(
    now: datetime, name: str = "orders", *, role: str = "primary", ok: bool = True,
    seen: timedelta | None = timedelta(0), detail: Mapping[str, Any] | None = None, **numbers: Any,
) -> NodeRow:  # fmt: skip
    """What a server said `seen` ago (None: never), at an attempt of now."""
    return NodeRow(
        database="orders", node=name, at=now, ok=ok,
        seen_at=None if seen is None else now - seen,
        problem="" if ok else "It refuses connections.",
        next_step="" if ok else "Start it.",
        numbers={**WELL, **numbers}, detail={"role": role, **(detail or {})},
    )  # fmt: skip


@dataclass
class Town:
    """Looks at one database; what a look decides is what the next one finds."""

    database: Database = field(default_factory=orders)
    now: datetime = NOON
    memories: dict[Key, Memory] = field(default_factory=dict)
    rows: dict[Key, AlertRow] = field(default_factory=dict)
    silences: list[SilenceRow] = field(default_factory=list)
    incident: IncidentRow | None = None
    notes: list[str] = field(default_factory=list)
    number: int = 0

    def looks(self, *nodes: NodeRow) -> Decision:
        """One look at these servers."""
        servers = servers_of(self.database, nodes, self.now)
        decision = decide(
            Look(
                database="orders",
                signals=(*metric_signals(servers), *cluster_signals(servers)),
                memories=self.memories, rows=self.rows, silences=tuple(self.silences),
                incident=self.incident,
            ),
            self.now,
        )  # fmt: skip
        self.keep(decision)
        return decision

    def lives(
        self, span: timedelta, *servers: Mapping[str, Any], step: timedelta = 30 * SECOND
    ) -> list[str]:
        """Looks of every half minute; what was said in the thread meanwhile."""
        before, end = len(self.notes), self.now + span
        while self.now < end:
            self.now += step
            self.looks(*(a_node(self.now, **given) for given in servers))
        return self.notes[before:]

    def keep(self, decision: Decision) -> None:
        """Store what was decided, as `bot.alert_storing` does."""
        for key, memory in decision.memories.items():
            self.memories.pop(key, None)
            if memory is not None:
                self.memories[key] = memory
        if self.incident is None and decision.severity is not None:
            self.number += 1
            self.incident = an_incident(self.number, self.now)
        if self.incident is not None:
            self.incident = replace(self.incident, severity=str(decision.severity))
        self._keep_rows(decision)
        if decision.severity is None:
            self.incident = None
        self.notes += [note.text for note in decision.notes if note.kind == "note"]

    def _keep_rows(self, decision: Decision) -> None:
        for row in decision.over:
            del self.rows[row.name, row.label]
        for standing in decision.firing:
            old = standing.row
            told = self.incident.id if standing.is_told and self.incident else None
            acked = None if standing.is_worse or old is None else old.acked_at
            self.rows[standing.key] = a_row(
                *standing.key, severity=str(standing.severity), problem=standing.words.problem,
                next_step=standing.words.next_step, value=standing.words.value,
                detail=standing.detail, incident_id=told, acked_at=acked,
                fired_at=old.fired_at if old else self.now,
            )  # fmt: skip

    def acks(self) -> None:
        """Somebody acknowledges all that was told."""
        self.rows = {
            key: replace(row, acked_at=self.now, acked_by="ana") if row.incident_id else row
            for key, row in self.rows.items()
        }

    @property
    def open_id(self) -> int | None:
        """The incident that is open, by the number that it got."""
        return self.incident.id if self.incident else None

    @property
    def told(self) -> Sequence[str]:
        """What fires and people know of."""
        return sorted(f"{row.name} {row.label}".strip() for row in self.rows.values()
                      if row.incident_id)  # fmt: skip

    @property
    def muted(self) -> dict[str, str]:
        """What fires and nobody is to hear of now, and why."""
        return {row.name: str(row.detail["muted"]) for row in self.rows.values()
                if row.detail["muted"]}  # fmt: skip


def a_row(name: str, label: str = "", **more: Any) -> AlertRow:
    """An alert that fires, as it is stored."""
    values: dict[str, Any] = {
        "id": abs(hash((name, label))), "incident_id": 1, "database": "orders",
        "severity": "warning", "state": "firing", "problem": "p", "next_step": "n", "value": None,
        "fired_at": NOON, "seen_at": NOON, "resolved_at": None, "acked_at": None, "acked_by": "",
        "detail": {"muted": ""},
    }  # fmt: skip
    return AlertRow(**{**values, "name": name, "label": label, **more})


def an_incident(number: int, at: datetime) -> IncidentRow:
    """An open one."""
    return IncidentRow(
        id=number, source="twokey", key="orders", database="orders", channel="C0DBOPS",
        severity="warning", state="open", opened_at=at, changed_at=at, closed_at=None, version=1,
        detail={},
    )  # fmt: skip


def a_silence(name: str = "", *, source: str = "person", ends: timedelta = HOUR) -> SilenceRow:
    """A silence from noon on."""
    return SilenceRow(
        id=1, database="orders", name=name, source=source, reason="the move", by="ana",
        by_slack="T0/U0", request_id=None, starts_at=NOON, ends_at=NOON + ends, ended_at=None,
        ended_by="",
    )  # fmt: skip
