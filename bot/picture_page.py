"""Pages of pictures: one chart for a slide, or a whole digest. Imports matplotlib."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec

from bot.picture_axes import ALARM, BAND, BLUE, INK, MUTED, draw, number, shown
from bot.pictures import Sheet
from jobs.drawing import Role
from jobs.operation import Chart, ChartKind

_STATUS: Final[Mapping[str, str]] = MappingProxyType(
    {"healthy": "#007a5a", "warning": "#b35c00", "critical": ALARM}
)
_DPI: Final = 130
_SMALL_MAX: Final = 4
_TABLES_MAX: Final = 8
_LINES_MAX: Final = 6
_LINE_HEIGHT: Final = 0.029
_LINE_CHARS: Final = 80
_SUBTITLE_CHARS: Final = 128


def chart_page(chart: Chart) -> bytes:
    """A chart alone, with its title and what it says."""
    figure = Figure(figsize=(12.4, 6.2), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    figure.text(0.03, 0.935, shown(chart.title, 80), fontsize=19, fontweight="bold", color=INK)
    told = textwrap.wrap(" ".join(chart.alt.split()), _SUBTITLE_CHARS)[:2]
    for place, line in enumerate(told):
        figure.text(0.03, 0.885 - place * 0.042, shown(line), fontsize=11.5, color=MUTED)
    axes = figure.add_axes((0.065, 0.09, 0.755, 0.68))
    draw(axes, chart)
    return _png(figure)


def sheet_page(sheet: Sheet) -> bytes:
    """A digest: a head with its status, the first chart, small curves, bars, words."""
    figure = Figure(figsize=(13.5, 7.6), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    _head(figure, sheet)
    curves = [chart for chart in sheet.charts if chart.kind is not ChartKind.BAR]
    bars = [chart for chart in sheet.charts if chart.kind is ChartKind.BAR]
    has_rest = bool(bars or sheet.lines)
    bottom = 0.43 if has_rest else 0.08
    small = curves[1 : 1 + _SMALL_MAX]
    if curves:
        axes = figure.add_axes((0.05, bottom, 0.49 if small else 0.77, 0.76 - bottom))
        title = shown(curves[0].title, 60)
        axes.set_title(title, loc="left", fontsize=12.5, fontweight="bold", color=INK, pad=18)
        draw(axes, curves[0], size=9.5)
    if small:
        grid = GridSpec(
            len(small), 1, figure=figure, left=0.7, right=0.972, top=0.76, bottom=bottom, hspace=0.9
        )
        for place, chart in enumerate(small):
            _small(figure.add_subplot(grid[place]), chart)
    if bars:
        _tables(figure.add_axes((0.135, 0.045, 0.3, 0.26)), bars[0])
    if sheet.lines:
        _words(figure, sheet.lines, left=0.52 if bars else 0.03)
    return _png(figure)


def _head(figure: Figure, sheet: Sheet) -> None:
    figure.text(0.028, 0.935, shown(sheet.title, 60), fontsize=20, fontweight="bold", color=INK)
    figure.text(0.028, 0.893, shown(sheet.subtitle, 110), fontsize=11.5, color=MUTED)
    if sheet.status:
        figure.text(
            0.972, 0.935, shown(sheet.status.upper(), 20), fontsize=14, fontweight="bold",
            color="white", ha="right",
            bbox={"boxstyle": "round,pad=.45", "fc": _colour(sheet.status), "ec": "none"},
        )  # fmt: skip


def _colour(status: str) -> str:
    return _STATUS.get(status, MUTED)


def _small(axes: Axes, chart: Chart) -> None:
    """A curve without axes: its name, where it is now, its least and its most."""
    axes.axis("off")
    measured = next((one for one in chart.series if one.role is Role.MEASURED), None)
    found = [] if measured is None else measured.values
    values = np.array([math.nan if value is None else value for value in found], dtype=float)
    known = np.flatnonzero(np.isfinite(values))
    axes.text(
        0, 1.1, shown(chart.title, 34), transform=axes.transAxes, fontsize=10, color=MUTED,
        va="bottom",
    )  # fmt: skip
    if not len(known):
        return
    low, high, last = values[known].min(), values[known].max(), values[known[-1]]
    limit = next((one.values[-1] for one in chart.series if one.role is Role.LIMIT), None)
    axes.plot(np.arange(len(values)), values, color=BLUE, linewidth=1.4)
    axes.fill_between(np.arange(len(values)), low, values, color=BAND, alpha=0.35, linewidth=0)
    axes.plot([known[-1]], [last], "o", markersize=4.5, color=BLUE)
    if limit is not None and low - (high - low) < limit < high + (high - low):
        axes.axhline(limit, color=ALARM, linewidth=1, linestyle=":")
    axes.margins(x=0.01, y=0.08)
    axes.text(
        1, 1.06, shown(number(float(last), chart.unit)), transform=axes.transAxes, fontsize=12,
        fontweight="bold", color=INK, ha="right", va="bottom",
    )  # fmt: skip
    span = f"{number(float(low))} to {number(float(high))}"
    axes.text(
        1, -0.04, span, transform=axes.transAxes, fontsize=8, color=MUTED, ha="right", va="top"
    )


def _tables(axes: Axes, chart: Chart) -> None:
    """Bars that lie, each with its name and its value: the largest first."""
    for side in axes.spines.values():
        side.set_visible(False)
    named = (
        [
            (shown(label, 24), value)
            for label, value in zip(chart.labels, chart.series[0].values, strict=True)
            if value is not None and math.isfinite(value)
        ]
        if chart.series
        else []
    )
    largest = sorted(named, key=lambda one: -one[1])[:_TABLES_MAX][::-1]
    axes.set_title(
        shown(chart.title, 40), loc="left", x=-0.3, fontsize=12.5, fontweight="bold", color=INK
    )
    axes.set_xticks([])
    axes.set_yticks(range(len(largest)), [name for name, _ in largest], fontsize=9.5, color=INK)
    axes.tick_params(axis="y", length=0)
    if not largest:
        return
    most = max(*(value for _, value in largest), 1e-9)
    axes.barh(range(len(largest)), [value for _, value in largest], color="#7aa6c9", height=0.64)
    axes.set_xlim(0, most * 1.3)
    for place, (_, value) in enumerate(largest):
        axes.text(
            max(value, 0) + most * 0.015, place, shown(number(value, chart.unit)), va="center",
            fontsize=9, color=MUTED,
        )  # fmt: skip


def _words(figure: Figure, lines: Sequence[str], *, left: float) -> None:
    figure.text(left, 0.318, "What needs attention", fontsize=12.5, fontweight="bold", color=INK)
    wide = _LINE_CHARS if left > 0.1 else 2 * _LINE_CHARS  # noqa: PLR2004
    height = 0.28
    for line in lines[:_LINES_MAX]:
        wrapped = textwrap.wrap(" ".join(line.split()), wide)[:2] or [""]
        if height < len(wrapped) * _LINE_HEIGHT:
            break
        figure.text(left, height, "•", fontsize=10, color=BLUE)
        for part in wrapped:
            figure.text(left + 0.013, height, shown(part), fontsize=10, color=INK)
            height -= _LINE_HEIGHT
        height -= _LINE_HEIGHT / 3


def _png(figure: Figure) -> bytes:
    written = io.BytesIO()
    figure.savefig(written, format="png")
    return written.getvalue()
