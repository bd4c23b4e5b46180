"""Somebody else's text, made safe to stand beside ours: all of it shown, none of it acts. Pure.

Three things may happen to a character, and none is dropped:

- What nobody sees, or what changes how others look, is shown by its number: `⟨U+202E⟩`.
- What is one of our marks (✅, 🔑, …) or looks like one is shown in brackets: `⟨✅⟩`.
- What Slack would act on is replaced by an entity (`&lt;`), or by a sign that looks the same
  and means nothing (an asterisk operator), but only where a pair of it could format something.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache, lru_cache
from typing import Final

# Characters that change how other characters look, or that nobody sees.
_INVISIBLE: Final = frozenset({"Cf", "Cc", "Cs", "Co", "Cn", "Zl", "Zp"})
# The same, in other categories: fillers, joiners, selectors, and a Braille cell without dots.
_BLANK: Final = frozenset(
    map(
        chr,
        (
            0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180B, 0x180C, 0x180D, 0x180F, 0x2800,
            0x3164, 0xFFA0, *range(0xFE00, 0xFE0F), *range(0xE0100, 0xE01F0),
        ),
    )
)  # fmt: skip
_SPACES: Final = frozenset(" \N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}\N{IDEOGRAPHIC SPACE}")
_EMOJI_STYLE: Final = "\N{VARIATION SELECTOR-16}"
_MARKS_ON_ONE_MAX: Final = 3  # no script needs more combining marks on a letter
_ASTRAL: Final = 0x10000
_COMBINING: Final = frozenset({"Mn", "Me"})
_UNUSUAL: Final = re.compile(r"[^\x20-\x7e\n\t]")
# The blocks of the scripts that are read from the right.
_RIGHT_TO_LEFT: Final = re.compile(
    "[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff\U00010800-\U00010fff\U0001e800-\U0001efff]"
)
_ISOLATE: Final = ("\N{FIRST STRONG ISOLATE}", "\N{POP DIRECTIONAL ISOLATE}")

# The marks that we put before our own words, and what looks like one of them.
_OUR_MARKS: Final = frozenset(
    "⏎☐☑☒✅✓✔✗✘✖❌❎❏❐❑❒⬜⬛□■▢▣🗸🗹🗵🗷✕⛔🚫🛑🔑🗝🔓🔒🔏🔐⏳⌛↩⮐🔔🔕🚨⚠👍👎🟢🔴"
)
_OUR_MARK: Final = re.compile(f"[{''.join(sorted(_OUR_MARKS))}]{_EMOJI_STYLE}?")
# At the end of a text as well: a colon of ours may follow.
_EMOJI_CODE: Final = re.compile(r":(?=[a-z0-9_+'-]+(?::|\Z))")
_CLOCK: Final = re.compile(r"(?<=\d):(?=[0-5]\d:\d)")
# Between two letters or digits Slack takes none of these for formatting.
_FORMATS: Final = re.compile(r"(?<![A-Za-z0-9])[*_~]|[*_~](?![A-Za-z0-9])|`")
_LOOKALIKES: Final = {
    "*": "\N{ASTERISK OPERATOR}",
    "_": "\N{MODIFIER LETTER LOW MACRON}",
    "~": "\N{TILDE OPERATOR}",
    "`": "\N{MODIFIER LETTER GRAVE ACCENT}",
    ":": "\N{MODIFIER LETTER COLON}",
}
# Slack makes a quotation of a line that begins with >, and our next steps begin with an arrow.
_LINE_START: Final = re.compile(r"^([ \t]*)(>+|[→⇒➔➜➡])", re.MULTILINE)
_ENTITIES: Final = (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"))
# What must stay whole where a text is cut: an entity, a number of ours, a mention, a bracket,
# and a clock time, whose colons were left because a digit follows: cut, they make an emoji code.
_TORN: Final = re.compile(r"(?:&[a-z]{0,4}|⟨[^⟩]{0,9}|<[^<>\n]{0,200}|(?<=\d):[0-5]\d:)$")


def neutralise(text: str) -> str:
    """`text` for a place where Slack formats nothing, such as a code block.

    Every invisible or direction-changing character is made visible. Nothing is removed:
    U+202E becomes `⟨U+202E⟩`. Newlines and tabs stay.
    """
    text = text.replace("\r\n", "\n")
    if _UNUSUAL.search(text) is None:  # most texts
        return text
    return _flat(_UNUSUAL.sub(_made_visible, text.replace("⟨", "⟨U+27E8⟩")))


def escape(text: str) -> str:
    """`text` so that Slack shows it and does not act on it: no mention, link, style or trick."""
    safe = _LINE_START.sub(_no_line_start, _no_emoji(_our_marks_bracketed(text)))
    return _isolated(_entities(_FORMATS.sub(lambda sign: _LOOKALIKES[sign[0]], safe)))


def plain(text: str) -> str:
    """`text` for Slack's plain text, which knows no mentions and no styles, but emoji codes."""
    return _isolated(_no_emoji(_our_marks_bracketed(text)))


def verbatim(text: str) -> str:
    """`text` for a code block or between backticks, which it cannot end."""
    return _entities(neutralise(text).replace("`", _LOOKALIKES["`"]))


def unescape(text: str) -> str:
    """Escaped text for a place that shows it as it is, such as a modal's error."""
    for char, entity in reversed(_ENTITIES):
        text = text.replace(entity, char)
    return text


def one_line(text: str) -> str:
    """Escaped text in which a newline shows as ⏎, so that nobody can fake a line of ours."""
    return escape(text).replace("\n", " ⏎ ").replace("\t", " ")


def quote(text: str) -> str:
    """Escaped text as a quotation: every line is marked as somebody else's."""
    return "\n".join(f"> {line}" for line in escape(text).split("\n"))


def quoted(text: str) -> str:
    """Somebody's text after a label of ours: one line as it is, several as a quotation below."""
    return f"\n{quote(text)}" if "\n" in text.replace("\r\n", "\n").strip("\n") else escape(text)


def shorten(text: str, chars_max: int, *, rest: str = "") -> str:
    """`text`, or its beginning and how much was left out; `rest` says where that is.

    Never cuts an entity or a mention. Where there is no room to say how much, only … is.
    """
    if len(text) <= chars_max:
        return text
    widest = len(_left_out(len(text), rest))
    if widest * 2 > chars_max:
        return f"{_whole(text[: chars_max - 1])}…"
    head = _whole(text[: chars_max - widest])
    return head + _left_out(len(unescape(text)) - len(unescape(head)), rest)


def pages(text: str, chars_max: int, *, is_markup: bool = False) -> list[str]:
    """`text` in parts of at most `chars_max`, cut at line ends where possible.

    Nothing is lost but the line end at which it was cut, and no entity is torn. In markup
    a part that begins within a line says so, and what was quoted stays quoted.
    """
    parts: list[str] = []
    held: list[str] = []
    size = -1
    for line in text.split("\n"):
        for number, cut in enumerate(_pieces(line, chars_max - 2)):
            piece = _continued(line, cut) if is_markup and number else cut
            if held and size + 1 + len(piece) > chars_max:
                parts.append("\n".join(held))
                held, size = [], -1
            held.append(piece)
            size += 1 + len(piece)
    return [*parts, "\n".join(held)]


def _pieces(line: str, chars_max: int) -> list[str]:
    pieces: list[str] = []
    start = 0
    while len(line) - start > chars_max:
        head = _whole(line[start : start + chars_max]) or line[start : start + chars_max]
        pieces.append(head)
        start += len(head)
    return [*pieces, line[start:]]


def _continued(line: str, piece: str) -> str:
    """The rest of a line as the beginning of a part: still a quotation if the line was one."""
    mark = "> " if line.startswith("> ") else "… "
    return mark + _LOOKALIKES.get(piece[:1], piece[:1]) + piece[1:]


def _whole(head: str) -> str:
    return _TORN.sub("", head)


def _left_out(chars: int, rest: str) -> str:
    count = f"{chars:,} more character" + ("" if chars == 1 else "s")
    return f"… ({count}{f': {rest}' if rest else ''})"


def _made_visible(found: re.Match[str]) -> str:
    return _visible(found[0])


@lru_cache(maxsize=10_000)
def _visible(char: str) -> str:
    if char in _SPACES or char == _EMOJI_STYLE:
        return char
    category = unicodedata.category(char)
    rare = category in _COMBINING and ord(char) >= _ASTRAL
    hidden = category in _INVISIBLE or category == "Zs" or char in _BLANK or rare
    return _number(char) if hidden else char


def _number(char: str) -> str:
    return f"⟨U+{ord(char):04X}⟩"


def _flat(text: str) -> str:
    """`text` in which no letter carries a flood of marks, and no symbol's style is borrowed."""
    return _floods().sub(_flood_shown, text)


@cache
def _floods() -> re.Pattern[str]:
    marks = "".join(
        char
        for char in map(chr, range(0x300, _ASTRAL))
        if unicodedata.category(char) in _COMBINING and char != _EMOJI_STYLE
    )
    return re.compile(f"[{marks}]{{{_MARKS_ON_ONE_MAX + 1},}}|{_EMOJI_STYLE}")


def _flood_shown(found: re.Match[str]) -> str:
    if found[0] == _EMOJI_STYLE:
        before = found.string[found.start() - 1 : found.start()]
        return found[0] if unicodedata.category(before or " ") == "So" else _number(found[0])
    kept, flood = found[0][:_MARKS_ON_ONE_MAX], found[0][_MARKS_ON_ONE_MAX:]
    return kept + "".join(map(_number, flood))


def _our_marks_bracketed(text: str) -> str:
    safe = neutralise(text)
    return safe if _OUR_MARKS.isdisjoint(safe) else _OUR_MARK.sub(_bracketed, safe)


def _bracketed(mark: re.Match[str]) -> str:
    return f"⟨{mark[0]}⟩"


def _no_emoji(text: str) -> str:
    if ":" not in text:
        return text
    clocks = {found.start() for found in _CLOCK.finditer(text)}
    return _EMOJI_CODE.sub(lambda colon: ":" if colon.start() in clocks else _LOOKALIKES[":"], text)


def _no_line_start(found: re.Match[str]) -> str:
    return f"{found[1]}⟨{found[2]}⟩"


def _entities(text: str) -> str:
    for char, entity in _ENTITIES:
        text = text.replace(char, entity)
    return text


def _isolated(text: str) -> str:
    """Lines that are read from the right in an isolate, so that they reorder nothing of ours."""
    if _RIGHT_TO_LEFT.search(text) is None:
        return text
    return "\n".join(
        f"{_ISOLATE[0]}{line}{_ISOLATE[1]}" if _RIGHT_TO_LEFT.search(line) else line
        for line in text.split("\n")
    )
