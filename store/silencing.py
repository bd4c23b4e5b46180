"""What a request to silence needs from the store: who asked, what it did already, which names.

A silence that was asked for carries its request's number, so that a step that is repeated
after a crash finds what it did.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.ext.asyncio import AsyncConnection

from store.incidents import AlertRow

NAMES_MAX: Final = 500
RECENT_MAX: Final = 500

ASKER: Final = sa.text("SELECT asked_by, asked_by_slack FROM requests WHERE id = :id")

OF_REQUEST: Final = sa.text("SELECT id FROM silences WHERE request_id = :id AND source = 'person'")

NAMES: Final = sa.text("""
    SELECT DISTINCT name FROM alerts WHERE database = :database ORDER BY name LIMIT :rows
""")

RECENT: Final = sa.text("""
    SELECT id, incident_id, database, name, label, severity, state, problem, next_step, value,
           fired_at, seen_at, resolved_at, acked_at, acked_by, detail
      FROM alerts
     WHERE state = 'resolved'
       AND resolved_at > :since
       AND (CAST(:database AS text) IS NULL OR database = :database)
     ORDER BY resolved_at DESC, id DESC
     LIMIT :rows
""").bindparams(sa.bindparam("since", type_=TIMESTAMP(timezone=True)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """Who asked for a request: a PersonId, and TEAM/USER or ''."""

    person: str
    slack: str


async def asker(conn: AsyncConnection, request_id: int) -> Asker:
    """Who asked for a request; for one that is not there, its number."""
    row = (await conn.execute(ASKER, {"id": request_id})).one_or_none()
    if row is None:
        return Asker(person=f"request {request_id}", slack="")
    return Asker(person=row.asked_by, slack=row.asked_by_slack)


async def silence_of_request(conn: AsyncConnection, request_id: int) -> int | None:
    """The silence that a request has begun, or None."""
    found: int | None = (await conn.execute(OF_REQUEST, {"id": request_id})).scalar_one_or_none()
    return found


async def names_told(conn: AsyncConnection, database: str) -> Sequence[str]:
    """The names of all alerts that have fired on a database, as far as they are kept."""
    found = await conn.execute(NAMES, {"database": database, "rows": NAMES_MAX})
    return list(found.scalars())


async def resolved_alerts(
    conn: AsyncConnection, database: str | None, *, since: datetime
) -> Sequence[AlertRow]:
    """What is over since then, on one database or anywhere (None); the last first."""
    values = {"database": database, "since": since, "rows": RECENT_MAX}
    return [AlertRow(**row) for row in (await conn.execute(RECENT, values)).mappings()]
