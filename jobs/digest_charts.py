"""The pictures of a digest, for a slide: the load against the period before, and storage. Pure.

Storage is of all databases together, with what is expected of it; a week has both pictures, a
day has the load alone, as storage says nothing new every day.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final

from jobs.digest import Period
from jobs.drawing import Role
from jobs.forecast import Forecast, forecast
from jobs.metric_text import bytes_text, number_text
from jobs.operation import Chart, ChartKind, Series

# Slack draws twenty points: twelve weeks that were, and eight that come.
WEEKS_BEFORE: Final = 12
WEEKS_AFTER: Final = 8
_POINTS_MIN: Final = 3
_GIB: Final = 2**30
_MIB: Final = 2**20

LoadPoint = tuple[datetime, float | None]
Sizes = Mapping[str, Mapping[date, int]]


def charts(
    load: Sequence[LoadPoint], sizes: Sizes, period: Period, now: datetime
) -> tuple[Chart, ...]:
    """What there is to draw; `load`: per hour or per day, of the period and the one before.

    A forecast takes some hundredths of a second: not for an event loop.
    """
    found = [_load(load, period, now)]
    if period is Period.WEEKLY:
        found.insert(0, _storage(sizes))
    return tuple(chart for chart in found if chart is not None)


def _load(load: Sequence[LoadPoint], period: Period, now: datetime) -> Chart | None:
    """Queries per second, each point above the one of the same hour or weekday before."""
    known = {at: value for at, value in load if value is not None}
    step = timedelta(hours=1) if period is Period.DAILY else timedelta(days=1)
    since = _whole(now - period.length, step)
    moments = [since + number * step for number in range(round(period.length / step))]
    these = [known.get(at) for at in moments]
    those = [known.get(at - period.length) for at in moments]
    values = [value for value in these if value is not None]
    if len(values) < _POINTS_MIN:
        return None
    names = ("last 24 hours", "the 24 hours before")
    if period is Period.WEEKLY:
        names = ("last 7 days", "the 7 days before")
    average = sum(values) / len(values)
    before = [value for value in those if value is not None]
    was = f"; {names[1]} {number_text(sum(before) / len(before))}" if before else ""
    form = "%H:%M" if period is Period.DAILY else "%a %d"
    series = [Series(name=names[0], values=tuple(these))]
    if before:
        series.append(Series(name=names[1], values=tuple(those)))
    return Chart(
        title=f"Queries per second, {names[0]}",
        kind=ChartKind.LINE,
        labels=tuple(f"{at:{form}}" for at in moments),
        series=tuple(series),
        alt=f"Queries per second in the {names[0]}: {number_text(average)} on average{was}.",
        unit="per second",
    )


def _whole(at: datetime, step: timedelta) -> datetime:
    """The first moment of a roll-up that is not before `at`."""
    begin = datetime.min.replace(tzinfo=UTC)
    over = (at - begin) % step
    return at if not over else at + step - over


def _storage(sizes: Sizes) -> Chart | None:
    """The size of all together: weeks that were, and what is expected."""
    history = _summed(sizes)
    if len(history) < _POINTS_MIN:
        return None
    found = forecast(history)
    weeks = [day for day, _ in history][::-7][:WEEKS_BEFORE][::-1]
    if len(weeks) < _POINTS_MIN:
        weeks = [day for day, _ in history]
    known = dict(history)
    unit, divisor = ("GB", _GIB) if history[-1][1] >= _GIB else ("MB", _MIB)
    now_text = bytes_text(history[-1][1])
    labels = [f"{day:%d %b}" for day in weeks]
    measured = tuple(known[day] / divisor for day in weeks)
    if not isinstance(found, Forecast):
        return Chart(
            title="Storage", kind=ChartKind.LINE, labels=tuple(labels), unit=unit,
            series=(Series(name="measured", values=measured),),
            alt=f"Storage: {now_text} now. There is too little history for a forecast.",
        )  # fmt: skip
    ahead = [number for number in range(7, 7 * WEEKS_AFTER + 1, 7) if number <= len(found.mid)]
    gap = (None,) * (len(measured) - 1)

    def onward(values: Sequence[float]) -> tuple[float | None, ...]:
        """From what is there now to what is expected."""
        return (*gap, measured[-1], *(values[number - 1] / divisor for number in ahead))

    then = ahead[-1]
    low, mid, high = (bytes_text(each[then - 1]) for each in (found.low, found.mid, found.high))
    return Chart(
        title=f"Storage, expected from {found.last:%d %b} on",
        kind=ChartKind.LINE,
        labels=(*labels, *(f"{found.last + timedelta(days=number):%d %b}" for number in ahead)),
        series=(
            Series(name="measured", values=(*measured, *((None,) * len(ahead)))),
            Series(name="expected", values=onward(found.mid), role=Role.EXPECTED),
            Series(name="80 % low", values=onward(found.low), role=Role.LOW),
            Series(name="80 % high", values=onward(found.high), role=Role.HIGH),
        ),
        alt=f"Storage: {now_text} now, about {mid} in {then} days (8 of 10: {low} to {high}).",
        unit=unit,
    )


def _summed(sizes: Sizes) -> list[tuple[date, int]]:
    """One size a day of all databases; where one was not measured, it is as large as before."""
    days = sorted({day for each in sizes.values() for day in each})
    last = dict.fromkeys(sizes, 0)
    found: list[tuple[date, int]] = []
    for day in days:
        last = {name: each.get(day, last[name]) for name, each in sizes.items()}
        found.append((day, sum(last.values())))
    return found
