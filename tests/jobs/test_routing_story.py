"""A pair is switched between a plan and its run: nothing in the inventory needs to change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from approvals.words import RunId
from bot.command_text import Asked
from bot.inventory import Inventory
from bot.planning import Planner
from commands import backup, health, indexes, replication
from jobs.backup_settings import ArchiveMethod, ArchiveSettings, BackupSettings
from jobs.claims import Call, PutOffError, led
from jobs.cluster_settings import ClusterNode, ClusterSettings
from jobs.health_settings import MonitoringSettings
from jobs.operation import Database, JobError, Operation, Plan
from jobs.routes import Routes
from jobs.routing import refusal_of
from postgres.cluster.words import ClusterKind, Outcome
from sandbox.ha import PairSandbox
from store.archives import ArchiveState, find_archive
from store.backups import newest_backup, record_backup
from store.connect import Store
from tests.approvals.support import BEN, CLEO, a_ballot, an_ask
from tests.jobs.support import Bench, database
from tests.jobs.test_archiving import backup as a_backup
from tests.jobs.test_archiving import keeping, row_with
from tests.jobs.test_failover_seen import TIMELINE
from tests.jobs.test_pinned import Site
from tests.postgres.cluster.pair_support import (
    LIMIT,
    Said,
    ask,
    cluster_of,
    roles,
    slots,
    until,
)

SLOT = "keeper_test"


def a_pair(pair: PairSandbox, first: str, folder: Path, **more: Any) -> Database:
    """The inventory's entry; its own DSN leads to one of the servers, whatever becomes of it."""
    made = Database(
        name="orders",
        dsn=SecretStr(pair.dsn(first)),
        environment="production",
        tier=database("orders", "").tier,
        channel="C0ORDERS",
        backup_folder=folder / "backups",
        monitoring=MonitoringSettings(is_on=False),
        cluster=ClusterSettings(
            kind=ClusterKind.PAIR,
            nodes=tuple(
                ClusterNode(name=each.name, dsn=SecretStr(each.target.url()), region=each.region)
                for each in pair.specs
            ),
        ),
    )
    return replace(made, **more)


async def switch(pair: PairSandbox) -> str:
    """Hand over to the other server; who it is."""
    old, new = await roles(pair)
    cluster = cluster_of(pair)
    try:
        verdict = await cluster.switch(leader=old, candidate=new, limit=LIMIT, tell=Said())
    finally:
        await cluster.close()
    assert verdict.outcome is Outcome.DONE
    return new


def asked(operation: Operation, **params: Any) -> Asked:
    given = operation.params.model_validate({"database": "orders", **params})
    return Asked(operation=operation, params=given, database="orders", reason="")


class Shop(Site):
    """The service and a worker; whatever is asked for is planned as the bot plans it."""

    def __init__(self, bench: Bench, orders: Database) -> None:
        super().__init__(bench, "postgresql://nowhere")
        self.orders = orders
        self.operation = backup.OPERATION
        nowhere = Path("/nonexistent")
        inventory = Inventory(path=nowhere, policy=nowhere, groups={}, databases={"orders": orders})
        self.planner = Planner(
            inventory=inventory, readers=self.readers,
            store=bench.store, clock=lambda: datetime.now(UTC), limit=timedelta(seconds=30),
        )  # fmt: skip

    async def agreed(self, plan: Plan) -> RunId:
        body = {"title": plan.title, "steps": list(plan.steps), "pins": dict(plan.pins)}
        params = {"database": "orders", "kind": "full", "tier": ""}
        ask_for = an_ask(operation="backup", params=params, plan=body)
        request = await self.approvals.ask(ask_for)
        await self.approvals.vote(a_ballot(request, BEN))
        decided = await self.approvals.vote(a_ballot(request, CLEO))
        assert decided.request
        assert decided.request.run_id
        return decided.request.run_id

    def worker(self) -> Any:
        made = super().worker()
        object.__setattr__(made.given, "operations", {"backup": backup.OPERATION})
        return made


@pytest.fixture
async def shop(bench: Bench, pair: PairSandbox, tmp_path: Path) -> AsyncIterator[Shop]:
    made = Shop(bench, a_pair(pair, await pair.primary(), tmp_path))
    try:
        yield made
    finally:
        await made.readers.close()


async def test_a_plan_for_the_old_primary_is_refused_and_a_new_one_goes_to_the_new(
    shop: Shop, pair: PairSandbox, store: Store
) -> None:
    old = await pair.primary()
    plan = await shop.planner.plan(asked(backup.OPERATION))
    assert plan.pins["primary"].endswith(f":{pair.port(old)} (primary)")
    run_id = await shop.agreed(plan)
    new = await switch(pair)
    await shop.was_sent_back(
        run_id, "The plan no longer fits the database", "timeline was ",
        f":{pair.port(old)} (primary) and is ", f":{pair.port(new)} (primary)",
        "Ask for a new plan.",
    )  # fmt: skip
    shop.planner.routes.forget("orders")
    again = await shop.planner.plan(asked(backup.OPERATION))
    assert again.pins["primary"].endswith(f":{pair.port(new)} (primary)")
    assert await shop.comes_to(await shop.agreed(again)) == "done"
    async with store.begin() as conn:
        taken = await newest_backup(conn, "orders")
    assert taken is not None
    assert str(taken.timeline) == again.pins["timeline"]
    found = await shop.planner.answer(asked(indexes.OPERATION))
    assert found.title
    assert (await shop.planner.answer(asked(health.OPERATION))).title


async def test_without_a_primary_what_needs_one_says_what_to_do_and_the_rest_goes_on(
    shop: Shop, pair: PairSandbox
) -> None:
    old, other = await roles(pair)
    pair.kill_server(old)
    with pytest.raises(JobError, match=f"No server of orders takes writes: {old} does not") as no:
        await shop.planner.plan(asked(backup.OPERATION))
    assert "/db replication orders" in no.value.next_step
    with pytest.raises(JobError, match=f"{other} is a standby"):
        await shop.planner.answer(asked(indexes.OPERATION))
    seen = await shop.planner.answer(asked(replication.OPERATION))
    assert seen.suggestions
    assert (await shop.planner.answer(asked(health.OPERATION))).title
    # A run waits for a primary; one that does not touch its target goes on, and a run of who
    # looks at the nodes itself is not even asked about.
    given = shop.worker().given
    call = replace(_call(), database=shop.orders)
    with pytest.raises(PutOffError, match="Waiting: No server of orders takes writes"):
        await led(given, call)
    apart = replace(call, operation=replace(backup.OPERATION, pinned=frozenset()))
    there = (await led(given, apart)).database
    assert there is not None
    assert refusal_of(there) is not None
    itself = replace(call, operation=replace(backup.OPERATION, is_routed=False))
    assert await led(given, itself) is itself


def _call() -> Call:
    assert backup.OPERATION.run is not None
    return Call(
        operation=backup.OPERATION,
        run=backup.OPERATION.run,
        params=backup.Params(database="orders"),
        plan=Plan(title="", steps=()),
        database=None,
    )


async def test_a_server_that_hangs_costs_its_limit_and_hides_no_primary(
    shop: Shop, pair: PairSandbox
) -> None:
    old, other = await roles(pair)
    pair.freeze(other)
    routes, limit = Routes(), timedelta(seconds=0.7)
    loop = asyncio.get_running_loop()
    try:
        began = loop.time()
        found = await routes.of(shop.orders, limit=limit)
        took = loop.time() - began
        again = loop.time()
        assert await routes.of(shop.orders, limit=limit) is found
    finally:
        pair.thaw(other)
    assert refusal_of(found) is None
    assert f"port={pair.port(old)}" in found.dsn.get_secret_value()
    assert took >= limit.total_seconds()
    assert loop.time() - again < took  # it is remembered


async def archive(store: Store) -> ArchiveState | None:
    async with store.begin() as conn:
        return await find_archive(conn, "orders")


async def timeline(pair: PairSandbox, name: str) -> int:
    return int(str(await ask(pair, name, TIMELINE)))


async def write(pair: PairSandbox, name: str, segments: int = 1) -> None:
    for _ in range(segments):
        await ask(pair, name, "SELECT pg_logical_emit_message(true, 'x', 'x')::text")
        await ask(pair, name, "SELECT pg_switch_wal()::text")


async def test_the_archive_follows_the_primary_and_what_it_missed_is_told(
    store: Store, pair: PairSandbox, tmp_path: Path
) -> None:
    old, new = await roles(pair)
    receive = ArchiveSettings(method=ArchiveMethod.RECEIVE, slot=SLOT)
    orders = a_pair(pair, old, tmp_path, backups=BackupSettings(archive=receive))
    async with keeping(store, orders):
        await row_with(store, state="streaming", received_lsn="/")
        lsn = str(await ask(pair, old, "SELECT pg_current_wal_lsn()::text"))
        async with store.begin() as conn:
            await record_backup(conn, replace(a_backup(lsn), timeline=await timeline(pair, old)))
        await write(pair, old)
        await switch(pair)
        await write(pair, new)
        branch = f"{await timeline(pair, new):08X}"
        state = await row_with(store, state="streaming", last_segment=branch, slot_state="active")
        assert (state.gaps, state.problem) == ([], "")
        # What it kept is in the archive, and nobody would ever read it there.
        await until(lambda: _has_no_slot(pair, old))
        await write(pair, new)
    # Nobody receives while it is switched back, and the WAL in between is gone.
    assert await switch(pair) == old
    kept = await archive(store)
    assert kept is not None
    await until(lambda: _has_let_go(pair, old, kept.last_segment))
    async with keeping(store, orders):
        state = await row_with(store, state="broken", problem="lacks ")
        assert state.gaps
        assert "Take a full backup now: /db backup orders" in state.next_step
        await row_with(store, slot_state="active", last_segment=f"{await timeline(pair, old):08X}")
        now = await archive(store)
        assert now is not None
        assert now.state == "broken"


async def _has_let_go(pair: PairSandbox, name: str, segment: str) -> bool:
    """Whether a server has removed all WAL up to a segment's; what its standby needs, stays."""
    await write(pair, name, 2)
    await ask(pair, name, "CHECKPOINT")
    query = "SELECT min(substr(name, 9)) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'"
    return str(await ask(pair, name, query)) > segment[8:24]


async def _has_no_slot(pair: PairSandbox, name: str) -> bool:
    return SLOT not in (await slots(pair, name) or [])  # type: ignore[operator]
