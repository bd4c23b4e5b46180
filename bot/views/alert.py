"""An alert as a message: what is wrong, where, since when, and what to do. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from bot.blocks import (
    MESSAGE_TEXT_CHARS_MAX,
    Message,
    context,
    escape,
    moment,
    one_line,
    section,
    shorten,
)

_MARKS: Final[Mapping[str, str]] = {"critical": "🚨", "warning": "⚠️"}
_CHARS_MAX: Final = 1200


def alert_message(payload: Mapping[str, Any]) -> Message:
    """An alert that begins, gets worse, or is over."""
    name, database = one_line(str(payload["name"])), one_line(str(payload["database"]))
    problem = shorten(str(payload["problem"]), _CHARS_MAX)
    since = datetime.fromisoformat(str(payload["fired_at"]))
    severity = str(payload["severity"])
    if payload["state"] == "resolved":
        head = f"✅ Over: *{name}* on *{database}*"
        return Message(
            text=shorten(f"✅ Over: {name} on {database}", MESSAGE_TEXT_CHARS_MAX),
            blocks=(section(head), context(f"It was {severity} since {moment(since)}.")),
        )
    mark = _MARKS.get(severity, "⚠️")
    text = f"{mark} {severity}: {name} on {database}. {one_line(problem)}"
    return Message(
        text=shorten(text, MESSAGE_TEXT_CHARS_MAX),
        blocks=(
            section(f"{mark} *{name}* on *{database}*\n{escape(problem)}"),
            section(f"*Next:* {escape(shorten(str(payload['next_step']), _CHARS_MAX))}"),
            context(f"{severity}, since {moment(since)}"),
        ),
    )
