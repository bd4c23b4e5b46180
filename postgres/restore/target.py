"""Up to which moment a recovery goes, as people write it and as PostgreSQL wants it. Pure.

A time is never guessed: without a zone, in the future, or twice on a clock that was put back,
it is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from types import MappingProxyType
from typing import Final, Literal, assert_never
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from postgres.errors import PostgresError

TargetKind = Literal["time", "lsn", "xid", "point", "end", "latest"]

EXAMPLES: Final = (
    "2026-11-20 14:30:00 UTC, 2026-11-20 16:30:00+02:00, 5 minutes ago, latest, "
    "lsn 1/6B000028, xid 1234, before xid 1234, point NAME, or end"
)
# PostgreSQL cuts longer names of restore points.
_POINT_BYTES_MAX: Final = 63
_XID_MIN: Final = 3  # those below are PostgreSQL's own
_XID_MAX: Final = (1 << 64) - 1
_SHOWN_CHARS_MAX: Final = 80
_QUOTES: Final = ("'", '"')

_TIME: Final = re.compile(
    r"(?P<date>\d{4}-\d{2}-\d{2})[T ]+"
    r"(?P<clock>\d{2}:\d{2}(?::\d{2}(?:\.\d{1,6})?)?) *(?P<zone>.*)",
    re.IGNORECASE,
)
_OFFSET: Final = re.compile(r"(?:UTC|GMT)?([+-])(\d{2}):?(\d{2})?", re.IGNORECASE)
_LSN: Final = re.compile(r"(?:lsn +)?([0-9a-f]{1,8})/([0-9a-f]{1,8})", re.IGNORECASE)
_XID: Final = re.compile(r"(?:xid|transaction) +(\d{1,20})", re.IGNORECASE)
_POINT: Final = re.compile(r"point +(.+)", re.IGNORECASE)
_BEFORE: Final = re.compile(r"before +(?=xid|transaction|lsn)(.+)", re.IGNORECASE)
_AGO: Final = " ago"
_SPAN: Final = re.compile(r"(\d{1,9}|\ban?\b) *([a-z]+)", re.IGNORECASE)
_UNITS: Final = (
    (re.compile(r"s|secs?|seconds?", re.IGNORECASE), timedelta(seconds=1)),
    (re.compile(r"m|mins?|minutes?", re.IGNORECASE), timedelta(minutes=1)),
    (re.compile(r"h|hours?", re.IGNORECASE), timedelta(hours=1)),
    (re.compile(r"d|days?", re.IGNORECASE), timedelta(days=1)),
    (re.compile(r"w|weeks?", re.IGNORECASE), timedelta(weeks=1)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryTarget:
    """Where a recovery stops. Made by `parse_target`, or by `at_time` for a known moment.

    `end` is the backup's own end, `latest` the end of all WAL that was kept. `value` is the
    LSN, the transaction's number or the restore point's name; `at` is a time in UTC. What
    carries the target itself is recovered too, unless `is_before`.
    """

    kind: TargetKind
    value: str = ""
    at: datetime | None = None
    is_before: bool = False

    def __post_init__(self) -> None:
        if (self.at is None) == (self.kind == "time"):
            raise ValueError(f"a target by {self.kind} with the time {self.at}")
        if self.at is not None and self.at.utcoffset() != timedelta(0):
            raise ValueError(f"{self.at} is not in UTC")

    def __str__(self) -> str:
        """As people see it; `parse_target` understands it again."""
        match self.kind:
            case "time":
                return _shown(self._moment())
            case "lsn" | "xid":
                return f"{'before ' if self.is_before else ''}{self.kind} {self.value}"
            case "point":
                return f"point {_quoted(self.value)}"
            case "end" | "latest":
                return self.kind
            case _:
                assert_never(self.kind)

    def settings(self) -> Mapping[str, str]:
        """The one setting that stops PostgreSQL there; none for everything that was kept."""
        inclusive = {"recovery_target_inclusive": "off"} if self.is_before else {}
        match self.kind:
            case "time":
                # With its offset: TimeZone and DateStyle of the server say nothing then.
                return {"recovery_target_time": self._moment().strftime("%Y-%m-%d %H:%M:%S.%f+00")}
            case "lsn":
                return {"recovery_target_lsn": self.value, **inclusive}
            case "xid":
                return {"recovery_target_xid": self.value, **inclusive}
            case "point":
                return {"recovery_target_name": self.value}
            case "end":
                return {"recovery_target": "immediate"}
            case "latest":
                return {}
            case _:
                assert_never(self.kind)

    def _moment(self) -> datetime:
        if self.at is None:  # see __post_init__
            raise AssertionError(self.kind)
        return self.at


END: Final = RecoveryTarget(kind="end")
LATEST: Final = RecoveryTarget(kind="latest")
_NAMED: Final = MappingProxyType(
    {"end": END, "end of backup": END, "latest": LATEST, "now": LATEST}
)


def at_time(moment: datetime) -> RecoveryTarget:
    """The target for a moment; `moment` knows its zone."""
    return RecoveryTarget(kind="time", at=moment.astimezone(UTC))


def parse_target(text: str, *, now: datetime) -> RecoveryTarget:
    """Understand what a person wrote; `EXAMPLES` shows the ways. `now` is aware.

    Raises:
        PostgresError: it cannot be understood, names no zone, no day of the calendar, or a
            moment that has not come yet.
    """
    words = " ".join(text.split())
    if named := _NAMED.get(words.lower()):
        return named
    if found := _BEFORE.fullmatch(words):
        return _before(parse_target(found[1], now=now))
    if found := _LSN.fullmatch(words):
        return _lsn(text, found)
    if found := _XID.fullmatch(words):
        return _xid(text, found)
    if found := _POINT.fullmatch(text.strip()):
        return _point(found[1].strip())
    moment = _ago(words, now) or _time(words)
    if moment is None:
        raise _refusal(
            f"{_cut(text)!r} is no moment that can be recovered.",
            f"Write it as one of: {EXAMPLES}.",
        )
    if moment > now:
        raise _refusal(
            f"{_shown(moment)} lies in the future: it is {_shown(now.astimezone(UTC))} now.",
            "Name a moment that has passed, or `latest` for everything that was kept.",
        )
    return at_time(moment)


def _before(target: RecoveryTarget) -> RecoveryTarget:
    return RecoveryTarget(kind=target.kind, value=target.value, is_before=True)


def _lsn(text: str, found: re.Match[str]) -> RecoveryTarget:
    high, low = int(found[1], 16), int(found[2], 16)
    if not high and not low:
        raise _refusal(f"{_cut(text)!r} is no place in any WAL.", "Name an LSN such as 1/6B000028.")
    return RecoveryTarget(kind="lsn", value=f"{high:X}/{low:X}")


def _xid(text: str, found: re.Match[str]) -> RecoveryTarget:
    number = int(found[1])  # and not as it was written: PostgreSQL reads 010 as an octal 8
    if not _XID_MIN <= number <= _XID_MAX:
        raise _refusal(
            f"{_cut(text)!r} is the number of no transaction.",
            f"Numbers begin at {_XID_MIN}: pg_current_xact_id() tells that of a transaction.",
        )
    return RecoveryTarget(kind="xid", value=str(number))


def _point(name: str) -> RecoveryTarget:
    if len(name) > 1 and name[0] == name[-1] and name[0] in _QUOTES:
        name = name[1:-1]
    if not name or not name.isprintable() or len(name.encode()) > _POINT_BYTES_MAX:
        raise _refusal(
            f"{_cut(name)!r} can be no restore point's name.",
            f"Name one that pg_create_restore_point() made; it has {_POINT_BYTES_MAX} bytes at "
            "most.",
        )
    return RecoveryTarget(kind="point", value=name)


def _ago(words: str, now: datetime) -> datetime | None:
    spoken = words.lower().removesuffix(_AGO)
    if spoken == words.lower() or _SPAN.sub("", spoken).strip(" ,"):
        return None
    try:
        spans = [_span(count, unit) for count, unit in _SPAN.findall(spoken)]
        known = [span for span in spans if span is not None]
        return now.astimezone(UTC) - sum(known, timedelta(0)) if known == spans else None
    except OverflowError:
        raise _refusal(
            f"{_cut(words)!r} is before all calendars.", f"Write one of: {EXAMPLES}."
        ) from None


def _span(count: str, unit: str) -> timedelta | None:
    number = int(count) if count.isdigit() else 1
    lengths = (length for pattern, length in _UNITS if pattern.fullmatch(unit))
    return next((number * length for length in lengths), None)


def _time(words: str) -> datetime | None:
    found = _TIME.fullmatch(words)
    if not found:
        return None
    written = f"{found['date']} {found['clock']}"
    try:
        naive = datetime.fromisoformat(written)
    except ValueError:
        raise _refusal(
            f"{written!r} is no time of the calendar.",
            "Write year, month, day, hour, minute and second: 2026-11-20 14:30:00 UTC.",
        ) from None
    if not found["zone"]:
        raise _refusal(
            f"The time {written!r} names no time zone.",
            f"Write the zone too: {written} UTC, {written}+02:00, or {written} Europe/Berlin.",
        )
    try:
        return _placed(naive, _zone(found["zone"])).astimezone(UTC)
    except OverflowError:
        raise _refusal(
            f"{written!r} is outside of the calendar.", f"Write one of: {EXAMPLES}."
        ) from None


def _zone(text: str) -> tzinfo:
    if text.upper() in ("UTC", "Z", "GMT"):
        return UTC
    if found := _OFFSET.fullmatch(text):
        hours, minutes = int(found[2]), int(found[3] or 0)
        if hours <= 15 and minutes < 60:  # noqa: PLR2004  (PostgreSQL's own limits)
            offset = timedelta(hours=hours, minutes=minutes)
            return timezone(offset if found[1] == "+" else -offset)
    elif "/" in text:  # CET and its like mean different zones to different people
        try:
            return ZoneInfo(text)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            pass
    raise _refusal(
        f"{_cut(text)!r} is no time zone that is the same for everybody.",
        "Write UTC, an offset such as +02:00, or a place such as Europe/Berlin.",
    )


def _placed(naive: datetime, zone: tzinfo) -> datetime:
    """The moment at which a clock of this zone shows this time.

    Raises:
        PostgresError: it shows it never, or twice, as when clocks are changed.
    """
    first, second = (naive.replace(tzinfo=zone, fold=fold) for fold in (0, 1))
    if first.utcoffset() == second.utcoffset():
        return first
    exists = first.astimezone(UTC).astimezone(zone).replace(tzinfo=None) == naive
    shown = " and ".join(_shown(moment.astimezone(UTC)) for moment in (first, second))
    raise _refusal(
        f"Clocks were changed then: {naive} in {zone} was {'twice' if exists else 'never'}.",
        f"Write it in UTC{f': it was {shown}' if exists else ''}.",
    )


def _shown(moment: datetime) -> str:
    text = f"{moment:%Y-%m-%d %H:%M:%S}"
    # Not %Y alone: it writes the year 999 with three digits.
    text = f"{moment.year:04d}{text[text.index('-') :]}"
    return f"{text}{f'.{moment.microsecond:06d}' if moment.microsecond else ''} UTC"


def _quoted(name: str) -> str:
    is_plain = name == name.strip() and (name[0] not in _QUOTES or name[-1] not in _QUOTES)
    return name if is_plain else f'"{name}"'


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARS_MAX else text[: _SHOWN_CHARS_MAX - 1] + "…"


def _refusal(problem: str, next_step: str) -> PostgresError:
    return PostgresError(problem, next_step=next_step)
