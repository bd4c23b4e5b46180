"""Token buckets: how many calls Slack takes before it says 429. Pure but for their state."""

from __future__ import annotations

import math
from typing import Final

from sandbox.slack.bounded import Bounded
from sandbox.slack.timings import RateLimits

BUCKETS_MAX: Final = 10_000


class RateLimiter:
    """One bucket per channel for posts, one per method for everything else."""

    def __init__(self, limits: RateLimits) -> None:
        self.limits = limits
        self._buckets: Bounded[str, tuple[float, float]] = Bounded(BUCKETS_MAX)

    def wait_seconds(self, *, method: str, channel: str, tier: int, now: float) -> int:
        """0 when the call may pass, else the whole seconds for `Retry-After`."""
        if not self.limits.enabled:
            return 0
        if tier == 0:
            key, rate, most = f"post {channel}", self.limits.posts_per_second, self.limits.burst
        else:
            most = self.limits.calls_per_minute[tier - 1]
            key, rate = method, most / 60
        return self._take(key, rate=rate, most=most, now=now)

    def _take(self, key: str, *, rate: float, most: int, now: float) -> int:
        tokens, since = self._buckets.get(key, (float(most), now))
        tokens = min(float(most), tokens + (now - since) * rate)
        if tokens >= 1:
            self._buckets[key] = (tokens - 1, now)
            return 0
        self._buckets[key] = (tokens, now)
        return max(1, math.ceil((1 - tokens) / rate))
