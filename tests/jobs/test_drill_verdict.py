"""A drill passes only when everything that it should prove is known, and as it should be."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from jobs.cluster_settings import DrillKind
from jobs.drill_report import finished, missed
from jobs.drill_verdict import DIFFERENCES_MAX, seconds_text
from jobs.drill_words import Cost, Difference, DrillEnd, DrillReport, Phase
from tests.jobs.drill_samples import BACK, COST, FULL, TIMES, moments

NAN = float("nan")
TTL = Difference(name="ttl", before="20", after="")


def lacking(phase: Phase) -> DrillReport:
    times = {each: at for each, at in TIMES.items() if each is not phase}
    return replace(FULL, moments=moments(times))


def cost(**changes: Any) -> Cost:
    return replace(COST, **changes)


@pytest.mark.parametrize("kind", DrillKind)
@pytest.mark.parametrize("rpo_limit", [0, 60])
def test_a_drill_that_has_proven_all_passes(kind: DrillKind, rpo_limit: float) -> None:
    draft = replace(
        FULL, kind=kind, rpo_limit_seconds=rpo_limit, end=DrillEnd.FAILED, missed=("a draft",)
    )
    done = finished(draft)
    assert (done.end, done.missed) == (DrillEnd.PASSED, ())
    assert done == replace(draft, end=DrillEnd.PASSED, missed=())


@pytest.mark.parametrize(
    ("report", "sentence"),
    [
        (replace(FULL, is_connected=False, connectivity="no route to 10.0.0.9."),
         "Applications do not connect: no route to 10.0.0.9."),
        (replace(FULL, is_connected=False, connectivity=""), "Applications do not connect."),
        (replace(FULL, cost=None),
         "How much was lost is not known: no acknowledged row was counted."),
        (replace(FULL, cost=None),
         "After how long writes were possible again is not known."),
        (replace(FULL, cost=cost(acknowledged=0)),
         "How much was lost is not known: no acknowledged row was counted."),
        (replace(FULL, cost=cost(lost=412, rpo_seconds=61.5)),
         "412 acknowledged rows lost, of 1 min 1 s: it must be less than 1 min."),
        (replace(FULL, cost=cost(lost=412, rpo_seconds=60.0)),
         "412 acknowledged rows lost, of 1 min: it must be less than 1 min."),
        (replace(FULL, rpo_limit_seconds=0, cost=cost(lost=1, rpo_seconds=0.0)),
         "1 acknowledged row lost, where none may be."),
        (replace(FULL, cost=cost(lost=1201, rpo_seconds=1.0)),
         "How much was lost is not known: the ledger contradicts itself."),
        (replace(FULL, cost=cost(lost=-1)),
         "How much was lost is not known: the ledger contradicts itself."),
        (replace(FULL, cost=cost(rto_seconds=None)),
         "After how long writes were possible again is not known."),
        (replace(FULL, cost=cost(rto_seconds=NAN)),
         "After how long writes were possible again is not known."),
        (replace(FULL, cost=cost(rto_seconds=901.0)),
         "Writes were possible again after 15 min 1 s, and 15 min are allowed."),
        (replace(FULL, is_redundant=False),
         "Redundancy is not back: not every server streams again."),
        (replace(FULL, differences=(TTL,)),
         "The configuration is not as before: ttl was 20, is not set."),
        (lacking(Phase.COMPARED),
         "Whether the configuration is as before is not known: it was not compared."),
        (lacking(Phase.INJECTED), "Nothing was broken, so nothing is proven."),
        (replace(FULL, is_switched_back=False, primary_after="west"),
         "east was to be the primary again, and west is."),
        (replace(FULL, is_switched_back=False, primary_after=""),
         "east was to be the primary again, and nobody is."),
        (replace(FULL, cost_back=None),
         "How much was lost in the switch back is not known: no acknowledged row was counted."),
        (replace(FULL, cost_back=replace(BACK, lost=3, rpo_seconds=60.5)),
         "3 acknowledged rows lost in the switch back, of 1 min: it must be less than 1 min."),
        (replace(FULL, rpo_limit_seconds=0, cost_back=replace(BACK, lost=3, rpo_seconds=0.1)),
         "3 acknowledged rows lost in the switch back, where none may be."),
    ],
)  # fmt: skip
def test_what_is_missed_is_said_with_its_figures(report: DrillReport, sentence: str) -> None:
    assert sentence in missed(report)
    assert finished(report).end is DrillEnd.FAILED
    assert finished(report).missed == missed(report)


def test_all_that_is_missed_is_said_the_least_of_it_too() -> None:
    bad = replace(
        FULL, is_connected=False, cost=None, is_redundant=False, differences=(TTL,),
        is_switched_back=False, cost_back=None,
    )  # fmt: skip
    assert len(missed(bad)) == 6


def test_many_differences_are_counted() -> None:
    many = tuple(replace(TTL, name=f"s{number}") for number in range(DIFFERENCES_MAX + 3))
    [said] = missed(replace(FULL, differences=many))
    assert said.endswith("; and 3 more.")
    assert said.count(" was 20") == DIFFERENCES_MAX


@pytest.mark.parametrize("rto", [0.0, 900.0])
def test_the_limit_of_the_rto_itself_is_allowed(rto: float) -> None:
    assert missed(replace(FULL, cost=cost(rto_seconds=rto))) == ()


def test_rows_within_the_limit_may_be_lost() -> None:
    assert missed(replace(FULL, cost=cost(lost=400, rpo_seconds=59.9))) == ()


def test_where_nothing_was_to_be_switched_back_nothing_is_missed() -> None:
    assert missed(replace(FULL, is_switched_back=None, cost_back=None)) == ()


def test_a_restore_elsewhere_leaves_the_cluster_alone() -> None:
    restored = replace(
        FULL, kind=DrillKind.RESTORE, is_redundant=False, is_switched_back=None, cost_back=None,
        moments=moments({Phase.ANNOUNCED: 0, Phase.CONNECTED: 60, Phase.MEASURED: 70}),
    )  # fmt: skip
    assert missed(restored) == ()
    assert missed(replace(restored, cost=None))


def test_a_drill_that_was_stopped_is_aborted_however_it_looks() -> None:
    done = finished(FULL, stopped="Ana stopped it.")
    assert (done.end, done.missed) == (DrillEnd.ABORTED, ("Ana stopped it.",))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0 s"), (0.0841, "0.0841 s"), (12.345, "12.3 s"), (60, "1 min"), (125, "2 min 5 s")],
)
def test_spans_are_said_to_three_digits(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


_SECONDS = st.one_of(
    st.floats(min_value=0, max_value=2000), st.sampled_from([0.0, 60.0, 900.0]), st.just(NAN)
)
COSTS = st.builds(
    Cost,
    acknowledged=st.sampled_from([0, 1, 1200]),
    lost=st.sampled_from([0, 0, 0, 1, 400]),
    ambiguous=st.integers(0, 9),
    rpo_seconds=st.one_of(st.just(0.0), _SECONDS),
    heartbeat_seconds=st.none() | _SECONDS,
    write_gap_seconds=_SECONDS,
    rto_seconds=st.one_of(st.floats(min_value=0, max_value=100), st.none(), _SECONDS),
    is_exact=st.booleans(),
)


@st.composite
def reports(draw: st.DrawFn) -> DrillReport:
    """A good drill of which some things are otherwise: so that many pass."""
    strategies: dict[str, st.SearchStrategy[Any]] = {
        "kind": st.sampled_from(DrillKind),
        "cost": st.none() | COSTS,
        "cost_back": st.none() | COSTS,
        "rpo_limit_seconds": st.sampled_from([0, 60]),
        "is_connected": st.booleans(),
        "is_redundant": st.booleans(),
        "is_switched_back": st.sampled_from([None, True, False]),
        "differences": st.sampled_from([(), (TTL,)]),
        "moments": st.sets(st.sampled_from(Phase)).map(
            lambda left: moments({each: at for each, at in TIMES.items() if each not in left})
        ),
    }
    changed = draw(st.sets(st.sampled_from(sorted(strategies)), max_size=3))
    return replace(FULL, **{name: draw(strategies[name]) for name in sorted(changed)})


@given(reports())
def test_no_drill_passes_that_has_lost_more_than_it_may_or_nobody_knows(
    report: DrillReport,
) -> None:
    passed = finished(report).end is DrillEnd.PASSED
    assert passed == (finished(report).missed == ())
    assume(passed)
    costs = [report.cost] + ([report.cost_back] if report.is_switched_back else [])
    for each in costs:
        assert each is not None
        assert each.acknowledged > 0
        if report.rpo_limit_seconds == 0:
            assert each.lost == 0
        assert each.rpo_seconds < (report.rpo_limit_seconds or 1e-9)
    assert report.cost is not None
    assert report.cost.rto_seconds is not None
    assert report.cost.rto_seconds <= report.rto_limit_seconds
    assert report.is_connected
    assert report.is_switched_back is not False
    if report.kind is not DrillKind.RESTORE:
        assert report.is_redundant
        assert not report.differences
    if report.kind not in {DrillKind.SWITCHOVER, DrillKind.RESTORE}:
        assert report.at(Phase.INJECTED)


@given(reports(), COSTS)
def test_losing_more_never_makes_a_drill_pass(report: DrillReport, worse: Cost) -> None:
    assume(report.cost is not None and missed(report))
    assert report.cost is not None
    grown = replace(
        report.cost,
        lost=report.cost.lost + abs(worse.lost),
        rpo_seconds=report.cost.rpo_seconds + 1,
    )
    assert missed(replace(report, cost=grown))


def test_every_field_of_a_cost_that_decides_is_drawn() -> None:
    # A new one must be judged, or it says here that it does not decide.
    assert {each.name for each in fields(Cost)} == {
        "acknowledged", "lost", "ambiguous", "rpo_seconds", "heartbeat_seconds",
        "write_gap_seconds", "rto_seconds", "is_exact",
    }  # fmt: skip
