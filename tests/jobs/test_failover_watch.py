"""Promotions by what two looks saw: which, when, from whom to whom, and whether it was ours."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobs.cluster_look import cluster_row
from jobs.failover_watch import (
    Begun,
    Picture,
    Primary,
    begun,
    follow,
    lost_time,
    picture_of,
    primary_json,
    remembered,
    with_causes,
)
from postgres.cluster.words import NodeSeen, Promotion
from store.cluster_events import ClusterEvent, ClusterRun
from tests.jobs.alert_world import orders
from tests.jobs.cluster_pictures import away, clustered, primary, promoted, standby

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
ORDERS = clustered(orders())


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def looks(
    *pictures: tuple[NodeSeen, ...], history: tuple[Begun, ...] = (), before: Primary | None = None
) -> tuple[Primary | None, list[ClusterEvent]]:
    """Looks of every half minute from noon; `history` is what the last one was told."""
    found: list[ClusterEvent] = []
    for number, nodes in enumerate(pictures):
        is_last = number == len(pictures) - 1
        row = cluster_row(
            ORDERS, nodes, at=at(30 * number), worker="w", history=history if is_last else ()
        )
        before, events = follow(before, picture_of(row.detail, row.at), database="orders")
        before = remembered({"last_primary": primary_json(before)})
        found += events
    return before, found


WELL = (primary(), standby())
NOBODY = (away("east"), standby())
AFTER = (away("east"), promoted())


def test_a_promotion_is_found_by_its_timeline_with_the_looks_around_it() -> None:
    last, [event] = looks(WELL, WELL, NOBODY, NOBODY, AFTER)
    assert event == ClusterEvent(
        database="orders", system="77", timeline=4, old_node="east", new_node="west",
        old_at=at(30), silent_at=at(60), at=at(120),
    )  # fmt: skip
    assert lost_time(event) == (timedelta(seconds=60), timedelta(seconds=90))
    assert last == Primary(name="west", system="77", timeline=4, at=at(120))


def test_the_history_says_when_it_was_and_so_narrows_what_was_lost() -> None:
    told = Begun(timeline=4, at=at(75), node="west")
    _, [event] = looks(WELL, WELL, NOBODY, AFTER, history=(told,))
    assert event.promoted_at == at(75)
    assert lost_time(event) == (timedelta(seconds=15), timedelta(seconds=45))


@pytest.mark.parametrize("when", [at(-3600), at(3600), None])
def test_a_clock_that_is_wrong_narrows_nothing(when: datetime | None) -> None:
    _, [event] = looks(WELL, AFTER, history=(Begun(timeline=4, at=when),))
    assert event.promoted_at is None
    assert lost_time(event) == (timedelta(0), timedelta(seconds=30))


@pytest.mark.parametrize(
    ("says", "pictures"),
    [
        ("the first look", (AFTER,)),
        ("well", (WELL, WELL)),
        ("a restart", (WELL, NOBODY, WELL)),
        ("seen before", (WELL, NOBODY, NOBODY)),
        ("another cluster", (WELL, (primary("west", timeline=9, system_identifier="78"),))),
        ("restored to an older timeline", (AFTER, (away("east"), primary("west", timeline=2)))),
        ("a timeline that nobody told", (WELL, (primary(timeline=None), standby()))),
    ],
)
def test_what_is_no_promotion(says: str, pictures: tuple[tuple[NodeSeen, ...], ...]) -> None:
    assert looks(*pictures)[1] == [], says


def test_it_is_found_once_though_the_old_primary_comes_back() -> None:
    alone = (primary(), away())  # what was promoted is away, and the old one takes writes
    last, events = looks(WELL, AFTER, alone, (primary(), promoted()), AFTER)
    assert [each.timeline for each in events] == [4]
    assert last is not None
    assert (last.name, last.timeline) == ("west", 4)


def test_a_second_primary_is_a_promotion_too() -> None:
    _, [event] = looks(WELL, (primary(), promoted()))
    assert (event.old_node, event.new_node) == ("east", "west")


def test_a_system_that_is_hidden_keeps_nothing_from_being_found() -> None:
    _, events = looks(WELL, (away("east"), promoted_with(system_identifier="")))
    assert len(events) == 1


def promoted_with(**changes: Any) -> NodeSeen:
    return replace(promoted(), **changes)


def test_two_between_two_looks_are_two_where_the_history_knows_both() -> None:
    there_and_back = (primary(timeline=5), standby())
    told = (Begun(timeline=4, at=at(10), node="west"), Begun(timeline=5, at=at(20), node="east"))
    _, events = looks(WELL, there_and_back, history=told)
    assert [(each.timeline, each.old_node, each.new_node) for each in events] == [
        (4, "east", "west"), (5, "west", "east"),
    ]  # fmt: skip
    _, [alone] = looks(WELL, there_and_back)
    assert alone.timeline == 5


def test_an_older_picture_than_what_is_stored_says_nothing() -> None:
    stored = Primary(name="west", system="77", timeline=4, at=at(600))
    assert looks(WELL, AFTER, before=stored) == (stored, [])


def test_what_cannot_be_read_was_not_seen() -> None:
    assert picture_of({"nodes": None, "history": "?"}, NOON) == Picture(at=NOON, primary=None)
    assert remembered({"last_primary": {"name": "east"}}) is None


def test_a_history_that_is_not_written_yet_tells_nothing() -> None:
    assert begun([], 2) == ()


def test_a_history_says_which_timelines_ended_and_so_which_began() -> None:
    ended = (
        Promotion(timeline=2, lsn=9, at=at(9), leader="east"),
        Promotion(timeline=1, lsn=5, at=at(5), leader="west"),
        Promotion(timeline=7, lsn=5),  # newer than what is looked at
    )
    assert begun(ended, 4) == (
        Begun(timeline=2, at=at(5), node="west"), Begun(timeline=4, at=at(9), node="east"),
    )  # fmt: skip


FAILOVER = ClusterEvent(
    database="orders", system="77", timeline=4, old_node="east", new_node="west",
    old_at=at(30), at=at(60),
)  # fmt: skip


def a_run(operation: str = "failover", **changes: Any) -> ClusterRun:
    usual = ClusterRun(
        request_id=12, operation=operation, params={}, started_at=at(40), ended_at=at(50),
        plan=json.dumps({"pins": {"candidate": "west"}}),
    )  # fmt: skip
    return replace(usual, **changes)


@pytest.mark.parametrize(
    ("run", "is_ours"),
    [
        (a_run(), True),
        (a_run(started_at=at(-600), ended_at=None), True),
        (a_run(started_at=at(62)), True),  # another machine's clock
        (a_run(started_at=at(90), ended_at=None), False),
        (a_run(started_at=at(0), ended_at=at(20)), False),
        (a_run(plan=json.dumps({"pins": {"candidate": "far"}})), False),
        (a_run(plan="?"), False),
        (a_run("drill", plan=json.dumps({"pins": {"kind": "host-loss"}})), True),
        (a_run("drill", plan=json.dumps({"pins": {"kind": "replica-loss"}})), False),
        (a_run("drill", plan="?"), False),
        (a_run("restore", params={"into": "place"}), False),  # it would be the same server
        (a_run("backup"), False),
    ],
)
def test_a_run_did_it_when_it_was_at_work_and_meant_to(run: ClusterRun, *, is_ours: bool) -> None:
    [event] = with_causes([FAILOVER], [run])
    assert event.request_id == (12 if is_ours else None)


@pytest.mark.parametrize(("into", "request_id"), [("place", 12), ("scratch", None)])
def test_a_restore_into_its_place_begins_a_timeline_of_the_same_server(
    into: str, request_id: int | None
) -> None:
    [event] = with_causes(
        [replace(FAILOVER, new_node="east")], [a_run("restore", params={"into": into})]
    )
    assert event.request_id == request_id


def test_a_switchover_accounts_for_one_promotion_and_not_for_the_next() -> None:
    after = replace(FAILOVER, timeline=5, old_node="west", new_node="east")
    nameless = replace(FAILOVER, new_node="")
    causes = [each.request_id for each in with_causes([nameless, after], [a_run()])]
    assert causes == [12, None]
    again = replace(FAILOVER, timeline=6)
    causes = [each.request_id for each in with_causes([FAILOVER, after, again], [a_run()])]
    assert causes == [None, None, 12]
