"""The demo's database with two servers is reached at whichever is the primary, or left out."""

from __future__ import annotations

import os
from pathlib import Path

import asyncpg
import pytest

from bot.cli.demo_inventory import demo_inventory
from jobs.cluster_settings import DrillKind
from postgres.binaries import find_binaries
from postgres.cluster.words import ClusterKind
from postgres.server import Server
from sandbox import payments
from sandbox.clusters import CONTENTS, DemoCluster
from sandbox.ha import PairSandbox
from sandbox.payments import Payments, start_payments


async def test_without_a_router_a_reader_finds_the_primary_in_the_list(pair: PairSandbox) -> None:
    made = Payments(sandbox=pair, router=None)
    dsn = made.dsn.replace("/payments?", "/postgres?")
    conn = await asyncpg.connect(
        dsn, timeout=30, server_settings={"default_transaction_read_only": "on"}
    )
    try:
        port = await conn.fetchval("SELECT current_setting('port')::int")
    finally:
        await conn.close()
    assert port == pair.port(await pair.primary())
    assert made.kind is ClusterKind.PAIR


async def test_a_machine_without_proc_has_no_two_servers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(payments, "can_tell_hosts", lambda: False)
    assert await start_payments(tmp_path, find_binaries(os.environ)) is None
    assert not list(tmp_path.iterdir())


async def test_it_is_filled_once_and_belongs_to_the_application(pair: PairSandbox) -> None:
    primary = await pair.primary()
    try:
        for _ in range(2):
            await payments._fill(pair, primary)
        owner = "SELECT tableowner FROM pg_tables WHERE tablename = 'charges'"
        assert await pair.query(primary, owner, database="payments") == pair.app_user
        count = "SELECT count(*) FROM charges"
        assert await pair.query(primary, count, database="payments") == 20_000
    finally:
        await pair.query(primary, "DROP DATABASE IF EXISTS payments WITH (FORCE)")


def test_the_inventory_names_both_servers_and_what_may_be_done_to_them(
    tmp_path: Path, server: Server, session_pair: PairSandbox
) -> None:
    clusters = tuple(DemoCluster(name=name, server=server) for name in CONTENTS)
    made = Payments(sandbox=session_pair, router=None)
    entry = demo_inventory(tmp_path, clusters, made, by_clock=False).database("payments")
    assert entry.cluster is not None
    assert [each.name for each in entry.cluster.nodes] == list(session_pair.names)
    assert [each.host for each in entry.cluster.nodes] == [e.host for e in session_pair.specs]
    assert entry.cluster.is_sandbox
    assert set(DrillKind) - set(entry.cluster.drills.kinds) == {DrillKind.NETWORK_SPLIT}
    assert entry.cluster.drills.schedule == ""
    assert entry.environment != "production"
    left_out = demo_inventory(tmp_path, clusters, None, by_clock=False)
    assert "payments" not in left_out.databases
