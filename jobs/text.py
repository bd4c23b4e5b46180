"""How spans and counts are said to people, the same everywhere. Pure."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from approvals.counting import count_text

__all__ = ["count_text", "span_text"]

# From the largest: the unit, its name, and the smaller one that is said beside it.
_SPANS: Final = ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))


def span_text(span: timedelta) -> str:
    """A span in at most two units: 90 seconds is "1 min 30 s", half a second "0.5 s"."""
    seconds = span.total_seconds()
    for unit, name, smaller, smaller_name in _SPANS:
        if seconds >= unit:
            whole, rest = divmod(int(seconds), unit)
            beside = rest // smaller
            return f"{whole} {name} {beside} {smaller_name}" if beside else f"{whole} {name}"
    return f"{seconds:.2g} s"
