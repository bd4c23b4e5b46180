"""What somebody entered into an element of a form, as a value for the model. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from typing import Any, assert_never

from bot.fields import MISSING, YES, FieldKind, FormField, Widget
from bot.spans import parse_span


def read_lines(text: str) -> list[str]:
    """The items of a list: one a line, or a list in JSON."""
    if text.lstrip().startswith("["):
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if isinstance(found, list) and all(isinstance(each, str) for each in found):
            return found
    return [line.strip() for line in text.splitlines() if line.strip()]


def read(field: FormField, state: Mapping[str, Any]) -> Any:
    """What somebody entered, for the model; MISSING where they entered nothing.

    Raises:
        ValueError: it cannot be read; says how it is written.
    """
    kind = state.get("type")
    if kind == Widget.TEXT:
        return _read_text(field, state.get("value"))
    if "selected_options" in state:
        return _read_many(field, state.get("selected_options") or [])
    if "selected_option" in state:
        chosen = state.get("selected_option")
        return _nothing(field) if chosen is None else _read_one(field, str(chosen["value"]))
    if kind == Widget.NUMBER:
        return _read_number(field, state.get("value"))
    return _read_picked(field, state)


def _nothing(field: FormField) -> Any:
    if field.nullable:
        return None
    return MISSING


def _read_one(field: FormField, key: str) -> Any:
    match field.kind:
        case FieldKind.DATABASE:
            return key
        case FieldKind.FLAG:
            return key == YES
        case _:
            found = next((one for one in field.choices if one.key == key), None)
            return key if found is None else found.value


def _read_many(field: FormField, chosen: Sequence[Mapping[str, Any]]) -> Any:
    keys = {str(each["value"]) for each in chosen}
    if field.kind is FieldKind.FLAG:
        return YES in keys
    known = {one.key for one in field.choices}
    if strange := sorted(keys - known):
        raise ValueError(f"{strange[0]} is no choice any more.")
    found = [one.value for one in field.choices if one.key in keys]
    return found if found or not field.nullable else None


def _read_number(field: FormField, text: Any) -> Any:
    if text in (None, ""):
        return _nothing(field)
    try:
        return int(str(text)) if field.is_whole else Decimal(str(text))
    except (ValueError, InvalidOperation):
        raise ValueError("Write a number.") from None


def _read_picked(field: FormField, state: Mapping[str, Any]) -> Any:
    for name in ("selected_date", "selected_time"):
        if (given := state.get(name)) not in (None, ""):
            return _parsed(name, str(given))
    epoch = state.get("selected_date_time")
    if epoch in (None, ""):
        return _nothing(field)
    return datetime.fromtimestamp(int(str(epoch)), UTC)


def _parsed(name: str, text: str) -> date | time:
    if name == "selected_date":
        return date.fromisoformat(text)
    return time.fromisoformat(text)


def _read_text(field: FormField, given: Any) -> Any:
    text = "" if given is None else str(given)
    match field.kind:
        case FieldKind.TEXT:
            return text if text or not field.nullable else None
        case FieldKind.LINES:
            return read_lines(text) if text.strip() or not field.nullable else None
        case _ if not text.strip():
            return _nothing(field)
        case FieldKind.SPAN:
            return parse_span(text)
        case FieldKind.JSON | FieldKind.CHOICES:
            return _loaded(text)
        case (
            FieldKind.DATABASE
            | FieldKind.CHOICE
            | FieldKind.FLAG
            | FieldKind.NUMBER
            | FieldKind.DATE
            | FieldKind.TIME
            | FieldKind.MOMENT
        ):
            return text.strip()
        case _:
            assert_never(field.kind)


def _loaded(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise ValueError('Write it as JSON, such as ["a", "b"] or {"key": "value"}.') from None
