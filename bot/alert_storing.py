"""Stores what a look has decided for one database, with the messages that tell of it."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Final

from pydantic import JsonValue
from sqlalchemy.ext.asyncio import AsyncConnection

from jobs.alert_engine import Decision, Note, Standing
from jobs.alert_machine import as_json
from jobs.operation import Database
from store import outbox
from store.alert_states import AlertState, forget_states, save_states
from store.alerts import fire_alert, resolve_alert, see_alert
from store.incidents import IncidentRow, change_incident, close_incident, open_incident

log: Final = logging.getLogger("twokey.alerts")


async def store_decision(
    conn: AsyncConnection,
    decision: Decision,
    database: Database | None,
    incident: IncidentRow | None,
    now: datetime,
) -> None:
    """Store all of it, or nothing. `database` None: it has left the inventory."""
    number = await _incident(conn, decision, database, incident, now)
    for standing in decision.firing:
        await _keep(conn, decision.database, standing, number, now)
    for row in decision.over:
        if await resolve_alert(conn, row.id, at=now):
            log.info("%s on %s is over.", row.name, row.database)
    await _remember(conn, decision, now)
    if number is None or not decision.is_changed:
        return
    channel = database.channel if database else incident.channel if incident else ""
    await _post(conn, channel, {"incident": number, "kind": "card"}, now)
    for note in decision.notes if database else ():
        late = database.monitoring.escalate_to if note.kind == "escalation" and database else ""
        await _post(conn, late or channel, _told(number, note), now)


async def _incident(
    conn: AsyncConnection,
    decision: Decision,
    database: Database | None,
    incident: IncidentRow | None,
    now: datetime,
) -> int | None:
    """The incident as it stands now; its id, None where nothing is to be told."""
    if incident is None:
        if decision.severity is None or database is None:
            return None
        return await open_incident(
            conn, source="twokey", key=database.name, database=database.name,
            channel=database.channel, severity=str(decision.severity), at=now, detail={},
        )  # fmt: skip
    if decision.severity is None:
        await close_incident(conn, incident.id, at=now)
    elif decision.is_changed:
        await change_incident(conn, incident.id, severity=str(decision.severity), at=now)
    return incident.id


async def _keep(
    conn: AsyncConnection, database: str, standing: Standing, number: int | None, now: datetime
) -> None:
    """An alert that fires; it belongs to the incident once somebody was told."""
    name, label = standing.key
    words, memory = standing.words, standing.memory
    incident_id = number if standing.is_told else None
    if standing.row is not None:
        await see_alert(
            conn, standing.row.id, severity=str(standing.severity), problem=words.problem,
            next_step=words.next_step, at=now, detail=standing.detail, value=words.value,
            incident_id=incident_id, forget_ack=standing.is_worse,
        )  # fmt: skip
        return
    log.info("%s on %s: %s", name, database, words.problem)
    await fire_alert(
        conn, database=database, name=name, label=label, severity=str(standing.severity),
        problem=words.problem, next_step=words.next_step, at=now, fired_at=memory.since or now,
        detail=standing.detail, value=words.value, incident_id=incident_id,
    )  # fmt: skip


async def _remember(conn: AsyncConnection, decision: Decision, now: datetime) -> None:
    kept = [
        AlertState(database=decision.database, name=name, label=label, memory=as_json(memory))
        for (name, label), memory in decision.memories.items()
        if memory is not None
    ]
    await save_states(conn, kept, at=now)
    gone = [key for key, memory in decision.memories.items() if memory is None]
    await forget_states(conn, decision.database, gone)


def _told(number: int, note: Note) -> dict[str, JsonValue]:
    return {
        "incident": number, "kind": note.kind, "text": note.text, "mark": note.mark,
        "loud": note.is_loud,
    }  # fmt: skip


async def _post(
    conn: AsyncConnection, channel: str, payload: dict[str, JsonValue], now: datetime
) -> None:
    await outbox.post(
        conn, topic="incident", request_id=None, channel=channel, payload=payload, now=now
    )
