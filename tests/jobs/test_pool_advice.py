"""How large pools should be: examples with the guide's figures, and what always holds."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.health_settings import AppPool
from jobs.pool_advice import Advice, Measured, advise, formula

WEEK = timedelta(days=7)
QUIET = Measured(
    usable=97, max_connections=100, now=20, span=WEEK, peak=40, peak_active=5, peak_waiting=0,
    peak_idle_in_transaction=0, idle_share=0.5,
)  # fmt: skip


def web(instances: int = 4, size: int = 20) -> AppPool:
    return AppPool(name="web", instances=instances, size=size)


def functions(instances: int, size: int = 15) -> AppPool:
    return AppPool(name="functions", instances=instances, size=size, is_serverless=True)


def told(*pools: AppPool, measured: Measured = QUIET, cores: int | None = 4) -> Advice:
    return advise(measured, pools, cores=cores, spindles=1)


def test_the_guides_formula() -> None:
    assert formula(4, 1) == 9
    assert formula(8, 0) == 16


@pytest.mark.parametrize(
    ("pools", "texts"),
    [
        ([web()], ["web: 4 x 20 = 80 -> 4 x 9 = 36"]),
        ([web(size=9)], ["web: 4 x 9 = 36, stays"]),
        ([web(size=3)], ["web: 4 x 3 = 12, stays"]),
        # 77 is 80 % of 97: 12 x 9 = 108 do not fit, 12 x 6 = 72 do.
        ([web(instances=12)], ["web: 12 x 20 = 240 -> 12 x 6 = 72"]),
        (
            [web(), replace(web(instances=10), name="jobs")],
            ["web: 4 x 20 = 80 -> 4 x 5 = 20", "jobs: 10 x 20 = 200 -> 10 x 5 = 50"],
        ),
        # One large pool gives way to many that are as small as can be.
        (
            [web(instances=70, size=1), replace(web(instances=1), name="jobs")],
            ["web: 70 x 1 = 70, stays", "jobs: 1 x 20 = 20 -> 1 x 7 = 7"],
        ),
        ([functions(3)], ["functions: 3 x 15 = 45, stays"]),
        ([functions(2, size=50)], ["functions: 2 x 50 = 100 -> 2 x 20 = 40"]),
        # Serverless to its lower end first, then the others get what is left.
        (
            [functions(6), web()],
            ["functions: 6 x 15 = 90 -> 6 x 10 = 60", "web: 4 x 20 = 80 -> 4 x 4 = 16"],
        ),
    ],
)
def test_each_pool_gets_a_line(pools: list[AppPool], texts: list[str]) -> None:
    advice = told(*pools)
    assert [each.text for each in advice.pools] == texts
    assert advice.after <= advice.budget == 77
    assert not advice.needs_pooler


def test_a_sum_above_the_slots_is_said_with_what_happens() -> None:
    [line] = told(web(instances=10)).findings
    assert "may open 200 connections" in line
    assert "refuses 103 of them" in line


def test_a_sum_above_the_alerts_threshold_is_said() -> None:
    [line] = told(web(instances=4)).findings
    assert "may take 82% of the 97 slots" in line


def test_serverless_that_cannot_fit_needs_a_pooler() -> None:
    advice = told(functions(200, size=10))
    assert advice.needs_pooler
    [pooler] = [line for line in advice.findings if "Serverless" in line]
    assert "2,000 connections with 200 instances, for 97 slots" in pooler
    assert "it opens about 9 to PostgreSQL" in pooler
    assert [each.size for each in advice.pools] == [10]


def test_more_instances_than_slots_need_a_pooler_too() -> None:
    advice = told(web(instances=300))
    assert advice.needs_pooler
    assert [each.size for each in advice.pools] == [1]
    assert any("more instances than slots" in line for line in advice.findings)


def test_behind_a_pooler_pools_take_no_slots_and_the_formula_is_the_poolers() -> None:
    measured = replace(QUIET, has_pooler=True, pooler_waiting=3, pooler_wait_s=90)
    advice = told(functions(200), web(), measured=measured)
    assert not advice.needs_pooler
    assert all(each.size == each.pool.size for each in advice.pools)
    assert "start with 9 connections to PostgreSQL in all" in advice.findings[0]
    assert "3 clients now in the pooler's queue, the first for 1 min 30 s" in advice.findings[1]


def test_a_pool_is_not_cut_below_what_was_at_work_at_once() -> None:
    advice = told(web(), measured=replace(QUIET, peak_active=40))
    [pool] = advice.pools
    assert pool.text == "web: 4 x 20 = 80 -> 4 x 12 = 48"
    assert any("Up to 40 connections were at work at once" in line for line in advice.findings)


@pytest.mark.parametrize(
    ("measured", "said"),
    [
        (replace(QUIET, peak=90), "93% of the slots were taken"),
        (replace(QUIET, peak_waiting=14), "Up to 14 waited at once"),
        (replace(QUIET, idle_share=0.85), "85% of the connections were idle on average"),
        (replace(QUIET, peak_idle_in_transaction=6), "Up to 6 were idle in a transaction"),
    ],
)
def test_what_was_measured_is_said(measured: Measured, said: str) -> None:
    [line] = told(measured=measured).findings
    assert said in line


def test_a_quiet_server_with_small_pools_has_nothing_to_say() -> None:
    advice = told(web(size=5))
    assert advice.findings == ()
    assert advice.unknown == ()


def test_without_cores_nothing_is_guessed() -> None:
    advice = told(web(), cores=None)
    assert advice.start is None
    assert [each.why for each in advice.pools] == ["so that all pools together fit"]
    assert any("monitoring: {cores: 8}" in line for line in advice.unknown)
    small = told(web(size=10), cores=None)
    assert [each.text for each in small.pools] == ["web: 4 x 10 = 40, stays"]


def test_what_is_not_known_is_said() -> None:
    nothing = Measured(usable=97, max_connections=100, now=1)
    assert len(told(measured=nothing, cores=None).unknown) == 3
    short = replace(QUIET, span=timedelta(hours=2))
    assert told(web(), measured=short).unknown == ("A whole week: peaks are of 2 h so far.",)


pools = st.lists(
    st.builds(
        AppPool,
        name=st.just("p"),
        instances=st.integers(1, 300),
        size=st.integers(1, 200),
        is_serverless=st.booleans(),
    ),
    max_size=5,
)


@given(
    pools=pools,
    usable=st.integers(1, 1000),
    cores=st.none() | st.integers(1, 128),
    active=st.floats(0, 500),
    has_pooler=st.booleans(),
)
def test_no_pool_ever_grows_or_is_empty_and_the_sum_fits_or_a_pooler_is_asked_for(
    pools: list[AppPool], usable: int, cores: int | None, active: float, *, has_pooler: bool
) -> None:
    measured = replace(QUIET, usable=usable, peak_active=active, has_pooler=has_pooler)
    advice = advise(measured, pools, cores=cores, spindles=1)
    assert all(1 <= each.size <= each.pool.size for each in advice.pools)
    assert advice.after <= advice.before
    least = sum(p.instances * (min(p.size, 10) if p.is_serverless else 1) for p in pools)
    assert advice.needs_pooler is (not has_pooler and least > advice.budget)
    assert has_pooler or advice.needs_pooler or advice.after <= advice.budget
