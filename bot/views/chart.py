"""Charts as Slack draws them, and in words for where nobody can. Pure.

Slack's `data_visualization` wants a number of every series for every category, and unique
names: gaps are closed here, and a series that goes on where another ends becomes one with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Final

from bot.blocks import Block, context, one_line, plain, section, shorten, table
from bot.safe import verbatim
from jobs.operation import Chart, Series

CHART_BLOCK: Final = "data_visualization"
# The limits of Slack's reference; the last one Slack enforces without naming it there.
TITLE_CHARS_MAX: Final = 50
LABEL_CHARS_MAX: Final = 20
AXIS_CHARS_MAX: Final = 50
POINTS_MAX: Final = 20
SERIES_MAX: Final = 6
CHARTS_MAX: Final = 2
_TOLD_POINTS_MAX: Final = 8
_DIGITS: Final = 4


def chart_blocks(charts: Sequence[Chart]) -> list[Block]:
    """All charts of a message: as many as Slack draws in one, and the rest in words."""
    drawn = native(charts)
    return [
        *(chart_block(chart) for chart in drawn),
        *(section(chart_text(chart)) for chart in charts if chart not in drawn),
    ]


def native(charts: Sequence[Chart]) -> tuple[Chart, ...]:
    """Those of `charts` that `chart_blocks` leaves to Slack to draw."""
    return tuple(chart for chart in charts if _is_drawable(chart))[:CHARTS_MAX]


def chart_block(chart: Chart) -> Block:
    """A chart that Slack draws: at most 20 points and 6 series, no gaps.

    One without any point is its words.
    """
    if not _is_drawable(chart):
        return context(one_line(chart.alt or chart.title))
    labels, series = _native_series(chart)
    axis: dict[str, object] = {"categories": labels}
    if chart.unit:
        axis["y_label"] = _cut(chart.unit, AXIS_CHARS_MAX)
    return {
        "type": CHART_BLOCK,
        "title": _cut(chart.title, TITLE_CHARS_MAX) or "Chart",
        "chart": {
            "type": str(chart.kind),
            "series": [
                {
                    "name": one.name,
                    "data": [
                        {"label": label, "value": value}
                        for label, value in zip(labels, one.values, strict=True)
                    ],
                }
                for one in series
            ],
            "axis_config": axis,
        },
    }


def chart_text(chart: Chart) -> str:
    """A chart in words and a few numbers, as markup."""
    head = f"*{one_line(chart.title)}*\n{one_line(chart.alt)}".rstrip()
    if not _is_drawable(chart):
        return head
    kept = _kept(chart, _TOLD_POINTS_MAX)
    series = _with_points(chart.series)[:SERIES_MAX]
    name = f"in {chart.unit}" if chart.unit else ""
    rows = [
        (chart.labels[place], *(_number(_finite(one.values[place])) for one in series))
        for place in kept
    ]
    shown = table((name, *(one.name for one in series)), rows)
    return f"{head}\n```\n{verbatim(shown)}\n```"


def thinned(chart: Chart, points_max: int) -> Chart:
    """The chart with at most `points_max` points: the first, the last, and what stands out.

    A chart that fits is left as it is.
    """
    kept = _kept(chart, points_max)
    return replace(
        chart,
        labels=tuple(chart.labels[place] for place in kept),
        series=tuple(
            replace(one, values=tuple(_finite(one.values[place]) for place in kept))
            for one in chart.series
        ),
    )


def _native_series(chart: Chart) -> tuple[list[str], list[Series]]:
    thin = thinned(replace(chart, series=_joined(_with_points(chart.series))), POINTS_MAX)
    series = thin.series[:SERIES_MAX]
    names = _unique([_cut(one.name, LABEL_CHARS_MAX) or "series" for one in series])
    labels = _unique([_cut(label, LABEL_CHARS_MAX) or "-" for label in thin.labels])
    lead = _closed(series[0].values, ())
    values = [lead, *(_closed(one.values, lead) for one in series[1:])]
    return labels, [
        Series(name=name, values=tuple(_round(value) for value in closed))
        for name, closed in zip(names, values, strict=True)
    ]


def _with_points(series: Iterable[Series]) -> tuple[Series, ...]:
    return tuple(one for one in series if any(_finite(value) is not None for value in one.values))


def _is_drawable(chart: Chart) -> bool:
    lengths = {len(one.values) for one in chart.series}
    return lengths == {len(chart.labels)} and bool(_with_points(chart.series))


def _joined(series: Sequence[Series]) -> tuple[Series, ...]:
    """A series that begins where the first one ends is drawn as one line with it."""
    first, *others = series
    for place, other in enumerate(others):
        if _begins_where_it_ends(first.values, other.values):
            both = Series(
                name=f"{first.name}, {other.name}",
                values=tuple(
                    b if a is None else a for a, b in zip(first.values, other.values, strict=True)
                ),
            )
            return (both, *others[:place], *others[place + 1 :])
    return tuple(series)


def _begins_where_it_ends(first: Sequence[float | None], then: Sequence[float | None]) -> bool:
    firsts = [place for place, value in enumerate(first) if _finite(value) is not None]
    thens = [place for place, value in enumerate(then) if _finite(value) is not None]
    return bool(thens) and firsts[-1] in (thens[0], thens[0] - 1) and thens[0] > 0


def _closed(values: Sequence[float | None], lead: Sequence[float]) -> list[float]:
    """No gaps: before its first and after its last point a series follows `lead`."""
    known = [
        (at, value) for at, given in enumerate(values) if (value := _finite(given)) is not None
    ]
    closed = [_between(known, place) for place in range(len(values))]
    for place in range(len(values)) if lead else ():
        if not known[0][0] <= place <= known[-1][0]:
            closed[place] = lead[place]
    return closed


def _between(known: Sequence[tuple[int, float]], place: int) -> float:
    """The value at `place` on straight lines between the known ones, level outside."""
    before = max((one for one in known if one[0] <= place), default=known[0])
    after = min((one for one in known if one[0] >= place), default=known[-1])
    if before[0] >= after[0]:
        return after[1] if place < known[0][0] else before[1]
    share = (place - before[0]) / (after[0] - before[0])
    return before[1] + share * (after[1] - before[1])


def _kept(chart: Chart, points_max: int) -> list[int]:
    """The places that stay: the ends, and of equal stretches the extreme or the middle one."""
    count = len(chart.labels)
    if count <= points_max:
        return list(range(count))
    marked = _extremes(chart)
    stretches = points_max - 2
    edges = [1 + round(part * (count - 2) / stretches) for part in range(stretches + 1)]
    kept = [0]
    for start, end in pairwise(edges):
        middle = (start + end - 1) / 2
        inside = [place for place in range(start, end) if place in marked]
        kept.append(min(inside or range(start, end), key=lambda at, m=middle: abs(at - m)))
    return [*kept, count - 1]


def _extremes(chart: Chart) -> set[int]:
    """Where each series is highest and lowest, begins and ends."""
    found: set[int] = set()
    for one in chart.series:
        known = [at for at, value in enumerate(one.values) if _finite(value) is not None]
        if known:
            values = {at: one.values[at] or 0.0 for at in known}
            most, least = max(known, key=values.__getitem__), min(known, key=values.__getitem__)
            found |= {most, least, known[0], known[-1]}
    return found


def _unique(names: Sequence[str]) -> list[str]:
    """Names that differ: a second "May 1" becomes "May 1 (2)"."""
    seen: set[str] = set()
    unique: list[str] = []
    for name in names:
        shown, number = name, 1
        while shown in seen:
            number += 1
            ending = f" ({number})"
            shown = name[: LABEL_CHARS_MAX - len(ending)] + ending
        seen.add(shown)
        unique.append(shown)
    return unique


def _cut(text: str, chars_max: int) -> str:
    """Text of one line; Slack shows names in charts as they are, so nothing is escaped."""
    return shorten(" ".join(plain(text).split()), chars_max)


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _round(value: float) -> float:
    """Four digits: what a picture can show."""
    return float(f"{value:.{_DIGITS}g}")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.{_DIGITS}g}"
