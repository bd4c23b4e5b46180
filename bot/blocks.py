"""Small builders for Block Kit, and what makes somebody else's text safe to show. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from bot.safe import (
    escape,
    neutralise,
    one_line,
    pages,
    plain,
    quote,
    quoted,
    shorten,
    unescape,
    verbatim,
)
from jobs.operation import Chart

# What makes somebody else's text safe stands in `bot.safe`; views take all from here.
__all__ = [
    "Block", "Message", "actions", "button", "code", "code_blocks", "confirm", "context",
    "divider", "escape", "fields", "header", "mention", "modal", "moment", "neutralise",
    "one_line", "pages", "plain", "quote", "quoted", "section", "sections", "shorten", "table",
    "text_input", "titled", "unescape",
]  # fmt: skip

Block = Mapping[str, Any]

HEADER_CHARS_MAX: Final = 150
TEXT_CHARS_MAX: Final = 3000
FIELD_CHARS_MAX: Final = 2000
FIELDS_MAX: Final = 10
BUTTON_CHARS_MAX: Final = 75
CONTEXT_MAX: Final = 10
MESSAGE_BLOCKS_MAX: Final = 50
VIEW_BLOCKS_MAX: Final = 100
MODAL_TITLE_CHARS_MAX: Final = 24
MESSAGE_TEXT_CHARS_MAX: Final = 4000
_CONFIRM_CHARS_MAX: Final = 300
_NEWLINE: Final = "\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A whole message. `text` is a full sentence: notifications and screen readers use it.

    `charts` are what its `data_visualization` blocks show, in their order: `bot.charts` draws
    them in another way where a workspace does not take such blocks.
    """

    text: str
    blocks: tuple[Block, ...]
    is_problem: bool = False
    charts: tuple[Chart, ...] = ()

    def content(self) -> dict[str, Any]:
        """As Slack's methods take it."""
        return {"text": self.text, "blocks": [dict(block) for block in self.blocks]}


def code_blocks(text: str) -> list[Block]:
    """Text in code blocks, all of it; backticks inside it cannot end one."""
    return [section(f"```\n{part}\n```") for part in pages(verbatim(text), TEXT_CHARS_MAX - 10)]


def code(text: str) -> str:
    """Somebody's text of one line between backticks."""
    return f"`{verbatim(text.replace(_NEWLINE, ' ⏎ ')) or ' '}`"


def moment(at: datetime) -> str:
    """A time in its reader's own zone; UTC where Slack cannot."""
    return f"<!date^{int(at.timestamp())}^{{date_short_pretty}} {{time}}|{at:%Y-%m-%d %H:%M} UTC>"


def mention(slack: str) -> str:
    """A person by their Slack account, from `TEAM/USER` or `USER`."""
    user = slack.rpartition("/")[2]
    return f"<@{user}>" if re.fullmatch(r"[UW][A-Z0-9]+", user) else one_line(slack)


def header(text: str, *, mark: str = "") -> Block:
    """A heading with a mark of ours. Slack shows it as plain text, so it is not escaped."""
    return {"type": "header", "text": _plain(shorten(_headline(text, mark), HEADER_CHARS_MAX))}


def titled(text: str, *, mark: str = "", rest: str = "") -> list[Block]:
    """A heading, and all of it below where it is longer than a heading may be.

    With `rest`, which says where all of it stands, one block is the most that it takes.
    """
    whole = f"*{one_line(text)}*"
    if len(_headline(text, mark)) <= HEADER_CHARS_MAX:
        return [header(text, mark=mark)]
    below = [section(shorten(whole, TEXT_CHARS_MAX, rest=rest))] if rest else sections(whole)
    return [header(text, mark=mark), *below]


def _headline(text: str, mark: str) -> str:
    shown = plain(text).replace("\n", " ⏎ ")
    return f"{mark} {shown}" if mark else shown


def section(markup: str, *, block_id: str | None = None) -> Block:
    """A paragraph of markup that is already escaped."""
    block: dict[str, Any] = {"type": "section", "text": _mrkdwn(shorten(markup, TEXT_CHARS_MAX))}
    return block | ({"block_id": block_id} if block_id else {})


def sections(markup: str) -> list[Block]:
    """Paragraphs for markup of any length, cut between lines where that is possible."""
    return [section(part) for part in pages(markup, TEXT_CHARS_MAX, is_markup=True)]


def fields(facts: Iterable[tuple[str, str]], *, rest: str = "") -> list[Block]:
    """Facts in two columns; as many blocks as they need. `rest`: where cut ones are whole."""
    texts = [_mrkdwn(_fact(name, value, rest)) for name, value in facts]
    return [
        {"type": "section", "fields": texts[start : start + FIELDS_MAX]}
        for start in range(0, len(texts), FIELDS_MAX)
    ]


def _fact(name: str, value: str, rest: str) -> str:
    label = f"*{shorten(one_line(name), FIELD_CHARS_MAX // 4, rest=rest)}*\n"
    value = quoted(value).removeprefix("\n") or "-"
    return label + shorten(value, FIELD_CHARS_MAX - len(label), rest=rest)


def context(*markups: str) -> Block:
    """Small print."""
    return {
        "type": "context",
        "elements": [_mrkdwn(shorten(markup, TEXT_CHARS_MAX)) for markup in markups[:CONTEXT_MAX]],
    }


def divider() -> Block:
    """A line across."""
    return {"type": "divider"}


def actions(*buttons: Block, block_id: str) -> Block:
    """A row of buttons."""
    return {"type": "actions", "block_id": block_id, "elements": list(buttons)}


def button(
    text: str,
    *,
    action_id: str,
    value: str,
    style: str | None = None,
    asks: Block | None = None,
    label: str | None = None,
) -> Block:
    """A button; `asks` is a confirm dialog, `label` what a screen reader says."""
    element: dict[str, Any] = {
        "type": "button",
        "action_id": action_id,
        "text": _plain(shorten(text, BUTTON_CHARS_MAX)),
        "value": value,
    }
    optional = {"style": style, "confirm": asks, "accessibility_label": label}
    return element | {name: given for name, given in optional.items() if given}


def confirm(title: str, markup: str, *, yes: str, no: str, danger: bool) -> Block:
    """A question that is asked before a button counts."""
    return {
        "title": _plain(title),
        "text": _mrkdwn(shorten(markup, _CONFIRM_CHARS_MAX)),
        "confirm": _plain(yes),
        "deny": _plain(no),
        "style": "danger" if danger else "primary",
    }


def text_input(
    label: str,
    *,
    block_id: str,
    hint: str,
    chars_max: int,
    multiline: bool = True,
    initial: str = "",
) -> Block:
    """A field of a modal, by default of several lines; its action id is `text`."""
    element: dict[str, Any] = {
        "type": "plain_text_input",
        "action_id": "text",
        "multiline": multiline,
        "min_length": 1,
        "max_length": chars_max,
    }
    return {
        "type": "input",
        "block_id": block_id,
        "label": _plain(label),
        "hint": _plain(hint),
        "element": element | ({"initial_value": initial} if initial else {}),
    }


def modal(
    title: str,
    blocks: Sequence[Block],
    *,
    callback_id: str,
    submit: str | None = None,
    close: str = "Close",
    private_metadata: str = "",
) -> Block:
    """A modal; with `submit` it can be sent."""
    view: dict[str, Any] = {
        "type": "modal",
        "callback_id": callback_id,
        "title": _plain(shorten(title, MODAL_TITLE_CHARS_MAX)),
        "close": _plain(close),
        "blocks": list(blocks),
        "private_metadata": private_metadata,
    }
    return view | ({"submit": _plain(submit)} if submit else {})


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows as aligned text, one line each, for a code block."""
    cells = [[" ".join(cell.split()) for cell in row] for row in (columns, *rows)]
    widths = [max(len(row[place]) for row in cells) for place in range(len(columns))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
    return "\n".join([lines[0], "  ".join("─" * width for width in widths), *lines[1:]])


def _plain(text: str) -> Block:
    return {"type": "plain_text", "text": text, "emoji": True}


def _mrkdwn(text: str) -> Block:
    return {"type": "mrkdwn", "text": text, "verbatim": True}
