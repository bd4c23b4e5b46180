"""A chart as a page for a slide. Imports matplotlib."""

from __future__ import annotations

import io
import textwrap
from typing import Final

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bot.picture_axes import INK, MUTED, draw, shown
from jobs.operation import Chart

_DPI: Final = 130
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


def _png(figure: Figure) -> bytes:
    written = io.BytesIO()
    figure.savefig(written, format="png")
    return written.getvalue()
