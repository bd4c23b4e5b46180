"""Small builders for Block Kit, and what makes somebody else's text safe to show. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

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

# Characters that change how other characters look, or that nobody sees.
_INVISIBLE: Final = frozenset({"Cf", "Cc", "Cs", "Co", "Cn", "Zl", "Zp"})
_UNUSUAL: Final = re.compile(r"[^\x20-\x7e\n\t]")
_FENCE: Final = re.compile(r"`{3,}")
_GRAVE: Final = "\N{MODIFIER LETTER GRAVE ACCENT}"
_TORN_ENTITY: Final = re.compile(r"&[a-z]{0,4}$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A whole message. `text` is a full sentence: notifications and screen readers use it."""

    text: str
    blocks: tuple[Block, ...]
    is_problem: bool = False

    def content(self) -> dict[str, Any]:
        """As Slack's methods take it."""
        return {"text": self.text, "blocks": [dict(block) for block in self.blocks]}


def neutralise(text: str) -> str:
    """`text` with every invisible or direction-changing character made visible.

    Nothing is removed: U+202E becomes `⟨U+202E⟩`. Newlines and tabs stay.
    """
    return _UNUSUAL.sub(_made_visible, text.replace("\r\n", "\n"))


def _made_visible(found: re.Match[str]) -> str:
    char = found[0]
    return f"⟨U+{ord(char):04X}⟩" if unicodedata.category(char) in _INVISIBLE else char


def escape(text: str) -> str:
    """`text` so that Slack shows it and does not act on it: no mention, no link, no trick."""
    safe = neutralise(text)
    return safe.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def unescape(text: str) -> str:
    """Escaped text for a place that shows it as it is, such as a modal's error."""
    for entity, char in (("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")):
        text = text.replace(entity, char)
    return text


def one_line(text: str) -> str:
    """Escaped text in which a newline shows as ⏎, so that nobody can fake a line of ours."""
    return escape(text).replace("\n", " ⏎ ").replace("\t", " ")


def shorten(text: str, chars_max: int) -> str:
    """`text`, or its beginning and a visible … where it was cut. Never cuts an entity."""
    if len(text) <= chars_max:
        return text
    return _TORN_ENTITY.sub("", text[: chars_max - 1]) + "…"


def quote(text: str) -> str:
    """Escaped text as a quotation: every line is marked as somebody else's."""
    return "\n".join(f"> {line}" for line in escape(text).split("\n"))


def code_blocks(text: str) -> list[Block]:
    """Text in code blocks, all of it; three backticks inside it cannot end one."""
    safe = _FENCE.sub(lambda run: _GRAVE * len(run[0]), escape(text))
    return [section(f"```\n{part}\n```") for part in pages(safe, TEXT_CHARS_MAX - 10)]


def moment(at: datetime) -> str:
    """A time in its reader's own zone; UTC where Slack cannot."""
    return f"<!date^{int(at.timestamp())}^{{date_short_pretty}} {{time}}|{at:%Y-%m-%d %H:%M} UTC>"


def mention(slack: str) -> str:
    """A person by their Slack account, from `TEAM/USER` or `USER`."""
    user = slack.rpartition("/")[2]
    return f"<@{user}>" if re.fullmatch(r"[UW][A-Z0-9]+", user) else one_line(slack)


def header(text: str) -> Block:
    """A heading. Slack shows it as plain text, so it is not escaped."""
    return {"type": "header", "text": _plain(shorten(neutralise(text), HEADER_CHARS_MAX))}


def section(markup: str, *, block_id: str | None = None) -> Block:
    """A paragraph of markup that is already escaped."""
    block: dict[str, Any] = {"type": "section", "text": _mrkdwn(shorten(markup, TEXT_CHARS_MAX))}
    return block | ({"block_id": block_id} if block_id else {})


def sections(markup: str) -> list[Block]:
    """Paragraphs for markup of any length, cut between lines where that is possible."""
    return [section(part) for part in pages(markup, TEXT_CHARS_MAX)]


def fields(facts: Iterable[tuple[str, str]]) -> list[Block]:
    """Facts in two columns; as many blocks as they need."""
    texts = [
        _mrkdwn(shorten(f"*{one_line(name)}*\n{escape(value) or '-'}", FIELD_CHARS_MAX))
        for name, value in facts
    ]
    return [
        {"type": "section", "fields": texts[start : start + FIELDS_MAX]}
        for start in range(0, len(texts), FIELDS_MAX)
    ]


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


def text_input(label: str, *, block_id: str, hint: str, chars_max: int) -> Block:
    """A field of several lines in a modal; its action id is `text`."""
    return {
        "type": "input",
        "block_id": block_id,
        "label": _plain(label),
        "hint": _plain(hint),
        "element": {
            "type": "plain_text_input",
            "action_id": "text",
            "multiline": True,
            "min_length": 1,
            "max_length": chars_max,
        },
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


def pages(text: str, chars_max: int) -> list[str]:
    """`text` in parts of at most `chars_max`, cut at line ends where possible.

    Nothing is lost but the line end at which it was cut, and no entity is torn.
    """
    parts: list[str] = []
    for line in text.split("\n"):
        for piece in _pieces(line, chars_max):
            if parts and len(parts[-1]) + 1 + len(piece) <= chars_max:
                parts[-1] = f"{parts[-1]}\n{piece}"
            else:
                parts.append(piece)
    return parts


def _pieces(line: str, chars_max: int) -> list[str]:
    pieces: list[str] = []
    while len(line) > chars_max:
        head = _TORN_ENTITY.sub("", line[:chars_max])
        pieces.append(head)
        line = line[len(head) :]
    return [*pieces, line]


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
