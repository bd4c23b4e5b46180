"""What an element proposes must be something that somebody could enter. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from decimal import Decimal, InvalidOperation
from typing import Any, Final

Json = dict[str, Any]

TEXT_CHARS_MAX: Final = 3000
_DATE: Final = re.compile(r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])", re.ASCII)
_TIME: Final = re.compile(r"([01]\d|2[0-3]):[0-5]\d", re.ASCII)
_TEN_DIGITS: Final = range(10**9, 10**10)
_MENUS: Final = frozenset({"overflow", "static_select", "multi_static_select", "external_select"})


def flaws(element: Json) -> Iterator[str]:
    """What Slack would refuse in an element that has the right fields."""
    yield from _options(element)
    if check := _CHECKS.get(element["type"]):
        yield from check(element)


def options_of(element: Json) -> list[Json]:
    """All options of an element, in their groups or not."""
    groups = element.get("option_groups") or [{"options": element.get("options") or []}]
    return [option for group in groups for option in group["options"]]


def _options(element: Json) -> Iterator[str]:
    options = options_of(element)
    if element["type"] in _MENUS and any(o["text"]["type"] != "plain_text" for o in options):
        yield "options of a menu must be plain_text"
    if element["type"] != "overflow" and any(o.get("url") for o in options):
        yield "only the options of an overflow may have a url"
    if element["type"] == "external_select":
        return
    chosen = [element["initial_option"]] if element.get("initial_option") else []
    chosen += element.get("initial_options") or []
    if any(one not in options for one in chosen):
        yield "initial options must exactly match options"


def _date(element: Json) -> Iterator[str]:
    value = element.get("initial_date")
    if value is not None and not (isinstance(value, str) and _DATE.fullmatch(value)):
        yield "initial_date must be YYYY-MM-DD"


def _time(element: Json) -> Iterator[str]:
    value = element.get("initial_time")
    if value is not None and not (isinstance(value, str) and _TIME.fullmatch(value)):
        yield "initial_time must be HH:mm"


def _moment(element: Json) -> Iterator[str]:
    value = element.get("initial_date_time")
    whole = isinstance(value, int) and not isinstance(value, bool)
    # Only a whole number: a range looks for anything else one by one.
    if value is not None and not (whole and value in _TEN_DIGITS):
        yield "initial_date_time must be a unix timestamp of ten digits"


def _text(element: Json) -> Iterator[str]:
    least, most = element.get("min_length") or 0, element.get("max_length") or TEXT_CHARS_MAX
    if least > TEXT_CHARS_MAX or not 0 < most <= TEXT_CHARS_MAX:
        yield f"lengths must be at most {TEXT_CHARS_MAX}"
    if least > most:
        yield "min_length must not be greater than max_length"


def _number(element: Json) -> Iterator[str]:
    low, high = number_of(element.get("min_value")), number_of(element.get("max_value"))
    if low is not None and high is not None and low > high:
        yield "min_value must not be greater than max_value"


def number_problem(element: Json, value: str) -> str | None:
    """What Slack's client says against a number before it asks the app."""
    number = number_of(value)
    if number is None or not number.is_finite():
        return "Please enter a number."
    if not element.get("is_decimal_allowed") and number != number.to_integral_value():
        return "Please enter a whole number."
    low, high = number_of(element.get("min_value")), number_of(element.get("max_value"))
    if low is not None and number < low:
        return f"Please enter a number of at least {low}."
    if high is not None and number > high:
        return f"Please enter a number of at most {high}."
    return None


def number_of(value: Any) -> Decimal | None:
    """The number in a text or a number; None for none."""
    try:
        return None if value is None or isinstance(value, bool) else Decimal(str(value))
    except InvalidOperation:
        return None


_CHECKS: Final[dict[str, Callable[[Json], Iterator[str]]]] = {
    "datepicker": _date,
    "timepicker": _time,
    "datetimepicker": _moment,
    "plain_text_input": _text,
    "number_input": _number,
}
