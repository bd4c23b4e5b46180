"""What can be done with a request besides deciding about it: buttons, a menu, and links. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from bot.blocks import Block, button, confirm, context, escape, modal, moment, one_line, section

MORE: Final = "more"
UNDO_CALLBACK: Final = "undo_reason"
UNDO_REASON_BLOCK: Final = "reason"
_REASON_CHARS_MAX: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A button or an entry of the menu. `value` is sealed; `asks` is a confirm dialog's text."""

    action: str
    text: str
    value: str
    about: str = ""
    asks: str = ""
    in_menu: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Menu:
    """What a card offers, and which requests it came from and went to."""

    entries: tuple[Entry, ...] = ()
    again_of: int = 0
    undo_of: int = 0
    asked_again_as: int | None = None
    undone_as: int | None = None
    undo_until: datetime | None = None


def menu_elements(menu: Menu | None, request_id: int) -> list[Block]:
    """The buttons that follow the fixed four, and the menu of the rest."""
    if menu is None:
        return []
    elements = [_button(each, request_id) for each in menu.entries if not each.in_menu]
    entries = [each for each in menu.entries if each.in_menu]
    if entries:
        options = [_option(each) for each in entries]
        elements.append({"type": "overflow", "action_id": MORE, "options": options})
    return elements


def menu_notes(menu: Menu | None) -> list[Block]:
    """Where a request comes from and what came of it, in small print."""
    if menu is None:
        return []
    notes = [
        f"Asked again: this repeats request #{menu.again_of}." if menu.again_of else "",
        f"This undoes request #{menu.undo_of}." if menu.undo_of else "",
        f"Asked again as #{menu.asked_again_as}." if menu.asked_again_as else "",
        f"To be undone by #{menu.undone_as}." if menu.undone_as else "",
        f"It can be undone until {moment(menu.undo_until)}." if menu.undo_until else "",
    ]
    said = [note for note in notes if note]
    return [context(" ".join(said))] if said else []


def undo_window(
    request_id: int, *, title: str, what: str, params: tuple[tuple[str, str], ...], token: str
) -> Block:
    """Asks for the reason of an undo. What it does is fixed by what was done."""
    lines = [f"*{one_line(name)}:* {one_line(value)}" for name, value in params]
    return modal(
        f"Undo request {request_id}",
        [
            section(
                f"*{one_line(title)}* is undone by `{one_line(what)}`, which is a request of "
                "its own: it is planned now, and the policy says who must agree."
            ),
            *([section("\n".join(lines))] if lines else []),
            {
                "type": "input",
                "block_id": UNDO_REASON_BLOCK,
                "label": {"type": "plain_text", "text": "Why"},
                "element": {
                    "type": "plain_text_input",
                    "action_id": "text",
                    "multiline": True,
                    "min_length": 1,
                    "max_length": _REASON_CHARS_MAX,
                },
            },
        ],
        callback_id=UNDO_CALLBACK,
        submit="Ask to undo it",
        close="Back",
        private_metadata=token,
    )


def _button(entry: Entry, request_id: int) -> Block:
    return button(
        entry.text,
        action_id=entry.action,
        value=entry.value,
        label=f"{entry.text}: request {request_id}",
        asks=confirm(
            f"{entry.text}?", escape(entry.asks), yes=entry.text, no="Not now", danger=False
        )
        if entry.asks
        else None,
    )


def _option(entry: Entry) -> Block:
    option: dict[str, object] = {"text": _plain(entry.text), "value": entry.value}
    return option | ({"description": _plain(entry.about)} if entry.about else {})


def _plain(text: str) -> Block:
    return {"type": "plain_text", "text": text, "emoji": False}
