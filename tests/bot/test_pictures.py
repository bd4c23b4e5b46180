"""Pictures of charts: whatever a chart holds, a PNG of bounded size comes of it."""

from __future__ import annotations

import math
import struct

import pytest

from bot.pictures import PICTURE_BYTES_MAX, render
from jobs.drawing import Role
from jobs.operation import Chart, ChartKind, Series

HOSTILE = "$\\frac{1}{0}$ \x00\u202e\U0001f4a5 数据库 <b>\n" * 5


def a_chart(kind: ChartKind, *series: Series, points: int = 3, text: str = "x") -> Chart:
    return Chart(
        title=text, kind=kind, labels=(text,) * points, series=series, alt=text, unit=text[:8]
    )


def size_of(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(png) < PICTURE_BYTES_MAX
    width, height = struct.unpack(">II", png[16:24])
    return width, height


ONE = Series(name=HOSTILE, values=(1.0, None, 3.0))
RANGE = (
    Series(name="m", values=(1.0, 2.0, None)),
    Series(name="e", values=(None, 2.0, 3.0), role=Role.EXPECTED),
    Series(name="l", values=(None, 2.0, 2.5), role=Role.LOW),
    Series(name="h", values=(None, 2.0, 4.0), role=Role.HIGH),
    Series(name="v", values=(9.0, 9.0, 9.0), role=Role.LIMIT),
)
CHARTS = [
    a_chart(ChartKind.LINE, ONE, text=HOSTILE),
    a_chart(ChartKind.AREA, ONE, ONE),
    a_chart(ChartKind.BAR, ONE, Series(name="b", values=(-1.0, 0.0, math.nan)), text=HOSTILE),
    a_chart(ChartKind.LINE, *RANGE),
    a_chart(ChartKind.LINE, Series(name="none", values=(None, math.nan, None))),
    a_chart(ChartKind.LINE, points=0),
    a_chart(ChartKind.LINE, Series(name="dot", values=(5.0,)), points=1),
    a_chart(ChartKind.LINE, Series(name="flat", values=(0.0, 0.0, 0.0))),
    a_chart(
        ChartKind.LINE,
        *(Series(name=f"s{n}", values=tuple(float(n * at) for at in range(5000)))
          for n in range(20)),
        points=5000,
    ),
]  # fmt: skip


@pytest.mark.parametrize("chart", CHARTS)
def test_every_chart_becomes_a_picture_for_a_slide(chart: Chart) -> None:
    assert size_of(render(chart)) == (1612, 806)
