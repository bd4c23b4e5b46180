"""A form's field as an element of Slack's, and what somebody entered as a value again. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from bot.blocks import Block, neutralise, shorten
from bot.entries import read_lines
from bot.fields import (
    BOXES_MAX,
    DATABASE,
    MISSING,
    NO,
    OPTIONS_MAX,
    RADIO_MAX,
    VALUE_CHARS_MAX,
    YES,
    Choice,
    FieldKind,
    FormField,
    Widget,
    number_text,
)
from bot.spans import EXAMPLE, write_span

ACTION: Final = "value"
DATABASE_ACTION: Final = "form_database"  # Bolt asks for its options by this name
_OPTION_CHARS_MAX: Final = 75
_PLACEHOLDER_CHARS_MAX: Final = 150
_LABEL_CHARS_MAX: Final = 75
_LINE_LENGTH: Final = 150
_MOMENT_MIN: Final = 10**9  # Slack takes ten digits
_MOMENT_MAX: Final = 10**10


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseName:
    """A database that can be chosen, and the heading that it stands under."""

    name: str
    environment: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """A field with its element; `left_out` says why a value is not shown in it."""

    element: Block
    left_out: str = ""


def asking(field: FormField, value: Any, databases: Sequence[DatabaseName]) -> Asking:
    """The element for a field.

    `value` is what stands in it first: a value of the model's, a text that somebody typed,
    or MISSING.
    """
    raw = value
    value = MISSING if value is MISSING else field.valid(value)
    if field.kind is FieldKind.DATABASE:
        return _database(raw, databases)
    picked = _picked(field, value)
    if picked is not None:
        return Asking(element=picked)
    return _text(field, raw if value is MISSING else value)


def _picked(field: FormField, value: Any) -> Block | None:  # noqa: PLR0911 - a line per kind
    """An element that is no text; None where only text can hold the value."""
    match field.kind:
        case FieldKind.CHOICE:
            return _choice(field, value)
        case FieldKind.CHOICES:
            return _choices(field, value)
        case FieldKind.FLAG:
            return _flag(field, value)
        case FieldKind.NUMBER:
            return _number(field, value)
        case FieldKind.DATE:
            return _picker(Widget.DATE, "initial_date", _date_text(value))
        case FieldKind.TIME:
            return _picker(Widget.TIME, "initial_time", _time_text(value))
        case FieldKind.MOMENT:
            return _picker(Widget.MOMENT, "initial_date_time", _epoch(value))
        case _:
            return None


def _plain(text: str) -> Block:
    return {"type": "plain_text", "text": text, "emoji": False}


def option(text: str, key: str) -> Block:
    """An option of a select, a radio or a checkbox."""
    shown = shorten(neutralise(text).replace("\n", " "), _OPTION_CHARS_MAX)
    return {"text": _plain(shown or "(empty)"), "value": key}


def _empty(value: Any) -> bool:
    return value is MISSING or value is None


def _same(left: Any, right: Any) -> bool:
    return type(left) is type(right) and bool(left == right)


def _choice(field: FormField, value: Any) -> Block:
    options = {choice.key: option(choice.text, choice.key) for choice in field.choices}
    radio = len(options) <= RADIO_MAX and not field.may_be_left_empty
    chosen = next((one.key for one in field.choices if _same(one.value, value)), None)
    element: dict[str, Any] = {
        "type": Widget.RADIO if radio else Widget.SELECT,
        "action_id": ACTION,
        "options": list(options.values()),
    }
    if not radio:
        element["placeholder"] = _plain("Choose one")
    return element | ({"initial_option": options[chosen]} if chosen is not None else {})


def _choices(field: FormField, value: Any) -> Block | None:
    given = [] if _empty(value) else list(value)
    if isinstance(value, list | tuple) and not _in_order(field.choices, given):
        return None  # an order, or one twice, is no matter of ticking
    options = {choice.key: option(choice.text, choice.key) for choice in field.choices}
    chosen = [one for one in field.choices if any(_same(one.value, each) for each in given)]
    boxes = len(options) <= BOXES_MAX
    element: dict[str, Any] = {
        "type": Widget.BOXES if boxes else Widget.MULTI,
        "action_id": ACTION,
        "options": list(options.values()),
    }
    if not boxes:
        element["placeholder"] = _plain("Choose any")
    initial = [options[one.key] for one in chosen]
    return element | ({"initial_options": initial} if initial else {})


def _in_order(choices: Sequence[Choice], given: Sequence[Any]) -> bool:
    places = [
        next((place for place, one in enumerate(choices) if _same(one.value, each)), -1)
        for each in given
    ]
    return places == sorted(set(places))


def _flag(field: FormField, value: Any) -> Block:
    if field.nullable:
        options = {True: option("Yes", YES), False: option("No", NO)}
        element: dict[str, Any] = {
            "type": Widget.SELECT,
            "action_id": ACTION,
            "options": list(options.values()),
            "placeholder": _plain("Not said"),
        }
        return element | ({} if _empty(value) else {"initial_option": options[value]})
    yes = option("Yes", YES)
    element = {"type": Widget.BOXES, "action_id": ACTION, "options": [yes]}
    return element | ({"initial_options": [yes]} if value is True else {})


def _number(field: FormField, value: Any) -> Block | None:
    text = None if _empty(value) else number_text(value)
    if not _empty(value) and text is None:
        return None
    element: dict[str, Any] = {
        "type": Widget.NUMBER,
        "action_id": ACTION,
        "is_decimal_allowed": not field.is_whole,
    }
    optional = {
        "initial_value": text,
        "min_value": field.low,
        "max_value": field.high,
        "placeholder": _plain(_placeholder(field)) if field.example else None,
    }
    return element | {name: given for name, given in optional.items() if given is not None}


def _picker(widget: Widget, initial: str, value: Any) -> Block | None:
    """A picker; None for a value that it cannot show."""
    if value is False:
        return None
    element: dict[str, Any] = {"type": widget, "action_id": ACTION}
    return element | ({} if value is None else {initial: value})


def _date_text(value: Any) -> str | None:
    return None if _empty(value) else date.isoformat(value)


def _time_text(value: Any) -> str | bool | None:
    if _empty(value):
        return None
    exact = value.tzinfo is None and not value.second and not value.microsecond
    return f"{value:%H:%M}" if exact else False


def _epoch(value: Any) -> int | bool | None:
    if _empty(value):
        return None
    if value.tzinfo is None or value.microsecond:
        return False
    seconds = int((value - datetime.fromtimestamp(0, UTC)).total_seconds())
    return seconds if _MOMENT_MIN <= seconds < _MOMENT_MAX else False


def _database(value: Any, databases: Sequence[DatabaseName]) -> Asking:
    known = {database.name for database in databases}
    chosen = value if isinstance(value, str) and value in known else None
    search = len(databases) > OPTIONS_MAX or not databases
    element: dict[str, Any] = {
        "type": Widget.SEARCH if search else Widget.SELECT,
        "action_id": DATABASE_ACTION,
        "placeholder": _plain("Type to search" if search else "Choose a database"),
    }
    if search:
        element["min_query_length"] = 0
    else:
        element["option_groups"] = option_groups(databases)
    if chosen is not None:
        element["initial_option"] = option(chosen, chosen)
    unknown = isinstance(value, str) and value and chosen is None
    return Asking(element=element, left_out=f"{value} is not in the inventory." if unknown else "")


def option_groups(databases: Iterable[DatabaseName]) -> list[Block]:
    """Databases under their environments, production first."""
    groups: dict[str, list[Block]] = {}
    order = sorted(databases, key=lambda one: (one.environment != "production", one.environment))
    for database in sorted(order, key=lambda one: one.name):
        groups.setdefault(database.environment, []).append(option(database.name, database.name))
    names = list(dict.fromkeys(one.environment for one in order))
    return [
        {
            "label": _plain(shorten(neutralise(name), _LABEL_CHARS_MAX) or "-"),
            "options": groups[name],
        }
        for name in names
    ]


def suggestions(databases: Iterable[DatabaseName], typed: str) -> list[Block]:
    """The first databases whose name or environment contains what was typed, in groups."""
    wanted = typed.strip().casefold()
    found = [
        one
        for one in sorted(databases, key=lambda one: one.name)
        if wanted in one.name.casefold() or wanted in one.environment.casefold()
    ]
    return option_groups(found[:OPTIONS_MAX])


def _placeholder(field: FormField) -> str:
    return shorten(f"such as {neutralise(field.example)}", _PLACEHOLDER_CHARS_MAX)


def _text(field: FormField, value: Any) -> Asking:
    text = text_of(field, value)
    too_long = text is not None and len(text) > VALUE_CHARS_MAX
    shown = None if too_long else text
    many = field.kind in {FieldKind.LINES, FieldKind.JSON, FieldKind.CHOICES} or field.multiline
    long = (field.chars_max or 0) > _LINE_LENGTH or (shown is not None and "\n" in shown)
    optional: dict[str, Any] = {
        "multiline": True if many or long else None,
        "initial_value": shown or None,
        "placeholder": _plain(_placeholder(field)) if field.example else None,
        "min_length": min(field.chars_min, VALUE_CHARS_MAX) if field.chars_min else None,
        "max_length": min(field.chars_max, VALUE_CHARS_MAX) if field.chars_max else None,
    }
    element: dict[str, Any] = {"type": Widget.TEXT, "action_id": ACTION}
    element |= {name: given for name, given in optional.items() if given is not None}
    said = f"{field.label} had {len(text or '')} characters, too many to stand here."
    return Asking(element=element, left_out=said if too_long else "")


def text_of(field: FormField, value: Any) -> str | None:
    """A value as it stands in a text field; None for none."""
    if _empty(value):
        return None
    match field.kind:
        case FieldKind.SPAN if isinstance(value, timedelta):
            return write_span(value)
        case FieldKind.LINES if not isinstance(value, str):
            return _as_lines([str(each) for each in field.as_json(value)])
        case FieldKind.JSON | FieldKind.CHOICES:
            is_typed = isinstance(value, str) and field.valid(value) is MISSING
            return value if is_typed else _dumped(field, value)
        case _:
            return value if isinstance(value, str) else str(_as_json(field, value))


def _dumped(field: FormField, value: Any) -> str:
    return json.dumps(_as_json(field, value), ensure_ascii=False, default=str)


def _as_json(field: FormField, value: Any) -> Any:
    valid = field.valid(value)
    return value if valid is MISSING else field.as_json(valid)


def _as_lines(items: Sequence[str]) -> str:
    """One a line where that can be read back, else as JSON."""
    text = "\n".join(items)
    return text if read_lines(text) == list(items) else json.dumps(list(items), ensure_ascii=False)


def hint_of(field: FormField) -> str:
    """What stands below a field: what it is, and how it is written."""
    how = {
        FieldKind.SPAN: f"Write it like {EXAMPLE}.",
        FieldKind.LINES: "One per line.",
        FieldKind.JSON: "Write it as JSON.",
    }.get(field.kind, "")
    about = field.hint.rstrip(".")
    return " ".join(part for part in (f"{about}." if about else "", how) if part)


__all__ = [
    "ACTION", "DATABASE", "DATABASE_ACTION", "Asking", "DatabaseName", "Widget", "asking",
    "hint_of", "option_groups", "suggestions",
]  # fmt: skip
