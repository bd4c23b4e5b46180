"""`/db drop-scratch orders-17`: end a scratch server before its time is up."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from pydantic import BaseModel, Field, JsonValue

from jobs.operation import (
    Answer,
    Attempt,
    Context,
    Job,
    JobError,
    Kind,
    Mode,
    Operation,
    Plan,
    Risk,
)
from jobs.scratches import end, this_host
from jobs.text import span_text
from store.scratches import Scratch, expire_scratch, find_scratch

LIMIT: Final = timedelta(minutes=3)
LOOK_EVERY: Final = timedelta(seconds=1)


class Params(BaseModel, extra="forbid"):
    """Which one."""

    scratch: str = Field(
        min_length=1, description="A scratch server's id, as /db scratches lists it"
    )


async def plan(context: Context, params: Params) -> Plan:
    """Say what is on it, and whose it is."""
    found = await _running(context, params.scratch)
    return Plan(
        title=f"Drop the scratch server {found.id}",
        steps=("Stop it at once, and remove its data",),
        facts=(
            ("Copy of", f"{found.database}, backup {found.backup_id}, {found.target}"),
            ("Restored by", f"request {found.request_id}"),
            ("Would live for", span_text(max(found.expires_at - context.now, timedelta(0)))),
        ),
        warnings=("Whatever was changed in the copy is gone. Who is connected is cut off.",),
        estimate_seconds=5,
        undo="Restore it again. What people changed in the copy is not in any backup.",
        pins={"scratch": found.id, "restored at": found.created_at.isoformat()},
        attributes={"environment": str(found.detail.get("environment", ""))},
    )


async def pins(context: Context, params: Params, plan: Plan) -> Mapping[str, str]:
    """The very server that the plan names."""
    del plan
    found = await _running(context, params.scratch)
    return {"scratch": found.id, "restored at": found.created_at.isoformat()}


async def run(job: Job, params: Params, plan: Plan) -> Answer:
    """Let its time be up; then its host ends it, which may be ours."""
    del plan

    async def body(_: Attempt) -> JsonValue:
        async with job.store.begin() as conn:
            await expire_scratch(conn, params.scratch, now=job.now)
        return await _ended(job, params.scratch)

    # Retryable: what has ended stays ended.
    host = await job.step("drop", body, mode=Mode.RETRYABLE, time_limit=LIMIT)
    return Answer(title=f"The scratch server {params.scratch} on {host} is gone")


async def _ended(job: Job, scratch_id: str) -> str:
    """Wait for the end of it; the host that it was on."""
    while True:
        async with job.store.begin() as conn:
            found = await find_scratch(conn, scratch_id)
        if found is None or found.state != "running":
            return found.host if found else "an unknown host"
        if found.host != this_host() or not await end(
            job.store, found, state="removed", now=job.now
        ):
            await job.report(f"Waiting for {found.host} to end it")
            await asyncio.sleep(LOOK_EVERY.total_seconds())


async def _running(context: Context, scratch_id: str) -> Scratch:
    async with context.store.begin() as conn:
        found = await find_scratch(conn, scratch_id)
    if found is None or found.state != "running":
        what = "has ended already" if found else "is not known"
        raise JobError(
            f"The scratch server {scratch_id} {what}.",
            next_step="See which run: /db scratches",
        )
    return found


OPERATION = Operation(
    name="drop-scratch",
    summary="End a scratch server before its time is up",
    kind=Kind.CHANGE,
    risk=Risk.NONE,
    params=Params,
    example="/db drop-scratch orders-17",
    plan=plan,
    run=run,
    pinned=frozenset(),
    pins=pins,
    time_limit=2 * LIMIT,
)
