"""What may befall a node, and what is said of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from postgres.cluster.fault_words import Aim, Hit, aim_of, hit_of, judged
from postgres.cluster.faults import Fault, objection
from postgres.cluster.words import ClusterKind, HostSettings, NodeSpec
from postgres.dsn import parse_dsn
from postgres.errors import PostgresError

WHOLE = HostSettings(
    data=Path("/data"),
    programs=Path("/bin"),
    agent_pid=Path("/run/patroni.pid"),
    agent_start=("systemctl", "start", "patroni"),
    network_cut=("cut",),
    network_mend=("mend",),
)
HIT = Hit(refused="", servers=(123, 124, 125), left=(), agent=99, is_agent_alive=False)
PAIR, PATRONI = ClusterKind.PAIR, ClusterKind.PATRONI


def node(host: HostSettings | None = WHOLE) -> NodeSpec:
    return NodeSpec(name="east", target=parse_dsn("postgresql://u@127.0.0.1:1/app"), host=host)


@pytest.mark.parametrize("fault", Fault)
def test_what_has_all_that_it_takes_can_befall_a_patroni_node(fault: Fault) -> None:
    assert objection(node(), fault, PATRONI) is None


@pytest.mark.parametrize(
    ("host", "fault", "kind", "problem", "step"),
    [
        (None, Fault.SERVER, PAIR, "how to run programs where east lives", "`host:`"),
        (None, Fault.NETWORK, PATRONI, "how to run programs where east lives", "`host:`"),
        (replace(WHOLE, agent_pid=None), Fault.HOST, PATRONI, "it must be held", "agent_pid"),
        (replace(WHOLE, agent_pid=None), Fault.SERVER, PATRONI, "it must be held", "agent_pid"),
        (replace(WHOLE, agent_start=()), Fault.HOST, PATRONI, "starts east's agent", "agent_start"),
        (replace(WHOLE, network_cut=()), Fault.NETWORK, PATRONI, "is parted", "network_cut"),
        (replace(WHOLE, network_mend=()), Fault.NETWORK, PATRONI, "comes back", "network_mend"),
        (WHOLE, Fault.NETWORK, PAIR, "would go on to take writes", "Patroni cluster"),
    ],
)
def test_what_cannot_be_is_said_with_what_it_lacks(
    host: HostSettings | None, fault: Fault, kind: ClusterKind, problem: str, step: str
) -> None:
    found = objection(node(host), fault, kind)
    assert found is not None
    assert problem in found[0]
    assert step in found[1]


@pytest.mark.parametrize(
    ("host", "fault"),
    [
        (replace(WHOLE, agent_pid=None, agent_start=()), Fault.SERVER),
        (replace(WHOLE, agent_pid=None, agent_start=()), Fault.HOST),
    ],
)
def test_a_pair_has_no_agent_and_needs_none(host: HostSettings, fault: Fault) -> None:
    assert objection(node(host), fault, PAIR) is None


def test_an_agent_alone_cannot_be_asked_for() -> None:
    assert {each.value for each in Fault} == {"server", "host", "network"}


@pytest.mark.parametrize(
    ("fault", "hit", "said"),
    [
        (
            Fault.HOST,
            HIT,
            "killed the server (process 123 and 2 others) and its agent (process 99)",
        ),
        (
            Fault.SERVER,
            replace(HIT, is_agent_alive=True),
            "killed the server (process 123 and 2 others)",
        ),
        (
            Fault.HOST,
            replace(HIT, agent=None, servers=(123, 124)),
            "killed the server (process 123 and 1 other)",
        ),
        (
            Fault.SERVER,
            replace(HIT, servers=(123,)),
            "killed the server (process 123); its agent (process 99) ended meanwhile",
        ),
    ],
)
def test_what_was_done_is_told(fault: Fault, hit: Hit, said: str) -> None:
    assert judged("east", fault, hit) == said


@pytest.mark.parametrize(
    ("fault", "hit", "problem", "step"),
    [
        (Fault.HOST, replace(HIT, refused="its agent does not run"), "Nothing happened", "alone"),
        (
            Fault.HOST,
            replace(HIT, left=(124, 125)),
            "east's agent is gone while its server lives (process 124 and 1 other)",
            "kill -9 124 125",
        ),
        (
            Fault.SERVER,
            replace(HIT, left=(124,)),
            "east's agent is gone while its server lives (process 124)",
            "Stop the server at once",
        ),
        (
            Fault.HOST,
            replace(HIT, left=(124,), is_agent_alive=True),
            "Its agent (process 99) goes on to mind it",
            "Restart=",
        ),
        (Fault.SERVER, replace(HIT, left=(124,), agent=None), "lives though it was killed", "hang"),
        (Fault.HOST, replace(HIT, is_agent_alive=True), "its agent lives on", "Let the agent"),
    ],
)
def test_what_was_not_asked_for_is_an_error_with_what_to_do(
    fault: Fault, hit: Hit, problem: str, step: str
) -> None:
    with pytest.raises(PostgresError) as caught:
        judged("east", fault, hit)
    assert problem in caught.value.problem
    assert step in caught.value.next_step


def test_answers_of_a_machine_are_read_line_by_line() -> None:
    answer = "twokey\nsees\nserver 12\nserver 13\nagent 99\n"
    assert aim_of(answer) == Aim(sees=True, servers=(12, 13), agent=99)
    assert aim_of("twokey\n") == Aim(sees=False, servers=(), agent=None)
    answer = "twokey\nserver 12\nserver 13\nleft 13\nagent 99\nalive 99\n"
    assert hit_of(answer) == Hit(
        refused="", servers=(12, 13), left=(13,), agent=99, is_agent_alive=True
    )
    assert hit_of("twokey\nrefused no process lives\n").refused == "no process lives"
