"""What a parameter may say about how people are asked for it. Used in `Annotated`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Multiline:
    """A text of several lines: `sql: Annotated[str, Multiline()]`."""
