"""What Prometheus hears of the databases' health: the last numbers of each node.

Names and numbers alone: never a query's text, a user, an address.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Gauge

from postgres.health.metrics import METRICS
from store.samples import NodeRow

PREFIX: Final = "twokey_node_"
_LABELS: Final = ("database", "node", "region")


class HealthMetrics:
    """A gauge for each metric that a node has, such as `twokey_node_replication_lag_ms`.

    What is not known of a node is left out, and so is a node that is looked at no more. The age
    of a sample is for the reader to work out, so that a bot that hangs does not look fresh.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._numbers = {
            name: Gauge(PREFIX + name, _says(name), _LABELS, registry=registry)
            for name in METRICS
            if name != "sample_age_s"
        }
        self._looked = Gauge(
            "twokey_last_look_timestamp_seconds", "When a node was last looked at, with or without"
            " an answer", _LABELS, registry=registry,
        )  # fmt: skip
        self._sampled = Gauge(
            "twokey_last_sample_timestamp_seconds", "When a node last answered", _LABELS,
            registry=registry,
        )  # fmt: skip
        self._primary = Gauge(
            "twokey_node_is_primary", "1 while a node takes writes", _LABELS, registry=registry
        )

    def show(self, nodes: Sequence[NodeRow]) -> None:
        """Replace what was shown."""
        for gauge in (*self._numbers.values(), self._looked, self._sampled, self._primary):
            gauge.clear()
        for node in nodes:
            labels = (node.database, node.node, node.region)
            self._looked.labels(*labels).set(node.at.timestamp())
            if node.seen_at is not None:
                self._sampled.labels(*labels).set(node.seen_at.timestamp())
            if node.ok:
                self._primary.labels(*labels).set(node.detail.get("role") == "primary")
            for name, value in node.numbers.items():
                if value is not None and name in self._numbers:
                    self._numbers[name].labels(*labels).set(value)


def _says(name: str) -> str:
    metric = METRICS[name]
    return f"{metric.says} ({metric.unit})" if metric.unit else metric.says
