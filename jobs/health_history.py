"""What a node's numbers were lately, yesterday and a week ago: for trends and charts. SQL only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from jobs.trends import Trend, trend_of
from postgres.health.metrics import METRICS
from store.samples import Point, series

TRENDS: Final = (
    "query_ms_avg", "query_ms_p95", "slow_queries", "qps", "connections_active",
    "connections_idle", "connections_waiting", "pool_usage_pct", "replication_lag_ms",
    "cache_hit_pct", "deadlocks", "lock_waits", "disk_usage_pct",
)  # fmt: skip
# Half an hour of five-minute averages is what "now" and "then" are judged by.
_SPAN: Final = timedelta(minutes=30)
_WIDTH: Final = "5m"
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Averages of a node. `hours`: the last 24, of `qps` and `connections_total` alone."""

    now: tuple[Point, ...] = ()
    yesterday: tuple[Point, ...] = ()
    last_week: tuple[Point, ...] = ()
    hours: tuple[Point, ...] = ()

    @property
    def trends(self) -> Mapping[str, Trend]:
        """What has changed by more than noise, by the metric's name."""
        found = {
            name: trend_of(
                METRICS[name],
                values_of(self.now, name),
                yesterday=values_of(self.yesterday, name),
                last_week=values_of(self.last_week, name),
            )
            for name in TRENDS
        }
        return {name: trend for name, trend in found.items() if trend is not None}


async def history_of(conn: AsyncConnection, database: str, node: str, now: datetime) -> History:
    """Four short looks at the roll-ups of one node."""

    async def span(end: datetime) -> tuple[Point, ...]:
        return tuple(
            await series(conn, database, node, TRENDS, since=end - _SPAN, until=end, width=_WIDTH)
        )

    return History(
        now=await span(now),
        yesterday=await span(now - _DAY),
        last_week=await span(now - 7 * _DAY),
        hours=tuple(
            await series(
                conn, database, node, ("qps", "connections_total"),
                since=now - _DAY, until=now, width="1h",
            )
        ),
    )  # fmt: skip


def values_of(points: Sequence[Point], name: str) -> list[float]:
    """The averages of one metric, without the points that have none."""
    found = (point.numbers.get(name) for point in points)
    return [value for value in found if value is not None]
