"""`/db change orders tenant_bigint expand`: a phase of a declared change, as a request of its own.

Which changes there are, and what each is made of, stands in the team's folder of YAML. Left out,
the phase is `status`; that, `plan` and the list of changes only read.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Final, Literal

from pydantic import BaseModel, Field, JsonValue

from jobs.change_run import RUN_LIMIT, run_phase
from jobs.changing import list_answer, pins_now, plan_phase, status_answer, whole_answer
from jobs.operation import Answer, Context, Job, Kind, Operation, Plan, Risk, UndoCall
from postgres.migrate.changes.machine import Phase

UNDO_WITHIN: Final = timedelta(days=30)
READING: Final = frozenset({"status", "plan"})
# What ends with a way back that is one step: the button takes exactly this phase back.
_UNDONE: Final = frozenset({Phase.EXPAND, Phase.SWITCH})


class Params(BaseModel, extra="forbid"):
    """Which change, and what to do with it."""

    database: str = Field(description="Database in the inventory", examples=["orders"])
    change: str = Field(
        default="",
        max_length=60,
        description="The change's file, without its ending; left out: those there are",
        examples=["tenant_bigint"],
    )
    phase: Literal[
        "status", "plan", "expand", "backfill", "validate", "switch", "contract", "back"
    ] = Field(
        default="status",
        description="`status` and `plan` only read; each of the others is a request",
        examples=["expand"],
    )


def reads(params: Params) -> bool:
    """Whether nothing would be changed."""
    return not params.change or params.phase in READING


async def answer(context: Context, params: Params) -> Answer:
    """Where a change stands, the SQL of all its phases, or which changes there are."""
    if not params.change:
        return await list_answer(context)
    if params.phase == "plan":
        return await whole_answer(context, params.change)
    return await status_answer(context, params.change)


async def plan(context: Context, params: Params) -> Plan:
    """The SQL of this phase, what it holds up, and what can be taken back now and after."""
    return await plan_phase(context, params.change, Phase(params.phase))


async def pins(context: Context, params: Params, plan: Plan) -> Mapping[str, str]:
    """File, table, columns and state as they are now."""
    del plan
    return await pins_now(context, params.change)


async def run(job: Job, params: Params, plan: Plan) -> Answer:
    """Carry the phase out; what a failed or stopped run has done is marked, and can go on."""
    return await run_phase(job, params.change, Phase(params.phase), plan)


def undo(params: Params, numbers: Mapping[str, JsonValue]) -> UndoCall | None:
    """The way back, where it undoes this very phase."""
    del numbers
    if params.phase not in _UNDONE:
        return None
    call: Mapping[str, JsonValue] = {
        "database": params.database,
        "change": params.change,
        "phase": str(Phase.BACK),
    }
    return UndoCall(operation="change", params=call, within=UNDO_WITHIN)


OPERATION = Operation(
    name="change",
    summary="Change a table in phases while old and new versions run",
    kind=Kind.CHANGE,
    risk=Risk.DESTRUCTIVE,
    lesser_risks=frozenset({Risk.RECOVERABLE, Risk.DISRUPTIVE}),
    params=Params,
    example="/db change orders tenant_bigint expand",
    answer=answer,
    reads=reads,
    plan=plan,
    run=run,
    pins=pins,
    time_limit=RUN_LIMIT,
    undo=undo,
    is_pausable=True,
)
