"""The command line with one operation more: it crashes with secrets in its hands.

`python -m tests.scenarios.crashing serve`. The real processes load what `commands/` holds.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping
from datetime import timedelta

from pydantic import BaseModel, Field, JsonValue

from bot import app
from bot.cli.main import main
from jobs.operation import Answer, Attempt, Context, Job, Kind, Mode, Operation, Plan, Risk


class Params(BaseModel, extra="forbid"):
    """How to break."""

    database: str = Field(description="Database in the inventory")
    how: str = Field(default="step", description="plan, step or run")


async def plan(context: Context, params: Params) -> Plan:
    """Says what it would do, or breaks at once."""
    dsn = context.database.dsn.get_secret_value()
    if params.how == "plan":
        raise LookupError(f"no plan for {dsn}")
    return Plan(title=f"Break {params.database}", steps=("Break",))


async def run(job: Job, params: Params, plan: Plan) -> Answer:
    """Breaks with a DSN in a local variable, in the message, and in what it reports."""
    dsn = job.database.dsn.get_secret_value()
    password = dsn.split(":")[2].split("@")[0]

    async def body(attempt: Attempt) -> JsonValue:
        secret = f"{password}"
        await job.report(f"about to use {dsn}", fraction=0.5)
        logging.getLogger("somebody.else").warning("using %s and %r", dsn, {"p": secret})
        if params.how == "step":
            raise ValueError(f"could not use {secret}", dsn)
        return "done"

    await job.step("break", body, mode=Mode.RETRYABLE, time_limit=timedelta(seconds=20))
    if params.how == "answer":
        return Answer(title=f"Used {dsn}", lines=(password,), facts=(("DSN", dsn),))
    raise RuntimeError(f"broke with {dsn}") from KeyError(password)


OPERATION = Operation(
    name="crash",
    summary="Break",
    kind=Kind.CHANGE,
    risk=Risk.NONE,
    params=Params,
    example="/db crash orders",
    plan=plan,
    run=run,
    pinned=frozenset(),
)


def with_crash(package: str) -> Mapping[str, Operation]:
    """What the real processes have, and ours."""
    real = importlib.import_module("jobs.registry").load_operations(package)
    return {**real, OPERATION.name: OPERATION}


if __name__ == "__main__":
    app.load_operations = with_crash
    main()
