"""What waits for somebody, what they asked for, what runs: as a message and as App Home. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from bot.blocks import (
    Block,
    Message,
    actions,
    button,
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
from bot.views.incident import IncidentCard, open_incidents_blocks
from bot.views.request import status
from bot.views.words import count

SHOW: Final = "show_request"
OPEN_PICKER: Final = "open_picker"
OPEN_FORM: Final = "open_form"
WAITING_IN_MESSAGE: Final = 10
OTHERS_IN_MESSAGE: Final = 5
_FORMS_MAX: Final = 5
_DATABASES_MAX: Final = 50
_UPCOMING_MAX: Final = 5
_INCIDENTS_MAX: Final = 5
_TITLE_CHARS_MAX: Final = 200
_STATUS_CHARS_MAX: Final = 400
_BAR_CELLS: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The first of a list. `total` counts all; not `complete`: there may be more still."""

    cards: tuple[Card, ...] = ()
    total: int = 0
    complete: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLine:
    """A request that is carried out now, and how far it is."""

    card: Card
    text: str
    fraction: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """Everything that concerns one person now."""

    waiting: Part = Part()
    owed: Part = Part()
    mine: tuple[Card, ...] = ()
    running: tuple[RunLine, ...] = ()
    incidents: tuple[IncidentCard, ...] = ()
    of_database: str = ""


def overview_message(seen: Overview) -> Message:
    """The overview as an answer to a command."""
    where = f" on {one_line(seen.of_database)}" if seen.of_database else ""
    blocks = [
        *_waiting(seen.waiting, WAITING_IN_MESSAGE),
        *_owed(seen.owed, OTHERS_IN_MESSAGE),
        *_running(seen.running[:OTHERS_IN_MESSAGE]),
        *_mine(seen.mine[:OTHERS_IN_MESSAGE]),
        context(
            "`/db requests orders` lists a database's, `/db requests open` everybody's, "
            "`/db form` asks for something."
        ),
    ]
    text = (
        f"{_so_many(seen.waiting)} for you{where}, {count(len(seen.running), 'change')} at work, "
        f"{count(seen.owed.total, 'review')} owed, {len(seen.mine)} lately asked for by you."
    )
    return Message(text=text, blocks=tuple(blocks))


def waiting_message(part: Part) -> Message:
    """Only what waits for somebody."""
    return Message(
        text=f"{_so_many(part)} for you.", blocks=tuple(_waiting(part, 2 * WAITING_IN_MESSAGE))
    )


def home_view(
    seen: Overview,
    *,
    forms: Sequence[tuple[str, str]],
    databases: Sequence[tuple[str, str, str]],
    upcoming: Sequence[tuple[str, datetime]] = (),
) -> Block:
    """The home tab. `forms`: names and summaries; `databases`: name, environment, tier.

    `upcoming`: what schedules ask for next, and when; the soonest first.
    """
    return {
        "type": "home",
        "callback_id": "home",
        "blocks": [
            _asking(forms),
            *_apart(
                open_incidents_blocks(seen.incidents, most=_INCIDENTS_MAX),
                _waiting(seen.waiting, 2 * WAITING_IN_MESSAGE),
                _owed(seen.owed, 2 * OTHERS_IN_MESSAGE),
                _running(seen.running[: 2 * OTHERS_IN_MESSAGE]),
                _mine(seen.mine[: 2 * OTHERS_IN_MESSAGE]),
            ),
            divider(),
            header("Databases"),
            section(_databases(databases)),
            *_by_the_clock(upcoming),
            context("In a channel or here: `/db help` says what can be typed."),
        ],
    }


def _apart(*parts: list[Block]) -> list[Block]:
    """The parts that there are, with a line before each."""
    return [block for part in parts if part for block in (divider(), *part)]


def _by_the_clock(upcoming: Sequence[tuple[str, datetime]]) -> list[Block]:
    """What happens next without anybody's asking."""
    if not upcoming:
        return []
    lines = [f"*{one_line(name)}* {moment(at)}" for name, at in upcoming[:_UPCOMING_MAX]]
    rest = len(upcoming) - len(lines)
    more = [context(f"…and {count(rest, 'more schedule')}. `/db readiness` says all.")]
    return [header("Next by the clock"), section("\n".join(lines)), *(more if rest else [])]


def _asking(forms: Sequence[tuple[str, str]]) -> Block:
    first = button(
        "Ask for a change", action_id=OPEN_PICKER, value="home", style="primary",
        label="Ask for a change: choose what is to be done",
    )  # fmt: skip
    # Ids within one block differ, so the others stand in their names' ids.
    rest = [
        button(name, action_id=f"{OPEN_FORM}.{name}", value=name, label=f"{name}: {what}"[:75])
        for name, what in forms[:_FORMS_MAX]
    ]
    return actions(first, *rest, block_id="ask")


def _waiting(part: Part, most: int) -> list[Block]:
    if not part.total:
        more = "" if part.complete else " There are more open requests than were looked at."
        return [
            header("Waits for you"),
            section(
                "Nothing waits for you. When somebody asks for a change that you may agree to, "
                f"it stands here with its button.{more}"
            ),
        ]
    return [
        header(f"Waits for you: {part.total}{'' if part.complete else ' or more'}"),
        *(_row(card, "Look and decide", primary=True) for card in part.cards[:most]),
        *_rest(part.total - min(len(part.cards), most)),
    ]


def _owed(part: Part, most: int) -> list[Block]:
    if not part.total:
        return []
    return [
        header(f"Reviews that you can give: {part.total}"),
        *(_row(card, "Look") for card in part.cards[:most]),
        *_rest(part.total - min(len(part.cards), most)),
    ]


def _running(runs: Sequence[RunLine]) -> list[Block]:
    if not runs:
        return []
    return [header("At work now"), *(_row(run.card, "Look", said=_progress(run)) for run in runs)]


def _mine(cards: Sequence[Card]) -> list[Block]:
    if not cards:
        return [
            header("Asked for by you"),
            section(
                "Nothing yet. `/db form` asks for a change with a form, and says before anything "
                "happens who must agree."
            ),
        ]
    return [header("Asked for by you"), *(_row(card, "Look") for card in cards)]


def _row(card: Card, text: str, *, primary: bool = False, said: str = "") -> Block:
    where = f" on *{one_line(card.database)}*" if card.database else ""
    state = str(card.state).replace("_", " ")
    lines = (
        f"*#{card.request_id}* {state} · `{one_line(card.operation)}`{where} · "
        f"{mention(card.asked_by)} {moment(card.asked_at)}\n"
        f"{shorten(one_line(card.plan.title), _TITLE_CHARS_MAX)}\n"
        f"{said or shorten(status(card), _STATUS_CHARS_MAX)}"
    )
    look = button(
        text, action_id=SHOW, value=str(card.request_id),
        style="primary" if primary else None,
        label=f"{text}: request {card.request_id}",
    )  # fmt: skip
    row: dict[str, Any] = dict(section(lines))
    return row | {"accessory": look}


def _progress(run: RunLine) -> str:
    said = one_line(run.text) or "A worker is at it."
    if run.fraction is None:
        return said
    share = min(max(run.fraction, 0.0), 1.0)
    full = round(share * _BAR_CELLS)
    return f"{said} `{'█' * full}{'░' * (_BAR_CELLS - full)}` {share:.0%}"


def _rest(number: int) -> list[Block]:
    return [context(f"…and {count(number, 'more request')}.")] if number > 0 else []


def _so_many(part: Part) -> str:
    number = f"{part.total}{'' if part.complete else ' or more'}"
    return f"{number} {'request waits' if part.total == 1 else 'requests wait'}"


def _databases(databases: Sequence[tuple[str, str, str]]) -> str:
    lines = [
        f"*{one_line(name)}* · {one_line(environment)} · {one_line(tier)}"
        for name, environment, tier in databases[:_DATABASES_MAX]
    ]
    if more := len(databases) - len(lines):
        lines.append(f"…and {count(more, 'more database')}.")
    return "\n".join(lines) or "None."
