"""Brings a drill that cannot go on to a safe end, as `jobs.drill_safety` decides."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final, assert_never

from pydantic import JsonValue

from jobs.cluster_settings import ClusterSettings
from jobs.drill_hands import DrillOrder, bring_back_all, lead_clients, take_back, told
from jobs.drill_safety import SafeEnd, Safety, safe_end
from jobs.failing_over import opened
from jobs.operation import Job, JobError
from jobs.text import span_text

_LOOK_EVERY_SECONDS: Final = 0.5
_RETURN_LIMIT: Final = timedelta(minutes=2)


async def bring_to_safe_end(
    job: Job, settings: ClusterSettings, order: DrillOrder, *, is_injected: bool
) -> JsonValue:
    """Do what is safe, and wait until one server takes writes and all others follow it.

    Returns `text`, `at` and `primary`: who takes writes.

    Raises:
        JobError: nobody may do anything before a person has looked, or it did not come about.
        PostgresError: a server does not come back; says which.
    """
    async with opened(job) as cluster:
        seen = await cluster.look()
    safety = safe_end(seen, victim=order.victim, leader=order.leader, is_injected=is_injected)
    match safety.end:
        case SafeEnd.NOTHING:
            return told(job.now, safety.why, primary=safety.primary)
        case SafeEnd.HANDS_OFF:
            raise _hands_off(safety)
        case SafeEnd.LIFT:
            done = await take_back(job, settings, order)
            primary = await _one_writes(job, settings)
            what = f"{done}, and {primary} takes writes."
        case SafeEnd.FORWARD:
            primary = safety.primary
            what = "The others follow it."
        case other:
            assert_never(other)
    await lead_clients(job, settings, primary=primary)
    await bring_back_all(job, order, primary=primary)
    return told(job.now, f"Brought to a safe end: {safety.why} {what}", primary=primary)


async def _one_writes(job: Job, settings: ClusterSettings) -> str:
    """Who takes writes, as soon as exactly one server does.

    Raises:
        JobError: none does in time, or more than one.
    """
    limit = max(settings.limits.timeout, _RETURN_LIMIT)  # the former may be what has run out
    end = asyncio.get_running_loop().time() + limit.total_seconds()
    async with opened(job) as cluster:
        while True:
            seen = await cluster.look()
            if seen.primary is not None:
                return seen.primary.name
            if len(seen.writable) > 1 or asyncio.get_running_loop().time() > end:
                break
            await asyncio.sleep(_LOOK_EVERY_SECONDS)
    writers = " and ".join(each.name for each in seen.writable) or "Nobody"
    raise JobError(
        f"{writers} takes writes {span_text(limit)} after the fault was taken back.",
        next_step="Look at /db replication now, and at the servers' logs.",
    )


def _hands_off(safety: Safety) -> JobError:
    return JobError(
        f"The drill was not brought to a safe end by itself: {safety.why}",
        next_step="Keep applications away, change nothing else, and look at /db replication: it"
        " says what each server took. /db failover and /db rejoin are the ways from there.",
    )
