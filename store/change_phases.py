"""Phases of declared changes that were begun and done: who asked for which, and what it found.

Where a change stands say its marks in the target; these rows are for people.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import sqlalchemy as sa
from pydantic import JsonValue
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from store.tables import change_phases

LISTED_MAX: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseRow:
    """A phase. `sha256`: of the file that was carried out. `detail.state`: `begun` or `done`."""

    database: str
    change: str
    sha256: str
    phase: str
    request_id: int | None
    at: datetime
    detail: Mapping[str, JsonValue]


async def record_phase(conn: AsyncConnection, row: PhaseRow) -> None:
    """Store a phase; a run that is repeated overwrites what it has stored."""
    values = {
        "database": row.database,
        "change": row.change,
        "sha256": row.sha256,
        "phase": row.phase,
        "request_id": row.request_id,
        "at": row.at,
        "detail": dict(row.detail),
    }
    query = insert(change_phases).values(**values)
    await conn.execute(
        query.on_conflict_do_update(
            index_elements=["request_id", "change", "phase"],
            index_where=change_phases.c.request_id.is_not(None),
            set_={"at": query.excluded.at, "detail": query.excluded.detail},
        )
    )


async def phases_of(
    conn: AsyncConnection, database: str, change: str | None = None
) -> Sequence[PhaseRow]:
    """The phases of a database's changes, or of one of them, the newest first; bounded."""
    query = sa.select(change_phases).where(change_phases.c.database == database)
    if change is not None:
        query = query.where(change_phases.c.change == change)
    query = query.order_by(change_phases.c.id.desc()).limit(LISTED_MAX)
    rows = (await conn.execute(query)).mappings()
    return [PhaseRow(**{name: row[name] for name in PhaseRow.__slots__}) for row in rows]
