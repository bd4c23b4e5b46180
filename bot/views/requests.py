"""Lists of requests, and the App Home. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from approvals.words import State
from bot.blocks import (
    Block,
    Message,
    context,
    divider,
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
_OPEN: Final = frozenset({State.PENDING, State.APPROVED, State.EXECUTING, State.NEEDS_REVIEW})


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


def home_view(cards: Sequence[Card], databases: Sequence[tuple[str, str, str]]) -> Block:
    """The home tab. `databases`: name, environment and tier of each."""
    waiting = [card for card in cards if card.state in _OPEN]
    ended = [card for card in cards if card.state not in _OPEN]
    return {
        "type": "home",
        "callback_id": "home",
        "blocks": [
            header("Open requests"),
            *([section(_line(card)) for card in waiting[:SHOWN_MAX]] or [section("None.")]),
            divider(),
            header("Databases"),
            section(
                "\n".join(
                    f"*{one_line(name)}* · {one_line(environment)} · {one_line(tier)}"
                    for name, environment, tier in databases[:50]
                )
                or "None."
            ),
            divider(),
            header("Lately"),
            *([section(_line(card)) for card in ended[:SHOWN_MAX]] or [section("Nothing yet.")]),
            context("Ask in a channel or here: `/db help`"),
        ],
    }


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
