"""Pages of a list, with a cursor that says where the next one begins. Pure."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import TypeVar

from sandbox.slack.call import Call
from sandbox.slack.errors import ApiError

T = TypeVar("T")


def page(call: Call, found: Sequence[T], *, default: int, most: int) -> tuple[list[T], str]:
    """The items that were asked for, and the next cursor (empty on the last page)."""
    start = _start(call.optional("cursor"))
    limit = call.number("limit", default=default, most=most)
    end = start + limit
    cursor = "" if end >= len(found) else base64.b64encode(f"next:{end}".encode()).decode()
    return list(found[start:end]), cursor


def _start(cursor: str | None) -> int:
    if cursor is None:
        return 0
    try:
        word, _, number = base64.b64decode(cursor, validate=True).decode().partition(":")
        if word == "next":
            return int(number)
    except (ValueError, binascii.Error):
        pass
    raise ApiError("invalid_cursor")
