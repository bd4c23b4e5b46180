"""A drill's report is stored once, and the audit keeps its hash."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from approvals import audit
from approvals.evidence_text import DRILL_ACTION
from approvals.words import RequestId
from jobs.drill_words import DrillReport, report_json
from store.drills import drill_of, end_drill

_ACTOR: Final = "twokey"


async def store_report(conn: AsyncConnection, report: DrillReport, *, now: datetime) -> str:
    """End the drill with its report; the SHA-256 of what stands there, '' where nothing does.

    In one transaction, whose last lock is the audit's. An evidence pack is held against the
    entry: a report that somebody edits in the store together with its hash is found by it.
    """
    before = await drill_of(conn, report.request_id)
    digest = await end_drill(conn, report.request_id, report=report_json(report), at=now)
    if digest and before is not None and before.ended_at is None:
        await audit.append(
            conn,
            chain=report.database,
            at=now,
            actor=_ACTOR,
            action=DRILL_ACTION,
            request_id=RequestId(report.request_id),
            detail={"end": str(report.end), "sha256": digest},
        )
    return digest
