"""A form's field as an element of Slack's, and what somebody entered as a value again. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any, Final, assert_never

from bot.blocks import Block, neutralise, shorten
from bot.fields import (
    BOXES_MAX,
    DATABASE,
    MISSING,
    OPTIONS_MAX,
    RADIO_MAX,
    VALUE_CHARS_MAX,
    Choice,
    FieldKind,
    FormField,
    number_text,
)
from bot.spans import EXAMPLE, parse_span, write_span

ACTION: Final = "value"
DATABASE_ACTION: Final = "form_database"  # Bolt asks for its options by this name
_OPTION_CHARS_MAX: Final = 75
_PLACEHOLDER_CHARS_MAX: Final = 150
_LABEL_CHARS_MAX: Final = 75
_LINE_LENGTH: Final = 150
_MOMENT_MIN: Final = 10**9  # Slack takes ten digits
_MOMENT_MAX: Final = 10**10


class Widget(StrEnum):
    """An element of Slack's that a form uses."""

    SEARCH = "external_select"
    RADIO = "radio_buttons"
    SELECT = "static_select"
    BOXES = "checkboxes"
    MULTI = "multi_static_select"
    NUMBER = "number_input"
    DATE = "datepicker"
    TIME = "timepicker"
    MOMENT = "datetimepicker"
    TEXT = "plain_text_input"


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


YES: Final = "true"
NO: Final = "false"


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
    "hint_of", "option_groups", "read", "suggestions",
]  # fmt: skip
