"""The modal that asks for the reason of a deny. Pure."""

from __future__ import annotations

from typing import Final

from bot.blocks import Block, mention, modal, one_line, section, text_input
from bot.views.card import Card

CALLBACK_ID: Final = "deny_reason"
BLOCK_ID: Final = "reason"
_REASON_CHARS_MAX: Final = 1000


def deny_modal(card: Card, *, token: str) -> Block:
    """Asks why. The token in its metadata is the one of the button that was pressed."""
    return modal(
        f"Deny request {card.request_id}",
        [
            section(f"*{one_line(card.plan.title)}*\nAsked by {mention(card.asked_by)}."),
            text_input(
                "Why not?",
                block_id=BLOCK_ID,
                hint="What would have to change? It is shown on the card and kept in the audit.",
                chars_max=_REASON_CHARS_MAX,
            ),
        ],
        callback_id=CALLBACK_ID,
        submit="Deny",
        close="Back",
        private_metadata=token,
    )
