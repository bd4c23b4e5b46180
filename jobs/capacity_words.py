"""What a capacity report says to people: when it is full, why we think so, and what to do. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from jobs.capacity import CapacityReport, Check, Growing, Scope
from jobs.drawing import Role
from jobs.forecast import Forecast, Outlook, Recurring
from jobs.metric_text import bytes_text
from jobs.operation import Chart, ChartKind, Series
from jobs.text import count_text

ROUGH: Final = "rough"
# What is bought is to last a year at the upper end of the range, and be 80 % full then.
_FULL_ENOUGH: Final = 0.8
# What an expansion takes: orders, windows, approvals.
_LEAD: Final = timedelta(days=30)
_MONTH_DAYS: Final = 30.44
_YEAR_MONTHS: Final = 12
_SHARE_WORTH_NAMING: Final = 0.2
_SURE: Final = 0.75
_DAY: Final = "%d %b %Y"
# A chart shows every other day: so much is seen, and a message stays small.
_CHART_STEP: Final = 2
_FAR_ABOVE: Final = 3.0
_UNITS: Final = ((2**40, "TB"), (2**30, "GB"), (2**20, "MB"), (2**10, "kB"))
_STEPS: Final = (1, 2, 2.5, 5, 10)

_SHAPES: Final = {
    "steady": "It grows by about as much each day.",
    "relative": "It grows by a constant share of its size, faster each month.",
    "accelerating": "Growth is accelerating: the months to come bring more than those before.",
    "slowing": "Growth is slowing down.",
}
_SCOPES: Final = {
    Scope.VOLUME: "the volume with all that is on it",
    Scope.DATABASE_ON_VOLUME: "the databases and their WAL, on a volume of which we know the size",
    Scope.DATABASE: "the databases alone: nobody told us how large their volume is",
}


def headline(report: CapacityReport) -> str:
    """When it is full, or how large it will be where nobody knows how much room there is."""
    if report.total is None:
        far = report.forecast.outlooks[-1]
        rough = f" ({ROUGH})" if far.is_rough else ""
        return (
            f"The databases are {bytes_text(report.forecast.size)} and will be about"
            f" {bytes_text(far.mid)} in {far.days} days{rough}."
        )
    used = (
        f"The volume is {report.usage or 0:.0%} full:"
        f" {bytes_text(report.forecast.size)} of {bytes_text(report.total)}."
    )
    return f"{used} {_full(report)}"


def _full(report: CapacityReport) -> str:
    forecast, full = report.forecast, report.forecast.full
    if full is None or full.p10 is None:
        return f"It is not full within {_time(len(forecast.mid))}, in 9 of 10 likely futures."
    if full.p50 == 0:
        return "Nothing is left."
    early = _on(forecast, full.p10)
    late = f"{full.p90} days, {_on(forecast, full.p90)}" if full.p90 else "more than a year"
    if full.p50 is None:
        return f"It may be full from {early} on, in {full.p10} days; likely not within a year."
    rough = f", {ROUGH}" if full.p50 > _rough_from(forecast) else ""
    return (
        f"Full in about {full.p50} days{rough}, on {_on(forecast, full.p50)}"
        f" (80 % range: {full.p10} days, {early}, to {late})."
    )


def advice(report: CapacityReport) -> tuple[str, ...]:
    """What to do, in the order of urgency."""
    return (*_room(report), *_archive(report.growing))


def _room(report: CapacityReport) -> Iterator[str]:
    forecast, full = report.forecast, report.forecast.full
    if full is None or report.total is None:
        yield (
            "Say in the inventory how large the volume is (monitoring, volume), to learn when"
            " it is full."
        )
        return
    if full.p10 is None:
        yield f"Current capacity is sufficient for {_time(len(forecast.mid))}."
        return
    months = full.p10 / _MONTH_DAYS
    if months >= 1:
        yield f"Current capacity is sufficient for {count_text(int(months), 'month')}."
    more = _expansion(report)
    by = forecast.last + timedelta(days=full.p10) - _LEAD
    if by <= forecast.last:
        yield f"Expand storage now, by {bytes_text(more)}: it may be full in {full.p10} days."
    else:
        yield f"Plan storage expansion before {by:{_DAY}}, by {bytes_text(more)}."


def _expansion(report: CapacityReport) -> float:
    """What to add, rounded up to what one can order."""
    wanted = report.forecast.high[-1] / _FULL_ENOUGH - (report.total or 0)
    size, _ = unit_of(max(wanted, 1.0))
    power = 10.0 ** math.floor(math.log10(max(wanted / size, 1.0)))
    step = next(step for step in _STEPS if step * power * size >= wanted - 1e-6 * wanted)
    return step * power * size


def _archive(growing: tuple[Growing, ...]) -> Iterator[str]:
    if not growing:
        return
    top = growing[0]
    if top.share is not None and top.share >= _SHARE_WORTH_NAMING:
        yield (
            f"Consider archiving old rows of {top.name}: it is {top.share:.0%} of the growth"
            f" ({bytes_text(top.grown, signed=True)} since {top.since:{_DAY}})."
        )
    new = [one.name for one in growing if one.is_new]
    if new:
        yield f"New among the large ones: {', '.join(new[:3])}. See that it is meant to grow."


def reasons(report: CapacityReport) -> tuple[str, ...]:
    """How it was read: the shape, what was left out, how far off it was a month ago."""
    forecast = report.forecast
    told = [_shape(forecast)]
    told += [
        f"A jump of {bytes_text(out.size, signed=True)} on {out.day:{_DAY}} is left out of the"
        " trend: it happened once."
        for out in forecast.left_out[-3:]
    ]
    told += [_again(recurring) for recurring in forecast.recurring]
    if forecast.spikes:
        told.append(f"{count_text(forecast.spikes, 'spike')} that came back {_is(forecast.spikes)}"
                    " left out.")  # fmt: skip
    if len(forecast.outlooks) == 1:
        told.append(
            f"After {forecast.measured_days} days nothing can be said beyond the next"
            f" {forecast.outlooks[0].days}."
        )
    if report.check is not None:
        told.append(check_text(report.check))
    return tuple(told)


def check_text(check: Check) -> str:
    """What would have been said a month ago of today."""
    inside = "within" if check.low <= check.actual <= check.high else "outside"
    return (
        f"{check.days} days ago it would have said {bytes_text(check.mid)} for the last day:"
        f" {check.error:.1%} off, {inside} its range."
    )


def _shape(forecast: Forecast) -> str:
    shape, share = forecast.shapes[0]
    if shape == "changed" and forecast.pace_changed_on is not None:
        text = f"Another pace since about {forecast.pace_changed_on:{_DAY}}: only that one counts."
    else:
        text = _SHAPES[shape]
    if forecast.bytes_per_day < 0 and shape in ("steady", "relative"):
        text = "It shrinks by about as much each day."
    return text if share >= _SURE else f"{text} That is likely, not certain ({share:.0%})."


def _again(recurring: Recurring) -> str:
    rhythm = f"about every {recurring.every_days:.0f} days"
    return (
        f"Jumps of about {bytes_text(recurring.size, signed=True)} come {rhythm}"
        f" ({recurring.times} so far) and are expected to go on."
    )


def scope_text(report: CapacityReport) -> str:
    """What was forecast."""
    return _SCOPES[report.scope]


def outlook_text(outlook: Outlook) -> str:
    """The size at a horizon with its range; far ones are called rough."""
    rough = f", {ROUGH}" if outlook.is_rough else ""
    span = f"{bytes_text(outlook.low)} to {bytes_text(outlook.high)}"
    return f"{bytes_text(outlook.mid)} ({span}{rough})"


def chart(report: CapacityReport) -> Chart:
    """History, what is expected with its range, and the volume where that is not far above."""
    forecast = report.forecast
    ahead = range(_CHART_STEP, len(forecast.mid) + 1, _CHART_STEP)
    past = list(report.history)[::-1][::_CHART_STEP][::-1]
    highest = max(*forecast.high, *(size for _, size in past), 1.0)
    shown = report.total is not None and report.total <= _FAR_ABOVE * highest
    size, unit = unit_of(max(highest, report.total or 0 if shown else 0))
    gap, after = (None,) * (len(past) - 1), (None,) * len(ahead)
    last = _scaled(forecast.size, size)

    def expected(values: tuple[float, ...]) -> tuple[float | None, ...]:
        return (*gap, last, *(_scaled(values[day - 1], size) for day in ahead))

    series = [
        Series(name="measured", values=(*(_scaled(one, size) for _, one in past), *after)),
        Series(name="expected", values=expected(forecast.mid), role=Role.EXPECTED),
        Series(name="80 % low", values=expected(forecast.low), role=Role.LOW),
        Series(name="80 % high", values=expected(forecast.high), role=Role.HIGH),
    ]
    labels = [day for day, _ in past] + [forecast.last + timedelta(days=day) for day in ahead]
    if shown:
        full = _scaled(report.total or 0, size)
        series.append(Series(name="volume", values=(full,) * len(labels), role=Role.LIMIT))
    return Chart(
        title=f"Size of {report.database}: measured, expected",
        kind=ChartKind.LINE,
        labels=tuple(f"{day:{_DAY}}" for day in labels),
        series=tuple(series),
        alt=f"{headline(report)} In {forecast.outlooks[-1].days} days:"
        f" {outlook_text(forecast.outlooks[-1])}.",
        unit=unit,
    )


def unit_of(size_bytes: float) -> tuple[float, str]:
    """The unit in which such a size is a number that people can read."""
    return next(((float(size), unit) for size, unit in _UNITS if size_bytes >= size), (1.0, "B"))


def _scaled(value: float, size: float) -> float:
    return float(f"{value / size:.5g}")


def _on(forecast: Forecast, days: int) -> str:
    return f"{forecast.last + timedelta(days=days):{_DAY}}"


def _rough_from(forecast: Forecast) -> int:
    """The last day that is not called rough."""
    fine = [outlook.days for outlook in forecast.outlooks if not outlook.is_rough]
    return (
        max(fine, default=0)
        if any(one.is_rough for one in forecast.outlooks)
        else len(forecast.mid)
    )


def _time(days: int) -> str:
    months = round(days / _MONTH_DAYS)
    return "12 months" if months == _YEAR_MONTHS else f"{days} days"


def _is(count: int) -> str:
    return "is" if count == 1 else "are"
