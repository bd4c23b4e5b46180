"""Durations, moments and windows as policies write them. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION: Final = re.compile(r"(\d+[smhdw])+")
_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WEEKLY: Final = re.compile(
    r"(?P<days>\S+)\s+(?P<start>\d\d:\d\d)-(?P<end>\d\d:\d\d)(\s+(?P<zone>\S+))?"
)
# Whatever is longer is a mistake, and would overflow a date.
_NAME_CHARS_MAX: Final = 100
_SECONDS_MAX: Final = 3660 * 86400


def duration(value: object) -> timedelta:
    """`30m`, `4h`, `2d`, `1h30m`, or a whole number of seconds.

    Raises:
        ValueError: it is none of these. The text says what to write.
    """
    match value:
        case bool():
            seconds = -1
        case int():
            seconds = value
        case str() if _DURATION.fullmatch(value):
            seconds = sum(
                int(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)([smhdw])", value)
            )
        case _:
            seconds = -1
    if not 0 <= seconds <= _SECONDS_MAX:
        raise ValueError(
            f"{value!r} is no duration; write 30m, 4h, 2d or seconds, ten years at most"
        )
    return timedelta(seconds=seconds)


def moment(value: object, *, epoch: datetime | None) -> datetime:
    """An ISO timestamp with its offset, or seconds after `epoch` where there is one.

    Raises:
        ValueError: it is neither. The text says what to write.
    """
    if isinstance(value, int) and not isinstance(value, bool) and epoch is not None:
        if abs(value) > _SECONDS_MAX:
            raise ValueError(f"{value} seconds are more than ten years")
        return epoch + timedelta(seconds=value)
    if isinstance(value, str):
        try:
            parsed = datetime.fromisoformat(value)
        except ValueError:
            parsed = None
        if parsed is not None and parsed.tzinfo is not None:
            return parsed.astimezone(UTC)
    raise ValueError(f"{value!r} is no moment; write one such as 2026-12-24T18:00:00Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """From one moment up to another, which no longer belongs to it. `name`: what for."""

    start: datetime
    end: datetime
    name: str = ""

    def holds(self, at: datetime) -> bool:
        """Whether `at` is inside."""
        return self.start <= at < self.end


@dataclass(frozen=True, slots=True, kw_only=True)
class Weekly:
    """The same hours on some days of each week; hours past midnight belong to the day before."""

    days: frozenset[int]
    start: time
    end: time
    zone: ZoneInfo

    def holds(self, at: datetime) -> bool:
        """Whether `at` is inside."""
        local = at.astimezone(self.zone)
        clock, today = local.time(), local.weekday()
        if self.start < self.end:
            return today in self.days and self.start <= clock < self.end
        yesterday = (today - 1) % 7
        return (today in self.days and clock >= self.start) or (
            yesterday in self.days and clock < self.end
        )


Window = Span | Weekly


def window(value: object, *, epoch: datetime | None) -> Window:
    """`[from, to]` as moments, or text such as `Mon-Fri 09:00-17:00 Europe/Berlin`.

    A calendar's line is `{name, from, to}`.

    Raises:
        ValueError: it is neither. The text says what to write.
    """
    match value:
        case str():
            return _weekly(value)
        case [first, last]:
            return _span(first, last, value, epoch=epoch)
        case {"name": str(name), "from": first, "to": last, **rest} if name.strip() and not rest:
            return _span(first, last, value, epoch=epoch, name=name.strip()[:_NAME_CHARS_MAX])
        case _:
            raise ValueError(
                f"{value!r} is no window; write [from, to], {{name, from, to}} or"
                " 'Mon-Fri 09:00-17:00 Europe/Berlin'"
            )


def _span(
    first: object, last: object, value: object, *, epoch: datetime | None, name: str = ""
) -> Span:
    start, end = moment(first, epoch=epoch), moment(last, epoch=epoch)
    if end <= start:
        raise ValueError(f"the window {value!r} ends before it starts")
    return Span(start=start, end=end, name=name)


def _weekly(text: str) -> Weekly:
    found = _WEEKLY.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no window; write 'Mon-Fri 09:00-17:00 Europe/Berlin'")
    try:
        return Weekly(
            days=_days(found["days"]),
            start=_clock(found["start"]),
            end=_clock(found["end"]),
            zone=ZoneInfo(found["zone"] or "UTC"),
        )
    except (ZoneInfoNotFoundError, OSError):
        raise ValueError(f"{found['zone']!r} is no time zone; write one such as UTC") from None


def _clock(text: str) -> time:
    if text == "24:00":
        return time(0)
    return time.fromisoformat(text)


def _days(text: str) -> frozenset[int]:
    days: set[int] = set()
    for part in text.casefold().split(","):
        ends = [_day(name) for name in part.split("-", 1)]
        first, last = ends[0], ends[-1]
        days.update(number % 7 for number in range(first, last + 1 + (7 if last < first else 0)))
    return frozenset(days)


def _day(name: str) -> int:
    if name not in _DAYS:
        raise ValueError(f"{name!r} is no day; write Mon, Tue, Wed, Thu, Fri, Sat or Sun")
    return _DAYS.index(name)
