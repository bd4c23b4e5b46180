"""A run that waits because a person asked it to: what its card says, and its button. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from approvals.words import State
from bot.blocks import Block, button, mention, moment, one_line
from bot.buttons import Purpose
from bot.views.card import Card

PAUSED_MARK: Final = "⏸️"
PAUSED_HEADING: Final = "Paused"


def is_paused(card: Card) -> bool:
    """Whether its run is asked to wait at the moment."""
    return card.state is State.EXECUTING and bool(card.paused_by)


def paused_status(card: Card) -> str:
    """Who has it wait, since when, and what that means for others. Markup."""
    since = f" since {moment(card.paused_at)}" if card.paused_at else ""
    waiting = (
        f" Other changes of {one_line(card.database)} wait until it goes on or is stopped."
        if card.database
        else ""
    )
    return (
        f"By {mention(card.paused_by)}{since}. It holds no lock, and what it has done stays;"
        f" its time limit stands still.{waiting}"
    )


def pause_buttons(card: Card, tokens: Callable[[Purpose], str]) -> list[Block]:
    """The button that has a run wait or go on; none where the run could not."""
    if not card.is_pausable or (card.ends_in_order and card.stopped_by):
        return []
    if is_paused(card):
        purpose, text, style = Purpose.RESUME, "Resume", "primary"
    else:
        purpose, text, style = Purpose.PAUSE, "Pause", None
    return [
        button(
            text,
            action_id=str(purpose),
            value=tokens(purpose),
            style=style,
            label=f"{text} the run of request {card.request_id}",
        )
    ]
