"""`/db aside orders`: what was kept instead of dropped, how large it is, and until when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from pydantic import BaseModel, Field

from jobs.kept_aside import STANDS
from jobs.operation import Answer, Context, Kind, Operation, Risk, Suggestion, Table
from jobs.text import count_text, span_text
from postgres.migrate.own_schema import ASIDE_SCHEMA
from postgres.sizes import pretty_bytes
from store.kept_aside import KeptRow, open_kept

COLUMNS: Final = ("Kept", "Was", "What", "Size", "Rows", "Since", "Time up in", "Request")


class Params(BaseModel, extra="forbid"):
    """Which database."""

    database: str = Field(description="Database in the inventory", examples=["orders"])


async def answer(context: Context, params: Params) -> Answer:
    """What is kept, what ends first before the rest, and what stands there unknown to us."""
    async with context.store.begin() as conn:
        rows = await open_kept(conn, params.database)
    there = {row["name"]: row for row in await context.reader.rows(STANDS, ASIDE_SCHEMA)}
    known = {row.kept.partition(".")[2] for row in rows}
    due = [row for row in rows if row.until <= context.now]
    return Answer(
        title=f"Kept aside of {params.database}: {count_text(len(rows), 'thing')}",
        lines=tuple(_lines(params.database, rows, sorted(there.keys() - known), there)),
        facts=(("Takes", pretty_bytes(sum(each["bytes"] for each in there.values()))),)
        if there
        else (),
        table=Table(columns=COLUMNS, rows=tuple(_row(row, context, there) for row in rows))
        if rows
        else None,
        suggestions=_suggestions(params.database, rows, due),
    )


def _lines(
    database: str, rows: Sequence[KeptRow], strangers: Sequence[str], there: Mapping[str, Any]
) -> Sequence[str]:
    lines = []
    if not rows:
        lines.append("Nothing is kept. What a migration would drop is kept aside first.")
    else:
        lines.append(
            f"Put back: /db restore-aside {database} <kept>. Drop: /db drop-aside {database}."
            " Nothing is dropped by itself."
        )
    gone = [row.kept for row in rows if row.kept.partition(".")[2] not in there]
    if gone:
        lines.append(f"Not there any more, though nobody asked us: {', '.join(gone)}")
    if strangers:
        lines.append(
            f"In {ASIDE_SCHEMA}, and not known to us: {', '.join(strangers[:5])}."
            " A run that was ended half-way may have left it."
        )
    return lines


def _row(row: KeptRow, context: Context, there: Mapping[str, Any]) -> tuple[str, ...]:
    found = there.get(row.kept.partition(".")[2])
    left = row.until - context.now
    return (
        row.kept.partition(".")[2],
        row.original,
        row.what,
        pretty_bytes(found["bytes"]) if found else "gone",
        f"{row.rows:,}" if row.rows is not None else "-",
        f"{span_text(context.now - row.at)} ago",
        span_text(left) if left > timedelta(0) else "its time is up",
        str(row.request_id or "-"),
    )


def _suggestions(
    database: str, rows: Sequence[KeptRow], due: Sequence[KeptRow]
) -> tuple[Suggestion, ...]:
    found = []
    if due:
        found.append(
            Suggestion(
                text="Drop what is due", operation="drop-aside", params={"database": database}
            )
        )
    if rows:
        found.append(
            Suggestion(
                text=f"Put {rows[-1].original} back"[:70],
                operation="restore-aside",
                params={"database": database, "kept": rows[-1].kept.partition(".")[2]},
            )
        )
    return tuple(found)


OPERATION = Operation(
    name="aside",
    summary="List what was kept instead of dropped",
    kind=Kind.QUERY,
    risk=Risk.NONE,
    params=Params,
    example="/db aside orders",
    answer=answer,
)
