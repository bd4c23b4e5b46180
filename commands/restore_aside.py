"""`/db restore-aside orders orders_1`: put back what was kept aside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Final

from pydantic import BaseModel, Field, JsonValue

from jobs.kept_aside import STANDS, the_kept
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
from jobs.put_back import LOOK_LIMIT, Came, now_of, run_put_back, stays
from jobs.text import span_text
from postgres.migrate.aside_back import PutBack, put_back
from postgres.migrate.aside_words import Kept, What
from postgres.migrate.own_schema import ASIDE_SCHEMA
from postgres.sizes import pretty_bytes
from store.kept_aside import KeptRow, end_kept

LIMIT: Final = timedelta(seconds=2)
# Measured with 271-byte rows: 40,000 a second alone (research/migrations.md), a part of the time.
ROWS_PER_SECOND: Final = 10_000


class Params(BaseModel, extra="forbid"):
    """What to put back."""

    database: str = Field(description="Database in the inventory", examples=["orders"])
    kept: str = Field(
        min_length=1, description="Its name as /db aside lists it, or what it was",
        examples=["orders_1"],
    )  # fmt: skip
    overwrite: bool = Field(
        default=False,
        description="Old values of a backfill also for rows that were changed again since",
    )


async def plan(context: Context, params: Params) -> Plan:
    """Say what runs, what it meets there today, and what becomes of the copy."""
    row = await the_kept(context, params.kept)
    kept = Kept.from_json(dict(row.detail))
    if params.overwrite and kept.what is not What.VALUES:
        raise JobError(
            f"{row.original} was not kept by a backfill: what stands there today always stays.",
            next_step="Leave overwrite out.",
        )
    async with context.reader.session(limit=LIMIT) as session:
        found = put_back(kept, await now_of(session, kept), overwrite=params.overwrite)
    if found.problems:
        raise JobError(
            f"{row.original} cannot be put back: {found.problems[0]}.",
            next_step="Clear the way first; what is kept stays where it is.",
        )
    moved = kept.what in (What.TABLE, What.SEQUENCE)
    stands = await context.reader.rows(STANDS, ASIDE_SCHEMA)
    now = next((each for each in stands if each["name"] == kept.name), None)
    rows = row.rows if row.rows is not None or now is None or now["rows"] < 0 else now["rows"]
    size = pretty_bytes(now["bytes"] if now else row.bytes)
    return Plan(
        title=f"Put {row.what} {row.original} of {params.database} back",
        steps=tuple(_steps(kept, found, overwrite=params.overwrite)),
        statements=tuple(f"{each};" for each in found.statements),
        facts=(
            ("Kept", f"{row.kept}, {size}, since request {row.request_id}"),
            ("Rows", f"{rows:,}" if rows is not None else "not counted"),
            ("Kept for", span_text(context.now - row.at)),
        ),
        warnings=found.notes,
        estimate_seconds=2 if moved else 5 + (rows or 0) // ROWS_PER_SECOND,
        undo=None if kept.what is What.VALUES else "Drop it again; then it is kept aside anew.",
        pins=await _pins(context, row),
        risk=Risk.DESTRUCTIVE if params.overwrite else Risk.RECOVERABLE,
    )


def _steps(kept: Kept, found: PutBack, *, overwrite: bool) -> Iterator[str]:
    if kept.what is What.VALUES:
        which = "each row that is still there" if overwrite else (
            "each row that still holds what the backfill wrote; others stay, and are counted"
        )  # fmt: skip
        yield "Forget where the backfill stands, so that it cannot go on"
        yield f"Write the old value into {which}, a part at a time"
        return
    if found.first:
        moved = kept.what in (What.TABLE, What.SEQUENCE)
        yield "Move it back" if moved else "Make it again, empty"
    if found.fill is not None:
        yield "Fill in what was kept, a part at a time; what stands there today stays"
    if found.last:
        yield "Make constraints and indexes again, without blocking writes"


async def pins(context: Context, params: Params, plan: Plan) -> Mapping[str, str]:
    """The very thing that the plan names."""
    del plan
    return await _pins(context, await the_kept(context, params.kept))


async def run(job: Job, params: Params, plan: Plan) -> Answer:
    """Put it back, and say what could not be."""
    row = await _row(job, params, plan)
    kept = Kept.from_json(dict(row.detail))
    came = await run_put_back(job, kept, overwrite=params.overwrite)
    remains = stays(kept, came)
    if not remains:
        async with job.store.begin() as conn:
            await end_kept(conn, row.id, by=job.request_id, at=job.now, outcome="put back")
    return _answer(row, came, remains=remains)


async def _row(job: Job, params: Params, plan: Plan) -> KeptRow:
    """What is meant: looked up once, as it may have ended when a later life asks."""

    async def body(_: Attempt) -> JsonValue:
        found = await the_kept(job, params.kept)
        if found.kept != plan.pins["kept"]:
            raise JobError("Something else has that name by now.", next_step="Ask again.")
        return {
            "id": found.id, "what": found.what, "original": found.original, "kept": found.kept,
            "bytes": found.bytes, "rows": found.rows, "detail": dict(found.detail),
        }  # fmt: skip

    found = await job.step("find", body, mode=Mode.RETRYABLE, time_limit=LOOK_LIMIT, attempts=3)
    if not isinstance(found, dict):
        raise TypeError(found)
    values: dict[str, object] = {**found, "database": job.database.name, "request_id": None}
    return KeptRow(at=job.now, until=job.now, **values)  # type: ignore[arg-type]


def _answer(row: KeptRow, came: Came, *, remains: bool) -> Answer:
    lines = []
    if came.conflicts:
        lines.append(
            f"{came.conflicts:,} rows have other values today, and keep them: compare them with"
            f" {row.kept}."
        )
        if row.what == What.VALUES:
            lines.append("With overwrite=true they get the old values as well, and lose theirs.")
    if came.gone:
        lines.append(f"{came.gone:,} kept rows have no place any more: theirs are gone or refused.")
    lines += came.notes
    if remains:
        lines.append(f"The copy stays at {row.kept} until somebody drops it.")
    return Answer(
        title=f"{row.original} is back",
        lines=tuple(lines),
        facts=(("Rows filled in", f"{came.rows:,}"),) if came.rows else (),
        numbers={"rows": came.rows, "conflicts": came.conflicts, "gone": came.gone},
    )


async def _pins(context: Context, row: KeptRow) -> dict[str, str]:
    stands = await context.reader.rows(STANDS, ASIDE_SCHEMA)
    name = row.kept.partition(".")[2]
    oid = next((str(each["oid"]) for each in stands if each["name"] == name), "gone")
    return {"kept": row.kept, "oid": oid}


OPERATION = Operation(
    name="restore-aside",
    summary="Put back what was kept aside",
    kind=Kind.CHANGE,
    risk=Risk.DESTRUCTIVE,
    lesser_risks=frozenset({Risk.RECOVERABLE}),
    params=Params,
    example="/db restore-aside orders orders_1",
    plan=plan,
    run=run,
    pins=pins,
    time_limit=timedelta(hours=6),
)
