"""Words of a shell as one text that is taken apart into the same words again. Pure."""

from __future__ import annotations

from collections.abc import Sequence

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%_-+=:,./")


def joined(words: Sequence[str]) -> str:
    """The words as `bot.command_text.words` reads them."""
    return " ".join(_quoted(word) for word in words)


def _quoted(word: str) -> str:
    if word and set(word) <= _PLAIN:
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
