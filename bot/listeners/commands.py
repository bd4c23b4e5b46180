"""`/db`: everything that is typed."""

from __future__ import annotations

from collections.abc import Coroutine
from datetime import timedelta
from functools import partial
from typing import Any, Final

from slack_bolt.async_app import AsyncAck, AsyncApp

from bot import router
from bot.background import Background
from bot.blocks import Message
from bot.desk import Desk, Typed
from bot.listeners.guard import guarded, settled
from bot.replies import Replies

COMMAND: Final = "/db"
# Longer than the most patient operation.
LATE_MAX: Final = timedelta(seconds=90)


def register(app: AsyncApp, desk: Desk, *, replies: Replies, background: Background) -> None:
    """Listen to the command."""

    async def db(ack: AsyncAck, body: dict[str, Any]) -> None:
        where = {
            "user": {"id": body["user_id"]},
            "channel": {"id": body["channel_id"]},
            "response_url": body.get("response_url"),
        }

        def later(message: Coroutine[Any, Any, Message]) -> None:
            background.start(_told(replies, where, message, desk), limit=LATE_MAX)

        typed = Typed(
            team=body.get("team_id", ""),
            user=body["user_id"],
            channel=body["channel_id"],
            text=body.get("text", ""),
            delivery=f"slack:{body['trigger_id']}",
            trigger=body["trigger_id"],
            later=later,
        )
        message = await guarded(
            "command", partial(router.answer, desk, typed), metrics=desk.metrics, changes=True
        )
        if message.charts:
            # An ack that Slack does not take shows nothing to anybody; of a post it says so.
            await ack()
            background.start(replies.tell(where, message), limit=LATE_MAX)
        elif message.text:
            await ack(response_type="ephemeral", **message.content())
        else:  # a window has opened
            await ack()

    app.command(COMMAND)(db)


async def _told(
    replies: Replies, where: dict[str, Any], message: Coroutine[Any, Any, Message], desk: Desk
) -> None:
    await replies.tell(where, await settled("command", message, metrics=desk.metrics))
