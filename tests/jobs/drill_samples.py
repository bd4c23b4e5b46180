"""A drill that went well, to be changed by tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from jobs.cluster_settings import DrillKind
from jobs.drill_words import Cost, DrillEnd, DrillReport, Moment, Phase

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
COST = Cost(
    acknowledged=1200, lost=0, ambiguous=1, rpo_seconds=0.0, heartbeat_seconds=0.4,
    write_gap_seconds=11.5, rto_seconds=12.25,
)  # fmt: skip
BACK = Cost(
    acknowledged=1900, lost=0, ambiguous=0, rpo_seconds=0.0, heartbeat_seconds=0.1,
    write_gap_seconds=0.8, rto_seconds=0.9,
)  # fmt: skip
# Seconds after noon; the fault is at 30.
TIMES = {
    Phase.ANNOUNCED: 0.0, Phase.CHECKED: 8.0, Phase.WRITING: 20.0, Phase.INJECTED: 30.0,
    Phase.DETECTED: 32.0, Phase.PROMOTED: 41.0, Phase.CONNECTED: 42.5, Phase.MEASURED: 44.0,
    Phase.REDUNDANT: 75.0, Phase.SWITCHED_BACK: 80.0, Phase.COMPARED: 82.0,
}  # fmt: skip


def moments(times: dict[Phase, float] = TIMES, *, since: datetime = NOON) -> tuple[Moment, ...]:
    """When each phase was reached."""
    return tuple(
        Moment(phase=phase, at=since + timedelta(seconds=seconds), text=f"{phase} it was")
        for phase, seconds in times.items()
    )


FULL = DrillReport(
    database="orders",
    environment="production",
    tier="critical",
    cluster="patroni",
    kind=DrillKind.PRIMARY_CRASH,
    request_id=17,
    started_at=NOON,
    ended_at=NOON + timedelta(seconds=82),
    end=DrillEnd.PASSED,
    missed=(),
    victim="east",
    primary_before="east",
    primary_after="east",
    moments=moments(),
    cost=COST,
    cost_back=BACK,
    rto_limit_seconds=900,
    rpo_limit_seconds=60,
    lag_bytes=16384,
    connectivity="a row was written through the endpoint and read back on west",
    is_connected=True,
    is_redundant=True,
    is_switched_back=True,
    settings={"ttl": "20", "loop_wait": "5"},
    facts=(("Killed", "process 123 and 8 others"),),
)
