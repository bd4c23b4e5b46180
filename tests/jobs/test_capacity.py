"""When a volume is full, what grows, and what to do, from what the store keeps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest

from jobs.capacity import CapacityReport, Check, Growing, Refusal, Scope, forecast_of
from jobs.capacity_words import advice, chart, check_text, headline, reasons, unit_of
from jobs.drawing import Role
from jobs.forecast import Full
from jobs.health_settings import MonitoringSettings, Volume
from store.connect import Store
from store.sizes import DATABASE, VOLUME, VOLUME_TOTAL, WAL, Size, record_sizes
from tests.commands.conftest import NOW
from tests.jobs.test_forecast import straight
from tests.jobs.test_timetable import a_database

GB = 2**30
TODAY = NOW.date()
ORDERS = a_database()
BOUGHT = replace(ORDERS, monitoring=MonitoringSettings(volume=Volume(total_bytes=200 * GB)))

Sizes = Callable[[int], dict[str, int]]


async def stored(store: Store, days: int, of_day: Sizes, *, until: date = TODAY) -> None:
    """What is kept for the last `days` days; `of_day` gets the number of the day."""
    async with store.begin() as conn:
        for number in range(days):
            day = until - timedelta(days=days - 1 - number)
            found = {what: Size(bytes=size) for what, size in of_day(number).items()}
            await record_sizes(conn, "orders", day, found)


async def report(store: Store, database: Any = ORDERS) -> CapacityReport:
    async with store.begin() as conn:
        found = await forecast_of(conn, database, NOW)
    assert isinstance(found, CapacityReport), found
    return found


async def refusal(store: Store) -> Refusal:
    async with store.begin() as conn:
        found = await forecast_of(conn, ORDERS, NOW)
    assert isinstance(found, Refusal)
    return found


def growing(number: int) -> int:
    """100 GB and 0.3 GB a day."""
    return round(straight()[number])


async def test_without_a_volume_the_databases_alone_are_told_and_it_says_so(store: Store) -> None:
    await stored(store, 90, lambda n: {DATABASE: growing(n)})
    found = await report(store)
    assert found.scope is Scope.DATABASE
    assert found.days_until_full is None
    assert headline(found).startswith("The databases are 127 GB and will be about 23")
    assert "365 days (rough)" in headline(found)
    assert any("how large the volume is" in line for line in advice(found))


async def test_a_volume_is_forecast_with_all_that_is_on_it(store: Store) -> None:
    await stored(
        store, 90,
        lambda n: {DATABASE: growing(n) // 2, VOLUME: growing(n), VOLUME_TOTAL: 157 * GB},
    )  # fmt: skip
    found = await report(store)
    assert found.scope is Scope.VOLUME
    assert found.usage == pytest.approx(0.81, abs=0.01)
    assert found.days_until_full == pytest.approx(95, abs=8)
    assert "The volume is 81% full: 127 GB of 157 GB. Full in about 10" in headline(found)


async def test_the_database_and_its_wal_fill_a_volume_that_was_bought(store: Store) -> None:
    await stored(store, 90, lambda n: {DATABASE: growing(n), WAL: 10 * GB})
    found = await report(store, BOUGHT)
    assert (found.scope, found.total) == (Scope.DATABASE_ON_VOLUME, 200 * GB)
    assert found.forecast.size == pytest.approx(137 * GB, rel=0.01)


async def test_a_volume_that_is_looked_at_since_yesterday_does_not_hide_the_databases(
    store: Store,
) -> None:
    await stored(store, 90, lambda n: {DATABASE: growing(n)})
    await stored(store, 2, lambda _: {VOLUME: 150 * GB, VOLUME_TOTAL: 200 * GB})
    found = await report(store)
    assert (found.scope, found.total) == (Scope.DATABASE_ON_VOLUME, 200 * GB)


async def test_too_few_days_are_refused_and_it_says_from_when_on(store: Store) -> None:
    await stored(store, 10, lambda n: {DATABASE: growing(n)})
    found = await refusal(store)
    assert "measured on 10 days, and a forecast needs 14" in found.problem
    assert found.from_day == TODAY + timedelta(days=4)
    assert "From 26 Nov 2026 on" in found.next_step


async def test_what_nobody_measured_has_no_forecast(store: Store) -> None:
    assert "no day" in (await refusal(store)).problem


async def test_old_sizes_are_no_ground_for_a_forecast(store: Store) -> None:
    old = TODAY - timedelta(days=5)
    await stored(store, 60, lambda n: {DATABASE: growing(n)}, until=old)
    found = await refusal(store)
    assert "last measured on 17 Nov 2026" in found.problem
    assert "/db health orders" in found.next_step


async def test_tables_are_told_by_their_share_of_the_growth_and_new_ones_by_name(
    store: Store,
) -> None:
    def of_day(number: int) -> dict[str, int]:
        tables = {"table public.events": (20 + number) * GB // 10, "table public.flat": GB}
        new = {"table public.audit_log": 2 * GB} if number > 70 else {}
        return {DATABASE: growing(number), **tables, **new}

    await stored(store, 90, of_day)
    found = await report(store)
    events = next(one for one in found.growing if one.name == "public.events")
    assert events.grown == 3 * GB
    assert events.share == pytest.approx(0.33, abs=0.02)
    assert not events.is_new
    assert [one.name for one in found.growing if one.is_new] == ["public.audit_log"]
    assert "public.flat" not in [one.name for one in found.growing]
    told = " ".join(advice(found))
    assert "archiving old rows of public.events: it is 33% of the growth (+3 GB" in told
    assert "New among the large ones: public.audit_log" in told


async def test_a_forecast_is_held_against_what_came(store: Store) -> None:
    await stored(store, 90, lambda n: {DATABASE: growing(n)})
    check = (await report(store)).check
    assert check is not None
    assert check.days == 30
    assert check.error < 0.01


def test_a_forecast_that_was_off_says_so() -> None:
    check = Check(days=30, low=90.0 * GB, mid=100.0 * GB, high=110.0 * GB, actual=200.0 * GB)
    assert check_text(check).endswith("50.0% off, outside its range.")


async def test_advice_says_by_when_and_by_how_much(store: Store) -> None:
    await stored(store, 90, lambda n: {DATABASE: growing(n)})
    found = await report(store, BOUGHT)
    lines = advice(found)
    assert lines[0].startswith("Current capacity is sufficient for 7 months.")
    # The upper end after a year, some 240 GB, is to be 80 % of what is there then.
    assert lines[1].startswith("Plan storage expansion before ")
    assert lines[1].endswith("by 200 GB.") or lines[1].endswith("by 100 GB.")


FULLS = [
    (Full(p10=None, p50=None, p90=None, share=0.0), "not full within 12 months", "12 months"),
    (Full(p10=300, p50=None, p90=None, share=0.3), "may be full from 18 Sep 2027", "9 months"),
    (Full(p10=20, p50=25, p90=31, share=1.0), "in about 25 days, on 17 Dec 2026", "now, by"),
    (Full(p10=0, p50=0, p90=0, share=1.0), "Nothing is left", "now, by"),
    (Full(p10=340, p50=364, p90=None, share=0.6), "364 days, rough", "11 months"),
]


@pytest.mark.parametrize(("full", "said", "to_do"), FULLS)
async def test_every_state_of_a_volume_has_its_words(
    store: Store, full: Full, said: str, to_do: str
) -> None:
    await stored(store, 90, lambda n: {DATABASE: growing(n)})
    found = await report(store, BOUGHT)
    changed = replace(found, forecast=replace(found.forecast, full=full))
    assert said in headline(changed)
    assert to_do in " ".join(advice(changed))


async def test_what_was_left_out_is_said(store: Store) -> None:
    await stored(store, 90, lambda n: {DATABASE: growing(n) - (20 * GB if n >= 50 else 0)})
    told = " ".join(reasons(await report(store)))
    assert "A jump of -20 GB on 14 Oct 2026 is left out of the trend" in told
    assert "It grows by about as much each day." in told


async def test_a_chart_goes_on_where_the_measured_line_ends(store: Store) -> None:
    await stored(store, 90, lambda n: {DATABASE: growing(n)})
    drawn = chart(await report(store, BOUGHT))
    by_role = {one.role: one for one in drawn.series}
    assert set(by_role) == set(Role)
    assert drawn.unit == "GB"
    measured, expected = by_role[Role.MEASURED].values, by_role[Role.EXPECTED].values
    today = drawn.labels.index("22 Nov 2026")
    assert measured[today] == expected[today]
    assert measured[today + 1] is None
    assert expected[today - 1] is None
    assert drawn.labels[-1] == "21 Nov 2027"


async def test_a_volume_far_above_does_not_flatten_the_chart(store: Store) -> None:
    await stored(store, 90, lambda n: {DATABASE: growing(n)})
    huge = replace(ORDERS, monitoring=MonitoringSettings(volume=Volume(total_bytes=2**45)))
    drawn = chart(await report(store, huge))
    assert Role.LIMIT not in {one.role for one in drawn.series}
    assert drawn.unit == "GB"


@pytest.mark.parametrize(
    ("size", "unit"), [(0, "B"), (2**10, "kB"), (2**30 - 1, "MB"), (2**50, "TB")]
)
def test_the_unit_of_a_size(size: float, unit: str) -> None:
    assert unit_of(size)[1] == unit


def test_growth_without_a_share_is_no_advice() -> None:
    from jobs.capacity_words import _archive

    one = Growing(name="t", bytes=5, grown=5, since=TODAY, is_new=False, share=None)
    assert list(_archive((one,))) == []
