"""A request's card in a window, for who comes from a list or from App Home.

Its buttons are the card's own, so they decide about what was seen. What came of a click
stands on top of the card, drawn anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from approvals.words import ExplainedError, RequestId
from bot.blocks import VIEW_BLOCKS_MAX, Block, Message, divider, modal
from bot.desk import Desk
from bot.replies import Replies
from bot.slack import SlackError

CALLBACK_ID: Final = "request_card"


async def card_window(desk: Desk, number: RequestId, *, said: Message | None = None) -> Block:
    """The window; `said` stands above the card.

    Raises:
        BadInputError: there is no such request.
    """
    record = await desk.cards.record(number)
    above: list[Block] = [*said.blocks, divider()] if said else []
    blocks = [*above, *desk.cards.drawn(record).blocks][:VIEW_BLOCKS_MAX]
    return modal(
        f"Request {record.id}", blocks, callback_id=CALLBACK_ID, private_metadata=str(record.id)
    )


async def answered(desk: Desk, replies: Replies, body: Mapping[str, Any], message: Message) -> None:
    """Tell who pressed what came of it: in the card's window if they are there."""
    view = body.get("view") or {}
    if view.get("callback_id") == CALLBACK_ID:
        try:
            shown = await card_window(
                desk,
                RequestId(int(view["private_metadata"])),
                said=message if message.text else None,
            )
            await desk.windows.replace(view["id"], view["hash"], shown)
        except (SlackError, ExplainedError):
            pass  # the window is closed: they are told as everybody is
        else:
            return
    if message.text:
        await replies.tell(body, message)
