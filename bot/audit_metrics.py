"""What we count of schedules and of the audit's anchors."""

from __future__ import annotations

from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge


class AuditMetrics:
    """The numbers of one process. Implements `jobs.schedules.ScheduleMeter`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._firings = Counter(
            "twokey_schedule_firings", "Firings of schedules by result (fired, missed, failed)",
            ["schedule", "result"], registry=registry,
        )  # fmt: skip
        self._appended = Counter(
            "twokey_audit_anchor_file", "Anchors for this host's file by result (appended, failed)",
            ["result"], registry=registry,
        )  # fmt: skip
        self._newest = Gauge(
            "twokey_audit_anchor_time_seconds",
            "When the newest anchor of the audit was taken, in seconds since 1970; 0: none",
            registry=registry,
        )

    def fired(self, schedule: str, result: str) -> None:
        """Count a firing."""
        self._firings.labels(schedule, result).inc()

    def appended(self, *, ok: bool) -> None:
        """Count an anchor that got into this host's file, or did not."""
        self._appended.labels("appended" if ok else "failed").inc()

    def newest(self, at: datetime) -> None:
        """When the newest anchor was taken."""
        self._newest.set(at.timestamp())
