"""`/db migrate orders`: what is pending in the team's own folder, reviewed, applied and taken back.

`plan` and `status` only look. A version alone applies up to it; `rollback` takes back the newest,
or everything down to the version that is named.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final, Literal, get_args

from pydantic import BaseModel, Field, JsonValue, model_validator

from jobs.migrating import Outlook, look, refuse_errors, stand
from jobs.migration_plan import pins_of, plan_answer, plan_of
from jobs.migration_run import RUN_LIMIT, run_migrations
from jobs.migration_status import status_answer
from jobs.operation import (
    Answer,
    Context,
    Job,
    Kind,
    Operation,
    Pin,
    Plan,
    Risk,
    Suggestion,
    UndoCall,
)
from postgres.migrate.words import Direction

Action = Literal["apply", "plan", "status", "rollback"]
_ACTIONS: Final = frozenset(get_args(Action))
_READS: Final = frozenset({"plan", "status"})
UNDO_WITHIN: Final = timedelta(days=7)
PATIENCE: Final = timedelta(seconds=20)


class Params(BaseModel, extra="forbid"):
    """Which database, what to do, and how far."""

    database: str = Field(description="Database in the inventory", examples=["orders"])
    action: Action = Field(
        default="apply",
        description="apply what is pending, plan or status to look, rollback to take back",
    )
    version: str = Field(
        default="",
        max_length=200,
        description="Up to this one; for a rollback: down to it, and it too",
        examples=["0042"],
    )

    @model_validator(mode="before")
    @classmethod
    def _version_alone(cls, given: Any) -> Any:
        """`/db migrate orders 0042` applies up to 0042."""
        if not isinstance(given, Mapping):
            return given
        action = given.get("action")
        if isinstance(action, str) and action not in _ACTIONS and not given.get("version"):
            return {**given, "action": "apply", "version": action}
        return given

    @property
    def direction(self) -> Direction:
        """Which way it goes."""
        return Direction.DOWN if self.action == "rollback" else Direction.UP


def reads(params: Params) -> bool:
    """Whether nothing is changed."""
    return params.action in _READS


async def answer(context: Context, params: Params) -> Answer:
    """What there is, or what would happen.

    Raises:
        JobError: the folder or the database cannot be read.
    """
    if params.action == "status":
        return await status_answer(context, await stand(context))
    outlook = await _look(context, params)
    plan = await plan_of(context, outlook)
    suggestions = (
        Suggestion(
            text="Rehearse it",
            operation="rehearse",
            params={"database": params.database, "version": params.version},
        ),
        Suggestion(
            text="Ask for it",
            operation="migrate",
            params={"database": params.database, "action": "apply", "version": params.version},
        ),
    )
    return plan_answer(outlook, plan, suggestions=suggestions)


async def plan(context: Context, params: Params) -> Plan:
    """What would happen to the tables as they are now.

    Raises:
        JobError: there is nothing to do, something is wrong with the folder or the book, or a
            file does what no run may do.
    """
    outlook = await _look(context, params)
    refuse_errors(outlook)
    return await plan_of(context, outlook)


async def pins(context: Context, params: Params, plan: Plan) -> Mapping[str, str]:
    """The bytes of the files, and what the book says before them."""
    del plan
    return pins_of(await _look(context, params))


async def run(job: Job, params: Params, plan: Plan) -> Answer:
    """Each file in order; a crash goes on where the database's own book and ledger say.

    Raises:
        JobError: a file fails. What was applied before it stays; the error says what stands.
    """
    return await run_migrations(job, params.direction, plan, again=lambda: _look(job, params))


def undo(params: Params, numbers: Mapping[str, JsonValue]) -> UndoCall | None:
    """Take back what was applied; a rollback is not taken back by a button."""
    first = numbers.get("first")
    if params.action != "apply" or not isinstance(first, str) or not first:
        return None
    call: Mapping[str, JsonValue] = {
        "database": params.database,
        "action": "rollback",
        "version": first,
    }
    return UndoCall(operation="migrate", params=call, within=UNDO_WITHIN)


async def _look(context: Context, params: Params) -> Outlook:
    return await look(context, version=params.version, direction=params.direction)


OPERATION = Operation(
    name="migrate",
    summary="Apply the pending migrations of a folder, or take them back",
    kind=Kind.CHANGE,
    risk=Risk.DESTRUCTIVE,
    lesser_risks=frozenset({Risk.RECOVERABLE, Risk.DISRUPTIVE}),
    params=Params,
    example="/db migrate orders 0042",
    answer=answer,
    reads=reads,
    plan=plan,
    run=run,
    pins=pins,
    pinned=frozenset({Pin.SYSTEM_IDENTIFIER, Pin.TIMELINE, Pin.PRIMARY, Pin.SCHEMA}),
    time_limit=RUN_LIMIT,
    undo=undo,
    patience=PATIENCE,
)
