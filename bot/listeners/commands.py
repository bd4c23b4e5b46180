"""`/db`: everything that is typed."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from slack_bolt.async_app import AsyncAck, AsyncApp

from bot import router
from bot.desk import Desk, Typed
from bot.listeners.guard import guarded

COMMAND: Final = "/db"


def register(app: AsyncApp, desk: Desk) -> None:
    """Listen to the command."""

    async def db(ack: AsyncAck, body: dict[str, Any]) -> None:
        typed = Typed(
            team=body.get("team_id", ""),
            user=body["user_id"],
            channel=body["channel_id"],
            text=body.get("text", ""),
            delivery=f"slack:{body['trigger_id']}",
            trigger=body["trigger_id"],
        )
        message = await guarded(
            "command", partial(router.answer, desk, typed), metrics=desk.metrics, changes=True
        )
        if message.text:
            await ack(response_type="ephemeral", **message.content())
        else:  # a window has opened
            await ack()

    app.command(COMMAND)(db)
