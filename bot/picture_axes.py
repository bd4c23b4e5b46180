"""One chart on one pair of axes: clean, its lines named where they end. Imports matplotlib."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from bot.views.chart import thinned
from jobs.drawing import Role
from jobs.operation import Chart, ChartKind, Series

INK: Final = "#1d1c1d"
MUTED: Final = "#616061"
FAINT: Final = "#e8e8e8"
BLUE: Final = "#1264a3"
BAND: Final = "#9cc4e4"
ALARM: Final = "#d1242f"
# Told apart by people who see colours differently, too (Okabe and Ito 2008).
COLOURS: Final = ("#1264a3", "#d55e00", "#007a5a", "#7c3085", "#8a6d00", "#56759b")
POINTS_MAX: Final = 2_000
SERIES_MAX: Final = 12
_TICKS_MAX: Final = 7
_NAME_CHARS_MAX: Final = 32
_APART: Final = 0.052  # between two names at the right edge, as a share of the height
_LATE: Final = 0.75  # so far to the right there is no room for a name
_EDGES: Final = frozenset({Role.LOW, Role.HIGH})
_WIDTHS: Final[Mapping[Role, float]] = MappingProxyType(
    {Role.MEASURED: 2.2, Role.EXPECTED: 2.2, Role.LOW: 0.9, Role.HIGH: 0.9, Role.LIMIT: 1.5}
)

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """A series as it is drawn."""

    name: str
    role: Role
    values: Values
    colour: str


def draw(axes: Axes, chart: Chart, *, size: float = 11) -> None:
    """Draw a chart; `size` is that of its text in points."""
    chart = thinned(chart, POINTS_MAX)
    lines = _lines(chart.series)
    clean(axes, size=size)
    axes.grid(axis="y", color=FAINT, linewidth=0.8)
    if chart.kind is ChartKind.BAR:
        _bars(axes, lines)
    else:
        _curves(axes, lines, is_area=chart.kind is ChartKind.AREA)
    _scale(axes, lines, chart.unit, size=size)
    _places(axes, chart.labels, is_bar=chart.kind is ChartKind.BAR)
    _names(axes, lines, chart.unit, size=size, is_bar=chart.kind is ChartKind.BAR)


def clean(axes: Axes, *, size: float) -> None:
    """Axes with no more ink than they need."""
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#bbbbbb")
    axes.tick_params(colors=MUTED, labelsize=size, length=0)
    axes.tick_params(axis="x", length=3, color="#bbbbbb")
    axes.set_axisbelow(True)


def shown(text: str, chars_max: int = 200) -> str:
    """Somebody's text as a picture can show it: one line, only what the font has, no formulas."""
    flat = " ".join(text.split())
    cut = flat if len(flat) <= chars_max else f"{flat[: chars_max - 1]}…"
    known = _characters()
    return "".join(char if ord(char) in known else "?" for char in cut).replace("$", r"\$")


def number(value: float, unit: str = "") -> str:
    """Three digits and a unit."""
    digits = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"  # noqa: PLR2004
    return f"{digits} {unit}".strip()


@lru_cache(maxsize=1)
def _characters() -> frozenset[int]:
    return frozenset(get_font(findfont(FontProperties())).get_charmap())


def _lines(series: Sequence[Series]) -> list[_Line]:
    plain = iter(COLOURS * 3)
    colours = {Role.LOW: BLUE, Role.HIGH: BLUE, Role.EXPECTED: BLUE, Role.LIMIT: ALARM}
    has_range = any(one.role in _EDGES for one in series)
    return [
        _Line(
            name=shown(one.name, _NAME_CHARS_MAX),
            role=one.role,
            values=np.array([math.nan if value is None else value for value in one.values]),
            colour=colours.get(one.role) or (INK if has_range else next(plain)),
        )
        for one in series[:SERIES_MAX]
        if any(value is not None for value in one.values)
    ]


def _curves(axes: Axes, lines: Sequence[_Line], *, is_area: bool) -> None:
    _range(axes, lines)
    for line in lines:
        if line.role in _EDGES:
            continue
        places = np.arange(len(line.values))
        dashes = (0, (4, 2)) if line.role is Role.EXPECTED else "solid"
        axes.plot(
            places, line.values, color=line.colour, linewidth=_WIDTHS[line.role],
            linestyle=dashes, solid_capstyle="round",
        )  # fmt: skip
        if is_area and line.role is Role.MEASURED:
            axes.fill_between(places, 0, line.values, color=line.colour, alpha=0.15, linewidth=0)
        known = np.flatnonzero(np.isfinite(line.values))
        if line.role is not Role.LIMIT:
            at = known[-1]
            axes.plot([at], [line.values[at]], "o", markersize=5, color=line.colour)


def _range(axes: Axes, lines: Sequence[_Line]) -> None:
    low = next((line for line in lines if line.role is Role.LOW), None)
    high = next((line for line in lines if line.role is Role.HIGH), None)
    if low is not None and high is not None:
        places = np.arange(len(low.values))
        axes.fill_between(places, low.values, high.values, color=BAND, alpha=0.45, linewidth=0)


def _bars(axes: Axes, lines: Sequence[_Line]) -> None:
    width = 0.78 / max(len(lines), 1)
    for number_, line in enumerate(lines):
        places = np.arange(len(line.values)) + (number_ - (len(lines) - 1) / 2) * width
        axes.bar(places, np.nan_to_num(line.values), width * 0.94, color=line.colour)


def _scale(axes: Axes, lines: Sequence[_Line], unit: str, *, size: float) -> None:
    """From zero, so that a slope looks as steep as it is; room above for what stands there."""
    values = np.concatenate([line.values for line in lines] or [np.zeros(1)])
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    span = (high - min(low, 0.0)) or 1.0
    axes.set_ylim(min(low, 0.0) - (0.05 * span if low < 0 else 0.0), high + 0.1 * span)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axes.text(
        0, 1.01, shown(unit, 30), transform=axes.transAxes, fontsize=size, color=MUTED,
        ha="right", va="bottom",
    )  # fmt: skip


def _places(axes: Axes, labels: Sequence[str], *, is_bar: bool) -> None:
    """A few labels, evenly spread, so that none runs into another."""
    count = len(labels)
    edge = 0.6 if is_bar else 0.0
    axes.set_xlim(-edge, max(count - 1, 1) + edge if not is_bar else count - 1 + edge)
    few = min(count, 12 if is_bar else _TICKS_MAX)
    spread = [round(place * (count - 1) / max(few - 1, 1)) for place in range(few)]
    ticks = sorted(set(spread))
    axes.set_xticks(ticks, [shown(labels[tick], 16) for tick in ticks])


def _names(axes: Axes, lines: Sequence[_Line], unit: str, *, size: float, is_bar: bool) -> None:
    """Each line's name and last value where it ends; those at the right edge pushed apart."""
    if is_bar:
        _legend(axes, lines, size=size)
        return
    bottom, top = axes.get_ylim()
    ends = []
    for line in lines:
        last = int(np.flatnonzero(np.isfinite(line.values))[-1])
        value = float(line.values[last])
        text = f"{line.name}  {shown(number(value, unit))}"
        if last < len(line.values) - 1:
            # Below it and to its right, where a rising forecast leaves room.
            is_late = last > _LATE * len(line.values)
            axes.annotate(
                text, (last, value), textcoords="offset points",
                xytext=(-8 if is_late else 8, -size * 1.5), fontsize=size, color=line.colour,
                ha="right" if is_late else "left", fontweight="bold",
            )  # fmt: skip
        else:
            ends.append(((value - bottom) / (top - bottom), text, line))
    ends.sort(key=lambda end: end[0])
    for height, (_, text, line) in zip(_apart([end[0] for end in ends]), ends, strict=True):
        axes.text(
            1.008, height, text, transform=axes.transAxes, fontsize=size, color=line.colour,
            va="center", fontweight="normal" if line.role in _EDGES else "bold",
        )  # fmt: skip


def _apart(heights: Sequence[float]) -> list[float]:
    """Rising heights, moved as little as needed so that no two are too near; the last stays in."""
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, placed[-1] + _APART) if placed else height)
    over = max(placed[-1] - 1.0, 0.0) if placed else 0.0
    lowered = [height - over for height in placed]
    for place in range(len(lowered) - 2, -1, -1):
        lowered[place] = min(
            max(lowered[place], heights[place] - over), lowered[place + 1] - _APART
        )
    return lowered


def _legend(axes: Axes, lines: Sequence[_Line], *, size: float) -> None:
    if len(lines) < 2:  # noqa: PLR2004 - one needs no telling apart
        return
    for place, line in enumerate(lines):
        axes.text(
            1.008, 0.95 - place * _APART * 1.3, line.name, transform=axes.transAxes, fontsize=size,
            color=line.colour, va="center", fontweight="bold",
        )  # fmt: skip
