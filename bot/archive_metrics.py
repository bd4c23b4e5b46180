"""What Prometheus hears of WAL archives."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Gauge

from store.archives import ArchiveState

WELL = ("streaming", "starting")


class ArchiveMetrics:
    """Gauges by database; one that is archived no more has none."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._well = Gauge(
            "twokey_archive_ok", "1 while a database's WAL is archived in time", ["database"],
            registry=registry,
        )  # fmt: skip
        self._seen = Gauge(
            "twokey_archive_seen_timestamp_seconds", "When somebody last looked after the archive",
            ["database"], registry=registry,
        )  # fmt: skip
        self._lag = Gauge(
            "twokey_archive_lag_bytes", "WAL that was written and is not archived yet",
            ["database"], registry=registry,
        )  # fmt: skip
        self._slot = Gauge(
            "twokey_archive_slot_bytes", "WAL that the server keeps for our slot", ["database"],
            registry=registry,
        )  # fmt: skip

    def show(self, states: Sequence[ArchiveState]) -> None:
        """Replace what was shown. What is not known of a database is left out."""
        for gauge in (self._well, self._seen, self._lag, self._slot):
            gauge.clear()
        for state in states:
            self._well.labels(state.database).set(state.state in WELL)
            self._seen.labels(state.database).set(state.at.timestamp())
            if state.lag_bytes is not None:
                self._lag.labels(state.database).set(state.lag_bytes)
            if state.slot_bytes is not None:
                self._slot.labels(state.database).set(state.slot_bytes)
