"""`/db terminate-backend orders 4711`: end a session, whatever it does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pydantic import BaseModel, Field, JsonValue

from jobs.ending import STEP_LIMIT, Signal, outcome_of, pins_now, plan_of, signalled
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
    """Who it is, whom it holds up, and what will be rolled back.

    Raises:
        JobError: it has ended, or must not or cannot be ended by us.
    """
    return await plan_of(context, params.pid, Signal.TERMINATE)


async def pins(context: Context, params: Params, plan: Plan) -> Mapping[str, str]:
    """The very session: a pid is used again."""
    return await pins_now(context, params.pid, Signal.TERMINATE, plan)


async def run(job: Job, params: Params, plan: Plan) -> Answer:
    """End that session, unless it has ended by itself."""

    async def body(attempt: Attempt) -> JsonValue:
        return await signalled(job, attempt, params.pid, Signal.TERMINATE, plan)

    # Resumable: what sends the signal checks in the same statement whom it sends it to.
    result = await job.step("terminate", body, mode=Mode.RESUMABLE, time_limit=STEP_LIMIT)
    outcome = outcome_of(result)
    if not outcome.sent:
        return Answer(
            title=f"Session {params.pid} had ended by itself: nothing was done",
            numbers={"sent": 0},
        )
    left = (
        (f"{count_text(outcome.held_up, 'session')} that waited can go on.",)
        if outcome.held_up
        else ()
    )
    return Answer(
        title=f"Session {params.pid} is ended",
        lines=("Its transaction is rolled back and its locks are free.", *left),
        facts=(("Took", f"{outcome.seconds:.1f} s"),),
        numbers={"sent": 1, "seconds": outcome.seconds, "held_up": outcome.held_up},
    )


OPERATION = Operation(
    name="terminate-backend",
    summary="End a session: what it has not committed is rolled back",
    kind=Kind.CHANGE,
    is_beside=True,
    risk=Risk.DISRUPTIVE,
    params=Params,
    example="/db terminate-backend orders 4711",
    plan=plan,
    run=run,
    pins=pins,
    time_limit=2 * STEP_LIMIT,
)
