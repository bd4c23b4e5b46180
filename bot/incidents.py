"""Incidents for people: drawn from what is stored, acknowledged by whoever looks after them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import JsonValue
from slack_sdk.web.async_client import AsyncWebClient
from sqlalchemy.ext.asyncio import AsyncConnection

from approvals import audit
from approvals.words import Person, RefusedError, Why
from bot import outbox_rows
from bot.blocks import Block, Message, one_line, section
from bot.outbox_rows import Row
from bot.sealing import Sealer
from bot.slack import SlackError, call
from bot.suggesting import VALUE_CHARS_MAX, Suggester
from bot.views.incident import (
    AlertLine,
    Hush,
    IncidentCard,
    escalation_message,
    incident_message,
    note_message,
)
from bot.views.words import count
from jobs.alert_helps import suggestions_of
from jobs.alerting_text import value_text
from jobs.operation import Operation, Suggestion
from store.connect import Store
from store.incidents import AlertRow, IncidentRow, ack_incident, load_incident, open_incidents
from store.outbox import post
from store.silences import SilenceRow, active_silences

ACKED: Final = "alert.acknowledged"
# Acknowledge, what helps, Silence and Health: five fit beside one another.
_HELPING_MAX: Final = 2
_AUDITED_MAX: Final = 50


class IncidentSeal:
    """Seals what an incident's own button carries: which incident it is."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._sealer = Sealer(keys, use=b"twokey incident v1", chars_max=VALUE_CHARS_MAX)

    def close(self, incident_id: int) -> str:
        """The value of a button."""
        return self._sealer.close(json.dumps(incident_id).encode())

    def open(self, value: str) -> int:
        """The incident that a button was drawn for. It has no end: what is over says so.

        Raises:
            RefusedError: we did not make it.
        """
        body = self._sealer.open(value)
        if body is None:
            raise RefusedError(
                "This button was not made by Twokey, or its key has been retired.",
                next_step="/db alerts lists what fires; /db ack <incident> acknowledges it.",
                why=Why.SIGNATURE,
            )
        return int(json.loads(body))


@dataclass(frozen=True, slots=True, kw_only=True)
class Incidents:
    """Draws every row of the topic `incident`, and takes acknowledgements."""

    store: Store
    seal: IncidentSeal
    suggester: Suggester
    operations: Mapping[str, Operation]
    client: AsyncWebClient
    clock: Callable[[], datetime]

    async def __call__(self, row: Row, payload: Mapping[str, Any]) -> Message | None:
        """What a row shows; None when there is nothing to say any more."""
        if payload["kind"] == "note":
            return note_message(str(payload["text"]), str(payload.get("mark", "")))
        async with self.store.begin() as conn:
            incident = await load_incident(conn, row.incident_id)
            if incident is None:
                return None
            silences = await active_silences(conn, self.clock(), incident.database)
        card = self.card(incident, silences)
        if payload["kind"] != "escalation":
            return incident_message(card)
        if all(each.acked_by or each.is_quiet for each in card.firing):
            return None  # somebody is at it by now, or it is over
        link = await self._link(incident.id)
        return escalation_message(card, text=str(payload.get("text", "")), link=link)

    def card(self, incident: IncidentRow, silences: Iterable[SilenceRow]) -> IncidentCard:
        """What an incident's message shows, with its buttons."""
        hushed = list(silences)
        alerts = tuple(_line(alert, hushed) for alert in incident.alerts)
        left_out = incident.detail.get("left_out", 0)
        return IncidentCard(
            id=incident.id,
            database=incident.database,
            severity=incident.severity,
            is_open=incident.is_open,
            opened_at=incident.opened_at,
            closed_at=incident.closed_at,
            channel=incident.channel,
            is_foreign=incident.source == "alertmanager",
            left_out=left_out if isinstance(left_out, int) else 0,
            alerts=alerts,
            ack=self.seal.close(incident.id),
            suggested=self._suggested(incident, hushed),
        )

    def _suggested(self, incident: IncidentRow, hushed: Sequence[SilenceRow]) -> tuple[Block, ...]:
        """Buttons for what there is; each opens a form, filled in."""
        wanted = [*_helping(incident, self.operations), _silencing(incident, hushed)]
        health = {"database": incident.database}
        wanted.append(Suggestion(text="Health", operation="health", params=health))
        known = [each for each in wanted if each.operation in self.operations]
        return tuple(self.suggester.buttons(known))

    async def open_now(self) -> tuple[IncidentCard, ...]:
        """Everything that is open, oldest first."""
        async with self.store.begin() as conn:
            found = await open_incidents(conn, None)
            silences = await active_silences(conn, self.clock()) if found else []
        return tuple(self.card(incident, silences) for incident in found)

    async def acknowledge(self, person: Person, incident_id: int) -> Message:
        """Take down that somebody looks after an incident, in the audit too.

        Raises:
            RefusedError: it is over, or somebody has done so already. Its message is drawn
                anew, as the one that was pressed may be old.
        """
        now = self.clock()
        async with self.store.begin() as conn:
            acked = await ack_incident(conn, incident_id, person.id, now)
            incident = await load_incident(conn, incident_id)
            if incident is not None:
                await _tell(conn, incident, {"kind": "card"}, now)
            if incident is not None and acked.is_done:
                await _took_down(conn, incident, person, now)
        if incident is None or not acked.is_done:
            problem = _why_not(incident) or acked.problem
            raise RefusedError(problem, next_step=acked.next_step, why=Why.CLOSED)
        text = (
            f"☑️ You look after {count(acked.alerts, 'alert')} of incident {incident.id} on "
            f"{one_line(incident.database)}. What has become worse, or comes new, is told again."
        )
        return Message(text=text, blocks=(section(text),))

    async def _link(self, incident_id: int) -> str:
        """Where the message stands; '' while it does not, or Slack does not say."""
        place = await outbox_rows.place_of_incident(self.store, incident_id)
        if place is None:
            return ""
        try:
            found = await call(
                self.client.chat_getPermalink(channel=place.channel, message_ts=place.ts)
            )
        except SlackError:
            return ""
        return str(found.get("permalink", ""))


def hush_of(alert: AlertRow, silences: Iterable[SilenceRow]) -> SilenceRow | None:
    """The silence that somebody asked for and an alert is under, the longest; or None.

    What a run at work silences, its alerts say themselves (`muted`).
    """
    covering = [
        each
        for each in silences
        if each.source == "person"
        and each.database == alert.database
        and each.name in {"", alert.name}
    ]
    return max(covering, key=lambda each: each.ends_at, default=None)


def _line(alert: AlertRow, silences: Iterable[SilenceRow]) -> AlertLine:
    silence = hush_of(alert, silences) if alert.is_firing else None
    detail = alert.detail
    return AlertLine(
        name=alert.name,
        severity=alert.severity,
        problem=alert.problem,
        next_step=alert.next_step,
        fired_at=alert.fired_at,
        about=str(detail.get("about", alert.label)),
        value=value_text(alert) if alert.value is not None else "",
        resolved_at=alert.resolved_at,
        acked_by=alert.acked_by,
        acked_at=alert.acked_at,
        hush=Hush(until=silence.ends_at, by=silence.by, reason=silence.reason) if silence else None,
        muted=str(detail.get("muted") or "") if alert.is_firing else "",
        runbook=str(detail.get("runbook") or ""),
    )


def _helping(incident: IncidentRow, operations: Mapping[str, Operation]) -> Sequence[Suggestion]:
    """What helps against the worst, each thing once."""
    worst = sorted(incident.firing, key=lambda each: (each.severity != "critical", each.fired_at))
    found = [each for alert in worst for each in suggestions_of(alert.detail)]
    known = [each for each in found if each.operation in operations and each.operation != "health"]
    once = {(each.operation, json.dumps(dict(each.params), sort_keys=True)): each for each in known}
    return list(once.values())[:_HELPING_MAX]


def _silencing(incident: IncidentRow, silences: Iterable[SilenceRow]) -> Suggestion:
    """The form of a silence for what fires, or of its end where all of it is silent."""
    hushed = list(silences)
    names = {alert.name for alert in incident.firing}
    name = names.pop() if len(names) == 1 else ""
    params: dict[str, JsonValue] = {"database": incident.database, "alert": name}
    covering = [hush_of(alert, hushed) for alert in incident.firing]
    if covering and all(covering):
        ended = {each.name for each in covering if each is not None}
        params["alert"] = ended.pop() if len(ended) == 1 else ""
        return Suggestion(text="End the silence", operation="unsilence", params=params)
    return Suggestion(text="Silence", operation="silence", params={**params, "until": "4h"})


async def _took_down(
    conn: AsyncConnection, incident: IncidentRow, person: Person, now: datetime
) -> None:
    alerts = [
        f"{alert.name} {alert.label}".strip()
        for alert in incident.firing
        if alert.acked_by == person.id and alert.acked_at == now
    ]
    await audit.append(
        conn, chain=incident.database, at=now, actor=person.id, action=ACKED,
        detail={"incident": incident.id, "source": incident.source, "slack": person.slack,
                "alerts": sorted(alerts)[:_AUDITED_MAX]},
    )  # fmt: skip
    note = {"kind": "note", "text": f"Acknowledged by {person.id}.", "mark": "ack"}
    await _tell(conn, incident, note, now)


async def _tell(
    conn: AsyncConnection, incident: IncidentRow, payload: Mapping[str, JsonValue], now: datetime
) -> None:
    await post(
        conn, topic="incident", request_id=None, channel=incident.channel, now=now,
        payload={"incident": incident.id, **payload},
    )  # fmt: skip


def _why_not(incident: IncidentRow | None) -> str:
    """Why there is nothing to acknowledge: since when it is over, or who was first, and when."""
    if incident is None:
        return ""
    if incident.closed_at is not None:
        acked = sorted({each.acked_by for each in incident.alerts if each.acked_by})
        by = f", after {', '.join(acked)} had acknowledged it" if acked else ""
        return (
            f"Incident {incident.id} on {incident.database} is over since "
            f"{_text(incident.closed_at)}{by}."
        )
    said = [
        f"{each.acked_by} at {_text(each.acked_at)}"
        for each in incident.firing
        if each.acked_by and each.acked_at
    ]
    if not said:
        return ""
    return f"Incident {incident.id} is acknowledged already, by {', '.join(dict.fromkeys(said))}."


def _text(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
