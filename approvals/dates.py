"""Days and spans of days as people write them, in their own time zone. Pure.

`until Friday` means to the end of that Friday, `from Monday` from its beginning.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from approvals.times import Span, duration
from approvals.words import BadInputError

SPAN_MAX: Final = timedelta(days=90)
AHEAD_MAX: Final = timedelta(days=366)
EXAMPLES: Final = "until Friday, from Monday until 2026-12-05, from tomorrow for 3 days"
_WEEKDAYS: Final = (
    *("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"),
)
_UNITS: Final = {"hour": "h", "day": "d", "week": "w"}
_CLOCK: Final = re.compile(r"([01]?\d|2[0-4]):([0-5]\d)")
_ISO: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
_COUNT: Final = re.compile(r"\d{1,4}")


def span(words: Sequence[str], *, now: datetime, zone: ZoneInfo) -> Span:
    """What `[from <day>] until <day>` or `[from <day>] for <time>` means, said at `now`.

    A day is today, tomorrow, a weekday (the next one, today included) or 2026-12-05, and
    may be followed by a time such as 14:00. Without `from` the span starts now.

    Raises:
        BadInputError: it is none of these, is over, or is longer than allowed.
    """
    rest = [word.casefold().rstrip(",.") for word in words]
    start = now
    if rest[:1] == ["from"]:
        start, rest = _start(rest[1:], now, zone)
    match rest:
        case ["until" | "till" | "to", *when] if when:
            end, rest = _end(when, start, zone)
        case ["for", *length] if length:
            end, rest = _after(length, start, zone)
        case _:
            raise _unclear("It is not said until when.")
    if rest:
        raise _unclear(f"{' '.join(rest)!r} is not understood.")
    return _checked(Span(start=start, end=end), now)


def in_words(span: Span, zone: ZoneInfo) -> str:
    """A span in a zone, such as `Fri 27 Nov 2026 09:00 to Mon 30 Nov 2026 24:00 (Asia/Tokyo)`."""
    start, end = span.start.astimezone(zone), span.end.astimezone(zone)
    return f"{_shown(start)} to {_shown_end(end)} ({zone.key})"


def _shown(at: datetime) -> str:
    return f"{at:%a} {at.day} {at:%b %Y %H:%M}"


def _shown_end(at: datetime) -> str:
    """Midnight as the end of the day before, which is what people mean."""
    if at.time() != time(0):
        return _shown(at)
    day = at.date() - timedelta(days=1)
    return f"{day:%a} {day.day} {day:%b %Y} 24:00"


def _start(words: list[str], now: datetime, zone: ZoneInfo) -> tuple[datetime, list[str]]:
    today = now.astimezone(zone).date()
    day, clock, rest = _day(words, today)
    start = _moment(day, clock or time(0), zone)
    if start <= now and day == today:
        start = now
    if start < now:
        raise BadInputError(f"{day:%a} {day} is over.", next_step=f"Write {EXAMPLES}.")
    return start, rest


def _end(words: list[str], start: datetime, zone: ZoneInfo) -> tuple[datetime, list[str]]:
    first = start.astimezone(zone).date()
    day, clock, rest = _day(words, first)
    if clock is None:
        day, clock = day + timedelta(days=1), time(0)
    return _moment(day, clock, zone), rest


def _after(words: list[str], start: datetime, zone: ZoneInfo) -> tuple[datetime, list[str]]:
    """So many hours, or days by the wall clock: a day is not always 24 hours long."""
    text, rest = words[0], words[1:]
    if _COUNT.fullmatch(text) and rest and (unit := _UNITS.get(rest[0].removesuffix("s"))):
        text, rest = f"{text}{unit}", rest[1:]
    try:
        length = duration(text)
    except ValueError:
        raise _unclear(f"{text!r} is no length of time.") from None
    whole, part = timedelta(days=length.days), timedelta(seconds=length.seconds)
    local = start.astimezone(zone).replace(tzinfo=None) + whole
    return local.replace(tzinfo=zone).astimezone(UTC) + part, rest


def _day(words: list[str], base: date) -> tuple[date, time | None, list[str]]:
    if not words:
        raise _unclear("A day is missing.")
    day, rest = _date(words[0], base), words[1:]
    found = _CLOCK.fullmatch(rest[0]) if rest else None
    if found is None:
        return day, None, rest
    if int(found[1]) < 24:  # noqa: PLR2004 - the hours of a day
        return day, time(int(found[1]), int(found[2])), rest[1:]
    if int(found[2]):
        raise _unclear(f"{found[0]} is no time of day.")
    return day + timedelta(days=1), time(0), rest[1:]


def _date(word: str, base: date) -> date:
    if word in ("today", "tomorrow"):
        return base + timedelta(days=int(word == "tomorrow"))
    for number, name in enumerate(_WEEKDAYS):
        if word in (name, name[:3]):
            return base + timedelta(days=(number - base.weekday()) % 7)
    if _ISO.fullmatch(word):
        try:
            found = date.fromisoformat(word)
        except ValueError:
            raise _unclear(f"{word!r} is no day.") from None
        # What is far away is refused anyway, and the last of all days has none after it.
        return min(found, base + 2 * AHEAD_MAX)
    raise _unclear(f"{word!r} is no day.")


def _moment(day: date, clock: time, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, clock, tzinfo=zone).astimezone(UTC)


def _checked(span: Span, now: datetime) -> Span:
    if span.end <= max(span.start, now):
        raise BadInputError("It would end before it starts.", next_step=f"Write {EXAMPLES}.")
    if span.end - span.start > SPAN_MAX:
        raise BadInputError(
            f"It would last {(span.end - span.start).days} days; {SPAN_MAX.days} are allowed.",
            next_step="Write an earlier end, and renew it then.",
        )
    if span.start - now > AHEAD_MAX:
        raise BadInputError(
            "It would start more than a year ahead.", next_step="Write it when it is nearer."
        )
    return span


def _unclear(problem: str) -> BadInputError:
    return BadInputError(problem, next_step=f"Write it like this: {EXAMPLES}.")
