"""A worker's limits, from what the operator has set. Pure."""

from __future__ import annotations

from bot.settings import Settings
from jobs.limits import Limits


def limits_of(settings: Settings) -> Limits:
    """The worker's limits. A worker must have let go before another may take over."""
    lost, usual = settings.worker_lost_after, Limits()
    return Limits(
        concurrency=settings.runs_at_once,
        stop_grace=settings.stop_limit,
        stale=lost,
        heartbeat=lost / 6,
        pulse=min(lost / 6, usual.pulse),
        reap=min(lost / 6, usual.reap),
        lock_grace=lost / 2,
        cleanup=lost / 3,
    )
