"""`/db recover-table orders public.payments --from orders-17`: one table back, beside the others.

It comes out of a scratch server, as a new table in a new schema: nothing that exists is touched.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
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
    UndoCall,
)
from jobs.recovered import comment_of, schema_of
from jobs.scratches import this_host
from jobs.text import span_text
from postgres.dsn import Target, parse_dsn
from postgres.restore.lasting import may_read, read_lasting
from postgres.restore.one_table import (
    LIMIT,
    OnBytes,
    Shape,
    copy_table,
    missing_types,
    read_shape,
)
from postgres.sizes import pretty_bytes
from store.scratches import Scratch, find_scratch

LOOK_LIMIT: Final = timedelta(minutes=2)
UNDO_WITHIN: Final = timedelta(days=30)
REPORT_SECONDS: Final = 1.0

LOOK: Final = """
    SELECT pg_is_in_recovery()                                      AS standby,
           has_database_privilege(current_database(), 'CREATE')     AS may_create,
           EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                    WHERE n.nspname || '.' || c.relname = $1)       AS is_there
"""


class Params(BaseModel, extra="forbid"):
    """Which table, out of which copy."""

    database: str = Field(description="Database in the inventory", examples=["orders"])
    table: str = Field(
        pattern=r".+\..+",
        description="The table with its schema, as it is called in the copy",
        examples=["public.payments"],
    )
    from_: str = Field(
        min_length=1,
        title="From",
        description="A scratch server's id, as /db scratches lists it",
        examples=["orders-17"],
    )


async def plan(context: Context, params: Params) -> Plan:
    """Look whether the copy runs, and whether a new table can be made in the database."""
    scratch = await _running(context, params)
    (seen,) = await context.reader.rows(LOOK, params.table)
    if objection := _objection(params, seen):
        raise objection
    return Plan(
        title=f"Recover {params.table} of {params.database} from {scratch.id}",
        steps=(
            "Look at the table in the copy: columns, NOT NULL, primary key",
            f"Make it anew in a schema of its own in {params.database}: restored_<this request>",
            "Stream its rows (COPY), count them on both sides, and keep all or nothing",
        ),
        facts=(
            ("From", f"{scratch.id}: backup {scratch.backup_id}, {scratch.target}"),
            ("Lives for another", span_text(scratch.expires_at - context.now)),
            ("Today's table", "is there, and stays as it is" if seen["is_there"] else "is gone"),
            ("Size", await _size(context, scratch, params.table)),
        ),
        warnings=(
            (
                "Its rows take as much space again on the server. Defaults, other indexes, foreign"
                " keys, triggers and grants are not recovered: only columns, rows, NOT NULL and"
                " the primary key."
            ),
        ),
        undo="Drop the new schema with the table in it; nothing else was changed.",
        pins={"scratch": scratch.id, "restored at": scratch.created_at.isoformat()},
    )


async def pins(context: Context, params: Params, plan: Plan) -> Mapping[str, str]:
    """The very copy that the plan names."""
    del plan
    scratch = await _running(context, params)
    return {"scratch": scratch.id, "restored at": scratch.created_at.isoformat()}


async def run(job: Job, params: Params, plan: Plan) -> Answer:
    """Copy the table; afterwards it is there whole, or nothing is."""
    del plan
    scratch = await _running(job, params)
    schema = schema_of(job.request_id)
    goal = parse_dsn(job.database.dsn.get_secret_value())

    async def copy(_: Attempt) -> JsonValue:
        source = _source(scratch, goal)
        shape = await read_shape(source, params.table, into=schema)
        if gone := await missing_types(goal, shape):
            raise JobError(
                f"{params.database} lacks types that {params.table} has: {', '.join(gone)}.",
                next_step="Create them there, as they were, then recover the table again.",
            )
        done = await copy_table(
            source, goal, shape, comment=comment_of(job.request_id), on_bytes=_telling(job, shape)
        )
        return {"rows": done.rows, "bytes": done.wire_bytes, "seconds": done.seconds,
                "name": shape.name}  # fmt: skip

    # Retryable: one transaction makes all of it, and a new attempt replaces what it finds.
    done = await job.step("copy", copy, mode=Mode.RETRYABLE, time_limit=LIMIT, attempts=2)
    return _answer(job, params, done if isinstance(done, dict) else {})


def undo(params: Params, numbers: Mapping[str, JsonValue]) -> UndoCall | None:
    """Drop what was made."""
    told: Mapping[str, JsonValue] = {"database": params.database, "request": numbers["request"]}
    return UndoCall(operation="drop-recovered", params=told, within=UNDO_WITHIN)


async def _running(context: Context, params: Params) -> Scratch:
    async with context.store.begin() as conn:
        found = await find_scratch(conn, params.from_)
    if found is None or found.state != "running" or found.expires_at <= context.now:
        what = "is not known" if found is None else "has ended"
        raise JobError(
            f"The scratch server {params.from_} {what}.",
            next_step=f"See which run with /db scratches, or restore one: /db restore"
            f" {params.database} --into scratch",
        )
    if found.database != params.database:
        raise JobError(
            f"{found.id} is a copy of {found.database}, not of {params.database}.",
            next_step=f"See which run with /db scratches {params.database}.",
        )
    return found


def _objection(params: Params, seen: Mapping[str, object]) -> JobError | None:
    """Why no table can be made there, or None."""
    if seen["standby"]:
        return JobError(
            f"{params.database} is a standby, so no table can be made there.",
            next_step="Point its entry in the inventory to the primary.",
        )
    if not seen["may_create"]:
        return JobError(
            f"Twokey's user may not make a schema in {params.database}.",
            next_step="As the owner there: GRANT CREATE ON DATABASE … TO …, then ask again.",
        )
    return None


async def _size(context: Context, scratch: Scratch, table: str) -> str:
    """How large it is in the copy, where that can be seen from here."""
    folder = Path(scratch.folder)
    if scratch.host != this_host() or not await asyncio.to_thread(may_read, folder):
        return f"is seen when it runs: the copy is on {scratch.host}"
    goal = parse_dsn(context.database.dsn.get_secret_value())
    shape = await read_shape(_source(scratch, goal), table, into="restored")
    return pretty_bytes(shape.size_bytes)


def _source(scratch: Scratch, goal: Target) -> Target:
    """The same database in the copy, as its superuser.

    Raises:
        JobError: the copy runs on another host, where only its own worker can reach it.
        PostgresError: it is gone.
    """
    if scratch.host != this_host():
        raise JobError(
            f"{scratch.id} runs on {scratch.host}, and this run came to {this_host()}.",
            next_step=f"Ask again while only the worker on {scratch.host} takes runs.",
        )
    return read_lasting(Path(scratch.folder)).local(goal.database)


def _telling(job: Job, shape: Shape) -> OnBytes:
    """Tells how far it is, now and then: bytes come in very many pieces."""
    told_at = 0.0

    async def tell(sent: int) -> None:
        nonlocal told_at
        now = time.monotonic()
        if now - told_at < REPORT_SECONDS:
            return
        told_at = now
        total = shape.size_bytes
        fraction = min(sent / total, 1.0) if total else None
        await job.report(
            f"{shape.schema}.{shape.name}: {pretty_bytes(sent)} of about {pretty_bytes(total)}",
            fraction=fraction,
        )

    return tell


def _answer(job: Job, params: Params, done: Mapping[str, JsonValue]) -> Answer:
    schema, rows = schema_of(job.request_id), int(str(done["rows"]))
    return Answer(
        title=f"{params.table} is back as {schema}.{done['name']}",
        lines=(
            f"{rows:,} rows were read from the copy and {rows:,} are in the new table.",
            "Today's table was not touched: compare both, and take over what is needed.",
        ),
        facts=(
            ("Rows", f"{rows:,}"),
            ("Copied", pretty_bytes(int(str(done["bytes"])))),
            ("Took", span_text(timedelta(seconds=float(str(done["seconds"]))))),
        ),
        numbers={
            "rows": rows,
            "bytes": int(str(done["bytes"])),
            "seconds": float(str(done["seconds"])),
            "schema": schema,
            "request": job.request_id,
        },
    )


OPERATION = Operation(
    name="recover-table",
    summary="Bring one table back from a scratch server, beside the others",
    kind=Kind.CHANGE,
    risk=Risk.RECOVERABLE,
    params=Params,
    example="/db recover-table orders public.payments --from orders-17",
    plan=plan,
    run=run,
    pins=pins,
    time_limit=2 * LIMIT,
    undo=undo,
)
