"""A reader of Slack's mrkdwn of its own: what a text would make Slack do.

It knows nothing of `bot.safe`, and sees rather too much: whatever Slack might take for a
mention, a link, a date, an emoji or a format is one here.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

Found = tuple[str, str]

_HIDDEN = {"Cf", "Cc", "Cs", "Co", "Cn", "Zl", "Zp"}
# An isolate around what is read from the right is ours; it changes nothing outside of it.
_OURS = {"\u2068", "\u2069", "\n"}


def acts(text: str) -> list[Found]:
    """Everything in a mrkdwn text that Slack would act on."""
    found: list[Found] = []
    for number, part in enumerate(text.split("```")):
        if number % 2:
            found.append(("pre", ""))
            found += [("control", inside) for inside in re.findall(r"<([^<>]*)>", part)]
            continue
        for line in part.split("\n"):
            found += _line(line)
    return found


def plain_acts(text: str) -> list[Found]:
    """Everything in a plain text that Slack would act on: emoji codes."""
    return [("emoji", name) for name in _emoji(text)]


def hidden(text: str) -> list[str]:
    """The characters of a text that nobody sees, or that turn others around."""
    return [c for c in text if unicodedata.category(c) in _HIDDEN and c not in _OURS]


def blocks_act(blocks: Any) -> Counter[Found]:
    """Everything in blocks that Slack would act on."""
    found: Counter[Found] = Counter()
    for kind, text in texts_of(blocks):
        found.update(acts(text) if kind == "mrkdwn" else plain_acts(text))
    return found


def texts_of(value: Any) -> Iterator[tuple[str, str]]:
    """Every text object in blocks: its type and its text."""
    if isinstance(value, Mapping):
        if value.get("type") in {"mrkdwn", "plain_text"} and isinstance(value.get("text"), str):
            yield value["type"], value["text"]
            return
        for part in value.values():
            yield from texts_of(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from texts_of(part)


def _line(line: str) -> Iterator[Found]:
    quote = re.match(r"\s*(>|&gt;)+ ?", line)
    if quote:
        yield "quote", ""
        line = line[quote.end() :] if quote[0].startswith(">") else line
    for code in re.findall(r"`[^`]+`", line):
        yield "code", ""
        yield from (("control", inside) for inside in re.findall(r"<([^<>]*)>", code))
    line = re.sub(r"`[^`]+`", "x", line)
    for inside in re.findall(r"<([^<>]*)>", line):
        yield "control", inside
    line = re.sub(r"<[^<>]*>", "x", line)
    yield from (("emoji", name) for name in _emoji(line))
    yield from _formats(line)
    if "`" in line:
        yield "backtick", ""


def _emoji(line: str) -> Iterator[str]:
    for found in re.finditer(r":([a-z0-9_+'-]+)(?=:)", line):
        before, after = line[: found.start()][-1:], line[found.end() + 1 :][:1]
        is_clock = re.fullmatch("[0-5][0-9]", found[1]) and before.isdigit() and after.isdigit()
        if not is_clock:
            yield found[1]


def _formats(line: str) -> Iterator[Found]:
    word = re.compile("[A-Za-z0-9]")
    for sign, name in (("*", "bold"), ("_", "italic"), ("~", "strike")):
        open_at = None
        for at, char in enumerate(line):
            if char != sign:
                continue
            before, after = line[at - 1 : at] if at else "", line[at + 1 : at + 2]
            closes = before.strip() != "" and not word.match(after)
            opens = not word.match(before) and after.strip() != ""
            if open_at is not None and closes and at > open_at + 1:
                yield name, ""
                open_at = None
            elif opens and open_at is None:
                open_at = at
