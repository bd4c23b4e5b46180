"""Modals that were sent: the reason of a deny."""

from __future__ import annotations

from functools import partial
from typing import Any

from slack_bolt.async_app import AsyncAck, AsyncApp

from approvals.plans import sha256
from bot.background import Background
from bot.blocks import unescape
from bot.desk import Desk, Pressed
from bot.listeners.guard import guarded
from bot.replies import Replies
from bot.views.deny import BLOCK_ID, CALLBACK_ID


def register(app: AsyncApp, desk: Desk, *, replies: Replies, background: Background) -> None:
    """Listen to submissions."""

    async def deny_reason(ack: AsyncAck, body: dict[str, Any]) -> None:
        view = body["view"]
        reason = view["state"]["values"][BLOCK_ID]["text"].get("value") or ""
        user = body["user"]
        sent = Pressed(
            team=user.get("team_id") or (body.get("team") or {}).get("id", ""),
            user=user["id"],
            value=view["private_metadata"],
            # The view is one click's: sending the same twice is one decision.
            delivery=f"slack:{view['id']}:{view['hash']}:{sha256(reason)[:16]}",
        )
        message = await guarded(
            "deny_reason",
            partial(desk.deny, sent, reason),
            metrics=desk.metrics,
            changes=True,
        )
        if message.is_problem:
            # The modal stays open, so that nothing that was typed is lost.
            await ack(response_action="errors", errors={BLOCK_ID: unescape(message.text)})
            return
        await ack()
        channel = await desk.channel_of(sent.value)
        background.start(replies.tell(body, message, channel=channel))

    app.view(CALLBACK_ID)(deny_reason)
    app.view_closed(CALLBACK_ID)(_nothing)


async def _nothing(ack: AsyncAck) -> None:
    await ack()
