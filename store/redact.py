"""Takes secrets out of text before it is logged, shown or stored.

Two ways: patterns of what a secret looks like, and the values that this process itself was
given (`remember`). The lowest layer has it, so that whatever writes can use it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, quote_plus

MARK: Final = "[redacted]"
KNOWN_CHARS_MIN: Final = 8
KNOWN_MAX: Final = 20_000
# What could as well be a word of a sentence, a user or a table.
_WORD: Final = re.compile(r"[A-Za-z _-]{1,15}")
_PUT: Final = rf"\g<keep>{MARK}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pattern:
    """`hints`: one of them is in every lower-case text that the expression can match."""

    hints: tuple[str, ...]
    found: re.Pattern[str]


def _pattern(hints: str, expression: str) -> _Pattern:
    return _Pattern(hints=tuple(hints.split()), found=re.compile(expression, re.IGNORECASE))


# Every repetition is bounded or begins at a fixed word: no text takes long.
_VALUE: Final = (
    r"""(?!\[redacted\])(?:'(?:[^'\\\n]|\\.|''){1,1000}'?|"[^"\n]{1,1000}"?|"""
    r"""[^\s'"&,;)\]}<>]{1,1000})"""
)
_NAME_END: Final = r"""\w{0,40}["']?\s{0,3}"""

# Nobody means these to stand in a text, whatever it is about.
_CERTAIN: Final = (
    # To the last @ of the word: a password may hold one, or a slash, when it is typed by hand.
    _pattern(
        "postgres", r"""(?P<keep>\bpostgres(?:ql)?(?:\+\w{1,20})?://[^\s:@/?'"<>]{0,200}:)"""
        r"""[^\s'"<>]{1,1000}(?=@)"""
    ),
    _pattern(
        "://", r"""(?P<keep>\b[a-z][a-z0-9+.-]{1,20}://[^\s:@/?'"<>]{0,200}:)"""
        r"""[^\s/?'"<>]{1,1000}(?=@)"""
    ),
    _pattern("xox xapp-", r"(?P<keep>)\b(?:xox[a-z](?:\.xox[a-z])?|xapp)-[\w-]{6,500}"),
    _pattern(
        "hooks.slack.com",
        r"(?P<keep>\bhooks\.slack\.com/)(?:services|commands|actions|workflows|triggers)/[\w/-]{1,500}",
    ),
    _pattern(
        "private", r"(?P<keep>)-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----"
        r"(?:(?!-----(?:BEGIN|END))[\s\S]){0,20000}(?:-----END [A-Z ]{0,50}-----)?"
    ),
    _pattern("akia asia", r"(?P<keep>)\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
)  # fmt: skip
# What we give to one person on purpose: it may be shown to them, and never kept.
_ISSUED: Final = (
    _pattern("twk_", r"(?P<keep>)\btwk_[\w.-]{6,500}"),
    _pattern("otpauth", r"(?P<keep>)\botpauth(?:-migration)?://[^\s'\"<>]{1,2000}"),
)
# Words that introduce a secret; in SQL or in a plan they may introduce something else.
_LIKELY: Final = (
    _pattern(
        "pass pwd",
        r"(?P<keep>(?:password|passwd|passphrase|pwd)" + _NAME_END + r"[:=]\s{0,3})" + _VALUE,
    ),
    _pattern("password", r"(?P<keep>\bpassword\s{1,3})'(?:[^'\n]|''){1,1000}'"),
    _pattern(
        "secret token key",
        r"(?P<keep>(?:secret|token|vote_?key|api_?key|access_?key|private_?key)"
        + _NAME_END + r"=\s{0,3})" + _VALUE,
    ),
    _pattern(
        "secret token key",
        r"""(?P<keep>(?:secret|token|vote_?key|api_?key|access_?key|private_?key)\w{0,40}["']\s{0,3}"""
        r""":\s{0,3})["'][^"'\n]{8,1000}["']""",
    ),
    _pattern("bearer", r"(?P<keep>\bbearer\s{1,3})[\w.~+/=-]{16,2000}"),
    _pattern(
        "authorization",
        r"(?P<keep>\bauthorization[\"']?\s{0,3}[:=]\s{0,3}[\"']?(?:\w{1,20}\s{1,3})?)[\w.~+/=-]{8,2000}",
    ),
    _pattern("eyj", r"(?P<keep>)\beyJ[\w-]{8,2000}\.[\w-]{8,4000}\.[\w-]{8,2000}"),
    _pattern("ticket", r"(?P<keep>[?&]ticket=)[^\s&'\"<>]{4,1000}"),
)  # fmt: skip
_ALL: Final = (*_CERTAIN, *_ISSUED, *_LIKELY)


class _Known:
    """The secrets of this process, the longest first, in every spelling that we may meet."""

    def __init__(self) -> None:
        self.values: tuple[str, ...] = ()

    def add(self, secrets: Iterable[str]) -> None:
        spelt = {text for secret in secrets for text in _spellings(secret)}
        found = spelt | set(self.values)
        if len(found) > KNOWN_MAX:
            raise ValueError(f"more than {KNOWN_MAX} secrets in one process")
        self.values = tuple(sorted(found, key=lambda text: (-len(text), text)))

    def out_of(self, text: str) -> str:
        for value in self.values:
            if value in text:
                text = text.replace(value, MARK)
        return text


_known: Final = _Known()


def remember(secrets: Iterable[str]) -> None:
    """Take these values out of every text from now on.

    Not those of less than 8 characters, nor those that are only a word such as `postgres`:
    they would be found where they are no secrets. The patterns find them by where they stand.
    """
    _known.add(secrets)


def redact(text: str) -> str:
    """`text` without anything that is or looks like a secret: for logs, errors, and what is kept.

    What is found becomes `[redacted]`; a text without secrets stays what it is. Doing it
    twice is doing it once.
    """
    return _without(text, _ALL)


def redact_shown(text: str) -> str:
    """The same for what one person is shown: what we issue to them stays, and so does SQL."""
    return _without(text, _CERTAIN)


def holds_secret(text: str) -> bool:
    """Whether there is a secret for sure: also where a changed text would be another thing."""
    return _without(text, (*_CERTAIN, *_ISSUED)) != text


def redact_json(value: Any, *, by: Callable[[str], str] = redact) -> Any:
    """A JSON value with `by` done to every text in it, keys aside; the same value if none had any.

    Each text is looked at by itself: that it stands under the key `password` says nothing here.
    """
    texts: list[str] = []
    _collect(value, texts)
    together = "\n".join(texts)
    # A pattern that spans two texts is no match of either: look closer, and only then.
    return value if by(together) == together else _changed(value, by)


def _collect(value: Any, texts: list[str]) -> None:
    if isinstance(value, str):
        texts.append(value)
    elif isinstance(value, Mapping):
        for item in value.values():
            _collect(item, texts)
    elif isinstance(value, Sequence):
        for item in value:
            _collect(item, texts)


def _changed(value: Any, by: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return by(value)
    if isinstance(value, Mapping):
        return {key: _changed(item, by) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_changed(item, by) for item in value)
    if isinstance(value, Sequence):
        return [_changed(item, by) for item in value]
    return value


def _without(text: str, patterns: Sequence[_Pattern]) -> str:
    text = _known.out_of(text)
    lower = text.lower()
    for pattern in patterns:
        for hint in pattern.hints:
            if hint in lower:
                text = pattern.found.sub(_PUT, text)
                break
    return text


def _spellings(secret: str) -> set[str]:
    """A secret as it is, as a URL has it, and as Python and JSON quote it."""
    spelt = {
        secret,
        quote(secret),
        quote(secret, safe=""),
        quote_plus(secret),
        repr(secret)[1:-1],
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
    }
    return {text for text in spelt if len(text) >= KNOWN_CHARS_MIN and not _WORD.fullmatch(text)}
