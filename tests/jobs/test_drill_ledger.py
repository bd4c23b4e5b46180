"""What a drill cost, by its ledger, and what its parts say of a look at the servers. Pure."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.cluster_settings import DrillKind
from jobs.drill_hands import DrillOrder, _is_missed, began, is_new
from jobs.drill_ledger import (
    KEPT,
    _sweep,
    cost_from,
    cost_json,
    cost_of,
    cost_of_standby,
    cost_text,
)
from jobs.drill_reporting import with_trouble
from jobs.drill_verdict import finished
from jobs.drill_words import Cost, DrillEnd
from postgres.cluster.loss import GAP_SECONDS, Loss
from postgres.cluster.words import ClusterKind, ClusterSeen, NodeSeen
from tests.jobs.cluster_pictures import BEGAN, away, primary, standby
from tests.jobs.drill_samples import COST, FULL

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
COUNTS = st.integers(0, 10_000)
SECONDS = st.floats(0, 3600)
COSTS = st.builds(
    Cost, acknowledged=COUNTS, lost=COUNTS, ambiguous=COUNTS, rpo_seconds=SECONDS,
    heartbeat_seconds=st.none() | SECONDS, write_gap_seconds=SECONDS,
    rto_seconds=st.none() | SECONDS, is_exact=st.booleans(),
)  # fmt: skip


@st.composite
def losses(draw: st.DrawFn) -> Loss:
    """Whatever a ledger may say: no row lost means no time lost."""
    lost = draw(COUNTS)
    return Loss(
        acknowledged=lost + draw(COUNTS), lost=lost, ambiguous=draw(COUNTS), failed=0, local=0,
        lost_local=0, rpo_seconds=draw(SECONDS) if lost else 0.0, heartbeat_seconds=None,
        write_gap_seconds=draw(SECONDS), blind_seconds=draw(st.sampled_from([0.0, 2.5])),
        rto_seconds=draw(st.none() | SECONDS), first_ack_at=None, server="", gaps=(),
    )  # fmt: skip


@given(losses())
def test_a_cost_says_what_the_ledger_says(loss: Loss) -> None:
    cost = cost_of(loss)
    assert (cost.acknowledged, cost.lost, cost.ambiguous) == (
        loss.acknowledged,
        loss.lost,
        loss.ambiguous,
    )
    assert (cost.rpo_seconds, cost.rto_seconds) == (loss.rpo_seconds, loss.rto_seconds)
    assert cost.is_exact is (loss.blind_seconds == 0)


@given(losses(), COUNTS, COUNTS)
def test_what_was_lost_on_the_way_there_is_not_lost_again_on_the_way_back(
    there: Loss, more: int, acknowledged: int
) -> None:
    before = cost_of(there)
    rpo = there.rpo_seconds + (1.0 if more else 0.0)
    whole = replace(
        there,
        acknowledged=there.acknowledged + more + acknowledged,
        lost=there.lost + more,
        rpo_seconds=rpo,
    )
    back = cost_of(whole, before)
    assert back.lost == more
    assert back.ambiguous == 0
    assert back.rpo_seconds == (rpo if more else 0.0)
    assert back.acknowledged == whole.acknowledged


@given(COSTS)
def test_the_loss_of_a_standby_costs_as_long_as_writes_paused(cost: Cost) -> None:
    found = cost_of_standby(cost)
    paused = cost.write_gap_seconds if cost.write_gap_seconds >= GAP_SECONDS else 0.0
    assert found == replace(cost, rto_seconds=paused)


@given(st.none() | COSTS)
def test_a_cost_comes_back_as_it_was_kept(cost: Cost | None) -> None:
    assert cost_from({"cost": cost_json(cost)}) == cost


def test_what_nobody_knows_is_said_and_not_zero() -> None:
    assert cost_text(None, "It was elsewhere.") == "It was elsewhere."
    assert cost_text(None, "") == "Nobody can tell what was lost"
    assert cost_text(COST, "").startswith("0 of 1,200 acknowledged rows lost, RPO 0.00 s")


def test_what_an_old_drill_left_is_swept_and_mine_and_new_ones_are_not(tmp_path: Path) -> None:
    old = time.time() - KEPT.total_seconds() - 60
    for name in ("ledger-run-1", "ledger-run-2", "ledger-run-3", "run-1-1"):
        (tmp_path / name).mkdir()
    for name in ("ledger-run-1", "ledger-run-3", "run-1-1"):
        os.utime(tmp_path / name, (old, old))
    _sweep(tmp_path / "ledger-run-3")
    assert {each.name for each in tmp_path.iterdir()} == {
        "ledger-run-2",
        "ledger-run-3",
        "run-1-1",
    }


# Looks at the servers while a drill waits.

AGAIN = BEGAN + timedelta(days=1)
STARTED = {each.name: began(each) for each in (primary("east"), standby("west"))}


def order(kind: DrillKind) -> DrillOrder:
    return DrillOrder(kind=kind, leader="east", candidate="west", victim="east", back=True)


def seen(*nodes: NodeSeen) -> ClusterSeen:
    return ClusterSeen(at=NOON, kind=ClusterKind.PATRONI, nodes=nodes)


OTHER = seen(away("east"), primary("west"))
IN_PLACE = seen(primary("east", started_at=AGAIN), standby("west"))
UNTOUCHED = seen(primary("east"), standby("west"))
NOBODY = seen(away("east"), standby("west"))
BOTH = seen(primary("east", started_at=AGAIN), primary("west"))


@pytest.mark.parametrize(
    ("kind", "picture", "new"),
    [
        (DrillKind.PRIMARY_CRASH, OTHER, True),
        (DrillKind.HOST_LOSS, OTHER, True),
        (DrillKind.NETWORK_SPLIT, OTHER, True),
        # An agent that started its crashed server again; whose host is lost has none.
        (DrillKind.PRIMARY_CRASH, IN_PLACE, True),
        (DrillKind.HOST_LOSS, IN_PLACE, False),
        (DrillKind.NETWORK_SPLIT, IN_PLACE, False),
        *(
            (kind, picture, False)
            for kind in (DrillKind.PRIMARY_CRASH, DrillKind.HOST_LOSS, DrillKind.NETWORK_SPLIT)
            for picture in (UNTOUCHED, NOBODY, BOTH)
        ),
    ],
)
def test_one_is_new_that_alone_took_writes_since_the_fault(
    kind: DrillKind, picture: ClusterSeen, *, new: bool
) -> None:
    assert is_new(picture, order(kind), STARTED) is new


@pytest.mark.parametrize(
    ("picture", "missed"),
    [
        (OTHER, True), (IN_PLACE, True), (NOBODY, True), (BOTH, True), (UNTOUCHED, False),
        (seen(standby("west")), True),
    ],
)  # fmt: skip
def test_one_is_missed_that_does_not_answer_or_began_anew(
    picture: ClusterSeen, *, missed: bool
) -> None:
    assert _is_missed(picture, order(DrillKind.PRIMARY_CRASH), STARTED) is missed


# The report of a drill in which something went wrong.


@given(st.lists(st.text(min_size=1, max_size=8), max_size=4), st.sampled_from(["", "Ana did"]))
def test_where_something_went_wrong_it_has_not_passed(trouble: list[str], stopped: str) -> None:
    report = with_trouble(finished(FULL, stopped=stopped), tuple(trouble))
    assert (report.end is DrillEnd.PASSED) is (not trouble and not stopped)
    assert (report.end is DrillEnd.ABORTED) is bool(stopped)
    assert set(trouble) <= set(report.missed)
    assert len(set(report.missed)) == len(report.missed)
    if stopped:
        assert report.missed[0] == stopped  # first who stopped it
    elif trouble:
        assert report.missed[0] == trouble[0]  # first what went wrong


def test_what_went_wrong_stands_before_what_was_missed_by_it() -> None:
    missed = replace(FULL, is_connected=False, connectivity="Nobody answers.")
    report = with_trouble(finished(missed), ("east does not come back.",))
    assert report.end is DrillEnd.FAILED
    assert report.missed[0] == "east does not come back."
    assert len(report.missed) > 1
