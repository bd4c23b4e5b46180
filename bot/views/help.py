"""What `/db` can do. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bot.blocks import Message, context, header, one_line, section, sections


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """One thing that can be typed."""

    example: str
    summary: str
    needs_approval: bool


def help_message(usages: Sequence[Usage], databases: Iterable[str], *, about: str = "") -> Message:
    """Everything that can be typed, or only what `about` names."""
    changes = [_line(usage) for usage in usages if usage.needs_approval]
    rest = [_line(usage) for usage in usages if not usage.needs_approval]
    names = ", ".join(f"`{one_line(name)}`" for name in sorted(databases))
    return Message(
        text=f"What /db can do: {', '.join(usage.example for usage in usages)}",
        blocks=(
            header(f"/db {about}".strip()),
            *(sections("*With two keys*\n" + "\n".join(changes)) if changes else ()),
            *(sections("*At once*\n" + "\n".join(rest)) if rest else ()),
            *([section(f"*Databases:* {names}")] if names else []),
            context("Values go by order or by name: `/db backup orders kind=full`."),
        ),
    )


def _line(usage: Usage) -> str:
    return f"`{one_line(usage.example)}`  {one_line(usage.summary)}"
