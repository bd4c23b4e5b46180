"""`/db drop-recovered orders 17`: drop what `recover-table` of request 17 has made."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

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
from jobs.recovered import comment_of, schema_of
from postgres.dsn import parse_dsn
from postgres.restore.one_table import CONTENTS, FIND_SCHEMA, Own, drop_own, own_of
from postgres.sizes import pretty_bytes

LIMIT: Final = timedelta(minutes=10)

SIZE: Final = "SELECT coalesce(pg_total_relation_size($1::oid::regclass), 0) AS size_bytes"


class Params(BaseModel, extra="forbid"):
    """What a request has recovered."""

    database: str = Field(description="Database in the inventory", examples=["orders"])
    request: int = Field(ge=1, description="The request that recovered the table", examples=[17])


async def plan(context: Context, params: Params) -> Plan:
    """Look whether the schema is ours, and whether anything else was put into it."""
    own, oid = await _own(context, params.request)
    if objection := own.objection:
        raise JobError(objection.problem, next_step=objection.next_step)
    size_bytes = 0
    if own.relation is not None:
        size_bytes = (await context.reader.rows(SIZE, own.relation))[0]["size_bytes"]
    return Plan(
        title=f"Drop the recovered table in {own.schema}",
        steps=(f"Drop the schema {own.schema} of {params.database} with the table in it",),
        statements=_statements(own),
        facts=(
            ("Holds", ", ".join(own.contents) or "nothing any more"),
            ("Frees", pretty_bytes(size_bytes)),
        ),
        undo="Recover the table again, for as long as there is a backup of that moment.",
        pins={"schema": oid},
    )


async def pins(context: Context, params: Params, plan: Plan) -> Mapping[str, str]:
    """The very schema that the plan looked at."""
    del plan
    _, oid = await _own(context, params.request)
    return {"schema": oid}


async def run(job: Job, params: Params, plan: Plan) -> Answer:
    """Drop it, unless somebody has put something into it meanwhile."""
    del plan
    schema = schema_of(params.request)

    async def body(_: Attempt) -> JsonValue:
        goal = parse_dsn(job.database.dsn.get_secret_value())
        return await drop_own(goal, schema, comment_of(params.request))

    # Retryable: a second time finds nothing to drop.
    await job.step("drop", body, mode=Mode.RETRYABLE, time_limit=LIMIT, attempts=3)
    return Answer(title=f"The schema {schema} of {params.database} is dropped")


async def _own(context: Context, request_id: int) -> tuple[Own, str]:
    """The schema and its number, read without changing anything."""
    schema = schema_of(request_id)
    found: Any = await context.reader.rows(FIND_SCHEMA, schema)
    if not found:
        raise JobError(
            f"{context.database.name} has no schema {schema}.",
            next_step="It was dropped already, or nothing was recovered by that request.",
        )
    contents = await context.reader.rows(CONTENTS, found[0]["oid"])
    own = own_of(schema, found[0], contents, comment=comment_of(request_id))
    return own, str(found[0]["oid"])


def _statements(own: Own) -> tuple[str, ...]:
    tables = tuple(f"DROP TABLE {name.removeprefix('table ')};" for name in own.contents)
    return (*tables, f"DROP SCHEMA {own.schema};")


OPERATION = Operation(
    name="drop-recovered",
    summary="Drop a table that was recovered beside the others",
    kind=Kind.CHANGE,
    risk=Risk.RECOVERABLE,
    params=Params,
    example="/db drop-recovered orders 17",
    plan=plan,
    run=run,
    pins=pins,
    time_limit=2 * LIMIT,
)
