"""A drill beside earlier ones: only like with like, and which step became slower."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from jobs.cluster_settings import DrillKind
from jobs.drill_compare import MEDIAN_OF, compared, figures_text, sentences, took, trend
from jobs.drill_words import DrillEnd, DrillReport, Phase
from tests.jobs.drill_samples import COST, FULL, TIMES, moments

QUARTER = timedelta(days=91)


def past(number: int, *, rto: float | None = 12.25, gap: float = 11.5, slow: float = 0.0,
         kind: DrillKind = FULL.kind, end: DrillEnd = DrillEnd.PASSED) -> DrillReport:  # fmt: skip
    """`number` quarters ago; `slow`: seconds that the promotion, and all after it, came earlier."""
    began = FULL.started_at - number * QUARTER
    times = {
        phase: at - (slow if at >= TIMES[Phase.PROMOTED] else 0) for phase, at in TIMES.items()
    }  # fmt: skip
    return replace(
        FULL, request_id=FULL.request_id - number, started_at=began, kind=kind, end=end,
        ended_at=began + timedelta(seconds=82), moments=moments(times, since=began),
        cost=replace(COST, rto_seconds=rto, write_gap_seconds=gap),
    )  # fmt: skip


def test_the_first_of_its_kind_is_compared_with_nothing() -> None:
    found = compared(FULL, [])
    assert (found.last, found.counted, found.figures, found.slower) == (None, 0, (), ())


@pytest.mark.parametrize(
    "other",
    [
        past(1, kind=DrillKind.SWITCHOVER),
        past(1, end=DrillEnd.ABORTED),
        replace(past(1), database="billing"),
        past(-1),  # a later one
        FULL,
    ],
)
def test_only_like_drills_before_it_count(other: DrillReport) -> None:
    assert compared(FULL, [other]).last is None
    assert compared(FULL, [other, past(2)]).last == past(2)


def test_the_last_one_and_the_median_of_the_last_four_are_beside_it() -> None:
    earlier = [
        past(3, rto=20),
        past(1, rto=10),
        past(5, rto=1000),
        past(2, rto=14),
        past(4, rto=18),
    ]
    found = compared(FULL, earlier)
    assert (found.last, found.counted) == (past(1, rto=10), MEDIAN_OF)
    rto = found.figures[0]
    assert (rto.name, rto.now, rto.last, rto.median) == ("RTO", 12.25, 10, 16)
    assert figures_text(found).splitlines() == [
        "RTO 12.2 s, was 10 s (median of 4: 16 s)",
        "No writes 11.5 s, was 11.5 s (median of 4: 11.5 s)",
        "RPO 0 s, was 0 s (median of 4: 0 s)",
        "Redundancy 45 s, was 45 s (median of 4: 45 s)",
    ]


def test_a_drill_that_failed_counts_too_and_what_it_lacks_is_not_made_up() -> None:
    failed = replace(past(1, end=DrillEnd.FAILED), cost=None, moments=())
    found = compared(FULL, [failed, past(2, rto=9)])
    assert figures_text(found).splitlines()[0] == "RTO 12.2 s, was not known (median of 2: 9 s)"
    assert "Redundancy 45 s, was not known" in figures_text(found)
    assert found.slower == ()


def test_the_step_that_became_slower_is_named() -> None:
    found = compared(FULL, [past(1, slow=5)])
    assert [(each.phase, each.seconds, each.before) for each in found.slower] == [
        (Phase.PROMOTED, 9, 4)
    ]
    assert list(sentences(found)) == [
        "Slower than last time: until promoted it took 9 s, and 4 s then."
    ]


@pytest.mark.parametrize("slow", [0.0, 0.9, -5.0])
def test_a_little_slower_is_not_slower(slow: float) -> None:
    assert compared(FULL, [past(1, slow=slow)]).slower == ()


def test_how_long_each_took_is_in_the_order_of_time() -> None:
    shuffled = replace(FULL, moments=tuple(reversed(FULL.moments)))
    found = [(moment.phase, span.total_seconds()) for moment, span in took(shuffled)]
    assert found[:4] == [
        (Phase.ANNOUNCED, 0), (Phase.CHECKED, 8), (Phase.WRITING, 12), (Phase.INJECTED, 10),
    ]  # fmt: skip
    assert sum(span for _, span in found) == 82


def test_a_trend_needs_two_drills_that_were_measured() -> None:
    assert trend([FULL]) is None
    assert trend([FULL, replace(past(1), cost=None)]) is None
    assert trend([FULL, past(1, end=DrillEnd.ABORTED)]) is None
    chart = trend([FULL, past(2, rto=None), past(1, rto=9, gap=8)])
    assert chart is not None
    assert chart.labels == ("2026-05-24", "2026-08-23", "2026-11-22")
    assert [(each.name, each.values) for each in chart.series] == [
        ("RTO", (None, 9, 12.25)), ("No writes", (11.5, 8, 11.5)),
    ]  # fmt: skip
    assert chart.alt == (
        "3 drills from 2026-05-24 to 2026-11-22: RTO from not known to 12.2 s;"
        " No writes from 11.5 s to 11.5 s."
    )
