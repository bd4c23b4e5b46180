"""`/db drills [orders]`: which disasters were rehearsed, how it went, and each report again.

Reads only the store.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Final

from pydantic import BaseModel, Field

from jobs.asked_databases import asked_databases
from jobs.drill_compare import figures, trend
from jobs.drill_report import answer_of
from jobs.drill_stored import earlier_reports, report_of, reports_of
from jobs.drill_verdict import seconds_text
from jobs.drill_words import DrillReport
from jobs.operation import Answer, Chart, Context, JobError, Kind, Operation, Risk, Table
from jobs.text import span_text
from store.drills import StoredDrill, canonical_report, drill_of, drills

LISTED_MAX: Final = 30
COLUMNS: Final = ("#", "Began", "Kind", "Verdict", "RTO", "RPO", "Lost", "No writes")
# A report that is longer does not stand in a message: it is exported instead.
JSON_CHARS_MAX: Final = 8000
_UNKNOWN: Final = "-"
NONE_YET: Final = (
    "No disaster was rehearsed yet. `cluster.drills.kinds` in the inventory says which ones may be;"
    " ask for one with /db drill."
)


class Params(BaseModel, extra="forbid"):
    """Which database, or all of them; or one report."""

    database: str = Field(
        default="", description="Database in the inventory; all of them when left out"
    )
    report: int | None = Field(
        default=None, ge=1, description="Number of a drill's request: its report in full"
    )


async def answer(context: Context, params: Params) -> Answer:
    """The newest drills with what decides, or one report in full.

    Raises:
        JobError: there is no such drill here.
    """
    wanted = {each.name for each in asked_databases(context, params.database)}
    if params.report is not None:
        return await _one(context, params.report, wanted)
    async with context.store.begin() as conn:
        found = await drills(conn, params.database or None, limit=LISTED_MAX)
    found = [each for each in found if each.database in wanted]
    return _listed(params.database, found, context)


def _listed(database: str, found: Sequence[StoredDrill], context: Context) -> Answer:
    where = f"of {database}" if database else "of all databases"
    if not found:
        return Answer(
            title=f"Drills {where}: none",
            lines=(NONE_YET,),
        )
    passed = sum(each.end == "passed" for each in found)
    return Answer(
        title=f"Drills {where}: {passed} of {len(found)} passed",
        lines=(
            *_running(found, context),
            *_doubts(found),
            f"One in full: /db drills report={found[0].request_id}",
        ),
        charts=_trends(found) if database else (),
        table=_table(found, is_one=bool(database)),
    )


def _running(found: Sequence[StoredDrill], context: Context) -> Iterator[str]:
    for each in found:
        if each.ended_at is None:
            since = span_text(max(context.now - each.started_at, timedelta(0)))
            yield (
                f"Running for {since}: {each.kind} of {each.database}, as far as: {each.phase}"
                f" (request {each.request_id})."
            )


def _doubts(found: Sequence[StoredDrill]) -> Iterator[str]:
    for each in found:
        if not each.is_intact:
            yield _doubt(each)


def _doubt(drill: StoredDrill) -> str:
    return (
        f"The report of request {drill.request_id} is NOT the one whose hash was stored with it:"
        " somebody has changed it. Check the audit (twokey audit verify), and hold it against an"
        " evidence pack of that time."
    )


def _table(found: Sequence[StoredDrill], *, is_one: bool) -> Table:
    """Of one database, or (a column more) of several."""
    rows = tuple(map(_row, found))
    if is_one:
        return Table(columns=COLUMNS, rows=rows)
    named = zip((each.database for each in found), rows, strict=True)
    return Table(columns=("Database", *COLUMNS), rows=tuple((name, *row) for name, row in named))


def _row(drill: StoredDrill) -> tuple[str, ...]:
    report = report_of(drill)
    return (
        str(drill.request_id),
        f"{drill.started_at:%Y-%m-%d}",
        drill.kind,
        _verdict(drill),
        *(_figures(report) if report else (_UNKNOWN,) * 4),
    )


def _verdict(drill: StoredDrill) -> str:
    if not drill.is_intact:
        return "CHANGED"
    return "FAILED" if drill.end == "failed" else drill.end or "running"


def _figures(report: DrillReport) -> tuple[str, ...]:
    known = figures(report)
    rto, rpo, gap = (
        _UNKNOWN if (seconds := known[name]) is None else seconds_text(seconds)
        for name in ("RTO", "RPO", "No writes")
    )
    return rto, rpo, f"{report.cost.lost:,}" if report.cost else _UNKNOWN, gap


def _trends(found: Sequence[StoredDrill]) -> tuple[Chart, ...]:
    """Of the kind that was rehearsed last and more than once."""
    reports = reports_of(found)
    for kind in dict.fromkeys(each.kind for each in reports):
        if chart := trend([each for each in reports if each.kind is kind]):
            return (chart,)
    return ()


async def _one(context: Context, request_id: int, wanted: set[str]) -> Answer:
    async with context.store.begin() as conn:
        drill = await drill_of(conn, request_id)
        if drill is None or drill.database not in wanted:
            raise JobError(
                f"Request {request_id} is no drill of {' or '.join(sorted(wanted)[:3])}.",
                next_step="See which there are: /db drills",
            )
        earlier = await earlier_reports(conn, drill.database, drill.kind)
    report = report_of(drill)
    shown = _unreported(drill) if report is None else answer_of(report, earlier)
    doubts = () if drill.is_intact else (_doubt(drill),)
    return replace(
        shown,
        lines=(*doubts, *shown.lines),
        facts=(*shown.facts, *_hash(drill)),
        statements=_json(drill) if report is None else (),
    )


def _unreported(drill: StoredDrill) -> Answer:
    """Of one that runs, whose run ended without a report, or whose report is not of our version."""
    title = f"{drill.kind} of {drill.database}"
    began = ("Began", f"{drill.started_at:%Y-%m-%d %H:%M} UTC")
    reached = ("Came as far as", drill.phase)
    if drill.ended_at is None:
        return Answer(
            title=f"Drill running: {title}",
            lines=("It is reported when it has ended.",),
            facts=(began, reached),
        )
    if drill.report is None:
        return Answer(
            title=f"Drill aborted: {title}",
            lines=(
                "Its run had ended without a report, so the next drill closed it.",
                f"Nobody has measured anything. See: /db replication {drill.database}",
            ),
            facts=(began, reached),
        )
    return Answer(
        title=f"Drill {drill.end}: {title}",
        lines=("Its report was written by another version of Twokey; its JSON says it all.",),
        facts=(began, reached),
    )


def _hash(drill: StoredDrill) -> Iterator[tuple[str, str]]:
    if drill.sha256:
        yield "SHA-256", f"{drill.sha256}\nAs a file: twokey drills export {drill.request_id}"


def _json(drill: StoredDrill) -> tuple[str, ...]:
    """A report that we cannot draw, as data, where it fits."""
    text = canonical_report(drill.report) if drill.report is not None else ""
    return (text,) if 0 < len(text) <= JSON_CHARS_MAX else ()


OPERATION = Operation(
    name="drills",
    summary="Rehearsed disasters: how each went, what it cost, and its report again",
    kind=Kind.QUERY,
    risk=Risk.NONE,
    params=Params,
    example="/db drills orders",
    answer=answer,
)
