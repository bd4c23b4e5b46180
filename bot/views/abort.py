"""A run that ends in order when it is stopped: its button, and what its card says then. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from approvals.words import State
from bot.blocks import Block, button, confirm, mention
from bot.buttons import Purpose
from bot.views.card import Card

ENDING_MARK: Final = "🛑"
ENDING_HEADING: Final = "Being brought to a safe end"


def is_ending(card: Card) -> bool:
    """Whether its run was aborted, and is on its way to the end."""
    return card.state is State.EXECUTING and card.ends_in_order and bool(card.stopped_by)


def ending_status(card: Card) -> str:
    """Who aborted it, and what happens now. Markup."""
    return (
        f"Aborted by {mention(card.stopped_by)}. It takes back or brings to an end what it has"
        " begun, and is not cut short; how that goes is in this message's thread."
    )


def abort_button(card: Card, tokens: Callable[[Purpose], str]) -> list[Block]:
    """The button that has a run end in order; none once somebody has pressed it."""
    if is_ending(card):
        return []
    return [
        button(
            "Abort",
            action_id="cancel",
            value=tokens(Purpose.CANCEL),
            label=f"Abort the run of request {card.request_id}",
            asks=confirm(
                "Abort the run?",
                card.abort_words or "It brings what it has begun to a safe end by itself.",
                yes="Abort it",
                no="Leave it",
                danger=True,
            ),
        )
    ]
