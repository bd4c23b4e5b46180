"""Drills as the store has them, as reports again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection

from jobs.drill_words import REPORT, REPORT_VERSION, DrillReport
from store.drills import StoredDrill, canonical_report, drills

EARLIER_MAX: Final = 20


def report_of(drill: StoredDrill) -> DrillReport | None:
    """What was reported; None where nobody did, or it is written in a way that is not ours."""
    if drill.report is None or drill.report.get("version") != REPORT_VERSION:
        return None
    try:
        return REPORT.validate_json(canonical_report(drill.report))
    except ValidationError:
        return None


def reports_of(found: Sequence[StoredDrill]) -> list[DrillReport]:
    """Those that can be read, in their order."""
    return [report for each in found if (report := report_of(each)) is not None]


async def earlier_reports(
    conn: AsyncConnection, database: str, kind: str, *, limit: int = EARLIER_MAX
) -> Sequence[DrillReport]:
    """The newest reports of a database and a kind, to be compared with; newest first."""
    return reports_of(await drills(conn, database, limit=limit, kind=kind))
