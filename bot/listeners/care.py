"""Modals that were sent: an approval with the care it demands, and the glass broken."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final

from slack_bolt.async_app import AsyncAck, AsyncApp

from approvals.calls import Decision
from bot.approving import Amiss, Sent
from bot.background import Background
from bot.blocks import Message, unescape
from bot.deciding import Caller
from bot.desk import Desk, Pressed, told
from bot.listeners.guard import guarded
from bot.replies import Replies
from bot.views.approve import (
    APPROVE_CALLBACK,
    CODE_BLOCK,
    GLASS_CALLBACK,
    NAME_BLOCK,
    REASON_BLOCK,
)
from bot.views.errors import problem_message

Body = dict[str, Any]
Sending = Callable[[Caller, Sent], Awaitable[Decision | Amiss]]
_BLOCKS: Final = (NAME_BLOCK, CODE_BLOCK, REASON_BLOCK)


def register(app: AsyncApp, desk: Desk, *, replies: Replies, background: Background) -> None:
    """Listen to submissions."""

    def listen(callback: str, sending: Sending) -> None:
        async def listener(ack: AsyncAck, body: Body) -> None:
            fields, amiss = entered(body["view"]), list[str]()
            message = await guarded(
                callback,
                partial(_answer, desk, body, sending, fields, amiss),
                metrics=desk.metrics,
                changes=True,
            )
            if message.is_problem:
                # The modal stays open, so that nothing that was typed is lost.
                at = next(iter([*amiss, *(block for block in _BLOCKS if block in fields)]))
                await ack(response_action="errors", errors={at: unescape(message.text)})
                return
            await ack()
            channel = await desk.channel_of(body["view"]["private_metadata"])
            background.start(replies.tell(body, message, channel=channel))

        app.view(callback)(listener)
        app.view_closed(callback)(_nothing)

    listen(APPROVE_CALLBACK, desk.approving.send)
    listen(GLASS_CALLBACK, desk.approving.send_glass)


def entered(view: Mapping[str, Any]) -> Mapping[str, str]:
    """What was typed, by block."""
    values: Mapping[str, Any] = view["state"]["values"]
    return {
        block: str((values[block].get("text") or {}).get("value") or "")
        for block in _BLOCKS
        if block in values
    }


async def _answer(
    desk: Desk, body: Body, sending: Sending, fields: Mapping[str, str], amiss: list[str]
) -> Message:
    view, user = body["view"], body["user"]
    caller = await desk.caller(
        Pressed(
            team=user.get("team_id") or (body.get("team") or {}).get("id", ""),
            user=user["id"],
            value=view["private_metadata"],
            # The view is one click's; what it was decided with is stored once, without the code.
            delivery=f"slack:{view['id']}:{view['hash']}",
        )
    )
    answer = await sending(
        caller,
        Sent(
            value=view["private_metadata"],
            typed=fields.get(NAME_BLOCK, ""),
            code=fields.get(CODE_BLOCK, ""),
            reason=fields.get(REASON_BLOCK, ""),
        ),
    )
    if isinstance(answer, Amiss):
        amiss.append(answer.block)
        return problem_message(answer.refusal.problem, answer.refusal.next_step)
    return told(answer)


async def _nothing(ack: AsyncAck) -> None:
    await ack()
