"""The pictures of a digest: the load against before, and storage with what is expected of it."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from jobs.digest import Period
from jobs.digest_charts import LoadPoint, charts

NOW = datetime(2026, 11, 22, 8, 30, tzinfo=UTC)
GIB, HOUR, DAY = 2**30, timedelta(hours=1), timedelta(days=1)


def hours(count: int, qps: float = 100.0) -> list[LoadPoint]:
    last = datetime(2026, 11, 22, 8, tzinfo=UTC)
    return [(last - number * HOUR, qps + number) for number in range(count)][::-1]


def growing(days: int, start: int = 100) -> dict[date, int]:
    return {
        NOW.date() - (days - 1 - number) * DAY: (start + number) * GIB for number in range(days)
    }


def test_a_day_shows_its_load_above_the_day_before() -> None:
    (chart,) = charts(hours(48), {}, Period.DAILY, NOW)
    now, before = chart.series
    assert len(chart.labels) == len(now.values) == len(before.values) == 24
    assert chart.labels[0] == "09:00"
    assert chart.labels[-1] == "08:00"
    assert (now.values[-1], before.values[-1]) == (100.0, 124.0)
    assert chart.alt == (
        "Queries per second in the last 24 hours: 112 on average; the 24 hours before 136."
    )


def test_without_a_day_before_there_is_one_line() -> None:
    (chart,) = charts(hours(20), {}, Period.DAILY, NOW)
    assert [series.name for series in chart.series] == ["last 24 hours"]
    assert chart.series[0].values[0] is None


def test_too_little_to_draw_is_no_chart() -> None:
    assert charts(hours(2), {}, Period.DAILY, NOW) == ()
    assert charts([], {"orders": growing(2)}, Period.WEEKLY, NOW) == ()


def test_a_week_shows_storage_with_what_is_expected() -> None:
    (chart,) = charts([], {"orders": growing(84), "billing": growing(84)}, Period.WEEKLY, NOW)
    measured, expected, low, high = chart.series
    assert low.values[-1] < expected.values[-1] < high.values[-1]
    assert len(chart.labels) == 20
    assert (chart.unit, chart.labels[11], chart.labels[-1]) == ("GB", "22 Nov", "17 Jan")
    assert measured.values[11] == expected.values[11] == 366
    assert measured.values[12] is None
    last = expected.values[-1]
    assert last is not None
    assert 366 + 2 * 50 < last < 366 + 2 * 62
    assert chart.alt.startswith("Storage: 366 GB now, about 4")


def test_a_database_that_is_not_measured_for_a_day_is_as_large_as_before() -> None:
    holed = growing(30)
    del holed[NOW.date()]
    (chart,) = charts([], {"orders": growing(30), "billing": holed}, Period.WEEKLY, NOW)
    assert chart.series[0].values[4] == 129 + 128


def test_a_short_history_has_no_forecast() -> None:
    (chart,) = charts([], {"orders": growing(10)}, Period.WEEKLY, NOW)
    assert [series.name for series in chart.series] == ["measured"]
    assert len(chart.labels) == 10
    assert chart.alt.endswith("There is too little history for a forecast.")


def test_a_week_has_both_pictures_storage_first() -> None:
    days: list[LoadPoint] = [
        (datetime(2026, 11, 22, tzinfo=UTC) - number * DAY, 50.0) for number in range(14)
    ]
    storage, load = charts(days, {"orders": growing(60)}, Period.WEEKLY, NOW)
    assert storage.title == "Storage, expected from 22 Nov on"
    assert load.labels == ("Mon 16", "Tue 17", "Wed 18", "Thu 19", "Fri 20", "Sat 21", "Sun 22")
