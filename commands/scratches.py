"""`/db scratches`: the scratch servers that run, how to reach them, and until when they live."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from pydantic import BaseModel, Field

from jobs.operation import Answer, Context, Kind, Operation, Risk, Table
from jobs.text import count_text, span_text
from store.scratches import Scratch, ended_scratches, running_scratches

# So long ended ones are told of, for who comes back and finds theirs gone.
TOLD_FOR: Final = timedelta(days=1)
COLUMNS: Final = ("Scratch", "Of", "Recovered to", "Ends in", "Host", "Connect")


class Params(BaseModel, extra="forbid"):
    """Of which database, or of all."""

    database: str | None = Field(
        default=None, description="Database in the inventory; all when left out"
    )


async def answer(context: Context, params: Params) -> Answer:
    """Those that run, oldest first, and what has ended lately."""
    async with context.store.begin() as conn:
        running = await running_scratches(conn, database=params.database)
        ended = await ended_scratches(conn, since=context.now - TOLD_FOR, database=params.database)
    whose = f" of {params.database}" if params.database else ""
    return Answer(
        title=f"{count_text(len(running), 'scratch server')}{whose}",
        lines=tuple(_lines(running)),
        facts=tuple((f"Ended: {one.id}", _ended(one, context)) for one in ended),
        table=Table(
            columns=COLUMNS,
            rows=tuple(
                (one.id, one.database, one.target, _left(one, context), one.host, one.dsn)
                for one in running
            ),
        )
        if running
        else None,
    )


def _lines(running: Sequence[Scratch]) -> Sequence[str]:
    if not running:
        return ("None runs. Restore one: /db restore <database> --into scratch",)
    return (
        "The connection strings work on the host that is named; the password stands in a file.",
        "End one before its time: /db drop-scratch <scratch>",
    )


def _left(scratch: Scratch, context: Context) -> str:
    left = scratch.expires_at - context.now
    return span_text(left) if left > timedelta(0) else "now"


def _ended(scratch: Scratch, context: Context) -> str:
    if scratch.ended_at is None:  # the store gave those that have ended
        raise AssertionError(scratch)
    what = "removed" if scratch.state == "removed" else "lost: it was found not to run any more"
    return f"{what}, {span_text(context.now - scratch.ended_at)} ago"


OPERATION = Operation(
    name="scratches",
    summary="List the scratch servers that run",
    kind=Kind.QUERY,
    risk=Risk.NONE,
    params=Params,
    example="/db scratches orders",
    answer=answer,
)
