"""Numbers and durations in words. Pure."""

from __future__ import annotations

from datetime import timedelta

from jobs.text import count_text, span_text


def count(number: int, thing: str) -> str:
    """`1 approval`, `2 approvals`."""
    return count_text(number, thing)


def seconds_in_words(seconds: int | None) -> str:
    """`about 3 min 20 s`; nothing is promised for None."""
    if seconds is None:
        return "not known"
    return f"about {span_text(timedelta(seconds=max(seconds, 1)))}"
