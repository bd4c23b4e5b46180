"""A picture in which all is well, and one change of it for each thing that stops a switch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postgres.cluster.checks import Limits, Preflight
from postgres.cluster.preflight import switch_preflight
from postgres.cluster.preflight_forced import forced_preflight
from postgres.cluster.words import (
    AgentSeen,
    ClusterKind,
    ClusterSeen,
    Member,
    NodeSeen,
    Role,
    Sender,
    Slot,
)

MB = 2**20
LIMITS = Limits(
    lag_bytes=16 * MB,
    lag=timedelta(seconds=10),
    reply_age=timedelta(seconds=15),
    transaction_age=timedelta(minutes=5),
)


def sender(name: str, **changes: Any) -> Sender:
    usual = Sender(
        name=name, address="10.0.0.2", state="streaming", sync_state="async",
        flush_behind=0, replay_behind=0, reply_age=0.1,
    )  # fmt: skip
    return replace(usual, **changes)


def standby(name: str, region: str = "us", **changes: Any) -> NodeSeen:
    usual = NodeSeen(
        name=name, region=region, role=Role.STANDBY, system_identifier="77", timeline=3,
        position=1000, received=1000, replay_age=400.0, receiver="streaming", version=170010,
    )  # fmt: skip
    return replace(usual, **changes)


EAST = NodeSeen(
    name="east", region="us", role=Role.PRIMARY, is_writable=True, system_identifier="77",
    timeline=3, position=1000, version=170010, senders=(sender("west"), sender("far")),
    oldest_transaction=1.0,
)  # fmt: skip
AGENT = AgentSeen(
    members=(
        Member(name="east", role="leader", state="running", timeline=3),
        Member(name="west", role="replica", state="streaming", timeline=3, lag=0),
        Member(name="far", role="replica", state="streaming", timeline=3, lag=0),
    )
)
WELL = ClusterSeen(
    at=datetime(2026, 11, 1, tzinfo=UTC),
    kind=ClusterKind.PATRONI,
    nodes=(EAST, standby("west"), standby("far", region="eu")),
    agent=AGENT,
)
LOST = replace(
    WELL,
    nodes=(
        NodeSeen(name="east", region="us", problem="connection refused"),
        standby("west", position=900, received=950),
        standby("far", region="eu", position=800, received=990),
    ),
    agent=replace(AGENT, members=AGENT.members[1:]),
)


def with_node(seen: ClusterSeen, name: str, **changes: Any) -> ClusterSeen:
    return replace(
        seen,
        nodes=tuple(replace(n, **changes) if n.name == name else n for n in seen.nodes),
    )


def with_agent(seen: ClusterSeen, **changes: Any) -> ClusterSeen:
    assert seen.agent is not None
    return replace(seen, agent=replace(seen.agent, **changes))


def with_member(seen: ClusterSeen, name: str, **changes: Any) -> ClusterSeen:
    assert seen.agent is not None
    members = tuple(replace(m, **changes) if m.name == name else m for m in seen.agent.members)
    return with_agent(seen, members=members)


def names(found: Preflight) -> list[str]:
    return [each.name for each in found.failed]


def test_a_healthy_cluster_may_switch_and_the_near_standby_takes_over() -> None:
    found = switch_preflight(WELL, LIMITS)
    assert found.is_passed
    assert (found.leader, found.candidate) == ("east", "west")
    assert not found.warnings
    far = switch_preflight(WELL, LIMITS, candidate="far")
    assert far.is_passed
    assert [each.name for each in far.warnings] == ["Same region"]


def test_the_closest_of_equals_and_before_all_the_synchronous_one_takes_over() -> None:
    behind = with_node(WELL, "east", senders=(sender("west", replay_behind=5), sender("far")))
    near = with_node(behind, "far", region="us")
    assert switch_preflight(near, LIMITS).candidate == "far"
    sync = with_node(WELL, "east", senders=(sender("west"), sender("far", sync_state="sync")))
    assert switch_preflight(sync, LIMITS).candidate == "far"
    cut = with_node(WELL, "east", senders=(sender("far"),))
    assert switch_preflight(cut, LIMITS).candidate == "far"


PROBLEMS: list[tuple[str, Callable[[ClusterSeen], ClusterSeen], str]] = [
    ("nobody writes", lambda s: with_node(s, "east", is_writable=False), "One primary"),
    (
        "two write",
        lambda s: with_node(s, "far", role=Role.PRIMARY, is_writable=True),
        "One primary",
    ),
    ("a node is away", lambda s: with_node(s, "far", problem="refused"), "All nodes answer"),
    ("a stranger", lambda s: with_node(s, "far", system_identifier="78"), "One cluster"),
    ("another timeline", lambda s: with_node(s, "far", timeline=2), "One timeline"),
    ("the candidate is away", lambda s: with_node(s, "west", problem="refused"), "Candidate"),
    ("replay waits", lambda s: with_node(s, "west", is_replay_paused=True), "Candidate replays"),
    (
        "it catches up",
        lambda s: with_node(s, "east", senders=(sender("west", state="catchup"), sender("far"))),
        "Candidate streams",
    ),
    (
        "it does not stream",
        lambda s: with_node(s, "east", senders=(sender("far"),)),
        "Candidate streams",
    ),
    (
        "a backlog to receive",
        lambda s: with_node(
            s, "east", senders=(sender("west", flush_behind=17 * MB), sender("far"))
        ),
        "Candidate's lag in bytes",
    ),
    (
        "a backlog to replay, all received",
        lambda s: with_node(
            s, "east", senders=(sender("west", replay_behind=61 * MB), sender("far"))
        ),
        "Candidate's lag in bytes",
    ),
    (
        "nobody knows how far",
        lambda s: with_node(s, "east", senders=(sender("west", replay_behind=None), sender("far"))),
        "Candidate's lag in bytes",
    ),
    (
        "behind in time",
        lambda s: with_node(s, "east", senders=(sender("west", replay_behind=1), sender("far"))),
        "Candidate's lag in time",
    ),
    (
        "another's walsender is frozen",
        lambda s: with_node(s, "east", senders=(sender("west"), sender("far", reply_age=16.0))),
        "Standbys answer the primary",
    ),
    (
        "another never answered",
        lambda s: with_node(s, "east", senders=(sender("west"), sender("far", reply_age=None))),
        "Standbys answer the primary",
    ),
    (
        "another is far behind",
        lambda s: with_node(
            s, "east", senders=(sender("west"), sender("far", flush_behind=17 * MB))
        ),
        "Nobody holds up the shutdown",
    ),
    (
        "another does not stream",
        lambda s: with_node(s, "east", senders=(sender("west"),)),
        "Every standby streams",
    ),
    ("Patroni is away", lambda s: with_agent(s, problem="no answer"), "Patroni answers"),
    ("paused", lambda s: with_agent(s, is_paused=True), "Not in maintenance mode"),
    ("scheduled", lambda s: with_agent(s, scheduled="at noon"), "Nothing else is scheduled"),
    (
        "Patroni has another leader",
        lambda s: with_member(with_member(s, "east", role="replica"), "far", role="leader"),
        "Patroni and PostgreSQL agree",
    ),
    (
        "Patroni has no such member",
        lambda s: with_agent(s, members=AGENT.members[:1]),
        "Patroni knows the candidate",
    ),
    (
        "barred",
        lambda s: with_member(s, "west", tags={"nofailover": "True"}),
        "Candidate may lead",
    ),
    (
        "another is synchronous",
        lambda s: with_member(s, "far", role="sync_standby"),
        "Candidate is synchronous",
    ),
    ("a base backup", lambda s: with_node(s, "east", base_backups=1), "No base backup"),
    (
        "a long transaction",
        lambda s: with_node(s, "east", oldest_transaction=301.0),
        "No long transaction",
    ),
    (
        "two phases",
        lambda s: with_node(s, "east", prepared_transactions=1),
        "No prepared transaction",
    ),
]


@pytest.mark.parametrize(
    ("spoil", "check"), [each[1:] for each in PROBLEMS], ids=[each[0] for each in PROBLEMS]
)
def test_each_thing_that_is_not_well_stops_the_switch(
    spoil: Callable[[ClusterSeen], ClusterSeen], check: str
) -> None:
    found = switch_preflight(spoil(WELL), LIMITS, candidate="west")
    assert check in names(found)
    for each in found.failed:
        assert each.found
        assert each.next_step


def test_an_archive_of_wal_and_a_clock_that_differs_stop_nothing() -> None:
    receiver = sender("twokey", flush_behind=40 * MB, replay_behind=None)
    archived = with_node(WELL, "east", senders=(sender("west"), sender("far"), receiver))
    assert switch_preflight(archived, LIMITS).is_passed
    slow = with_node(WELL, "east", senders=(sender("west"), sender("far", reply_age=60.0)))
    apart = with_node(with_node(slow, "east", clock_ahead=0.0), "far", clock_ahead=-60.0)
    assert switch_preflight(apart, LIMITS).is_passed


def test_only_what_may_be_over_in_a_moment_is_worth_another_look() -> None:
    late = with_node(WELL, "east", senders=(sender("west", replay_behind=1), sender("far")))
    assert switch_preflight(late, LIMITS, candidate="west").is_worth_another_look
    both = with_agent(late, is_paused=True)
    assert not switch_preflight(both, LIMITS, candidate="west").is_worth_another_look
    assert not switch_preflight(WELL, LIMITS).is_worth_another_look


@pytest.mark.parametrize("candidate", ["east", "nobody"])
def test_only_a_standby_of_the_cluster_takes_over(candidate: str) -> None:
    assert names(switch_preflight(WELL, LIMITS, candidate=candidate))[0] == "Candidate"


def test_a_pair_whose_synchronous_standby_is_another_does_not_switch() -> None:
    pair = replace(with_node(WELL, "east", sync_names="far"), kind=ClusterKind.PAIR, agent=None)
    assert names(switch_preflight(pair, LIMITS, candidate="west")) == ["Candidate is synchronous"]
    sync = with_node(pair, "east", senders=(sender("west", sync_state="sync"), sender("far")))
    assert switch_preflight(sync, LIMITS, candidate="west").is_passed


def test_what_stays_behind_is_said_and_stops_nothing() -> None:
    slots = (Slot(name="cdc", kind="logical", is_active=True),)
    seen = with_node(with_node(WELL, "east", slots=slots), "far", version=170009)
    found = switch_preflight(seen, LIMITS)
    assert found.is_passed
    assert {each.name for each in found.warnings} == {"No logical slots", "One version"}


def test_after_a_loss_the_one_that_received_most_takes_over() -> None:
    found = forced_preflight(LOST, LIMITS, leader="east")
    assert found.is_passed
    assert found.candidate == "far"
    assert [each.name for each in found.warnings] == ["Nothing is lost"]
    less = forced_preflight(LOST, LIMITS, leader="east", candidate="west")
    assert names(less) == ["Nobody is further"]
    assert "40 B" in less.failed[0].found


FORCED: list[tuple[str, Callable[[ClusterSeen], ClusterSeen], str]] = [
    ("it lives", lambda s: replace(s, nodes=(EAST, *s.nodes[1:])), "The primary is gone"),
    (
        "it lives and only reads",
        lambda s: replace(s, nodes=(replace(EAST, is_writable=False), *s.nodes[1:])),
        "The primary is gone",
    ),
    (
        "another leads already",
        lambda s: with_node(s, "west", role=Role.PRIMARY, is_writable=True),
        "The primary is gone",
    ),
    ("the candidate is away", lambda s: with_node(s, "far", problem="refused"), "Candidate"),
    ("replay waits", lambda s: with_node(s, "far", is_replay_paused=True), "Candidate replays"),
    ("Patroni is away", lambda s: with_agent(s, problem="no answer"), "Patroni answers"),
    ("paused", lambda s: with_agent(s, is_paused=True), "Not in maintenance mode"),
    (
        "Patroni was faster",
        lambda s: with_member(s, "west", role="leader"),
        "Nobody else leads",
    ),
]


@pytest.mark.parametrize(
    ("spoil", "check"), [each[1:] for each in FORCED], ids=[each[0] for each in FORCED]
)
def test_nobody_is_promoted_while_something_speaks_against_it(
    spoil: Callable[[ClusterSeen], ClusterSeen], check: str
) -> None:
    found = forced_preflight(spoil(LOST), LIMITS, leader="east", candidate="far")
    assert check in names(found)
    assert all(each.next_step for each in found.failed)


def test_with_nobody_left_it_leads_to_the_backups() -> None:
    alone = replace(LOST, nodes=LOST.nodes[:1])
    found = forced_preflight(alone, LIMITS, leader="east")
    assert names(found) == ["Candidate"]
    assert "/db restore" in found.failed[0].next_step


@given(
    st.lists(
        st.tuples(st.booleans(), st.sampled_from(list(Role)), st.booleans()), min_size=1, max_size=5
    )
)
def test_whatever_is_seen_nobody_switches_beside_a_second_writer(
    seen: list[tuple[bool, Role, bool]],
) -> None:
    nodes = tuple(
        standby(
            f"n{number}",
            role=role,
            problem="" if here else "refused",
            is_writable=here and writes and role is Role.PRIMARY,
        )
        for number, (here, role, writes) in enumerate(seen)
    )
    picture = replace(WELL, nodes=nodes, agent=None, kind=ClusterKind.PAIR)
    if len(picture.writable) != 1:
        assert not switch_preflight(picture, LIMITS).is_passed
    if any(each.is_reached and each.role is Role.PRIMARY for each in nodes):
        assert not forced_preflight(picture, LIMITS, leader="n0").is_passed
