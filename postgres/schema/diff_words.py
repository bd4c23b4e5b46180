"""The words of a draft from one schema to another. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One statement. `note`: what to know of it. `is_drop`: data goes, so nobody runs it unread."""

    sql: str
    note: str = ""
    is_drop: bool = False

    @property
    def text(self) -> str:
        """As it stands in a migration: a drop of data as a comment."""
        lines = f"{self.sql};".splitlines()
        body = "\n".join(f"-- {line}" for line in lines) if self.is_drop else "\n".join(lines)
        return f"-- {self.note}\n{body}" if self.note else body


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """Statements in an order that is likely to work, and what no statement was found for."""

    steps: tuple[Step, ...]
    undone: tuple[str, ...] = ()
