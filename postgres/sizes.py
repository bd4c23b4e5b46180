"""Sizes, as PostgreSQL counts them: bytes in powers of 1024. Pure."""

from __future__ import annotations

from typing import Final

_UNITS: Final = ("B", "kB", "MB", "GB", "TB")
_STEP: Final = 1024
_FOUR_DIGITS: Final = 999.5


def pretty_bytes(size_bytes: int) -> str:
    """A size to show to people: 1536 is "1.5 kB"."""
    size, unit = float(size_bytes), 0
    while size >= _STEP and unit < len(_UNITS) - 1:
        size /= _STEP
        unit += 1
    # Three digits, but never as 1e+03.
    return f"{size:.3g} {_UNITS[unit]}" if size < _FOUR_DIGITS else f"{size:.0f} {_UNITS[unit]}"
