"""How long Slack waits, and how fast one may talk to it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimits:
    """Slack's limits: posts per channel, and calls of a method per minute by its tier."""

    enabled: bool = False
    posts_per_second: float = 1.0
    burst: int = 3
    calls_per_minute: tuple[int, ...] = (1, 20, 50, 100)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Slack's deadlines in seconds; tests shorten them."""

    ack_seconds: float = 3.0
    event_retry_seconds: tuple[float, ...] = (0.0, 60.0, 300.0)
    trigger_seconds: float = 3.0
    response_url_seconds: float = 1800.0
    ticket_seconds: float = 30.0
    socket_grace_seconds: float = 10.0
    heartbeat_seconds: float = 15.0
    limits: RateLimits = field(default_factory=RateLimits)
