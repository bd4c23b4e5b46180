"""Lists of requests. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bot.blocks import (
    Block,
    Message,
    context,
    header,
    mention,
    moment,
    one_line,
    section,
    shorten,
)
from bot.views.card import Card
from bot.views.request import status
from bot.views.words import count

SHOWN_MAX: Final = 20


def requests_message(cards: Sequence[Card], *, about: str) -> Message:
    """The newest requests; `about` says which, such as "Open requests of orders"."""
    if not cards:
        return Message(text=f"{about}: none.", blocks=(section(f"{one_line(about)}: none."),))
    return Message(
        text=f"{about}: {count(len(cards), 'request')}.",
        blocks=(
            header(about),
            *(section(_line(card)) for card in cards[:SHOWN_MAX]),
            context("`/db show <number>` shows one, with its buttons."),
        ),
    )


def refused_home(problem: str, next_step: str) -> Block:
    """The home tab of somebody who may not use Twokey now."""
    return {
        "type": "home",
        "callback_id": "home",
        "blocks": [section(f"⚠️ {one_line(problem)}\n→ {one_line(next_step)}")],
    }


def _line(card: Card) -> str:
    where = f" on *{one_line(card.database)}*" if card.database else ""
    state = str(card.state).replace("_", " ")
    head = (
        f"*#{card.request_id}* {state} · `{one_line(card.operation)}`{where} · "
        f"{mention(card.asked_by)} {moment(card.asked_at)}"
    )
    return f"{head}\n{shorten(one_line(card.plan.title), 200)}. {shorten(status(card), 400)}"
