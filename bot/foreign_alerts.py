"""Alerts that somebody else decided on: stored as incidents, told and ended like our own.

A group that comes again changes nothing. All of it happens under a lock of the group, so that
two bots, or a pair of Alertmanagers, tell of each thing once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

import sqlalchemy as sa
from pydantic import JsonValue
from sqlalchemy.ext.asyncio import AsyncConnection

from bot.alertmanager_body import SEVERITIES, ForeignAlert, Group
from jobs.text import count_text, span_text
from store.alerts import fire_alert, resolve_alert, see_alert
from store.incidents import (
    AlertRow,
    IncidentRow,
    change_incident,
    close_incident,
    load_incident,
    lock_open_incident,
    lock_open_incidents,
    open_incident,
)
from store.outbox import post
from store.silences import SilenceRow, active_silences

# Alertmanager repeats what fires every four hours unless it is told otherwise; whoever has
# configured another way is told so, and told that it was taken for over.
UNHEARD: Final = timedelta(hours=49)
_NAMED_MAX: Final = 10

ALONE: Final = sa.text("""
    SELECT pg_advisory_xact_lock(hashtext('twokey alertmanager'), hashtext(:key))
""")
SWEEP_ALONE: Final = sa.text("""
    SELECT pg_try_advisory_xact_lock(hashtext('twokey'), hashtext('alertmanager'))
""")
IS_PLACED: Final = sa.text("""
    SELECT EXISTS (SELECT FROM places WHERE kind = 'incident' AND key = :key)
""")
# One alert by two routes of Alertmanager's is told once, by the group that came first.
FIRES: Final = sa.text("""
    SELECT EXISTS (SELECT FROM alerts
                    WHERE state = 'firing' AND database = :database AND name = :name
                      AND label = :label)
""")
LEFT_OUT: Final = sa.text("""
    UPDATE incidents
       SET detail = detail || jsonb_build_object('left_out', CAST(:left_out AS integer))
     WHERE id = :id
       AND detail -> 'left_out' IS DISTINCT FROM to_jsonb(CAST(:left_out AS integer))
 RETURNING id
""")


@dataclass(slots=True, kw_only=True)
class _Told:
    """What people are to hear of one incident."""

    begins: list[str] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)
    is_critical: bool = False
    is_new: bool = False
    is_changed: bool = False

    def begin(self, alert: ForeignAlert | AlertRow, what: str) -> None:
        """Something is to be heard of."""
        self.begins.append(f"{alert.name}{_which(alert)} {what} ({alert.severity})")
        self.is_critical |= alert.severity == "critical"


async def take_in(conn: AsyncConnection, group: Group, *, channel: str, now: datetime) -> None:
    """Store what a group says of one database now, with the messages that tell of it."""
    await conn.execute(ALONE, {"key": group.key})
    silences = await active_silences(conn, now, group.database)
    incident = await _locked(conn, group.key)
    known = {alert.label: alert for alert in incident.firing} if incident else {}
    new = [
        alert
        for alert in group.firing
        if alert.label not in known and not await _fires(conn, group.database, alert)
    ]
    told = _Told(is_new=incident is None)
    if incident is None and new:
        incident = await _opened(conn, group, channel, now)
    if incident is None:
        return  # nothing fires, or another group has told of it
    for alert in group.firing:
        if (row := known.get(alert.label)) is not None:
            await _see(conn, row, alert, silences, told, now)
    for alert in new:
        await _fire(conn, incident, alert, silences, told, now)
    await _resolve(conn, _over(known.values(), group), told, now)
    left_out = await conn.execute(LEFT_OUT, {"id": incident.id, "left_out": group.left_out})
    told.is_changed |= left_out.one_or_none() is not None
    await _settle(conn, incident.id, told, now)


async def sweep(conn: AsyncConnection, now: datetime) -> None:
    """End what nobody has sent for long, and tell of what is silent no more."""
    if not (await conn.execute(SWEEP_ALONE)).scalar_one():
        return
    silences = await active_silences(conn, now)
    for locked in (await lock_open_incidents(conn, "alertmanager")).values():
        incident = await load_incident(conn, locked.id)
        if incident is None:
            continue
        told = _Told()
        for row in incident.firing:
            await _hear_again(conn, row, silences, told, now)
        unheard = [row for row in incident.firing if now - row.seen_at > UNHEARD]
        await _resolve(
            conn, unheard, told, now, why=f": nothing was heard of it for {span_text(UNHEARD)}"
        )
        await _settle(conn, incident.id, told, now)


async def _locked(conn: AsyncConnection, key: str) -> IncidentRow | None:
    found = await lock_open_incident(conn, "alertmanager", key)
    return await load_incident(conn, found.id) if found else None


async def _fires(conn: AsyncConnection, database: str, alert: ForeignAlert) -> bool:
    values = {"database": database, "name": alert.name, "label": alert.label}
    return bool((await conn.execute(FIRES, values)).scalar_one())


async def _opened(
    conn: AsyncConnection, group: Group, channel: str, now: datetime
) -> IncidentRow | None:
    number = await open_incident(
        conn, source="alertmanager", key=group.key, database=group.database, channel=channel,
        severity=_worst(group.firing), at=now, detail={},
    )  # fmt: skip
    return await load_incident(conn, number)


async def _fire(
    conn: AsyncConnection,
    incident: IncidentRow,
    alert: ForeignAlert,
    silences: Iterable[SilenceRow],
    told: _Told,
    now: datetime,
) -> None:
    muted = _muted(incident.database, alert.name, silences)
    await fire_alert(
        conn, database=incident.database, name=alert.name, label=alert.label,
        severity=alert.severity, problem=alert.problem, next_step=alert.next_step, at=now,
        fired_at=alert.fired_at, detail=_detail(alert, muted), incident_id=incident.id,
    )  # fmt: skip
    told.is_changed = True
    if not muted:
        told.begin(alert, "fires")


async def _see(
    conn: AsyncConnection,
    row: AlertRow,
    alert: ForeignAlert,
    silences: Iterable[SilenceRow],
    told: _Told,
    now: datetime,
) -> None:
    """One that is known: it is heard of again only where it has become worse."""
    muted = _muted(row.database, row.name, silences)
    detail = _detail(alert, muted)
    is_worse = SEVERITIES[alert.severity] > SEVERITIES[row.severity]
    await see_alert(
        conn, row.id, severity=alert.severity, problem=alert.problem, next_step=alert.next_step,
        at=now, detail=detail, forget_ack=is_worse,
    )  # fmt: skip
    then = (row.severity, row.problem, row.next_step, dict(row.detail))
    told.is_changed |= then != (alert.severity, alert.problem, alert.next_step, detail)
    if not muted and (is_worse or row.detail.get("muted")):
        told.begin(alert, "has become worse" if is_worse else "still fires, and is heard again")


async def _hear_again(
    conn: AsyncConnection,
    row: AlertRow,
    silences: Iterable[SilenceRow],
    told: _Told,
    now: datetime,
) -> None:
    """What has become silent, or is silent no more. When it was seen last does not change."""
    muted = _muted(row.database, row.name, silences)
    if bool(muted) == bool(row.detail.get("muted")):
        return
    await see_alert(
        conn, row.id, severity=row.severity, problem=row.problem, next_step=row.next_step,
        at=row.seen_at, detail={**row.detail, "muted": muted},
    )  # fmt: skip
    told.is_changed = True
    if not muted and now - row.seen_at <= UNHEARD:
        told.begin(row, "still fires, and is heard again")


def _over(known: Iterable[AlertRow], group: Group) -> Sequence[AlertRow]:
    """What fired and fires no more. A whole group that does not name it any more says so too."""
    fires = {alert.label for alert in group.firing}
    ended = {alert.label for alert in group.alerts if not alert.is_firing}
    return [
        row
        for row in known
        if row.label not in fires and (row.label in ended or not group.left_out)
    ]


async def _resolve(
    conn: AsyncConnection, rows: Iterable[AlertRow], told: _Told, now: datetime, *, why: str = ""
) -> None:
    for row in rows:
        if await resolve_alert(conn, row.id, at=now):
            told.is_changed = True
            told.ends.append(f"{row.name}{_which(row)} is over{why}")


async def _settle(conn: AsyncConnection, number: int, told: _Told, now: datetime) -> None:
    """Count the change, close what is over, and tell whoever has heard of it, or is to hear."""
    incident = await load_incident(conn, number)
    if incident is None or not (told.is_changed or told.is_new):
        return
    if incident.firing:
        await change_incident(conn, number, at=now, severity=_worst(incident.firing))
    else:
        await close_incident(conn, number, at=now)
    if not (told.begins or (await conn.execute(IS_PLACED, {"key": str(number)})).scalar_one()):
        return  # all of it was silent from its beginning: nobody has heard of it
    await _post(conn, incident, {"kind": "card"}, now)
    if told.begins:
        await _post(conn, incident, _note(told.begins, _mark(told), loud=not told.is_new), now)
    if told.ends:
        await _post(conn, incident, _note(told.ends, "done", loud=False), now)


def _mark(told: _Told) -> str:
    return "alarm" if told.is_critical else "warning"


def _note(lines: Sequence[str], mark: str, *, loud: bool) -> dict[str, JsonValue]:
    more = len(lines) - _NAMED_MAX
    said = [*lines[:_NAMED_MAX], *([f"…and {count_text(more, 'more alert')}."] if more > 0 else [])]
    return {"kind": "note", "text": "\n".join(said), "mark": mark, "loud": loud}


async def _post(
    conn: AsyncConnection, incident: IncidentRow, payload: Mapping[str, JsonValue], now: datetime
) -> None:
    await post(
        conn, topic="incident", request_id=None, channel=incident.channel, now=now,
        payload={"incident": incident.id, **payload},
    )  # fmt: skip


def _worst(alerts: Iterable[ForeignAlert | AlertRow]) -> str:
    return max((each.severity for each in alerts), key=SEVERITIES.__getitem__)


def _which(alert: ForeignAlert | AlertRow) -> str:
    about = alert.about if isinstance(alert, ForeignAlert) else str(alert.detail.get("about", ""))
    return f" ({about})" if about else ""


def _detail(alert: ForeignAlert, muted: str) -> dict[str, JsonValue]:
    return {"about": alert.about, "runbook": alert.runbook, "muted": muted}


def _muted(database: str, name: str, silences: Iterable[SilenceRow]) -> str:
    """Why nobody is to hear of it now, or ''. What a run silences is ours, not of others."""
    for each in silences:
        if each.source == "person" and each.database == database and each.name in {"", name}:
            return f"silenced until {each.ends_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    return ""
