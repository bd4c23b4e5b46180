"""Incidents: what people are told as one, and the alerts that belong to it.

Whoever changes an incident and its alerts locks the incident's row first, so that an
acknowledgement and a resolve never wait for one another in a circle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Literal

import sqlalchemy as sa
from pydantic import JsonValue
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TIMESTAMP
from sqlalchemy.ext.asyncio import AsyncConnection

Source = Literal["twokey", "alertmanager"]

# More of one incident are not loaded: firing ones come first, then the newest.
ALERTS_MAX: Final = 100
INCIDENTS_MAX: Final = 500
_AT: Final = TIMESTAMP(timezone=True)

_INCIDENT: Final = """
    SELECT id, source, key, database, channel, severity, state, opened_at, changed_at, closed_at,
           version, detail
      FROM incidents
"""
LOAD: Final = sa.text(f"{_INCIDENT} WHERE id = :id")
LOAD_LOCKED: Final = sa.text(f"{_INCIDENT} WHERE id = :id FOR UPDATE")
OPEN_ONES: Final = sa.text(f"""{_INCIDENT}
     WHERE state = 'open'
       AND (CAST(:database AS text) IS NULL OR database = :database)
     ORDER BY opened_at, id
     LIMIT :rows
""")
OPEN_OF_SOURCE: Final = sa.text(f"""{_INCIDENT}
     WHERE state = 'open' AND source = :source
     ORDER BY id
       FOR UPDATE
""")
OPEN_OF_KEY: Final = sa.text(f"""{_INCIDENT}
     WHERE state = 'open' AND source = :source AND key = :key
       FOR UPDATE
""")

ALERTS: Final = sa.text("""
    SELECT a.*
      FROM unnest(:ids) AS i(id)
     CROSS JOIN LATERAL (
           SELECT id, incident_id, database, name, label, severity, state, problem, next_step,
                  value, fired_at, seen_at, resolved_at, acked_at, acked_by, detail
             FROM alerts
            WHERE incident_id = i.id
            ORDER BY state = 'firing' DESC, fired_at DESC, id DESC
            LIMIT :rows) AS a
     ORDER BY a.incident_id, a.fired_at, a.id
""").bindparams(sa.bindparam("ids", type_=ARRAY(sa.BigInteger())))

# The index lets one of a key be open: whoever comes second gets that one.
OPEN: Final = sa.text("""
    INSERT INTO incidents (source, key, database, channel, severity, state, opened_at, changed_at,
                           detail)
    VALUES (:source, :key, :database, :channel, :severity, 'open', :at, :at, :detail)
        ON CONFLICT (source, key) WHERE state = 'open'
        DO UPDATE SET changed_at = :at, version = incidents.version + 1
 RETURNING id
""").bindparams(sa.bindparam("at", type_=_AT), sa.bindparam("detail", type_=JSONB))

CHANGE: Final = sa.text("""
    UPDATE incidents
       SET severity = coalesce(:severity, severity), changed_at = :at, version = version + 1
     WHERE id = :id
       AND state = 'open'
 RETURNING version
""").bindparams(sa.bindparam("at", type_=_AT), sa.bindparam("severity", type_=sa.Text()))

CLOSE: Final = sa.text("""
    UPDATE incidents
       SET state = 'closed', closed_at = :at, changed_at = :at, version = version + 1
     WHERE id = :id
       AND state = 'open'
 RETURNING version
""").bindparams(sa.bindparam("at", type_=_AT))

ACK: Final = sa.text("""
    UPDATE alerts
       SET acked_at = :at, acked_by = :by
     WHERE incident_id = :id
       AND state = 'firing'
       AND acked_at IS NULL
 RETURNING id
""").bindparams(sa.bindparam("at", type_=_AT))

# Alerts are forgotten before their incidents; the places of messages go with these.
FORGET: Final = sa.text("""
    WITH old AS (
        SELECT id FROM incidents i
         WHERE state = 'closed' AND closed_at < :before
           AND NOT EXISTS (SELECT FROM alerts a WHERE a.incident_id = i.id)
         ORDER BY closed_at LIMIT :rows
    ), placed AS (
        DELETE FROM places WHERE kind = 'incident' AND key IN (SELECT id::text FROM old)
    )
    DELETE FROM incidents WHERE id IN (SELECT id FROM old)
""").bindparams(sa.bindparam("before", type_=_AT))


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertRow:
    """An alert of an incident. `detail`: `suggestions`, `runbook`, `node`, `metric`, `muted`.

    `muted` is why it is not told at present ('' when it is); `suggestions` are as
    `jobs.alert_helps.suggestions_of` reads them. `incident_id` None: it was never told.
    """

    id: int
    incident_id: int | None
    database: str
    name: str
    label: str
    severity: str
    state: str
    problem: str
    next_step: str
    value: float | None
    fired_at: datetime
    seen_at: datetime
    resolved_at: datetime | None
    acked_at: datetime | None
    acked_by: str
    detail: Mapping[str, JsonValue]

    @property
    def is_firing(self) -> bool:
        """Whether it is not over."""
        return self.state == "firing"


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentRow:
    """What people are told as one. `version` grows with each change that they should see."""

    id: int
    source: str
    key: str
    database: str
    channel: str
    severity: str
    state: str
    opened_at: datetime
    changed_at: datetime
    closed_at: datetime | None
    version: int
    detail: Mapping[str, JsonValue]
    alerts: tuple[AlertRow, ...] = ()

    @property
    def is_open(self) -> bool:
        """Whether something of it fires still."""
        return self.state == "open"

    @property
    def firing(self) -> tuple[AlertRow, ...]:
        """What of it fires now."""
        return tuple(alert for alert in self.alerts if alert.is_firing)


@dataclass(frozen=True, slots=True, kw_only=True)
class Acked:
    """What an acknowledgement changed; else why not, in two sentences for the person."""

    alerts: int = 0
    problem: str = ""
    next_step: str = ""

    @property
    def is_done(self) -> bool:
        """Whether somebody's word was taken down."""
        return not self.problem


async def load_incident(conn: AsyncConnection, incident_id: int) -> IncidentRow | None:
    """An incident with its alerts, or None."""
    row = (await conn.execute(LOAD, {"id": incident_id})).mappings().one_or_none()
    found = await _with_alerts(conn, [IncidentRow(**row)] if row else [])
    return found[0] if found else None


async def open_incidents(conn: AsyncConnection, database: str | None) -> Sequence[IncidentRow]:
    """What is open on a database, or anywhere (None), oldest first; with its alerts."""
    rows = await conn.execute(OPEN_ONES, {"database": database, "rows": INCIDENTS_MAX})
    return await _with_alerts(conn, [IncidentRow(**row) for row in rows.mappings()])


async def lock_open_incidents(conn: AsyncConnection, source: Source) -> Mapping[str, IncidentRow]:
    """All open ones of a source by their keys, without alerts; nobody else changes them now."""
    rows = (await conn.execute(OPEN_OF_SOURCE, {"source": source})).mappings()
    return {row["key"]: IncidentRow(**row) for row in rows}


async def lock_open_incident(conn: AsyncConnection, source: Source, key: str) -> IncidentRow | None:
    """The open one of a key, without alerts; nobody else changes it until the transaction ends."""
    found = await conn.execute(OPEN_OF_KEY, {"source": source, "key": key})
    row = found.mappings().one_or_none()
    return IncidentRow(**row) if row else None


async def open_incident(
    conn: AsyncConnection,
    *,
    source: Source,
    key: str,
    database: str,
    channel: str,
    severity: str,
    at: datetime,
    detail: Mapping[str, JsonValue],
) -> int:
    """Open an incident, or find the one of that key that is open; its id."""
    values = {
        "source": source, "key": key, "database": database, "channel": channel,
        "severity": severity, "at": at, "detail": dict(detail),
    }  # fmt: skip
    return int((await conn.execute(OPEN, values)).scalar_one())


async def change_incident(
    conn: AsyncConnection, incident_id: int, *, at: datetime, severity: str | None = None
) -> int | None:
    """Count a change of an open incident, with its new severity; the version, None when closed."""
    values = {"id": incident_id, "at": at, "severity": severity}
    version: int | None = (await conn.execute(CHANGE, values)).scalar_one_or_none()
    return version


async def close_incident(conn: AsyncConnection, incident_id: int, *, at: datetime) -> bool:
    """End an incident; whether it was us who did."""
    found = await conn.execute(CLOSE, {"id": incident_id, "at": at})
    return found.one_or_none() is not None


async def ack_incident(conn: AsyncConnection, incident_id: int, by: str, at: datetime) -> Acked:
    """Take down that `by` (a PersonId) looks after all that fires of an incident now.

    What fires of it later is not acknowledged. Of what is over nothing changes.
    """
    row = (await conn.execute(LOAD_LOCKED, {"id": incident_id})).mappings().one_or_none()
    if row is None:
        return Acked(
            problem=f"There is no incident {incident_id}.", next_step="/db alerts lists what fires."
        )
    if row["state"] != "open":
        return Acked(
            problem=f"Incident {incident_id} on {row['database']} is over already.",
            next_step="There is nothing to acknowledge. /db alerts lists what fires.",
        )
    number = len((await conn.execute(ACK, {"id": incident_id, "by": by, "at": at})).all())
    if number:
        await change_incident(conn, incident_id, at=at)
        return Acked(alerts=number)
    firing = (await _with_alerts(conn, [IncidentRow(**row)]))[0].firing
    names = sorted({alert.acked_by for alert in firing if alert.acked_by})
    return Acked(
        problem=f"Incident {incident_id} is acknowledged already, by {', '.join(names)}."
        if names
        else f"Nothing of incident {incident_id} fires any more.",
        next_step="There is nothing more to acknowledge; it is told when it is over.",
    )


async def forget_incidents(conn: AsyncConnection, *, before: datetime, rows: int) -> None:
    """Remove some that are long over and have no alerts left."""
    await conn.execute(FORGET, {"before": before, "rows": rows})


async def _with_alerts(
    conn: AsyncConnection, found: Sequence[IncidentRow]
) -> Sequence[IncidentRow]:
    if not found:
        return []
    rows = await conn.execute(ALERTS, {"ids": [each.id for each in found], "rows": ALERTS_MAX})
    of: dict[int, list[AlertRow]] = {}
    for row in rows.mappings():
        of.setdefault(row["incident_id"], []).append(AlertRow(**row))
    return [replace(each, alerts=tuple(of.get(each.id, ()))) for each in found]
