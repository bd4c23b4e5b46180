"""How a number of things is said to people. Pure."""

from __future__ import annotations


def count_text(count: int, noun: str, plural: str = "") -> str:
    """A number with its noun: 1 is "1 table", 2 is "2 tables". `plural`: where no s makes it."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"
