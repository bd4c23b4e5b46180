"""What we count, in a registry of our own: a process may hold several bots."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Final

import sqlalchemy as sa
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from bot.archive_metrics import ArchiveMetrics
from bot.audit_metrics import AuditMetrics
from bot.health_metrics import HealthMetrics
from store.archives import list_archives
from store.connect import Store
from store.samples import nodes_in_short

_ACK_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0)
# Final states are not counted row by row: there may be millions, and they do not change.
OPEN_STATES: Final = ("pending", "approved", "executing", "needs_review")
SEVERITIES: Final = ("warning", "critical")
OPEN_RUNS: Final = ("queued", "running", "needs_attention")

COUNT_STATES: Final = sa.text("""
    SELECT 'requests' AS what, state, count(*) AS number
      FROM requests
     WHERE state = ANY(:requests)
     GROUP BY state
     UNION ALL
    SELECT 'runs', state, count(*)
      FROM runs
     WHERE state = ANY(:runs)
     GROUP BY state
     UNION ALL
    SELECT 'alerts', severity, count(*)
      FROM alerts
     WHERE state = 'firing'
     GROUP BY severity
""")


class Metrics:
    """The numbers of one process; `text` reads those that the store knows."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.audit = AuditMetrics(self.registry)
        self.archives = ArchiveMetrics(self.registry)
        self.health = HealthMetrics(self.registry)
        self._ack = Histogram(
            "twokey_ack_seconds",
            "From a request's arrival to its ack",
            ["kind"],
            buckets=_ACK_BUCKETS,
            registry=self.registry,
        )
        self._decisions = Counter(
            "twokey_decisions", "Decisions by action, result and door",
            ["action", "result", "door"], registry=self.registry,
        )  # fmt: skip
        self._no = Counter(
            "twokey_refusals", "What doors refused before it came to a decision", ["door", "why"],
            registry=self.registry,
        )  # fmt: skip
        self._refused = Counter(
            "twokey_gate_refusals", "Requests turned away at the gate", ["why"],
            registry=self.registry,
        )  # fmt: skip
        self._broken = Counter(
            "twokey_failures", "Failures that got an id and a traceback", ["where"],
            registry=self.registry,
        )  # fmt: skip
        self._delivered = Counter(
            "twokey_outbox_delivered", "Messages that arrived in Slack", ["topic"],
            registry=self.registry,
        )  # fmt: skip
        self._undelivered = Counter(
            "twokey_outbox_failures", "Attempts that did not succeed", ["kind"],
            registry=self.registry,
        )  # fmt: skip
        self._waiting = Gauge("twokey_outbox_waiting", "Messages that wait", registry=self.registry)
        self._age = Gauge(
            "twokey_outbox_age_seconds", "Age of the oldest message that waits",
            registry=self.registry,
        )  # fmt: skip
        self._states = {
            "requests": Gauge(
                "twokey_requests", "Open requests by state", ["state"], registry=self.registry
            ),
            "runs": Gauge("twokey_runs", "Open runs by state", ["state"], registry=self.registry),
            "alerts": Gauge(
                "twokey_alerts",
                "Alerts that fire by severity",
                ["severity"],
                registry=self.registry,
            ),
        }

    @contextmanager
    def ack(self, kind: str) -> Iterator[None]:
        """Time an interaction until its ack."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._ack.labels(kind).observe(time.perf_counter() - started)

    def decided(self, action: str, result: str, door: str = "slack") -> None:
        """Count a decision; `result` is `ok`, `noop` or why not."""
        self._decisions.labels(action, result, door).inc()

    def refused(self, door: str, why: str) -> None:
        """Count what was refused at a door before it came to a decision."""
        self._no.labels(door, why).inc()

    def turned_away(self, why: str) -> None:
        """Count a request that the gate refused."""
        self._refused.labels(why).inc()

    def broke(self, where: str) -> None:
        """Count a failure that is a bug."""
        self._broken.labels(where).inc()

    def delivered(self, topic: str) -> None:
        """Count a message that arrived."""
        self._delivered.labels(topic).inc()

    def failed(self, kind: str) -> None:
        """Count an attempt at a message that did not succeed."""
        self._undelivered.labels(kind).inc()

    def outbox(self, *, waiting: int, oldest_at: datetime | None, now: datetime) -> None:
        """What waits in the outbox."""
        self._waiting.set(waiting)
        self._age.set((now - oldest_at).total_seconds() if oldest_at else 0)

    async def read(self, store: Store) -> None:
        """Read what the store knows."""
        for gauge, states in (
            ("requests", OPEN_STATES),
            ("runs", OPEN_RUNS),
            ("alerts", SEVERITIES),
        ):
            for state in states:
                self._states[gauge].labels(state).set(0)
        async with store.begin() as conn:
            found = await conn.execute(
                COUNT_STATES, {"requests": list(OPEN_STATES), "runs": list(OPEN_RUNS)}
            )
            for row in found:
                self._states[row.what].labels(row.state).set(row.number)
            self.archives.show(await list_archives(conn))
            self.health.show(await nodes_in_short(conn))

    def text(self) -> bytes:
        """Everything in Prometheus's text format."""
        return generate_latest(self.registry)
