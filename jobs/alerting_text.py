"""What an alert's number is, in words. Pure."""

from __future__ import annotations

from jobs.metric_text import metric_text, number_text
from postgres.health.metrics import METRICS
from store.incidents import AlertRow


def value_text(alert: AlertRow) -> str:
    """The value that an alert fired with, in its metric's unit; '-' where it has none."""
    if alert.value is None:
        return "-"
    metric = str(alert.detail.get("metric", ""))
    return metric_text(metric, alert.value) if metric in METRICS else number_text(alert.value)
