"""`/db indexes orders`: which indexes are missing, and which only cost.

What is missing is asked of the planner with indexes that do not exist (hypopg); what is unused,
of every node's counters. Nothing is executed and nothing changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from pydantic import BaseModel, Field

from jobs.index_run import made_since, replica_scans
from jobs.index_words import (
    PROPOSALS_SHOWN,
    SUGGESTIONS_MAX,
    create_suggestion,
    drop_suggestion,
    finding_row,
    flaw_counts,
    missing_lines,
    proposal_lines,
    unused_line,
)
from jobs.operation import Answer, Context, Kind, Operation, Risk, Suggestion, Table
from jobs.text import count_text
from postgres.health.advisor import SETTINGS, Advice, advise
from postgres.health.advisor_planner import AdviceLimits
from postgres.health.index_nodes import FORMAT
from postgres.health.index_terms import create_template, index_name
from postgres.health.indexes import (
    UNUSED_AFTER,
    UNUSED_BYTES_MIN,
    Counted,
    Finding,
    Flaw,
    judge,
    read_indexes,
    used_elsewhere,
)

PATIENCE: Final = timedelta(seconds=30)
STATEMENT_LIMIT: Final = timedelta(seconds=5)
ADVICE: Final = AdviceLimits()
COLUMNS: Final = ("What", "Index", "Size", "Why")


class Params(BaseModel, extra="forbid"):
    """Whose indexes."""

    database: str = Field(description="Database in the inventory", examples=["orders"])


async def answer(context: Context, params: Params) -> Answer:
    """What is missing and what only costs, with the forms that change it."""
    findings, counted = await _there(context)
    advice, proposed = await _missing(context)
    shown = advice.proposals[:PROPOSALS_SHOWN]
    lines = missing_lines(advice)
    for number, proposal in enumerate(shown, start=1):
        lines += ["", *proposal_lines(number, proposal, advice)]
    lines += ["", unused_line(counted)]
    return Answer(
        title=_title(params.database, advice, findings),
        lines=tuple(lines),
        statements=tuple(f"{statement};" for statement in proposed),
        facts=(("Looked at", count_text(advice.looked_at, "statement")),),
        table=_table(findings),
        suggestions=tuple(_suggestions(params.database, advice, findings)),
    )


async def _there(context: Context) -> tuple[list[Finding], list[Counted]]:
    """The indexes that are there and only cost, in the light of all nodes."""
    name = context.database.name
    async with context.reader.session(limit=STATEMENT_LIMIT) as session:
        looked = await read_indexes(session, name)
    found = judge(looked, bytes_min=UNUSED_BYTES_MIN)
    unused = [each.index.oid for each in found if each.flaw is Flaw.UNUSED]
    replicas, silent = await replica_scans(context, unused)
    young = await made_since(context, context.now - UNUSED_AFTER)
    kept = [
        seen
        for each in found
        if each.flaw is not Flaw.UNUSED or each.index.text not in young
        if (seen := used_elsewhere(each, replicas, silent)) is not None
    ]
    return kept, [looked.counted, *replicas]


async def _missing(context: Context) -> tuple[Advice, list[str]]:
    """The advice, and the statements of what it shows, quoted by the server."""
    async with context.reader.session(limit=STATEMENT_LIMIT, settings=SETTINGS) as session:
        advice = await advise(session, limits=ADVICE)
        statements: list[str] = []
        for proposal in advice.proposals[:PROPOSALS_SHOWN]:
            table = proposal.table
            name = index_name(table.schema, table.name, proposal.terms)
            piece = create_template(table.schema, table.name, name, proposal.terms)
            rows = await session.fetch(FORMAT, piece.template, list(piece.args))
            statements.append(str(rows[0]["sql"]))
    return advice, statements


def _title(database: str, advice: Advice, findings: Sequence[Finding]) -> str:
    tried = sum(each.is_tried for each in advice.proposals)
    guessed = len(advice.proposals) - tried
    said = [count_text(tried, "missing index", "missing indexes")] if tried else []
    if guessed:
        said.append(f"{count_text(guessed, 'index', 'indexes')} that may be missing")
    said += [f"{count} {flaw}" for flaw, count in flaw_counts(findings).items() if count]
    return f"Indexes of {database}: {', '.join(said) or 'nothing to do'}"


def _table(findings: Sequence[Finding]) -> Table | None:
    if not findings:
        return None
    return Table(columns=COLUMNS, rows=tuple(finding_row(each) for each in findings))


def _suggestions(database: str, advice: Advice, findings: Sequence[Finding]) -> list[Suggestion]:
    missing = [create_suggestion(database, each) for each in advice.proposals if each.is_tried]
    drops = [drop_suggestion(database, each) for each in findings if not each.but]
    return [*missing[:SUGGESTIONS_MAX], *drops[:SUGGESTIONS_MAX]]


OPERATION = Operation(
    name="indexes",
    summary="Indexes that are missing, and indexes that only cost",
    kind=Kind.QUERY,
    risk=Risk.NONE,
    params=Params,
    example="/db indexes orders",
    answer=answer,
    patience=PATIENCE,
    is_cached=True,
)
