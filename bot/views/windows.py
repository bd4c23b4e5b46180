"""Modals around a form: choosing an operation, planning, and what came of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from bot.blocks import (
    VIEW_BLOCKS_MAX,
    Block,
    Message,
    context,
    modal,
    neutralise,
    one_line,
    section,
    shorten,
)

PICK_CALLBACK: Final = "pick_operation"
PICK_ACTION: Final = "pick_operation"
RESULT_CALLBACK: Final = "form_result"
_OPTION_CHARS_MAX: Final = 75
_OPTIONS_MAX: Final = 100


def picker_window(
    changes: Mapping[str, str], queries: Mapping[str, str], *, metadata: str
) -> Block:
    """Asks which operation. `changes` and `queries`: names and what they do."""
    groups = [
        {"label": _plain(label), "options": [_option(n, what) for n, what in sorted(some.items())]}
        for label, some in (("With two keys", changes), ("At once", queries))
        if some
    ]
    asks: Block = {
        "type": "static_select",
        "action_id": PICK_ACTION,
        "placeholder": _plain("Choose what to do"),
        "option_groups": groups,
    }
    blocks = [
        section("*What is to be done?*\nThe next page asks for the rest."),
        {"type": "actions", "block_id": "pick", "elements": [asks]},
        context("Nothing happens before the right people agree. In text: `/db help`"),
    ]
    return modal(
        "Ask for a change", blocks, callback_id=PICK_CALLBACK, close="Close",
        private_metadata=metadata,
    )  # fmt: skip


def planning_window(name: str, *, external_id: str) -> Block:
    """Shown while a plan takes longer than Slack waits."""
    view: dict[str, Any] = dict(
        modal(
            f"/db {name}",
            [
                section(
                    "⏳ *Planning…*\nThe database is being looked at. Nothing is changed by that."
                ),
                context(
                    "This window may be closed: what comes of it is told either way, and "
                    "`/db requests` lists it."
                ),
            ],
            callback_id=RESULT_CALLBACK,
        )
    )
    return view | {"external_id": external_id}


def result_window(title: str, message: Message) -> Block:
    """What came of a form."""
    blocks: list[Block] = list(message.blocks[: VIEW_BLOCKS_MAX - 1])
    return modal(shorten(neutralise(title), 24), blocks, callback_id=RESULT_CALLBACK)


def form_message(problem: str, *, is_open: bool) -> str:
    """What is said beside a form that opened by itself."""
    return f"{one_line(problem)} A form has opened for it." if is_open else one_line(problem)


def _plain(text: str) -> Block:
    return {"type": "plain_text", "text": text, "emoji": False}


def _option(name: str, what: str) -> Block:
    return {
        "text": _plain(shorten(name, _OPTION_CHARS_MAX)),
        "value": name,
        "description": _plain(shorten(neutralise(what), _OPTION_CHARS_MAX)),
    }


def named(entries: Iterable[tuple[str, str]]) -> Mapping[str, str]:
    """The first hundred names, as many as a select takes."""
    return dict(sorted(entries)[:_OPTIONS_MAX])
