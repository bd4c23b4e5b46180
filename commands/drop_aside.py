"""`/db drop-aside orders`: drop what was kept aside and is due, or one thing by its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from pydantic import BaseModel, Field, JsonValue

from jobs.kept_aside import STANDS, the_kept
from jobs.operation import (
    TARGET_PINS,
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
from jobs.text import count_text, span_text
from postgres.dsn import parse_dsn
from postgres.errors import PostgresError
from postgres.migrate.apply_short import apply_short
from postgres.migrate.apply_words import ApplyLimits
from postgres.migrate.aside_back import drop_statement
from postgres.migrate.aside_words import Kept
from postgres.migrate.own_schema import ASIDE_SCHEMA
from postgres.sizes import pretty_bytes
from store.kept_aside import KeptRow, end_kept, open_kept

LIMIT: Final = timedelta(minutes=30)
THINGS_MAX: Final = 50


class Params(BaseModel, extra="forbid"):
    """What to drop for good."""

    database: str = Field(description="Database in the inventory", examples=["orders"])
    kept: str = Field(
        default="", description="Its name as /db aside lists it; all that is due when left out"
    )


async def plan(context: Context, params: Params) -> Plan:
    """Say what would be gone for good, and from which request it is."""
    rows = await _rows(context, params)
    there = {row["name"]: row for row in await context.reader.rows(STANDS, ASIDE_SCHEMA)}
    found = [(row, there.get(_name(row))) for row in rows]
    early = [row for row in rows if row.until > context.now]
    warnings = ["What is dropped here is in backups alone."]
    warnings += [
        f"The time of {row.original} is not up: {span_text(row.until - context.now)} are left."
        for row in early
    ]
    return Plan(
        title=f"Drop {count_text(len(rows), 'thing')} that were kept aside of {params.database}",
        steps=tuple(f"Drop {row.kept}, which was {row.what} {row.original}" for row in rows),
        statements=tuple(f"{_statement(row)};" for row, stands in found if stands),
        facts=(
            ("Frees", pretty_bytes(sum(stands["bytes"] for _, stands in found if stands))),
            ("Kept by", ", ".join(sorted({f"request {row.request_id}" for row in rows}))),
        ),
        warnings=tuple(warnings),
        estimate_seconds=5,
        undo=None,
        pins=_pins(found),
    )


async def pins(context: Context, params: Params, plan: Plan) -> Mapping[str, str]:
    """The very tables that the plan looked at."""
    del params
    there = {row["name"]: row for row in await context.reader.rows(STANDS, ASIDE_SCHEMA)}
    return {
        key: str(there[key.removeprefix("kept ")]["oid"])
        if key.removeprefix("kept ") in there
        else "gone"
        for key in plan.pins
        if key.startswith("kept ")
    }


async def run(job: Job, params: Params, plan: Plan) -> Answer:
    """Drop each in a short transaction of its own, and note it."""
    names = [key.removeprefix("kept ") for key in plan.pins if key.startswith("kept ")]
    async with job.store.begin() as conn:
        rows = [row for row in await open_kept(conn, params.database) if _name(row) in names]
    target = parse_dsn(job.database.dsn.get_secret_value())
    settings = job.database.migrations
    limits = ApplyLimits(lock=settings.lock_timeout, tries=settings.lock_tries)

    async def tell(text: str, fraction: float | None = None) -> None:
        await job.report(text, fraction=fraction)

    for row in rows:

        async def body(_: Attempt, row: KeptRow = row) -> JsonValue:
            stands = await job.reader.rows(STANDS, ASIDE_SCHEMA)
            if any(each["name"] == _name(row) for each in stands):
                try:
                    statements = (_statement(row),)
                    await apply_short(target, statements, limits=limits, tell=tell, what=row.kept)
                except PostgresError as error:
                    raise JobError(error.problem, next_step=error.next_step) from error
            async with job.store.begin() as conn:
                await end_kept(conn, row.id, by=job.request_id, at=job.now, outcome="dropped")
            return None

        # Retryable: what is gone is not looked for again.
        await job.step(f"drop {row.kept}", body, mode=Mode.RETRYABLE, time_limit=LIMIT, attempts=3)
    return Answer(
        title=f"Dropped for good: {', '.join(row.original for row in rows) or 'nothing was left'}",
        numbers={"bytes": sum(row.bytes for row in rows)},
    )


async def _rows(context: Context, params: Params) -> Sequence[KeptRow]:
    if params.kept:
        return [await the_kept(context, params.kept)]
    async with context.store.begin() as conn:
        rows = [row for row in await open_kept(conn, params.database) if row.until <= context.now][
            :THINGS_MAX
        ]
    if not rows:
        raise JobError(
            f"Nothing that is kept aside of {params.database} is due.",
            next_step=f"Name one of /db aside {params.database} to drop it before its time.",
        )
    return rows


def _name(row: KeptRow) -> str:
    return row.kept.partition(".")[2]


def _statement(row: KeptRow) -> str:
    return drop_statement(Kept.from_json(dict(row.detail)))


def _pins(found: Sequence[tuple[KeptRow, Mapping[str, Any] | None]]) -> dict[str, str]:
    return {f"kept {_name(row)}": str(stands["oid"]) if stands else "gone" for row, stands in found}


OPERATION = Operation(
    name="drop-aside",
    summary="Drop for good what was kept aside",
    kind=Kind.CHANGE,
    risk=Risk.DESTRUCTIVE,
    params=Params,
    example="/db drop-aside orders",
    plan=plan,
    run=run,
    pinned=TARGET_PINS,
    pins=pins,
    time_limit=timedelta(hours=2),
)
