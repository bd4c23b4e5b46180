"""`/db replication`: pictures in words, and answers of a real server that nobody named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from commands import replication
from jobs.cluster_settings import ClusterNode, ClusterSettings
from jobs.health_settings import Node
from jobs.operation import Answer, JobError
from jobs.replication_words import (
    COLUMNS,
    facts,
    finding_lines,
    headline,
    node_table,
    suggestions,
)
from postgres.cluster.checks import Limits
from postgres.cluster.judge import judge
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
from postgres.ports import free_port
from postgres.server import Server
from tests.commands.conftest import JobMaker, connected

MB = 2**20
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
LIMITS = Limits(
    lag_bytes=16 * MB,
    lag=timedelta(seconds=10),
    reply_age=timedelta(seconds=15),
    transaction_age=timedelta(minutes=5),
)
WEST = NodeSeen(
    name="west", region="eu", role=Role.STANDBY, system_identifier="77", timeline=3,
    position=98 * MB, received=99 * MB, replay_age=4.0, receiver="streaming", message_age=1.0,
    clock_ahead=0.0, started_at=NOON,
)  # fmt: skip
EAST = NodeSeen(
    name="east", region="us", role=Role.PRIMARY, is_writable=True, system_identifier="77",
    timeline=3, position=100 * MB, started_at=NOON - timedelta(hours=1), clock_ahead=0.0,
    sync_names="west",
    senders=(
        Sender(name="west", address="10.0.0.2", state="streaming", sync_state="sync",
               flush_behind=MB, replay_behind=2 * MB, replay_lag=0.5, reply_age=0.2),
    ),
    slots=(
        Slot(name="west", kind="physical", is_active=True, retained=2 * MB, wal_status="reserved"),
        Slot(name="old", kind="logical", is_active=False, retained=None, wal_status="lost"),
    ),
)  # fmt: skip
AGENT = AgentSeen(
    members=(
        Member(name="east", role="leader", state="running"),
        Member(name="west", role="sync_standby", state="streaming"),
    ),
    dcs_age=0.5,
    settings={"ttl": "20", "loop_wait": "1", "failsafe_mode": "true"},
)
SEEN = ClusterSeen(at=NOON, kind=ClusterKind.PATRONI, nodes=(EAST, WEST), agent=AGENT)
PAIR = replace(SEEN, kind=ClusterKind.PAIR, agent=None)


def row(seen: ClusterSeen, name: str) -> Mapping[str, str]:
    [found] = [each for each in node_table(seen).rows if each[0] == name]
    return dict(zip(COLUMNS, found, strict=True))


def node(seen: ClusterSeen, name: str, **changes: Any) -> ClusterSeen:
    nodes = tuple(replace(n, **changes) if n.name == name else n for n in seen.nodes)
    return replace(seen, nodes=nodes)


def said(seen: ClusterSeen) -> str:
    return headline("orders", seen, judge(seen, LIMITS))


def offered(seen: ClusterSeen) -> list[tuple[str, Mapping[str, Any]]]:
    found = list(suggestions("orders", seen, judge(seen, LIMITS)))
    for each in found:  # their own modules: to load all takes seconds
        operation = import_module(f"commands.{each.operation}").OPERATION
        assert operation.name == each.operation
        operation.params.model_validate(dict(each.params))
    return [(each.operation, each.params) for each in found]


def test_a_node_is_a_row_with_its_lag_from_both_sides() -> None:
    east, west = row(SEEN, "east"), row(SEEN, "west")
    assert list(east.values()) == ["east", "us", "primary", "takes writes", "3", "-", "-", "-"]
    assert (west["Role"], west["State"], west["Timeline"]) == (
        "standby", "streaming from east", "3",
    )  # fmt: skip
    assert west["Behind, says its sender"] == (
        "1 MB to flush, 2 MB to replay, 0.5 s; answered 0.2 s ago"
    )
    assert west["Behind, says itself"] == (
        "1 MB to replay, 2 MB from the primary, newest transaction 4 s old, heard 1 s ago"
    )
    assert west["Sync"] == "sync"


@pytest.mark.parametrize(
    ("changes", "column", "words"),
    [
        ({"problem": "no answer", "role": None}, "State",
         "MISSING: no answer (Patroni: streaming)"),
        ({"problem": "no answer", "role": None}, "Behind, says itself", "-"),
        ({"is_replay_paused": True}, "State", "streaming from east, replay paused"),
        ({"timeline": None}, "Timeline", "?"),
        ({"received": None, "position": None, "replay_age": None, "message_age": None},
         "Behind, says itself", "?"),
        ({"region": ""}, "Region", "-"),
    ],
)  # fmt: skip
def test_what_nobody_knows_of_a_standby_is_not_made_up(
    changes: dict[str, Any], column: str, words: str
) -> None:
    assert row(node(SEEN, "west", **changes), "west")[column] == words


@pytest.mark.parametrize(
    ("senders", "state", "behind", "sync"),
    [
        ((), "streaming", "?", "sync"),
        ((replace(EAST.senders[0], state=HIDDEN, sync_state=HIDDEN, flush_behind=None,
                  replay_behind=None, replay_lag=None, reply_age=None),),
         "hidden from our login", "?", "sync"),
        ((replace(EAST.senders[0], state="catchup", replay_lag=None, reply_age=None),),
         "catchup from east", "1 MB to flush, 2 MB to replay; never answered", "sync"),
        ((replace(EAST.senders[0], flush_behind=0, replay_behind=0, replay_lag=None),),
         "streaming from east", "0 B to flush, 0 B to replay, 0 s; answered 0.2 s ago", "sync"),
    ],
)  # fmt: skip
def test_what_the_sender_says_stands_beside_its_age(
    senders: tuple[Sender, ...], state: str, behind: str, sync: str
) -> None:
    found = row(node(SEEN, "east", senders=senders), "west")
    assert (found["State"], found["Behind, says its sender"], found["Sync"]) == (
        state, behind, sync,
    )  # fmt: skip


def test_where_patroni_and_the_server_differ_both_are_shown() -> None:
    members = (
        Member(name="east", role="replica", state="running"),
        Member(name="west", role="leader", state="running"),
    )
    seen = replace(SEEN, agent=replace(AGENT, members=members))
    assert row(seen, "east")["Role"] == "primary (Patroni: replica)"
    assert row(seen, "west")["Role"] == "standby (Patroni: leader)"
    closed = node(SEEN, "east", is_writable=False)
    assert (row(closed, "east")["Role"], row(closed, "east")["State"]) == (
        "primary, read-only", "closed",
    )  # fmt: skip


def test_a_standby_that_the_inventory_does_not_name_has_a_row_too() -> None:
    other = replace(EAST.senders[0], name="new", sync_state="async", address="10.0.0.9")
    found = row(node(SEEN, "east", senders=(*EAST.senders, other)), "new (not named)")
    assert found["State"] == "streaming from east at 10.0.0.9"
    assert (found["Sync"], found["Role"]) == ("async", "?")


def test_slots_and_the_agents_words_are_facts() -> None:
    found = dict(facts(SEEN))
    assert found == {
        "Slots of east": "west (physical, in use, retains 2 MB)\n"
        "old (logical, not in use, retains nothing, lost)",
        "Synchronous on east": "west",
        "Patroni": "leader east, not paused, nothing planned, ttl 20 s, loop_wait 1 s,"
        " failsafe on, spoke with its DCS 0.5 s ago",
    }
    paused = replace(
        AGENT, is_paused=True, scheduled="switchover at noon", is_failsafe_active=True, members=()
    )
    words = dict(facts(replace(SEEN, agent=paused)))["Patroni"]
    assert words.startswith("leader nobody, PAUSED, planned: switchover at noon, ttl 20 s")
    assert "failsafe ACTIVE" in words
    assert "Patroni" not in dict(facts(replace(SEEN, agent=AgentSeen(problem="nobody"))))
    assert "Patroni" not in dict(facts(PAIR))


def test_the_headline_says_who_leads_who_is_there_and_whether_all_is_well() -> None:
    well = node(SEEN, "east", slots=EAST.slots[:1])
    assert said(well) == "Replication of orders: primary east, 2 of 2 nodes answer, well"
    away = node(well, "west", problem="no answer", role=None)
    assert "primary east, 1 of 2 nodes answer, " in said(away)
    split = node(well, "west", role=Role.PRIMARY, is_writable=True, timeline=4)
    assert said(split).startswith("Replication of orders: 2 PRIMARIES: east, west, 2 of 2")
    assert "no primary" in said(node(PAIR, "east", problem="no answer", role=None,
                                     is_writable=False))  # fmt: skip


def test_the_worst_is_said_first_and_long_lists_end() -> None:
    split = node(SEEN, "west", role=Role.PRIMARY, is_writable=True, timeline=4)
    lines = list(finding_lines(judge(split, LIMITS)))
    assert lines[0].startswith("CRITICAL: east and west both take writes: ")
    assert "Do not promote" in lines[0]
    many = tuple(
        Slot(name=f"s{n}", kind="physical", is_active=False, retained=1) for n in range(30)
    )
    lines = list(finding_lines(judge(node(SEEN, "east", slots=many), LIMITS)))
    assert lines[-1] == "And 15 more things that are no worse."
    text = dict(facts(node(SEEN, "east", slots=many)))["Slots of east"]
    assert text.endswith("\nand 10 more slots")


LOST: Mapping[str, Any] = {
    "problem": "no answer", "role": None, "is_writable": False, "senders": (),
}  # fmt: skip


@pytest.mark.parametrize(
    ("seen", "helps"),
    [
        (node(SEEN, "east", slots=()), []),
        # Whatever changes now loses what one of them took.
        (node(PAIR, "west", role=Role.PRIMARY, is_writable=True, timeline=4), []),
        (node(node(PAIR, "east", senders=()), "west", timeline=4), []),
        # Nor does anything follow a primary that may be an old one.
        (replace(PAIR, nodes=(replace(EAST, senders=(), sync_names=""), replace(WEST, timeline=4),
                              replace(WEST, name="far", timeline=2, receiver=""))), []),
        (node(PAIR, "east", **LOST), [("failover", {"database": "orders", "forced": True})]),
        # Patroni promotes by itself: a forced failover does not make it faster.
        (node(SEEN, "east", **LOST), []),
        (node(PAIR, "east", role=Role.STANDBY, is_writable=False), []),
        (node(node(PAIR, "east", senders=(), sync_names=""), "west", timeline=2, receiver=""),
         [("rejoin", {"database": "orders", "node": "west"})]),
        (node(PAIR, "west", position=40 * MB), [("locks", {"database": "orders"})]),
    ],
)  # fmt: skip
def test_a_button_is_there_for_what_helps_and_none_for_what_would_lose_data(
    seen: ClusterSeen, helps: list[tuple[str, Mapping[str, Any]]]
) -> None:
    assert offered(seen) == helps


async def asked(job: JobMaker, **changes: Any) -> Answer:
    made = job()
    made.database = replace(made.database, **changes)
    return await replication.answer(made, replication.Params(database="shop"))


async def test_a_database_whose_servers_nobody_named_says_how_to(
    job: JobMaker, shop: Server
) -> None:
    port = free_port()
    async with connected(shop) as conn:
        await conn.execute("CHECKPOINT")  # so that the slot holds back next to nothing
        await conn.execute("SELECT pg_create_physical_replication_slot('idle', true)")
        try:
            answer = await asked(
                job,
                replicas=(Node(name="west", dsn=SecretStr(f"postgresql://x@127.0.0.1:{port}/x")),),
            )
        finally:
            await conn.execute("SELECT pg_drop_replication_slot('idle')")
    assert answer.title == "Replication of shop: primary shop, 1 of 2 nodes answer, 1 problem"
    assert answer.table is not None
    own, west = answer.table.rows
    assert own[:5] == ("shop", "-", "primary", "takes writes", "1")
    assert west[3] == f"MISSING: connection refused by 127.0.0.1:{port}"
    assert "idle (physical, not in use, retains " in dict(answer.facts)["Slots of shop"]
    assert answer.lines[0].startswith("Warning: west does not answer: connection refused")
    assert "cluster: {kind: patroni, nodes: [{name: east" in answer.lines[-1]
    assert answer.suggestions == ()


async def test_a_named_cluster_is_looked_at_through_its_adapter(
    job: JobMaker, shop: Server, tmp_path: Path
) -> None:
    port = free_port()
    nodes = (
        ClusterNode(name="east", dsn=SecretStr(shop.dsn("shop")), region="us"),
        ClusterNode(name="west", dsn=SecretStr(f"postgresql://x@127.0.0.1:{port}/x")),
    )
    settings = ClusterSettings(kind=ClusterKind.PAIR, nodes=nodes, is_synchronous=True)
    answer = await asked(job, cluster=settings)
    assert answer.title == "Replication of shop: primary east, 1 of 2 nodes answer, 2 problems"
    assert [line.split(":")[0] for line in answer.lines] == ["Warning", "Warning"]
    assert any("is not synchronous now" in line for line in answer.lines)
    patroni = replace(settings, kind=ClusterKind.PATRONI, nodes=tuple(
        replace(each, rest=f"http://127.0.0.1:{port}") for each in nodes
    ))  # fmt: skip
    answer = await asked(job, cluster=patroni)
    assert any("Patroni does not answer" in line for line in answer.lines)
    assert not tmp_path.joinpath("backups").exists()


async def test_a_dsn_that_cannot_be_read_is_explained(job: JobMaker) -> None:
    nodes = (ClusterNode(name="east", dsn=SecretStr("host=x colour=red")),)
    settings = ClusterSettings(kind=ClusterKind.PAIR, nodes=nodes)
    with pytest.raises(JobError, match="cannot be understood"):
        await asked(job, cluster=settings)
    with pytest.raises(JobError, match="cannot be understood"):
        await asked(job, dsn=SecretStr("host=x colour=red"))


def test_it_is_a_query_that_may_wait_for_a_server_that_hangs() -> None:
    assert replication.OPERATION.is_cached is False
    assert replication.OPERATION.patience is not None
    assert replication.OPERATION.patience > 3 * replication.LIMIT
