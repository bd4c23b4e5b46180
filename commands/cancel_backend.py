"""`/db cancel-backend orders 4711`: cancel what a session runs; the session itself stays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pydantic import BaseModel, Field, JsonValue

from jobs.ending import STEP_LIMIT, Outcome, Signal, outcome_of, pins_now, plan_of, signalled
from jobs.operation import Answer, Attempt, Context, Job, Kind, Mode, Operation, Plan, Risk
from jobs.text import count_text

PID_MAX: Final = 2**31 - 1


class Params(BaseModel, extra="forbid"):
    """Which session."""

    database: str = Field(description="Database in the inventory", examples=["orders"])
    pid: int = Field(
        ge=1, le=PID_MAX, description="The session, as /db locks shows it", examples=[4711]
    )


async def plan(context: Context, params: Params) -> Plan:
    """Who runs what, whom it holds up, and what will be rolled back.

    Raises:
        JobError: it has ended, runs nothing, or must not or cannot be cancelled by us.
    """
    return await plan_of(context, params.pid, Signal.CANCEL)


async def pins(context: Context, params: Params, plan: Plan) -> Mapping[str, str]:
    """The very session, and the very statement."""
    return await pins_now(context, params.pid, Signal.CANCEL, plan)


async def run(job: Job, params: Params, plan: Plan) -> Answer:
    """Cancel that statement, unless it has ended by itself."""

    async def body(attempt: Attempt) -> JsonValue:
        return await signalled(job, attempt, params.pid, Signal.CANCEL, plan)

    # Resumable: what sends the signal checks in the same statement whom it sends it to.
    result = await job.step("cancel", body, mode=Mode.RESUMABLE, time_limit=STEP_LIMIT)
    outcome = outcome_of(result)
    if not outcome.sent:
        return Answer(
            title=f"What {params.pid} ran had ended by itself: nothing was cancelled",
            numbers={"sent": 0},
        )
    left = _left(outcome, params.database)
    return Answer(
        title=f"What {params.pid} ran is cancelled",
        lines=("Its client got an error (57014) and is still connected.", *left),
        facts=(("Took", f"{outcome.seconds:.1f} s"),),
        numbers={"sent": 1, "seconds": outcome.seconds, "held_up": outcome.held_up},
    )


def _left(outcome: Outcome, database: str) -> tuple[str, ...]:
    if outcome.waiting:
        still = count_text(outcome.waiting, "session")
        return (f"Still held up by its session: {still}. See /db locks {database}",)
    if outcome.held_up:
        return (f"{count_text(outcome.held_up, 'session')} that waited can go on.",)
    return ()


OPERATION = Operation(
    name="cancel-backend",
    summary="Cancel what a session runs; it stays connected",
    kind=Kind.CHANGE,
    is_beside=True,
    risk=Risk.RECOVERABLE,
    params=Params,
    example="/db cancel-backend orders 4711",
    plan=plan,
    run=run,
    pins=pins,
    time_limit=2 * STEP_LIMIT,
)
