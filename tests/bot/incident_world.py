"""Incidents in a store, as who looks after servers leaves them there."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from datetime import datetime
from typing import Any

from pydantic import JsonValue

from bot.process import utc_now
from commands import alerts, silence, unsilence
from jobs.operation import Operation
from sandbox.slack.server import SlackStandIn
from store.alerts import fire_alert, resolve_alert
from store.connect import Store
from store.incidents import Source, close_incident, load_incident, open_incident
from store.outbox import post
from tests.bot.views.cards import texts
from tests.bot.world import CHANNEL, OPERATIONS, World

REAL: Mapping[str, Operation] = {
    **OPERATIONS,
    **{each.name: each for each in (alerts.OPERATION, silence.OPERATION, unsilence.OPERATION)},
}


async def fire(
    store: Store,
    name: str = "ReplicationLag",
    *,
    label: str = "",
    database: str = "orders",
    severity: str = "critical",
    problem: str = "The standby is 75 s behind.",
    value: float | None = 75_000,
    detail: Mapping[str, JsonValue] | None = None,
    source: Source = "alertmanager",
    at: datetime | None = None,
) -> int:
    """An alert that fires in its database's incident, told; the incident's number.

    Of another system, as the bot's own watch ends what it does not find itself.
    """
    now = at or utc_now()
    async with store.begin() as conn:
        incident = await open_incident(
            conn, source=source, key=database, database=database, channel=CHANNEL,
            severity=severity, at=now, detail={},
        )  # fmt: skip
        await fire_alert(
            conn, database=database, name=name, label=label, severity=severity, problem=problem,
            next_step=f"Look at it: /db health {database}", value=value, at=now,
            detail={"metric": "replication_lag_ms", **(detail or {})}, incident_id=incident,
        )  # fmt: skip
    await tell(store, incident, {"kind": "card"})
    await tell(store, incident, {"kind": "note", "text": f"{name} fires.", "mark": "alarm"})
    return incident


async def end(store: Store, incident: int) -> None:
    """All of an incident is over, and told so."""
    async with store.begin() as conn:
        found = await load_incident(conn, incident)
        assert found is not None
        for alert in found.firing:
            await resolve_alert(conn, alert.id, at=utc_now())
        await close_incident(conn, incident, at=utc_now())
    await tell(store, incident, {"kind": "card"})


async def tell(
    store: Store, incident: int, payload: Mapping[str, JsonValue], *, channel: str = CHANNEL
) -> None:
    async with store.begin() as conn:
        await post(
            conn, topic="incident", request_id=None, channel=channel, now=utc_now(),
            payload={"incident": incident, **payload},
        )  # fmt: skip


async def message(world: World, says: str, *, number: int = 0) -> dict[str, Any]:
    """The incident's message in the channel, once it says this."""

    def found() -> dict[str, Any] | None:
        known = [one for one in world.cards() if "Incident " in texts(one["blocks"])]
        one = known[number] if len(known) > number else None
        return one if one and says in one["text"] + texts(one["blocks"]) else None

    card = await world.slack.wait_for(found, seconds=30)
    assert card is not None
    return deepcopy(card)  # the stand-in goes on with its own


def thread(slack: SlackStandIn, card: Mapping[str, Any]) -> list[str]:
    """What stands below a message."""
    return [
        one["text"]
        for one in slack.messages(CHANNEL)
        if one.get("thread_ts") == card["ts"] and one["ts"] != card["ts"]
    ]


async def said_below(world: World, card: Mapping[str, Any], says: str) -> None:
    await world.slack.wait_for(
        lambda: any(says in text for text in thread(world.slack, card)), seconds=30
    )


def buttons(card: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The buttons of a message by their texts."""
    return {
        element["text"]["text"]: element
        for block in card["blocks"]
        if block["type"] == "actions"
        for element in block["elements"]
    }
