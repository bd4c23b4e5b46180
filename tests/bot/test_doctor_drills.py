"""The doctor says which drills the inventory allows and its servers never let happen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from bot.doctor_drills import examine_drills
from jobs.cluster_settings import ClusterNode, ClusterSettings, DrillKind, DrillSettings
from jobs.operation import Database
from postgres.cluster.words import ClusterKind, HostSettings
from tests.jobs.test_timetable import a_database

HOST = HostSettings(data=Path("/srv/pg"), programs=Path("/usr/lib/postgresql/15/bin"))


def clustered(
    *kinds: DrillKind, servers: int = 3, host: HostSettings | None = HOST,
    kind: ClusterKind = ClusterKind.PAIR, schedule: str = "0 0 1 */3 *",
) -> Database:  # fmt: skip
    """A production database with so many servers, whose disasters of these kinds are allowed."""
    nodes = tuple(
        ClusterNode(name=f"node{number}", dsn=SecretStr("postgresql://u@x.example/x"), host=host)
        for number in range(servers)
    )
    drills = DrillSettings(kinds=kinds, kind=kinds[0] if kinds else DrillKind.SWITCHOVER,
                           schedule=schedule)  # fmt: skip
    return replace(a_database(), cluster=ClusterSettings(kind=kind, nodes=nodes, drills=drills))


def test_without_drills_nothing_is_said() -> None:
    assert examine_drills(a_database()) == []
    assert examine_drills(clustered()) == []


def test_what_can_take_place_is_named_with_what_the_clock_asks_for() -> None:
    [found] = examine_drills(clustered(DrillKind.PRIMARY_CRASH, DrillKind.RESTORE))
    assert found.ok
    assert found.says == "primary-crash, restore; primary-crash by the clock"
    [found] = examine_drills(clustered(DrillKind.SWITCHOVER, servers=1, host=None, schedule=""))
    assert (found.ok, found.says) == (True, "switchover; by hand")


@pytest.mark.parametrize(
    ("database", "problem", "fix"),
    [
        (clustered(DrillKind.HOST_LOSS, servers=2), "1 would be left, and 2 must be",
         "cluster.drills.leaves"),
        (clustered(DrillKind.PRIMARY_CRASH, host=None), "how to run programs where node0 lives",
         "`host:`"),
        (clustered(DrillKind.HOST_LOSS, kind=ClusterKind.PATRONI), "node0", "agent"),
    ],
)  # fmt: skip
def test_what_will_always_be_refused_is_a_failure_with_what_to_write(
    database: Database, problem: str, fix: str
) -> None:
    [found] = examine_drills(database)
    assert not found.ok
    assert problem in found.says
    assert fix in found.fix


def test_a_dsn_that_nobody_understands_is_said_and_stops_nothing() -> None:
    database = clustered(DrillKind.SWITCHOVER)
    assert database.cluster is not None
    broken = replace(database.cluster.nodes[0], dsn=SecretStr("mysql://x"))
    [found] = examine_drills(replace(database, cluster=replace(database.cluster, nodes=(broken,))))
    assert not found.ok
    assert found.fix
