"""Until when a volume lasts, for those states whose last sample does not say it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from jobs.capacity import CapacityReport, forecast_of
from jobs.health_state import HealthState


async def with_outlook(conn: AsyncConnection, state: HealthState, now: datetime) -> HealthState:
    """The state with its growth and its days until full, from the sizes that are stored.

    A forecast takes some hundredths of a second, in a thread: for one database, or by the clock.
    """
    main = state.main
    if main is None or not main.ok or main.numbers.get("days_until_full") is not None:
        return state
    found = await forecast_of(conn, state.database, now)
    if not isinstance(found, CapacityReport):
        return state
    numbers: Mapping[str, float | None] = {
        **main.numbers,
        "growth_bytes_day": found.forecast.bytes_per_day,
        "days_until_full": found.days_until_full,
    }
    changed = replace(main, numbers=numbers)
    nodes = tuple(changed if node is main else node for node in state.nodes)
    return replace(state, nodes=nodes)
