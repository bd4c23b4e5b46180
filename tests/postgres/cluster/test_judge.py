"""What is said of a cluster: nothing of one that is well, and one sentence for each thing wrong."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postgres.cluster.checks import Limits
from postgres.cluster.findings import ORDER, Finding, Severity
from postgres.cluster.judge import judge, writable_servers
from postgres.cluster.judge_standbys import reply_age
from postgres.cluster.look import HIDDEN
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
BEGAN = datetime(2026, 11, 1, tzinfo=UTC)
CRITICAL, WARNING, NOTE = Severity.CRITICAL, Severity.WARNING, Severity.NOTE


def sender(name: str, **changes: Any) -> Sender:
    usual = Sender(
        name=name, address="10.0.0.2", state="streaming", sync_state="async", flush_behind=0,
        replay_behind=0, replay_lag=0.001, reply_age=0.1,
    )  # fmt: skip
    return replace(usual, **changes)


def standby(name: str, number: int, **changes: Any) -> NodeSeen:
    usual = NodeSeen(
        name=name, region="us", role=Role.STANDBY, system_identifier="77", timeline=3,
        position=100 * MB, received=100 * MB, replay_age=4000.0, receiver="streaming",
        message_age=1.0, clock_ahead=0.0, started_at=BEGAN + timedelta(seconds=number),
        version=170010,
    )  # fmt: skip
    return replace(usual, **changes)


EAST = NodeSeen(
    name="east", region="us", role=Role.PRIMARY, is_writable=True, system_identifier="77",
    timeline=3, position=100 * MB, version=170010, senders=(sender("west"), sender("far")),
    slots=(Slot(name="west", kind="physical", is_active=True, retained=0, wal_status="reserved"),),
    started_at=BEGAN, clock_ahead=0.0,
)  # fmt: skip
AGENT = AgentSeen(
    members=(
        Member(name="east", role="leader", state="running", timeline=3),
        Member(name="west", role="replica", state="streaming", timeline=3, lag=0),
        Member(name="far", role="replica", state="streaming", timeline=3, lag=0),
    ),
    dcs_age=0.5,
    settings=MappingProxyType({"ttl": "20"}),
)
WELL = ClusterSeen(
    at=BEGAN,
    kind=ClusterKind.PATRONI,
    nodes=(EAST, standby("west", 1), standby("far", 2)),
    agent=AGENT,
)


def node(name: str, **changes: Any) -> ClusterSeen:
    nodes = tuple(replace(n, **changes) if n.name == name else n for n in WELL.nodes)
    return replace(WELL, nodes=nodes)


def agent(**changes: Any) -> ClusterSeen:
    return replace(WELL, agent=replace(AGENT, **changes))


def west(**changes: Any) -> ClusterSeen:
    """As the primary sees west."""
    return node("east", senders=(sender("west", **changes), sender("far")))


def slot(**changes: Any) -> ClusterSeen:
    usual = Slot(name="old", kind="physical", is_active=False, retained=9, wal_status="reserved")
    return node("east", slots=(replace(usual, **changes),))


def gone(name: str) -> ClusterSeen:
    nodes = tuple(
        NodeSeen(name=name, region="us", problem=f"connection refused by {name}")
        if n.name == name
        else n
        for n in WELL.nodes
    )
    return replace(WELL, nodes=nodes)


def said(seen: ClusterSeen, **more: Any) -> list[str]:
    return [each.problem for each in judge(seen, LIMITS, **more)]


def about(seen: ClusterSeen, words: str, **more: Any) -> Finding:
    found = [each for each in judge(seen, LIMITS, **more) if words in each.problem]
    assert len(found) == 1, said(seen, **more)
    return found[0]


def test_of_a_cluster_that_is_well_nothing_is_said() -> None:
    assert judge(WELL, LIMITS) == ()
    assert judge(replace(WELL, kind=ClusterKind.PAIR, agent=None), LIMITS) == ()


PROMOTED: dict[str, Any] = {
    "role": Role.PRIMARY, "is_writable": True, "timeline": 4, "receiver": "", "received": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("seen", "severity", "problem", "step"),
    [
        (
            node("west", **PROMOTED), CRITICAL,
            ("east and west both take writes: east on timeline 3 at 0/6400000, west on timeline 4"
            " at 0/6400000."),
            "west was promoted last",
        ),
        (node("west", **PROMOTED), CRITICAL, "both take writes", "Do not promote, restart, rewind"),
        (
            node("west", **{**PROMOTED, "timeline": 3}), CRITICAL, "both take writes",
            "lost then.",
        ),
        (node("east", role=Role.STANDBY, is_writable=False), CRITICAL, ("No server takes writes:"
         " all that answer are standbys."), "within its ttl"),
        (gone("east"), CRITICAL, "No server takes writes; east did not answer.", "Patroni"),
        (replace(gone("east"), kind=ClusterKind.PAIR, agent=None), CRITICAL,
         "No server takes writes; east", "proof that the old primary is down"),
        (node("east", is_writable=False), CRITICAL, "east is the primary and takes no writes",
         "who closed it"),
        (node("west", started_at=BEGAN), WARNING, "east and west lead to the same server.",
         "each leads to one server itself"),
        (gone("west"), WARNING,
         "west does not answer: connection refused by west. Patroni says that it is streaming.",
         "pg_hba.conf"),
        (replace(gone("west"), agent=None), WARNING, "west does not answer: connection refused",
         "take it out of `cluster.nodes`"),
        (node("west", system_identifier="78"), CRITICAL,
         "west is no copy of east: its system identifier is 78, not 77.", "Mend its DSN"),
        (node("west", timeline=4), CRITICAL, "ahead of east's 3: somebody was promoted since",
         "Keep applications away"),
        (node("west", timeline=2), WARNING, "west is still on timeline 2; east is on 3.",
         "rewound or built anew"),
        (node("east", senders=(sender("far"),)), WARNING,
         "west streams, but no server of this cluster has a connection of that name (there is: far",
         "Set cluster_name"),
        (replace(node("west", receiver=""), nodes=(
            replace(EAST, senders=(sender("far"),)), standby("west", 1, receiver=""),
            standby("far", 2))), WARNING,
         "west does not stream: its WAL receiver is not running.", "See its log"),
        (west(state="catchup"), WARNING, "west does not stream yet: east says catchup.", "Wait"),
        (west(reply_age=40.0), WARNING, "west last answered east 40 s ago", "A shutdown of east"),
        (node("west", message_age=90.0), WARNING, "west has heard nothing for 90 s", "network"),
        (west(replay_behind=20 * MB), WARNING, "west is behind: 20 MB as east sees it.",
         "hold back heavy writes"),
        (node("west", position=60 * MB), WARNING, ("west is behind: 40 MB received and not"
         " replayed, its newest transaction is 4000 s old."), "catch up"),
        (node("west", position=60 * MB, received=60 * MB), WARNING,
         "west is behind: 40 MB by its own position.", "catch up"),
        (node("west", position=99 * MB, replay_age=11.0), WARNING,
         "west is behind: 1 MB to replay, its newest transaction is 11 s old.", "catch up"),
        (node("west", is_replay_paused=True), WARNING, "Replay is paused on west.",
         "pg_wal_replay_resume"),
        (west(state=HIDDEN), WARNING, "may not see how replication does on east", "pg_monitor"),
        (node("west", receiver=HIDDEN), WARNING, "may not see how replication does on west",
         "pg_monitor"),
        (node("east", sync_names="west"), CRITICAL, "commits hang", "RESET"),
        (slot(), NOTE, "Nobody uses slot old on east; it holds back 9 B of WAL.",
         "pg_drop_replication_slot('old') on east"),
        (slot(retained=20 * MB), WARNING, "it holds back 20 MB", "before the disk is full"),
        (slot(wal_status="lost", retained=None), WARNING, "has lost WAL", "built anew"),
        (agent(problem="nobody answers"), WARNING, "Patroni does not answer: nobody answers.",
         "REST API"),
        (agent(is_paused=True), WARNING, "The cluster is paused", "patronictl resume"),
        (agent(scheduled="switchover at noon"), NOTE, "switchover at noon", "patronictl flush"),
        (agent(pending_restart=("west",)), NOTE, "Settings of west wait for a restart.", "Until"),
        (agent(members=tuple(replace(m, role="replica") for m in AGENT.members)), WARNING,
         "Nobody holds Patroni's leader key.", "look again"),
        (agent(members=(replace(AGENT.members[0], role="replica"),
                        replace(AGENT.members[1], role="leader"), AGENT.members[2])), CRITICAL,
         "Patroni's leader is west, but east takes writes.", "Look again"),
        (agent(silent={"east": "timed out"}), WARNING,
         ("The Patroni of east does not answer (timed out), though its server does. It would go on"
         " taking writes"), "start it again"),
        (agent(silent={"far": "timed out"}), WARNING, "The Patroni of far does not answer",
         "start it again"),
        (agent(is_failsafe_active=True), WARNING, "failsafe mode keeps the primary going", "DCS"),
        (agent(dcs_age=21.0), WARNING, "last spoke with its DCS 21 s ago (ttl 20 s)", "DCS"),
        (agent(members=AGENT.members[:2]), WARNING, "Patroni knows no member far.", "agent"),
        (agent(members=(*AGENT.members, Member(name="new", role="replica", state="streaming"))),
         WARNING, "member new is not in the inventory", "cluster.nodes"),
        (agent(settings={"ttl": "20", "asked.ttl": "5"}), NOTE, "asked for ttl 5 and uses 20.",
         "Write"),
        (node("far", clock_ahead=30.0), WARNING, "The clock of far is 30 s ahead of east's.",
         "time of both"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_the_next_step(
    seen: ClusterSeen, severity: Severity, problem: str, step: str
) -> None:
    found = about(seen, problem)
    assert found.severity is severity
    assert step in found.next_step


def test_what_may_be_lost_comes_first() -> None:
    seen = replace(node("west", **PROMOTED), agent=replace(AGENT, is_paused=True))
    severities = [each.severity for each in judge(seen, LIMITS)]
    assert severities == sorted(severities, key=ORDER.index)
    assert severities[0] is CRITICAL


def test_two_writers_of_two_clusters_have_no_newer_one() -> None:
    other = node("west", **PROMOTED, system_identifier="78")
    assert "promoted last" not in about(other, "both take writes").next_step
    assert about(other, "no copy of east").severity is CRITICAL


def test_three_that_take_writes_are_all_named() -> None:
    seen = node("west", **PROMOTED)
    far = replace(seen.nodes[2], **{**PROMOTED, "timeline": 5})
    found = about(replace(seen, nodes=(*seen.nodes[:2], far)), "all take writes")
    assert found.nodes == ("east", "west", "far")
    assert "far was promoted last" in found.next_step


def test_one_server_that_two_dsns_lead_to_is_no_split_brain() -> None:
    seen = node("west", **{**PROMOTED, "timeline": 3}, started_at=BEGAN)
    assert [each.name for each in writable_servers(seen.nodes)] == ["east"]
    assert not [text for text in said(seen) if "both take writes" in text]
    assert about(seen, "lead to the same server").severity is WARNING


def test_a_standby_cluster_takes_no_writes_on_purpose() -> None:
    leader = replace(AGENT.members[0], role="standby_leader")
    seen = replace(
        node("east", role=Role.STANDBY, is_writable=False),
        agent=replace(AGENT, members=(leader, *AGENT.members[1:])),
    )
    assert about(seen, "standby cluster").severity is NOTE
    assert not [text for text in said(seen) if "No server" in text]


def test_an_idle_standby_is_not_late_however_old_its_last_transaction_is() -> None:
    assert said(node("west", replay_age=86400.0)) == []


def test_a_few_bytes_that_were_just_written_are_no_lag() -> None:
    assert said(node("west", position=100 * MB - 56, received=100 * MB - 56)) == []


def test_a_standby_behind_a_standby_streams() -> None:
    cascade = replace(
        WELL,
        nodes=(
            replace(EAST, senders=(sender("west"),)),
            standby("west", 1, senders=(sender("far"),)),
            standby("far", 2),
        ),
    )
    assert said(cascade) == []
    late = replace(cascade.nodes[1], senders=(sender("far", reply_age=30.0),))
    seen = replace(cascade, nodes=(cascade.nodes[0], late, cascade.nodes[2]))
    assert about(seen, "far last answered west 30 s ago").nodes == ("far",)


def test_a_base_backup_is_no_standby() -> None:
    copy = sender("west", state="backup", flush_behind=None, replay_behind=None, reply_age=None)
    assert said(node("east", senders=(copy, sender("west"), sender("far")))) == []


def test_a_missing_primary_is_no_reason_to_doubt_who_streams_from_it() -> None:
    problems = said(gone("east"))
    assert not [text for text in problems if "no server of this cluster has" in text]


def test_a_frozen_host_that_keeps_its_connection_holds_up_its_sender() -> None:
    frozen = replace(gone("west"), agent=None)
    late = (sender("west", reply_age=40.0), sender("far"))
    seen = replace(frozen, nodes=(replace(EAST, senders=late), *frozen.nodes[1:]))
    assert about(seen, "west last answered east 40 s ago").nodes == ("west",)
    assert "west last answered" not in " ".join(said(frozen))


def test_where_replication_is_hidden_nobody_guesses() -> None:
    hidden = sender(
        "west", state=HIDDEN, sync_state=HIDDEN, flush_behind=None, replay_behind=None,
        reply_age=None,
    )  # fmt: skip
    seen = node("east", senders=(hidden,), sync_names="west")
    assert said(seen) == ["Our login may not see how replication does on east."]


def test_a_synchronous_standby_that_is_there_is_well() -> None:
    seen = node(
        "east", sync_names="west", senders=(sender("west", sync_state="sync"), sender("far"))
    )
    assert said(seen, is_synchronous=True) == []


def test_what_shall_be_synchronous_and_is_not_is_said() -> None:
    found = about(WELL, "not synchronous now", is_synchronous=True)
    assert found.severity is WARNING
    assert "Patroni then goes on without" in found.next_step


def test_patroni_keeps_slots_on_standbys_and_a_pair_does_not() -> None:
    idle = Slot(name="far", kind="physical", is_active=False, retained=MB, wal_status="reserved")
    seen = node("west", slots=(idle,))
    assert said(seen) == []
    of_pair = replace(seen, kind=ClusterKind.PAIR, agent=None)
    assert about(of_pair, "Nobody uses slot far on west").severity is NOTE


def test_a_slot_that_was_never_used_holds_nothing() -> None:
    assert said(slot(retained=None)) == []


def test_the_age_of_an_answer_does_not_count_the_difference_of_clocks() -> None:
    ahead = standby("west", 1, clock_ahead=20.0)
    behind = standby("west", 1, clock_ahead=-20.0)
    assert reply_age(sender("west", reply_age=-19.0), EAST, ahead) == pytest.approx(1.0)
    assert reply_age(sender("west", reply_age=21.0), EAST, behind) == pytest.approx(1.0)
    assert reply_age(sender("west", reply_age=None), EAST, ahead) is None


nodes = st.builds(
    NodeSeen,
    region=st.just("us"),
    name=st.sampled_from(["east", "west", "far"]),
    problem=st.sampled_from(["", "no answer"]),
    role=st.sampled_from([None, *Role]),
    is_writable=st.booleans(),
    system_identifier=st.sampled_from(["", "77", "78"]),
    timeline=st.none() | st.integers(1, 3),
    position=st.none() | st.integers(0, 10**9),
    received=st.none() | st.integers(0, 10**9),
    replay_age=st.none() | st.floats(0, 1e6),
    receiver=st.sampled_from(["", "streaming", HIDDEN]),
    clock_ahead=st.none() | st.floats(-1e3, 1e3),
    started_at=st.none() | st.just(BEGAN),
    senders=st.lists(
        st.builds(
            Sender,
            name=st.sampled_from(["east", "west", "x"]),
            address=st.just(""),
            state=st.sampled_from(["streaming", "backup", HIDDEN]),
            sync_state=st.sampled_from(["sync", "async", HIDDEN]),
            reply_age=st.none() | st.floats(-1e3, 1e3),
        ),
        max_size=2,
    ).map(tuple),
)


def _is_alone(seen: ClusterSeen) -> bool:
    return len(writable_servers(seen.nodes)) == 1


@given(
    seen=st.lists(nodes, min_size=1, max_size=3, unique_by=lambda n: n.name).map(
        lambda found: ClusterSeen(at=BEGAN, kind=ClusterKind.PAIR, nodes=tuple(found))
    )
)
def test_whatever_was_seen_all_that_is_said_has_a_next_step(seen: ClusterSeen) -> None:
    found = judge(seen, LIMITS)
    assert all(each.problem.endswith(".") and each.next_step for each in found)
    writers = [
        each
        for each in found
        if "take writes:" in each.problem or "takes writes" in each.problem
        or "takes no writes" in each.problem
    ]  # fmt: skip
    assert bool(writers) is not _is_alone(seen)
