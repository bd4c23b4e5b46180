"""Alerts as they are stored: one row of a name and label fires per database, whoever looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

import sqlalchemy as sa
from pydantic import JsonValue
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP
from sqlalchemy.ext.asyncio import AsyncConnection

from store.incidents import AlertRow

_AT: Final = TIMESTAMP(timezone=True)

# Whoever does not get it leaves the look to whoever has it; a commit gives it back.
LOOK_ALONE: Final = sa.text("""
    SELECT pg_try_advisory_xact_lock(hashtext('twokey'), hashtext('alerts'))
""")

_COLUMNS: Final = (
    "id, incident_id, database, name, label, severity, state, problem, next_step, value, fired_at,"
    " seen_at, resolved_at, acked_at, acked_by, detail"
)
_FIRING_MAX: Final = 20_000

FIRING: Final = sa.text(f"""
    SELECT {_COLUMNS}
      FROM alerts
     WHERE state = 'firing'
       AND (CAST(:database AS text) IS NULL OR database = :database)
     ORDER BY fired_at, id
     LIMIT :rows
""")  # noqa: S608 - our own constants

# Those of other systems' incidents are settled by who takes them in.
OURS: Final = sa.text(f"""
    SELECT {_COLUMNS}
      FROM alerts a
     WHERE state = 'firing'
       AND NOT EXISTS (SELECT FROM incidents i
                        WHERE i.id = a.incident_id AND i.source <> 'twokey')
     ORDER BY fired_at, id
     LIMIT :rows
""")  # noqa: S608 - our own constants

# The index lets one of a name and label fire per database, whatever anybody decides.
FIRE: Final = sa.text("""
    INSERT INTO alerts (database, name, label, severity, state, problem, next_step, value,
                        fired_at, seen_at, incident_id, detail)
    VALUES (:database, :name, :label, :severity, 'firing', :problem, :next_step, :value, :fired_at,
            :at, :incident_id, :detail)
        ON CONFLICT (database, name, label) WHERE state = 'firing' DO NOTHING
 RETURNING id
""").bindparams(
    sa.bindparam("at", type_=_AT),
    sa.bindparam("fired_at", type_=_AT),
    sa.bindparam("detail", type_=JSONB),
    sa.bindparam("value", type_=sa.Double()),
    sa.bindparam("incident_id", type_=sa.BigInteger()),
)

# An acknowledgement of something that has become worse counts no more.
SEEN: Final = sa.text("""
    UPDATE alerts
       SET seen_at = :at, severity = :severity, problem = :problem, next_step = :next_step,
           value = :value, detail = :detail, incident_id = coalesce(:incident_id, incident_id),
           acked_at = CASE WHEN :forget_ack THEN NULL ELSE acked_at END,
           acked_by = CASE WHEN :forget_ack THEN '' ELSE acked_by END
     WHERE id = :id
       AND state = 'firing'
""").bindparams(
    sa.bindparam("at", type_=_AT),
    sa.bindparam("detail", type_=JSONB),
    sa.bindparam("value", type_=sa.Double()),
    sa.bindparam("incident_id", type_=sa.BigInteger()),
    sa.bindparam("forget_ack", type_=sa.Boolean()),
)

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


async def firing_alerts(conn: AsyncConnection, database: str | None = None) -> Sequence[AlertRow]:
    """All alerts that fire, told or not, on one database or anywhere; oldest first."""
    found = await conn.execute(FIRING, {"database": database, "rows": _FIRING_MAX})
    return [AlertRow(**row) for row in found.mappings()]


async def our_firing_alerts(conn: AsyncConnection) -> Sequence[AlertRow]:
    """What fires of our own alerts, told or not; oldest first."""
    found = await conn.execute(OURS, {"rows": _FIRING_MAX})
    return [AlertRow(**row) for row in found.mappings()]


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
    fired_at: datetime | None = None,
    label: str = "",
    value: float | None = None,
    incident_id: int | None = None,
) -> int | None:
    """Store an alert that begins; its id, or None: it fires already."""
    values = {
        "database": database, "name": name, "label": label, "severity": severity,
        "problem": problem, "next_step": next_step, "value": value, "at": at,
        "fired_at": fired_at or at, "incident_id": incident_id, "detail": dict(detail),
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
    detail: Mapping[str, JsonValue],
    value: float | None = None,
    incident_id: int | None = None,
    forget_ack: bool = False,
) -> None:
    """Store how an alert stands now. `incident_id` None: it stays in the one it is in."""
    values = {
        "id": alert_id, "severity": severity, "problem": problem, "next_step": next_step, "at": at,
        "detail": dict(detail), "value": value, "incident_id": incident_id,
        "forget_ack": forget_ack,
    }  # fmt: skip
    await conn.execute(SEEN, values)


async def resolve_alert(conn: AsyncConnection, alert_id: int, *, at: datetime) -> bool:
    """End an alert; whether it was us who did."""
    found = await conn.execute(RESOLVE, {"id": alert_id, "at": at})
    return found.one_or_none() is not None


async def forget_alerts(conn: AsyncConnection, *, before: datetime, rows: int) -> None:
    """Remove some that are long over."""
    await conn.execute(FORGET, {"before": before, "rows": rows})
