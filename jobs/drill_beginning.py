"""A drill claims the fleet's one place, and its channel is told: in one transaction, once."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from pydantic import JsonValue
from sqlalchemy.ext.asyncio import AsyncConnection

from jobs.cluster_settings import DrillKind
from jobs.drill_ways import WAYS
from jobs.operation import Answer, Attempt, Job, JobError, Mode
from jobs.outcome import answered
from store import outbox
from store.drills import OpenDrill, begin_drill, open_drill

_LIMIT: Final = timedelta(minutes=2)
_WAITS: Final = "needs_attention"


async def begin(job: Job, kind: DrillKind) -> datetime:
    """Claim it as a step of the run; when it began, the same in every life.

    Raises:
        JobError: another drill is under way.
    """

    async def body(_: Attempt) -> JsonValue:
        async with job.store.begin() as conn:
            return {"at": (await _claim(conn, job, kind)).isoformat()}

    done = await job.step("announce", body, mode=Mode.RETRYABLE, time_limit=_LIMIT, attempts=3)
    assert isinstance(done, dict)  # noqa: S101 - what the body above returns
    return datetime.fromisoformat(str(done["at"]))


async def _claim(conn: AsyncConnection, job: Job, kind: DrillKind) -> datetime:
    known = await open_drill(conn)
    if known is not None and known.request_id == job.request_id:
        return known.started_at  # an earlier attempt did it, and was not heard of
    now = job.now
    other = await begin_drill(
        conn,
        request_id=job.request_id,
        run_key=job.run_key,
        database=job.database.name,
        environment=job.database.environment,
        kind=kind,
        at=now,
    )
    if other is not None:
        raise beside_another(other)
    await tell_channel(conn, job, _words(job, kind), now)
    return now


def beside_another(other: OpenDrill) -> JobError:
    """Why no drill may begin beside this one, which is alive. Pure."""
    waits = other.run_state == _WAITS
    return JobError(
        f"A drill of {other.database} ({other.kind})"
        f" {'waits for a person' if waits else 'is under way'}, request {other.request_id}:"
        " there is one at a time. Nothing was harmed.",
        next_step="See what became of it, and settle it with `twokey runs resolve`."
        if waits
        else "Ask for this one when it has ended.",
    )


async def tell_channel(conn: AsyncConnection, job: Job, answer: Answer, now: datetime) -> None:
    """Tell the database's channel, not only the thread of the request."""
    await outbox.post(
        conn,
        topic="result",
        request_id=None,
        channel=job.database.channel,
        payload=answered(answer).outcome,
        now=now,
    )


def _words(job: Job, kind: DrillKind) -> Answer:
    return Answer(
        title=f"A drill begins now: {kind} of {job.database.name}",
        lines=(
            WAYS[kind].notices,
            (
                f"It was asked for and agreed to as request {job.request_id}; the button on its"
                " card brings it to a safe end at any time."
            ),
        ),
    )
