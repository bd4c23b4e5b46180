"""A drill's safe end is decided by who takes writes, and fails closed. Pure."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.drill_safety import SafeEnd, safe_end
from postgres.cluster.words import ClusterKind, ClusterSeen, NodeSeen, Role
from tests.jobs.cluster_pictures import away, primary, standby

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
EAST, WEST, NORTH = "east", "west", "north"
KINDS = st.sampled_from(ClusterKind)


def stuck(name: str) -> NodeSeen:
    """Out of recovery, and yet it takes no writes: whether it will cannot be told."""
    return primary(name, is_writable=False)


def seen(*nodes: NodeSeen, kind: ClusterKind = ClusterKind.PAIR) -> ClusterSeen:
    return ClusterSeen(at=NOON, kind=kind, nodes=nodes)


STATES = st.sampled_from((primary, standby, away, stuck))


@st.composite
def pictures(draw: st.DrawFn) -> ClusterSeen:
    """Two or three servers, each in whatever state."""
    names = draw(st.sampled_from([(EAST, WEST), (EAST, WEST, NORTH)]))
    return seen(*(draw(STATES)(name) for name in names), kind=draw(KINDS))


@given(pictures(), st.sampled_from([EAST, WEST]))
def test_before_the_fault_nothing_is_ever_done(picture: ClusterSeen, victim: str) -> None:
    safety = safe_end(picture, victim=victim, leader=EAST, is_injected=False)
    assert (safety.end, safety.primary) == (SafeEnd.NOTHING, EAST)


@given(pictures(), st.sampled_from([EAST, WEST]))
def test_nobody_is_brought_back_while_another_writes_or_may(
    picture: ClusterSeen, victim: str
) -> None:
    safety = safe_end(picture, victim=victim, leader=EAST, is_injected=True)
    if safety.end is not SafeEnd.LIFT:
        return
    others = [each for each in picture.nodes if each.name != victim]
    assert not any(each.is_writable for each in others)
    if picture.kind is ClusterKind.PAIR:
        assert all(each.is_reached and each.role is Role.STANDBY for each in others)


@given(pictures(), st.sampled_from([EAST, WEST]))
def test_one_that_took_over_is_gone_forward_with(picture: ClusterSeen, victim: str) -> None:
    safety = safe_end(picture, victim=victim, leader=EAST, is_injected=True)
    alone = picture.primary
    if alone is not None and alone.name != victim:
        assert (safety.end, safety.primary) == (SafeEnd.FORWARD, alone.name)
    else:
        assert safety.end is not SafeEnd.FORWARD


@given(pictures(), st.sampled_from([EAST, WEST]))
def test_of_two_that_write_nobody_is_touched_and_both_are_named(
    picture: ClusterSeen, victim: str
) -> None:
    safety = safe_end(picture, victim=victim, leader=EAST, is_injected=True)
    if len(picture.writable) > 1:
        assert safety.end is SafeEnd.HANDS_OFF
        assert safety.primary == ""
        assert all(each.name in safety.why for each in picture.writable)


@given(pictures(), st.sampled_from([EAST, WEST]))
def test_whom_the_others_follow_is_a_server_of_the_cluster_and_why_is_said(
    picture: ClusterSeen, victim: str
) -> None:
    safety = safe_end(picture, victim=victim, leader=EAST, is_injected=True)
    assert (safety.primary == "") is (safety.end is SafeEnd.HANDS_OFF)
    assert safety.why.endswith(".")


@pytest.mark.parametrize(
    ("nodes", "kind", "end", "why"),
    [
        # A crash, and the standby waits.
        ((away(EAST), standby()), "pair", SafeEnd.LIFT, "all others are standbys"),
        # Nobody knows whether it was promoted.
        ((away(EAST), away(WEST)), "pair", SafeEnd.HANDS_OFF, "Whether west takes writes"),
        ((away(EAST), stuck(WEST)), "pair", SafeEnd.HANDS_OFF, "Whether west takes writes"),
        # It was never broken, or came back by itself; the other may have been promoted.
        ((primary(EAST), standby()), "pair", SafeEnd.LIFT, "east takes writes itself"),
        ((primary(EAST), away(WEST)), "pair", SafeEnd.HANDS_OFF, "Whether west takes writes"),
        # Patroni's agents agree among themselves.
        ((away(EAST), away(WEST)), "patroni", SafeEnd.LIFT, "Patroni decides"),
        ((away(EAST), standby()), "patroni", SafeEnd.LIFT, "Patroni decides"),
        ((primary(EAST), away(WEST)), "patroni", SafeEnd.LIFT, "east takes writes itself"),
        ((away(EAST), primary(WEST)), "patroni", SafeEnd.FORWARD, "west takes writes"),
        ((standby(EAST), primary(WEST)), "pair", SafeEnd.FORWARD, "west takes writes"),
        ((primary(EAST), primary(WEST)), "patroni", SafeEnd.HANDS_OFF, "a split brain"),
    ],
)
def test_each_standing_has_its_end(
    nodes: tuple[NodeSeen, ...], kind: str, end: SafeEnd, why: str
) -> None:
    picture = seen(*nodes, kind=ClusterKind(kind))
    safety = safe_end(picture, victim=EAST, leader=EAST, is_injected=True)
    assert safety.end is end
    assert why in safety.why


def test_a_standby_that_was_lost_follows_the_primary_that_never_changed() -> None:
    picture = seen(primary(EAST), away(WEST))
    safety = safe_end(picture, victim=WEST, leader=EAST, is_injected=True)
    assert (safety.end, safety.primary) == (SafeEnd.FORWARD, EAST)
