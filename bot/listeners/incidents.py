"""The button of an incident's message: somebody looks after it."""

from __future__ import annotations

from functools import partial
from typing import Any

from slack_bolt.async_app import AsyncAck, AsyncApp

from bot.background import Background
from bot.blocks import Message
from bot.desk import Desk
from bot.listeners.forms import team_of
from bot.listeners.guard import guarded
from bot.replies import Replies
from bot.views.incident import ACK

Body = dict[str, Any]


def register(app: AsyncApp, desk: Desk, *, replies: Replies, background: Background) -> None:
    """Listen to it. Before the fixed buttons, whose last listener takes every action."""

    async def acknowledge(body: Body) -> Message:
        person = await desk.person(team_of(body), body["user"]["id"])
        incident_id = desk.incidents.seal.open(str(body["actions"][0].get("value", "")))
        return await desk.incidents.acknowledge(person, incident_id)

    async def listener(ack: AsyncAck, body: Body) -> None:
        message = await guarded(ACK, partial(acknowledge, body), metrics=desk.metrics, changes=True)
        await ack()
        background.start(replies.tell(body, message))

    app.action(ACK)(listener)
