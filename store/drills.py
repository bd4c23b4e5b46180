"""Rehearsed disasters: at most one at a time in the whole fleet, and what was reported of each.

A report is a plain mapping here; `jobs.drill_words` says what stands in it. It is written once:
afterwards the database itself refuses to change the row.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from pydantic import JsonValue
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from store.redact import redact_json
from store.tables import drills as table
from store.tables import runs

ABORTED: Final = "aborted"
_FIRST_PHASE: Final = "announced"
# A run in one of these may still act on the cluster, or has left it for a person to look at.
_LIVING: Final = frozenset({"queued", "running", "needs_attention"})
# The form of `approvals.plans.canonical`, which the store may not import.
_ENCODER: Final = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
)

# Whoever wants to begin waits here for whoever decides about it already.
DECIDE_ALONE: Final = sa.text("SELECT pg_advisory_xact_lock(hashtext('twokey drill'), 0)")

# jsonb may write a number in another way than we do: what counts is what it gives back.
AS_KEPT: Final = sa.text("SELECT CAST(:report AS jsonb)").bindparams(
    sa.bindparam("report", type_=JSONB)
).columns(sa.column("jsonb", JSONB))  # fmt: skip

LAST_PASSED: Final = sa.text("""
    SELECT database, kind, max(ended_at) AS ended_at
      FROM drills
     WHERE report ->> 'end' = 'passed'
     GROUP BY database, kind
""")

NEWEST_PASSED: Final = sa.text("""
    SELECT DISTINCT ON (database) *
      FROM drills
     WHERE report ->> 'end' = 'passed'
     ORDER BY database, ended_at DESC, request_id DESC
""").columns(*table.c)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenDrill:
    """The drill that is open. `run_state` '': its run does not exist."""

    request_id: int
    database: str
    environment: str
    kind: str
    started_at: datetime
    phase: str
    run_state: str

    @property
    def is_alive(self) -> bool:
        """Whether its run may still act, or waits for a person to say what became of it."""
        return self.run_state in _LIVING


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDrill:
    """A drill. `ended_at` None: it runs. `report`, `sha256` None: it runs, or nobody reported."""

    request_id: int
    run_key: str
    database: str
    environment: str
    kind: str
    started_at: datetime
    ended_at: datetime | None
    phase: str
    report: Mapping[str, JsonValue] | None
    sha256: str | None

    @property
    def end(self) -> str:
        """Passed, failed or aborted; '' while it runs. Without a report it was aborted."""
        if self.ended_at is None:
            return ""
        return ABORTED if self.report is None else str(self.report.get("end", ABORTED))

    @property
    def is_intact(self) -> bool:
        """Whether the report is the one whose hash was stored with it."""
        return self.report is None or report_sha256(self.report) == self.sha256


def canonical_report(report: Mapping[str, Any]) -> str:
    """The one text of a report that is hashed, shown and exported.

    Raises:
        ValueError, TypeError: it holds something that JSON cannot.
    """
    return _ENCODER.encode(dict(report))


def report_sha256(report: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical text, in lower-case hexadecimal."""
    return hashlib.sha256(canonical_report(report).encode()).hexdigest()


async def begin_drill(
    conn: AsyncConnection,
    *,
    request_id: int,
    run_key: str,
    database: str,
    environment: str,
    kind: str,
    at: datetime,
) -> OpenDrill | None:
    """Claim the fleet's one drill; None: it is ours, or was already. Else the one that is open.

    One whose run is over (or does not exist) is ended without a report, and ours begins. A run
    that waits for a person is not over: its cluster may be half broken.

    Raises:
        ValueError: the drill of this request has ended already. Nothing has changed.
    """
    await conn.execute(DECIDE_ALONE)
    found = await open_drill(conn)
    if found and found.request_id == request_id:
        return None
    if found and found.is_alive:
        return found
    if await drill_of(conn, request_id) is not None:
        raise ValueError(f"the drill of request {request_id} has ended and does not begin anew")
    if found:
        await conn.execute(_still_open(found.request_id).values(ended_at=at))
    values = {
        "request_id": request_id, "run_key": run_key, "database": database,
        "environment": environment, "kind": kind, "started_at": at, "phase": _FIRST_PHASE,
    }  # fmt: skip
    await conn.execute(sa.insert(table).values(values))
    return None


async def note_phase(conn: AsyncConnection, request_id: int, phase: str) -> None:
    """Store how far an open drill is; changes nothing of one that ended."""
    await conn.execute(_still_open(request_id).values(phase=phase))


async def end_drill(
    conn: AsyncConnection, request_id: int, *, report: Mapping[str, Any], at: datetime
) -> str:
    """Store what is reported, once; the SHA-256 of the report that stands there now.

    One that ended keeps what was reported then; '' where nothing was, or there is no such drill.

    Raises:
        ValueError, TypeError: the report holds something that JSON cannot. Nothing has changed.
    """
    canonical_report(report)
    safe = redact_json(dict(report))
    kept = (await conn.execute(AS_KEPT, {"report": safe})).scalar_one()
    await conn.execute(
        _still_open(request_id).values(ended_at=at, report=kept, sha256=report_sha256(kept))
    )
    known = await drill_of(conn, request_id)
    return (known.sha256 or "") if known else ""


async def open_drill(conn: AsyncConnection) -> OpenDrill | None:
    """The drill that is open, whether or not its run lives."""
    query = (
        sa.select(
            *(table.c[name] for name in OpenDrill.__slots__ if name != "run_state"),
            sa.func.coalesce(runs.c.state, "").label("run_state"),
        )
        .outerjoin(runs, runs.c.request_id == table.c.request_id)
        .where(table.c.ended_at.is_(None))
    )
    row = (await conn.execute(query)).mappings().one_or_none()
    return OpenDrill(**row) if row else None


async def drill_of(conn: AsyncConnection, request_id: int) -> StoredDrill | None:
    """The drill of a request."""
    found = await conn.execute(sa.select(table).where(table.c.request_id == request_id))
    row = found.mappings().one_or_none()
    return StoredDrill(**row) if row else None


async def drills(
    conn: AsyncConnection, database: str | None, *, limit: int, kind: str = ""
) -> Sequence[StoredDrill]:
    """Drills, newest first: of a database or (None) of all, of a kind or ('') of any."""
    query = sa.select(table).order_by(table.c.started_at.desc(), table.c.request_id.desc())
    if database is not None:
        query = query.where(table.c.database == database)
    if kind:
        query = query.where(table.c.kind == kind)
    found = await conn.execute(query.limit(limit))
    return [StoredDrill(**row) for row in found.mappings()]


async def last_passed(conn: AsyncConnection) -> Mapping[tuple[str, str], datetime]:
    """When a drill of each database and kind passed last: when it ended."""
    found = await conn.execute(LAST_PASSED)
    return {(row.database, row.kind): row.ended_at for row in found}


async def newest_drills(conn: AsyncConnection) -> Mapping[str, StoredDrill]:
    """The newest drill that passed, of each database that has one."""
    found = await conn.execute(NEWEST_PASSED)
    return {row["database"]: StoredDrill(**row) for row in found.mappings()}


def _still_open(request_id: int) -> sa.Update:
    return sa.update(table).where(table.c.request_id == request_id, table.c.ended_at.is_(None))
