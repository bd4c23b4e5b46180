"""The names of everything that is measured: one word each, for samples, rules, charts, /metrics.

Pure. The guide's metrics are all here; alert rules of an inventory may name any of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Unit(StrEnum):
    """What a number counts. People see it spelled out; rules are written in it."""

    MILLISECONDS = "ms"
    SECONDS = "s"
    PERCENT = "%"
    BYTES = "bytes"
    COUNT = ""
    PER_SECOND = "/s"
    PER_MINUTE = "/min"
    PER_HOUR = "/h"
    BYTES_PER_SECOND = "bytes/s"
    BYTES_PER_DAY = "bytes/day"
    DAYS = "days"


class Better(StrEnum):
    """Which way is good, for arrows and colours."""

    LOW = "low"
    HIGH = "high"
    NEITHER = "neither"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """`is_of_node`: each node has its own value; else it is known of the primary alone."""

    name: str
    unit: Unit
    says: str
    better: Better = Better.LOW
    is_of_node: bool = True


def _of(name: str, unit: Unit, says: str, better: Better = Better.LOW) -> Metric:
    return Metric(name=name, unit=unit, says=says, better=better)


def _primary(name: str, unit: Unit, says: str, better: Better = Better.LOW) -> Metric:
    return Metric(name=name, unit=unit, says=says, better=better, is_of_node=False)


_ALL: Final = (
    # Performance
    _of("query_ms_avg", Unit.MILLISECONDS, "average time of a statement, without utility ones"),
    _of("query_ms_p95", Unit.MILLISECONDS, "95 of 100 statements are faster (estimated)"),
    _of("slow_queries", Unit.PER_MINUTE, "statements over one second, about (estimated)"),
    _of("slow_queries_max", Unit.PER_MINUTE, "statements over one second, at most"),
    _of("qps", Unit.PER_SECOND, "statements, without utility ones", Better.NEITHER),
    _of("tps", Unit.PER_SECOND, "transactions, committed and rolled back", Better.NEITHER),
    _of("rollback_pct", Unit.PERCENT, "share of transactions that were rolled back"),
    # Connections
    _of("connections_active", Unit.COUNT, "client connections at work", Better.NEITHER),
    _of("connections_idle", Unit.COUNT, "client connections that wait for their client"),
    _of("connections_idle_in_transaction", Unit.COUNT, "connections idle in a transaction"),
    _of("connections_waiting", Unit.COUNT, "connections that wait for a lock, or in pgbouncer"),
    _of("connections_total", Unit.COUNT, "client connections", Better.NEITHER),
    _of("connections_usable", Unit.COUNT, "slots that clients may use", Better.NEITHER),
    _of("pool_usage_pct", Unit.PERCENT, "share of the usable slots that is taken"),
    # Health
    _primary("replication_lag_ms", Unit.MILLISECONDS, "how far the worst standby is behind"),
    _primary("replication_lag_bytes", Unit.BYTES, "WAL that the worst standby has not replayed"),
    _primary("replicas_streaming", Unit.COUNT, "standbys that stream", Better.HIGH),
    _primary("replicas_missing", Unit.COUNT, "standbys of the inventory that do not stream"),
    _primary("nodes_writable", Unit.COUNT, "servers of `cluster:` that take writes: one is well"),
    _primary("nodes_missing", Unit.COUNT, "servers of `cluster:` that do not answer"),
    _of("cache_hit_pct", Unit.PERCENT, "blocks found in shared buffers", Better.HIGH),
    _of("deadlocks", Unit.PER_HOUR, "deadlocks within the last hour"),
    _of("lock_waits", Unit.COUNT, "lock requests that are not granted"),
    _of("lock_wait_s_max", Unit.SECONDS, "the longest wait for a lock"),
    _of("query_s_max", Unit.SECONDS, "the longest statement at work"),
    _of("transaction_s_max", Unit.SECONDS, "the longest open transaction"),
    _of("idle_in_transaction_s_max", Unit.SECONDS, "the longest idle in a transaction"),
    _of("prepared_transactions", Unit.COUNT, "prepared transactions that nobody has ended"),
    _of("xid_age_pct", Unit.PERCENT, "of the way to transaction id wraparound"),
    _of("mxid_age_pct", Unit.PERCENT, "of the way to multixact wraparound"),
    _of("checksum_failures", Unit.COUNT, "damaged pages that the server has met since its start"),
    _of("invalid_indexes", Unit.COUNT, "indexes that are invalid and not being built"),
    _of("temp_bytes_s", Unit.BYTES_PER_SECOND, "temporary files written"),
    _of("bad_sessions", Unit.PER_HOUR, "sessions that ended fatally, killed or abandoned"),
    _of("autovacuum_workers", Unit.COUNT, "autovacuum workers at work", Better.NEITHER),
    _of("pending_restart", Unit.COUNT, "settings that wait for a restart"),
    # WAL, archiver, slots, checkpoints
    _primary("wal_bytes_s", Unit.BYTES_PER_SECOND, "WAL written", Better.NEITHER),
    _primary("archive_failing_s", Unit.SECONDS, "for how long archive_command has been failing"),
    _of("slots_inactive", Unit.COUNT, "replication slots that nobody uses"),
    _of("slot_retained_bytes_max", Unit.BYTES, "WAL that the worst slot holds back"),
    _of("checkpoints_requested_pct", Unit.PERCENT, "checkpoints that WAL volume forced early"),
    # Storage
    _primary("database_bytes", Unit.BYTES, "size of all databases of the cluster", Better.NEITHER),
    _primary("growth_bytes_day", Unit.BYTES_PER_DAY, "growth, as a trend", Better.NEITHER),
    _of("disk_usage_pct", Unit.PERCENT, "of the data volume, as df counts it"),
    _of("disk_free_bytes", Unit.BYTES, "free on the data volume", Better.HIGH),
    _primary("days_until_full", Unit.DAYS, "until the volume is full (P10)", Better.HIGH),
    # Of the monitoring itself
    _of("up", Unit.COUNT, "1 while the server answers", Better.HIGH),
    _of("sample_age_s", Unit.SECONDS, "age of the newest sample"),
    _of("statistics_age_s", Unit.SECONDS, "since statistics were reset", Better.NEITHER),
    _of("collection_ms", Unit.MILLISECONDS, "what the last collection took"),
)
METRICS: Final[Mapping[str, Metric]] = MappingProxyType({metric.name: metric for metric in _ALL})
