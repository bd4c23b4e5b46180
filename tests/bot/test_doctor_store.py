"""The doctor says what a failover would do to the store, and what the store is beside."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import SecretStr

from approvals.words import BadInputError
from bot.doctor_store import examine_store_place, of_durability, of_host, of_sharing
from bot.settings import load_settings
from jobs.cluster_settings import ClusterNode, ClusterSettings, DrillKind, DrillSettings
from jobs.operation import Database
from jobs.own_store import Shared, Sharing
from postgres.cluster.words import ClusterKind
from postgres.server import Server
from store.connect import Store, connect
from store.hosts import Host
from tests.conftest import Target
from tests.jobs.support import database

SOME = DrillSettings(kinds=(DrillKind.SWITCHOVER, DrillKind.HOST_LOSS))


def clock() -> datetime:
    return datetime.now(UTC)


@pytest.mark.parametrize(
    ("standbys", "commits", "says"),
    [
        ("ANY 1 (*)", "on", ""),
        ("FIRST 1 (a, b)", "remote_apply", ""),
        ("", "on", "no standby is synchronous"),
        ("ANY 1 (*)", "local", "synchronous_commit is local"),
        ("ANY 1 (*)", "off", "synchronous_commit is off"),
    ],
)
def test_what_a_failover_may_lose_is_said(standbys: str, commits: str, says: str) -> None:
    found = of_durability(standbys, commits)
    assert found.ok == (not says)
    assert says in found.says
    assert found.ok or "synchronous_standby_names" in found.fix


def test_a_host_that_would_not_let_us_in_is_found_before_the_failover() -> None:
    host = Host(name="h2", port=5432)
    assert of_host(host, 0, "").says == "a standby"
    assert of_host(host, 3, "").says == "takes writes"
    refused = of_host(host, 0, "no pg_hba.conf entry")
    assert not refused.ok
    assert (refused.name, "no pg_hba.conf entry" in refused.says) == ("store host h2:5432", True)


@pytest.mark.parametrize(
    ("shared", "drills", "ok", "says"),
    [
        (Shared.NO, SOME, "ok", "another cluster"),
        (Shared.UNKNOWN, SOME, "", "cannot be told: pg2 is silent"),
        (Shared.UNKNOWN, DrillSettings(), "ok", "cannot be told: pg2 is silent"),
        (Shared.YES, DrillSettings(), "", "away amid each failover"),
        (Shared.YES, SOME, "", "CRITICAL: the store is on the cluster of orders, where drills"),
    ],
)
def test_a_store_beside_a_database_is_warned_of(
    shared: Shared, drills: DrillSettings, ok: str, says: str
) -> None:
    found = of_sharing("orders", Sharing(shared=shared, why="pg2 is silent"), drills=drills.kinds)
    assert found.ok == bool(ok)
    assert says in found.says
    assert found.ok or found.fix


def clustered(target: Target) -> Database:
    settings = ClusterSettings(
        kind=ClusterKind.PAIR,
        nodes=(ClusterNode(name="pg1", dsn=SecretStr(target.dsn)),),
        drills=SOME,
    )
    return replace(database("orders", target.dsn), cluster=settings)


async def test_the_doctor_looks_at_the_servers_themselves(
    store: Store, target: Target, server: Server
) -> None:
    databases = {"orders": clustered(target), "users": database("users", target.dsn)}
    [only] = await examine_store_place(store, databases, clock=clock)
    assert (only.name, only.ok) == ("store beside orders", False)
    assert "CRITICAL" in only.says
    name = store.dsn.get_secret_value().split("@/")[1].split("?")[0]
    two = connect(
        f"postgresql://postgres@/{name}?host={server.sockets},127.0.0.1&port={server.port},1"
    )
    try:
        found = await examine_store_place(two, {}, clock=clock)
    finally:
        await two.close()
    assert [(each.name, each.ok) for each in found] == [
        (f"store host {server.sockets}:{server.port}", True),
        ("store host 127.0.0.1:1", False),
        ("store's replication", False),
    ]


@pytest.mark.parametrize("name", ["TWOKEY_STORE", "TWOKEY_STORE_OWNER"])
def test_several_hosts_without_the_word_for_the_primary_stop_the_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    file = tmp_path / "dsn"
    file.write_text("postgresql://twokey:hunter2@h1,h2/twokey")
    for given in (file.read_text(), f"file:{file}"):
        monkeypatch.setenv(name, given)
        with pytest.raises(BadInputError, match="target_session_attrs=primary") as refused:
            load_settings()
        assert name in refused.value.problem
        assert "hunter2" not in refused.value.problem + refused.value.next_step
    monkeypatch.setenv(name, f"{file.read_text()}?target_session_attrs=read-write")
    load_settings()
