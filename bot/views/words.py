"""Numbers and durations in words. Pure."""

from __future__ import annotations

_MINUTE = 60
_HOUR = 3600


def count(number: int, thing: str) -> str:
    """`1 approval`, `2 approvals`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def seconds_in_words(seconds: int | None) -> str:
    """`about 3 min`; nothing is promised for None."""
    if seconds is None:
        return "not known"
    if seconds < _MINUTE:
        return f"about {max(seconds, 1)} s"
    if seconds < _HOUR:
        return f"about {round(seconds / _MINUTE)} min"
    return f"about {seconds / _HOUR:.1f} h"
