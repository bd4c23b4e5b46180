"""Charts that Slack draws, and in words."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bot.blocks import Message
from bot.views.answer import answer_message
from bot.views.chart import chart_block, chart_blocks, chart_text, native, thinned
from jobs.drawing import Role
from jobs.operation import Answer, Chart, ChartKind, Series
from tests.bot.views.cards import problems, texts


def a_chart(*values: tuple[float | None, ...], kind: ChartKind = ChartKind.LINE) -> Chart:
    return Chart(
        title="Size of orders",
        kind=kind,
        labels=tuple(f"day {number}" for number in range(len(values[0]))),
        series=tuple(Series(name=f"s{number}", values=one) for number, one in enumerate(values)),
        alt="It grows by 1 GB a day.",
        unit="GB",
    )


def drawn(chart: Chart) -> dict[str, list[float]]:
    """The numbers of each series as Slack gets them."""
    block = chart_block(chart)
    return {
        one["name"]: [point["value"] for point in one["data"]] for one in block["chart"]["series"]
    }


def categories(chart: Chart) -> list[str]:
    return list(chart_block(chart)["chart"]["axis_config"]["categories"])


FORECAST = Chart(
    title="Size",
    kind=ChartKind.LINE,
    labels=("1", "2", "3", "4"),
    series=(
        Series(name="measured", values=(1.0, 2.0, None, None)),
        Series(name="expected", values=(None, 2.0, 3.0, 4.0), role=Role.EXPECTED),
        Series(name="80 % low", values=(None, 2.0, 2.5, 3.0), role=Role.LOW),
        Series(name="volume", values=(9.0, 9.0, 9.0, 9.0), role=Role.LIMIT),
    ),
    alt="a",
)


def test_what_is_expected_goes_on_where_what_was_measured_ends() -> None:
    assert drawn(FORECAST) == {
        "measured, expected": [1, 2, 3, 4],
        "80 % low": [1, 2, 2.5, 3],
        "volume": [9, 9, 9, 9],
    }


def test_gaps_are_closed_with_straight_lines_as_slack_takes_none() -> None:
    assert drawn(a_chart((1.0, None, None, 4.0), (None, 5.0, math.nan, 7.0))) == {
        "s0": [1, 2, 3, 4],
        "s1": [1, 5, 6, 7],
    }


def test_a_long_series_keeps_its_ends_and_what_stands_out() -> None:
    values = tuple(float(n % 5) for n in range(200))
    values = (*values[:77], 99.0, *values[78:140], -9.0, *values[141:])
    chart = a_chart(values)
    kept = drawn(chart)["s0"]
    assert len(kept) == 20
    assert 99.0 in kept
    assert -9.0 in kept
    assert categories(chart)[0] == "day 0"
    assert categories(chart)[-1] == "day 199"


def test_points_that_fit_are_left_as_they_are() -> None:
    chart = a_chart(tuple(float(n) for n in range(20)))
    assert thinned(chart, 20) == chart


def test_names_that_would_be_the_same_are_told_apart() -> None:
    chart = a_chart((1.0, 2.0, 3.0))
    twins = replace(
        chart,
        labels=("x" * 30, "x" * 40, "y"),
        series=(Series(name="s", values=(1.0, 2.0, 3.0)), Series(name="s", values=(1.0,) * 3)),
    )
    names = categories(twins)
    assert len(set(names)) == 3
    assert list(drawn(twins)) == ["s", "s (2)"]
    assert problems(Message(text="x", blocks=(chart_block(twins),))) == []


@pytest.mark.parametrize("values", [(), (None, None), (math.nan,)])
def test_a_chart_without_a_point_is_its_words(values: tuple[float | None, ...]) -> None:
    empty = a_chart(values)
    assert "It grows by 1 GB a day." in texts([chart_block(empty)])
    assert "It grows by 1 GB a day." in chart_text(empty)
    assert native([empty]) == ()


def test_a_message_has_two_charts_that_slack_draws_and_the_others_in_words() -> None:
    charts = [replace(a_chart((1.0, 2.0)), title=f"chart {n}") for n in range(4)]
    message = answer_message(Answer(title="t", charts=tuple(charts)))
    assert [block["type"] for block in message.blocks].count("data_visualization") == 2
    assert message.charts == tuple(charts[:2])
    assert "chart 3" in texts(message.blocks)
    assert problems(message) == []


def test_a_message_that_is_cut_remembers_only_charts_that_it_shows() -> None:
    answer = Answer(title="t", facts=((str(1), "x"),) * 600, charts=(a_chart((1.0, 2.0)),))
    assert answer_message(answer).charts == ()


def test_the_words_of_a_chart_hold_its_ends_and_end_no_code_block() -> None:
    chart = replace(
        a_chart(tuple(float(n) for n in range(100))), labels=("```",) + ("x",) * 99, alt="<!here>"
    )
    words = chart_text(chart)
    assert words.count("```") == 2
    assert "<!here>" not in words
    assert "99" in words


def test_who_hears_a_message_hears_what_its_chart_says() -> None:
    message = answer_message(Answer(title="t", charts=(a_chart((1.0, 2.0)),)))
    assert "Size of orders: It grows by 1 GB a day." in message.text


numbers = st.none() | st.floats(-1e18, 1e18) | st.just(math.inf)
names = st.text(max_size=3) | st.text(min_size=50, max_size=60)


@st.composite
def any_chart(draw: st.DrawFn) -> Chart:
    count = draw(st.integers(0, 30))
    series = draw(
        st.lists(
            st.builds(
                Series, name=names, values=st.tuples(*[numbers] * count), role=st.sampled_from(Role)
            ),
            max_size=8,
        )
    )
    labels = tuple(draw(st.lists(names, min_size=count, max_size=count)))
    return Chart(
        title=draw(names), kind=draw(st.sampled_from(ChartKind)), labels=labels,
        series=tuple(series), alt=draw(names), unit=draw(names),
    )  # fmt: skip


@given(charts=st.lists(any_chart(), max_size=3))
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_slack_takes_whatever_a_chart_holds(charts: list[Chart]) -> None:
    assert problems(Message(text="x", blocks=tuple(chart_blocks(charts)))) == []
