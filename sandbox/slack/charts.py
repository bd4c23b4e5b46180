"""The chart of a `data_visualization` block, as strict as Slack's reference. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

from sandbox.slack.rules import Problems, Rule, Spec, choice, items, shape, string

LABEL_CHARS_MAX: Final = 20
AXIS_CHARS_MAX: Final = 50
POINTS_MAX: Final = 20
SERIES_MAX: Final = 6  # sources disagree between 6 and 12: the smaller one passes everywhere


def _json_number(problems: Problems, value: Any, at: str) -> None:
    """A number of JSON: no text, no true, nothing that JSON cannot write."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        problems.add("must be a number", at)


def _share(problems: Problems, value: Any, at: str) -> None:
    _json_number(problems, value, at)
    if isinstance(value, int | float) and value <= 0:
        problems.add("must be greater than 0", at)


def _labelled(value: Rule) -> Rule:
    return shape(
        Spec(
            fields={"label": string(LABEL_CHARS_MAX, least=1), "value": value},
            required=("label", "value"),
        )
    )


_SERIES: Final = shape(
    Spec(
        fields={
            "name": string(LABEL_CHARS_MAX, least=1),
            "data": items(_labelled(_json_number), most=POINTS_MAX),
        },
        required=("name", "data"),
    )
)
_AXIS: Final = shape(
    Spec(
        fields={
            "categories": items(string(LABEL_CHARS_MAX, least=1), most=POINTS_MAX),
            "x_label": string(AXIS_CHARS_MAX),
            "y_label": string(AXIS_CHARS_MAX),
        },
        required=("categories",),
    )
)


def _axes(kind: str) -> Spec:
    return Spec(
        fields={
            "type": choice(kind),
            "series": items(_SERIES, most=SERIES_MAX),
            "axis_config": _AXIS,
        },
        required=("type", "series", "axis_config"),
    )


CHARTS: Final[Mapping[str, Spec]] = {
    "line": _axes("line"),
    "bar": _axes("bar"),
    "area": _axes("area"),
    "pie": Spec(
        fields={"type": choice("pie"), "segments": items(_labelled(_share), most=SERIES_MAX)},
        required=("type", "segments"),
    ),
}


def chart_flaws(chart: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with a chart whose shape is right: names that clash, points that lack."""
    if chart["type"] == "pie":
        return
    names = [one["name"] for one in chart["series"]]
    if len(set(names)) < len(names):
        yield "series names must be unique"
    categories = chart["axis_config"]["categories"]
    if len(set(categories)) < len(categories):
        yield "axis_config.categories must be unique"
    for one in chart["series"]:
        if sorted(point["label"] for point in one["data"]) != sorted(categories):
            yield f"the labels of series {one['name']} must match axis_config.categories"
