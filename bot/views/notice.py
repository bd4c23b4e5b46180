"""What one person is told directly about a request that waits for them, or did. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from approvals.telling import Kind
from approvals.words import State
from bot.blocks import (
    MESSAGE_TEXT_CHARS_MAX,
    Block,
    Message,
    actions,
    button,
    context,
    fields,
    mention,
    moment,
    one_line,
    quote,
    section,
    shorten,
    titled,
)
from bot.views.card import Card

_REASON_CHARS_MAX: Final = 2000
_HEADS: Final[Mapping[Kind, tuple[str, str]]] = {
    Kind.ASK: ("🔑", "Your decision is asked for"),
    Kind.ESCALATED: ("🔔", "Others have waited long: your decision is asked for"),
    Kind.REMIND: ("⏰", "Still waiting for you"),
    Kind.EXPIRING: ("⌛", "About to expire without your decision"),
    Kind.GLASS: ("🚨", "Ran without its votes: it owes a review by somebody else"),
    Kind.OVERDUE: ("🚨", "The review is overdue"),
    Kind.OVER: ("☑️", "Nothing left to do"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Direct:
    """One message to one person. `absent`: in whose place they may vote; `link`: to the card."""

    kind: Kind
    card: Card
    missing: str
    absent: str = ""
    link: str = ""


def notice_message(direct: Direct, *, token: str) -> Message:
    """What, who, why, until when, and what is still missing, with the way to the card."""
    card = direct.card
    mark, head = _HEADS[direct.kind]
    place = f" You may vote in the place of {mention(direct.absent)}." if direct.absent else ""
    blocks = [
        *titled(card.plan.title, mark=mark, rest="press Details"),
        section(f"*{head}*{place}"),
        *fields([("Request", str(card.request_id)), ("Database", card.database or "-")]),
        section(f"Asked by {mention(card.asked_by)}{_why(card)}"),
        section(_state(direct)),
        *_way(direct, token),
    ]
    text = (
        f"{mark} {head}: request {card.request_id}, {one_line(card.plan.title)}. {_state(direct)}"
    )
    return Message(text=shorten(text, MESSAGE_TEXT_CHARS_MAX), blocks=tuple(blocks))


def over_message(direct: Direct, *, token: str) -> Message:
    """The same message when nothing is asked of this person any more."""
    card = direct.card
    state = str(card.state).replace("_", " ")
    said = f"Request {card.request_id} is {state}: there is nothing left for you to do here."
    if card.state is State.PENDING:
        said = f"Request {card.request_id} no longer waits for you. {_missing(direct)}"
    blocks = (
        *titled(card.plan.title, mark="☑️", rest="press Details"),
        section(said),
        *_way(direct, token),
    )
    return Message(text=shorten(said, MESSAGE_TEXT_CHARS_MAX), blocks=blocks)


def _why(card: Card) -> str:
    if not card.reason.strip():
        return ", who gave no reason."
    return f":\n{quote(shorten(card.reason, _REASON_CHARS_MAX))}"


def _state(direct: Direct) -> str:
    card = direct.card
    if direct.kind in (Kind.GLASS, Kind.OVERDUE):
        return f"{one_line(card.glass)}\nReview it: `/db review {card.request_id} what you found`"
    return f"{_missing(direct)} It expires {moment(card.expires_at)}."


def _missing(direct: Direct) -> str:
    return (
        f"Still missing: {one_line(direct.missing)}." if direct.missing else "Nothing is missing."
    )


def _way(direct: Direct, token: str) -> list[Block]:
    request = f"request {direct.card.request_id}"
    details = button("Details", action_id="details", value=token, label=f"Details of {request}")
    where = f"<{direct.link}|Open the card to decide>" if direct.link else "Decide on its card."
    return [actions(details, block_id="buttons"), context(where)]
