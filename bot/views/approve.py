"""The modals that ask for care: an approval's, and one that runs without the votes. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from approvals.words import Care
from bot.blocks import (
    Block,
    context,
    mention,
    modal,
    one_line,
    quote,
    quoted,
    section,
    shorten,
    text_input,
)
from bot.views.card import Card
from bot.views.words import count, seconds_in_words

APPROVE_CALLBACK: Final = "approve_care"
GLASS_CALLBACK: Final = "break_glass"
NAME_BLOCK: Final = "typed"
CODE_BLOCK: Final = "code"
REASON_BLOCK: Final = "reason"
_NAME_CHARS_MAX: Final = 200
_CODE_CHARS_MAX: Final = 12
_REASON_CHARS_MAX: Final = 3000
_PART_CHARS_MAX: Final = 1000
_WARNINGS_MAX: Final = 5
_REST: Final = "see Details"


def asks_more(care: Iterable[Care]) -> bool:
    """Whether an approval takes a modal: something has to be typed."""
    return bool({Care.NAMED, Care.STEP_UP} & set(care))


def approve_modal(card: Card, *, token: str) -> Block:
    """Says once more what would be done, and asks for what the rule demands."""
    return modal(
        f"Approve request {card.request_id}",
        [
            *_summary(card),
            *_inputs(card),
            context("Your vote is recorded under your name, with what you did before it."),
        ],
        callback_id=APPROVE_CALLBACK,
        submit="Approve",
        close="Not yet",
        private_metadata=token,
    )


def glass_modal(card: Card, *, token: str, reason: str) -> Block:
    """Asks for what running it without the votes demands."""
    why = text_input(
        "Why can it not wait?",
        block_id=REASON_BLOCK,
        hint="Everybody sees it, and somebody else must review what was done.",
        chars_max=_REASON_CHARS_MAX,
        initial=reason if len(reason) <= _REASON_CHARS_MAX else "",
    )
    return modal(
        f"Run request {card.request_id} now",
        [
            section("🚨 *This runs at once and without its votes.* It owes a review."),
            *_summary(card),
            why,
            *_inputs(card),
        ],
        callback_id=GLASS_CALLBACK,
        submit="Break the glass",
        close="Not now",
        private_metadata=token,
    )


def first_field(card: Card) -> str:
    """The block at which a problem with the whole is shown."""
    return NAME_BLOCK if Care.NAMED in card.care else CODE_BLOCK


def _summary(card: Card) -> list[Block]:
    plan = card.plan
    where = f" on *{one_line(card.database)}*" if card.database else ""
    warnings = [f"⚠️ {_short(quoted(text))}" for text in plan.warnings[:_WARNINGS_MAX]]
    if (more := len(plan.warnings) - _WARNINGS_MAX) > 0:
        warnings.append(f"⚠️ …and {count(more, 'more warning')}: {_REST}.")
    undo = _short(one_line(plan.undo)) if plan.undo else "there is none"
    return [
        section(f"*{_short(one_line(plan.title))}*\nAsked by {mention(card.asked_by)}{where}."),
        *([section(_short(quote(card.reason)))] if card.reason else []),
        *(section(warning) for warning in warnings),
        context(f"Estimate: {seconds_in_words(plan.estimate_seconds)}", f"Undo: {undo}"),
    ]


def _inputs(card: Card) -> list[Block]:
    asked: list[Block] = []
    if Care.NAMED in card.care:
        asked.append(
            text_input(
                "Type the database's name",
                block_id=NAME_BLOCK,
                hint="Exactly as the card shows it, in the same case.",
                chars_max=_NAME_CHARS_MAX,
                multiline=False,
            )
        )
    if Care.STEP_UP in card.care:
        asked.append(
            text_input(
                "Code of your second factor",
                block_id=CODE_BLOCK,
                hint="Six digits, from your authenticator. /db mfa sets one up.",
                chars_max=_CODE_CHARS_MAX,
                multiline=False,
            )
        )
    return asked


def _short(markup: str) -> str:
    return shorten(markup, _PART_CHARS_MAX, rest=_REST)
