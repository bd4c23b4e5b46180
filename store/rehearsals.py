"""Rehearsals of migrations on restored copies: what was found, the newest of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import sqlalchemy as sa
from pydantic import JsonValue
from sqlalchemy.ext.asyncio import AsyncConnection

from store.tables import rehearsals


@dataclass(frozen=True, slots=True, kw_only=True)
class RehearsalRow:
    """One rehearsal. `subject`: hash of what was rehearsed, in which order.

    `ok`: everything could be applied; `problem` says what could not, '' when all could.
    `seconds`: applying it took so long on the copy, of `data_bytes`. `detail`: see
    `jobs.rehearsals`.
    """

    database: str
    subject: str
    at: datetime
    ok: bool
    backup_id: str
    seconds: float
    data_bytes: int
    request_id: int | None = None
    problem: str = ""
    detail: Mapping[str, JsonValue] = field(default_factory=dict)


async def record_rehearsal(conn: AsyncConnection, row: RehearsalRow) -> None:
    """Store what was found; a step that is repeated after a crash stores it once."""
    values = {name: getattr(row, name) for name in RehearsalRow.__slots__}
    values |= {"detail": dict(row.detail)}
    if row.request_id is not None:
        known = sa.select(rehearsals.c.id).where(
            rehearsals.c.request_id == row.request_id, rehearsals.c.subject == row.subject
        )
        if (await conn.execute(known)).first() is not None:
            return
    await conn.execute(sa.insert(rehearsals).values(values))


async def newest_rehearsal(
    conn: AsyncConnection, database: str, subject: str
) -> RehearsalRow | None:
    """The last rehearsal of just this on a copy of this database; None: there was none."""
    query = (
        sa.select(*(rehearsals.c[name] for name in RehearsalRow.__slots__))
        .where(rehearsals.c.database == database, rehearsals.c.subject == subject)
        .order_by(rehearsals.c.at.desc(), rehearsals.c.id.desc())
        .limit(1)
    )
    row = (await conn.execute(query)).mappings().one_or_none()
    return RehearsalRow(**row) if row else None
