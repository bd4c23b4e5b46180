"""`/db schema orders`: how the database differs from its source of truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from pydantic import BaseModel, Field

from jobs.declared_schema import SCOPES, declared
from jobs.operation import Answer, Context, JobError, Kind, Operation, Risk, Table
from jobs.text import count_text
from postgres.schema.declared import read_lines
from postgres.schema.drift import Drift, DriftKind, compare

LIMIT: Final = timedelta(seconds=10)
_ROWS_MAX: Final = 60
_CELL_CHARS_MAX: Final = 90
_LEFT_OUT_MAX: Final = 5


class Params(BaseModel, extra="forbid"):
    """Which database."""

    database: str = Field(description="Database in the inventory", examples=["orders"])


async def answer(context: Context, params: Params) -> Answer:
    """Every difference between what is declared and what is there.

    Raises:
        JobError: nothing is declared, or it cannot be read.
    """
    source = context.database.monitoring.schema
    if source is None:
        raise JobError(
            f"The inventory does not say what declares the schema of {params.database}.",
            next_step="Name it there: monitoring.schema, with kind sql, alembic or prisma.",
        )
    async with context.reader.session(limit=LIMIT) as session:
        (row,) = await session.fetch("SHOW server_version_num")
        actual = await read_lines(session)
    major = int(row["server_version_num"]) // 10_000
    wanted, binaries = await declared(source, major=major)
    drift = compare(wanted.lines, actual, scope=SCOPES[source.kind])
    notes = [f"Compared with {source.kind} in {source.path.name}."]
    if binaries.major != major:
        notes.append(
            f"What is declared was made by PostgreSQL {binaries.major}, the database runs {major}:"
            " some definitions may be written in another way."
        )
    notes += [f"Left out: {each}" for each in wanted.left_out[:_LEFT_OUT_MAX]]
    return _answer(params, drift, notes)


def _answer(params: Params, drift: Sequence[Drift], notes: Sequence[str]) -> Answer:
    if not drift:
        return Answer(
            title=f"The schema of {params.database} is as it is declared", lines=tuple(notes)
        )
    counts = Counter(each.kind for each in drift)
    said = ", ".join(f"{counts[kind]} {kind}" for kind in DriftKind if counts[kind])
    return Answer(
        title=f"The schema of {params.database} has drifted:"
        f" {count_text(len(drift), 'difference')}",
        lines=(
            f"{said}.",
            *notes,
            "Missing: apply the migration that makes it.",
            "Not declared: made by hand. Declare it, or drop it by a migration.",
        ),
        table=Table(
            columns=("Drift", "What", "Name", "Declared", "There"),
            rows=tuple(
                (
                    str(each.kind),
                    each.what,
                    each.name,
                    _short(each.declared),
                    _short(each.actual),
                )
                for each in drift[:_ROWS_MAX]
            ),
        ),
    )


def _short(text: str) -> str:
    return text if len(text) <= _CELL_CHARS_MAX else f"{text[: _CELL_CHARS_MAX - 1]}…"


OPERATION = Operation(
    name="schema",
    summary="Show how a database differs from what declares its schema",
    kind=Kind.QUERY,
    risk=Risk.NONE,
    params=Params,
    example="/db schema orders",
    answer=answer,
    patience=timedelta(seconds=60),
    is_cached=True,
)
