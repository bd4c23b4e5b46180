"""Lengths of time as people write them in a form: `90s`, `1d 12h`. Pure."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

_UNITS: Final = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
_PART: Final = re.compile(r"(\d{1,12})(?:\.(\d{1,6}))?\s*([wdhms])", re.ASCII)
_WHOLE: Final = re.compile(rf"\s*(-?)\s*((?:{_PART.pattern}\s*)+)", re.ASCII)
_MICROSECONDS: Final = 1_000_000
EXAMPLE: Final = "30m, 2h or 1d 12h"


def parse_span(text: str) -> timedelta:
    """The length in `text`.

    Raises:
        ValueError: it is none; says how one is written.
    """
    found = _WHOLE.fullmatch(text.lower())
    if found is None:
        raise ValueError(f"Write a length of time like {EXAMPLE}.")
    total = 0
    for whole, part, unit in _PART.findall(found[2]):
        total += _UNITS[unit] * (int(whole) * _MICROSECONDS + int(part.ljust(6, "0") or 0))
    try:
        return timedelta(microseconds=-total if found[1] else total)
    except OverflowError:
        raise ValueError("This is longer than time is counted.") from None


def write_span(length: timedelta) -> str:
    """The length as `parse_span` reads it, exactly."""
    micros = (length.days * 86_400 + length.seconds) * _MICROSECONDS + length.microseconds
    sign, micros = ("-", -micros) if micros < 0 else ("", micros)
    seconds, rest = divmod(micros, _MICROSECONDS)
    parts: list[str] = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        count, seconds = divmod(seconds, size)
        parts += [f"{count}{unit}"] if count else []
    if rest:
        parts.append(f"{seconds}.{rest:06d}s")
    elif seconds or not parts:
        parts.append(f"{seconds}s")
    return sign + " ".join(parts)
