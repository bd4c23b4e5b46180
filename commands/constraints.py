"""`/db constraints orders`: what the schema does not enforce, and how to mend it unnoticed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from pydantic import BaseModel, Field

from jobs.operation import Answer, Context, Kind, Operation, Risk, Table
from jobs.text import count_text
from postgres.health.constraints import Finding, FindingKind, constraint_findings

LIMIT: Final = timedelta(seconds=5)
_MENDED_MAX: Final = 6
_ROWS_MAX: Final = 60


class Params(BaseModel, extra="forbid"):
    """Which database."""

    database: str = Field(description="Database in the inventory", examples=["orders"])


async def answer(context: Context, params: Params) -> Answer:
    """Findings, and for the first of them the statements that mend them without blocking."""
    async with context.reader.session(limit=LIMIT) as session:
        found = await constraint_findings(session)
    if not found:
        return Answer(
            title=f"Constraints of {params.database}: nothing found",
            lines=(
                "Every foreign key and check is validated and enforced.",
                "Every table has a primary key.",
                "No column looks as if it should refer to a table, be unique or be checked.",
            ),
        )
    return Answer(
        title=f"Constraints of {params.database}: {count_text(len(found), 'finding')}",
        lines=(_summary(found), *_about_mending(found)),
        statements=tuple(_mending(found)),
        table=Table(
            columns=("Finding", "Table", "What", "Rows"),
            rows=tuple(
                (str(each.kind), each.table, each.what, f"{each.rows:,}")
                for each in found[:_ROWS_MAX]
            ),
        ),
    )


def _summary(found: Sequence[Finding]) -> str:
    counts = Counter(each.kind for each in found)
    said = ", ".join(f"{counts[kind]} {kind}" for kind in FindingKind if counts[kind])
    guesses = sum(each.is_guess for each in found)
    by_name = f" {count_text(guesses, 'of them is', 'of them are')} guessed by a column's name."
    return f"{said}.{by_name if guesses else ''}"


def _about_mending(found: Sequence[Finding]) -> Sequence[str]:
    if not any(each.statements for each in found):
        return ()
    return (
        "What follows mends it without blocking writers, as a migration that was tried on a copy.",
        "Where rows break a new constraint VALIDATE fails, and it holds for new rows only.",
    )


def _mending(found: Sequence[Finding]) -> Sequence[str]:
    """Each kind once before any of them twice: people see what there is."""
    with_statements = [each for each in found if each.statements]
    firsts = {each.kind: each for each in reversed(with_statements)}
    chosen = [firsts[kind] for kind in FindingKind if kind in firsts]
    chosen += [each for each in with_statements if each not in chosen]
    return [
        "\n".join((f"-- {each.kind}: {each.table}", *(f"{sql};" for sql in each.statements)))
        for each in chosen[:_MENDED_MAX]
    ]


OPERATION = Operation(
    name="constraints",
    summary="Show foreign keys, unique and check constraints that are missing or not validated",
    kind=Kind.QUERY,
    risk=Risk.NONE,
    params=Params,
    example="/db constraints orders",
    answer=answer,
    patience=timedelta(seconds=20),
    is_cached=True,
)
