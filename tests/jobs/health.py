"""Nodes, alerts and states of health for tests: a healthy primary unless they say otherwise."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from jobs.health_settings import MonitoringSettings
from jobs.health_state import FiringAlert, HealthState
from store.samples import NodeRow
from tests.jobs.test_timetable import a_database

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
NUMBERS: dict[str, float | None] = {
    "up": 1, "connections_active": 3, "connections_idle": 20, "connections_total": 23,
    "connections_idle_in_transaction": 0, "connections_waiting": 0, "connections_usable": 97,
    "pool_usage_pct": 24, "query_ms_avg": 2.3, "query_ms_p95": 27.7, "slow_queries": 0,
    "slow_queries_max": 0, "qps": 1234, "cache_hit_pct": 99.2, "replication_lag_ms": 20,
    "replicas_streaming": 0, "replicas_missing": 0, "deadlocks": 0, "lock_waits": 0,
    "xid_age_pct": 12, "archive_failing_s": 0, "slots_inactive": 0,
    "slot_retained_bytes_max": 0, "database_bytes": 52 * 2**30,
    "growth_bytes_day": 120 * 2**20, "disk_usage_pct": 61, "disk_free_bytes": 120 * 2**30,
    "days_until_full": 400,
}  # fmt: skip


def a_node(name: str = "orders", **more: Any) -> NodeRow:
    values: dict[str, Any] = {
        "database": "orders", "node": name, "at": NOW, "ok": True, "region": "eu-central-1",
        "collector": "w1", "seen_at": NOW - timedelta(seconds=8), "numbers": NUMBERS,
        "detail": {"role": "primary" if name == "orders" else "standby"},
    }  # fmt: skip
    return NodeRow(**{**values, **more})


def an_alert(name: str = "HighPoolUsage", severity: str = "warning", **more: Any) -> FiringAlert:
    values: dict[str, Any] = {
        "name": name, "label": "", "severity": severity, "problem": "Pool use is 91 %.",
        "next_step": "Look: /db pool orders", "fired_at": NOW - timedelta(minutes=5),
        "acked_by": "",
    }  # fmt: skip
    return FiringAlert(**{**values, **more})


def a_health(*nodes: NodeRow, alerts: tuple[FiringAlert, ...] = (), **settings: Any) -> HealthState:
    database = replace(a_database(), monitoring=MonitoringSettings(**settings))
    return HealthState(database=database, nodes=nodes, alerts=alerts)
