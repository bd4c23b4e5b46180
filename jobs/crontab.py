"""Cron text as everybody else reads it, as a trigger of APScheduler. Pure.

APScheduler's own reading of a crontab counts weekdays from Monday and joins day of month and
weekday by "and". Here 0 and 7 are Sunday, and a text that restricts both is refused, as
cron's "or" surprises as many people as an "and" would.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from apscheduler.triggers.cron import CronTrigger

from approvals.words import BadInputError

_DAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_NUMBERS: Final = re.compile(r"(\*(/\d{1,4})?|\d{1,2}(-\d{1,2}(/\d{1,4})?)?)")
_MONTH: Final = re.compile(r"(\*(/\d{1,2})?|(\d{1,2}|[a-z]{3})(-(\d{1,2}|[a-z]{3})(/\d{1,2})?)?)")
_WEEKDAY: Final = re.compile(r"(\*|([0-7]|[a-z]{3})(-([0-7]|[a-z]{3}))?)(/([1-7]))?")
_EXAMPLE: Final = '"30 2 * * *" is every day at 02:30, "0 3 * * sun" every Sunday at 03:00'
_A_LEAP_DAY: Final = datetime(2024, 1, 1, tzinfo=UTC)


def cron_trigger(text: str, zone: str) -> CronTrigger:
    """The trigger that five fields of cron mean in a time zone such as `Europe/Berlin`.

    Raises:
        BadInputError: the text is none, restricts both kinds of day, never comes true, or the
            zone is unknown.
    """
    fields = text.lower().split()
    if len(fields) != 5:  # noqa: PLR2004 - what cron has
        raise _wrong(text, "it has to have five fields")
    minute, hour, day, month, weekday = fields
    if day != "*" and weekday != "*":
        raise _wrong(text, "it restricts both the day of the month and the weekday")
    for field, pattern in ((minute, _NUMBERS), (hour, _NUMBERS), (day, _NUMBERS), (month, _MONTH)):
        if not all(pattern.fullmatch(part) for part in field.split(",")):
            raise _wrong(text, f"{field} is not understood")
    try:
        trigger = CronTrigger(
            minute=minute, hour=hour, day=day, month=month,
            day_of_week=_weekdays(weekday, text), timezone=_zone(zone),
        )  # fmt: skip
    except ValueError as error:
        raise _wrong(text, str(error)) from None
    if trigger.get_next_fire_time(None, _A_LEAP_DAY) is None:
        raise _wrong(text, "there is no such day")
    return trigger


def runs_by_the_hour(text: str) -> bool:
    """Whether cron text means every so many hours or minutes, and no fixed hours."""
    return text.split()[1].startswith("*")


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise BadInputError(
            f"There is no time zone {name!r}.", next_step="Write it like UTC or Europe/Berlin."
        ) from None


def _weekdays(field: str, text: str) -> str:
    if field == "*":
        return "*"
    days: set[int] = set()
    for part in field.split(","):
        found = _WEEKDAY.fullmatch(part)
        if found is None:
            raise _wrong(text, f"{field} is not understood")
        whole, first, _, last, _, step = found.groups()
        begin, end = (0, 6) if whole == "*" else (_day(first, text), _day(last or first, text))
        if last and end == 0:
            end = 7  # such as fri-sun
        if end < begin or (step and not last and whole != "*"):
            raise _wrong(text, f"{part} is not understood")
        days.update(number % 7 for number in range(begin, end + 1, int(step or 1)))
    return ",".join(_DAYS[number] for number in sorted(days))


def _day(word: str, text: str) -> int:
    if word.isdigit():
        return int(word)
    if word not in _DAYS:
        raise _wrong(text, f"{word} is no weekday")
    return _DAYS.index(word)


def _wrong(text: str, problem: str) -> BadInputError:
    return BadInputError(
        f"The schedule {text!r} cannot be used: {problem}.", next_step=f"Such as {_EXAMPLE}."
    )
