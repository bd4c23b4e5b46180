"""Alerts as they are stored: one row of a name fires per database, whoever looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from pydantic import JsonValue
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP
from sqlalchemy.ext.asyncio import AsyncConnection

_AT: Final = TIMESTAMP(timezone=True)

# Whoever does not get it leaves the look to whoever has it; a commit gives it back.
LOOK_ALONE: Final = sa.text("""
    SELECT pg_try_advisory_xact_lock(hashtext('twokey'), hashtext('alerts'))
""")

FIRING: Final = sa.text("""
    SELECT id, database, name, severity, problem, next_step, fired_at, seen_at, detail
      FROM alerts
     WHERE state = 'firing'
     ORDER BY fired_at, id
""")

# The index lets one of a name fire per database, whatever anybody decides.
FIRE: Final = sa.text("""
    INSERT INTO alerts (database, name, severity, state, problem, next_step, fired_at, seen_at,
                        detail)
    VALUES (:database, :name, :severity, 'firing', :problem, :next_step, :at, :at, :detail)
        ON CONFLICT (database, name, label) WHERE state = 'firing' DO NOTHING
 RETURNING id
""").bindparams(sa.bindparam("at", type_=_AT), sa.bindparam("detail", type_=JSONB))

SEEN: Final = sa.text("""
    UPDATE alerts
       SET seen_at = :at, severity = :severity, problem = :problem, next_step = :next_step
     WHERE id = :id
       AND state = 'firing'
""").bindparams(sa.bindparam("at", type_=_AT))

RESOLVE: Final = sa.text("""
    UPDATE alerts
       SET state = 'resolved', resolved_at = :at
     WHERE id = :id
       AND state = 'firing'
 RETURNING id
""").bindparams(sa.bindparam("at", type_=_AT))

FORGET: Final = sa.text("""
    DELETE FROM alerts
     WHERE id IN (SELECT id FROM alerts
                   WHERE state = 'resolved' AND resolved_at < :before
                   ORDER BY resolved_at LIMIT :rows)
""").bindparams(sa.bindparam("before", type_=_AT))


async def look_alone(conn: AsyncConnection) -> bool:
    """Whether we are the only ones who look, until the transaction ends."""
    return bool((await conn.execute(LOOK_ALONE)).scalar_one())


async def firing_alerts(conn: AsyncConnection) -> Sequence[Mapping[str, Any]]:
    """The rows of all alerts that fire, oldest first."""
    return [dict(row) for row in (await conn.execute(FIRING)).mappings()]


async def fire_alert(
    conn: AsyncConnection,
    *,
    database: str,
    name: str,
    severity: str,
    problem: str,
    next_step: str,
    at: datetime,
    detail: Mapping[str, JsonValue],
) -> int | None:
    """Store an alert that begins; its id, or None: it fires already."""
    values = {
        "database": database, "name": name, "severity": severity, "problem": problem,
        "next_step": next_step, "at": at, "detail": dict(detail),
    }  # fmt: skip
    found: int | None = (await conn.execute(FIRE, values)).scalar_one_or_none()
    return found


async def see_alert(
    conn: AsyncConnection,
    alert_id: int,
    *,
    severity: str,
    problem: str,
    next_step: str,
    at: datetime,
) -> None:
    """Store how an alert stands now."""
    values = {
        "id": alert_id, "severity": severity, "problem": problem, "next_step": next_step, "at": at
    }  # fmt: skip
    await conn.execute(SEEN, values)


async def resolve_alert(conn: AsyncConnection, alert_id: int, *, at: datetime) -> bool:
    """End an alert; whether it was us who did."""
    found = await conn.execute(RESOLVE, {"id": alert_id, "at": at})
    return found.one_or_none() is not None


async def forget_alerts(conn: AsyncConnection, *, before: datetime, rows: int) -> None:
    """Remove some that are long over."""
    await conn.execute(FORGET, {"before": before, "rows": rows})
