"""A plan runs on the database that it was made for, as that database was, or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from pydantic import BaseModel, JsonValue, SecretStr

from approvals.calls import Decision
from approvals.service import Approvals
from approvals.words import RunId
from jobs.engine import PgQueue
from jobs.operation import (
    Answer,
    Attempt,
    Context,
    Database,
    Job,
    Kind,
    Mode,
    Operation,
    Pin,
    Plan,
    Risk,
)
from jobs.pinned import planned, what_moved
from jobs.reader import LiveContext, Readers
from jobs.worker import Worker
from postgres.server import Binaries, Server, create, find_binaries, standby
from store.backups import BackupRecord, Verification, record_backup, record_verification
from tests.approvals.support import ANA, BEN, CLEO, KEYS, a_ballot, an_ask, policy_of
from tests.jobs.support import QUICK, Bench, clock, database, working
from tests.jobs.test_with_approvals import Town

FAST = {"fsync": "off", "shared_buffers": "16MB", "max_connections": "20"}


class Params(BaseModel):
    """What to touch."""

    database: str


async def touch_plan(context: Context, params: Params) -> Plan:
    return Plan(title="Touch", steps=("Touch it",), attributes={})


TOUCHED: list[str] = []


async def touch_run(job: Job, params: Params, plan: Plan) -> Answer:
    async def body(attempt: Attempt) -> JsonValue:
        TOUCHED.append(job.database.name)
        return None

    await job.step("touch", body, mode=Mode.ONCE, time_limit=timedelta(seconds=10))
    return Answer(title="Touched")


TOUCH = Operation(
    name="touch",
    summary="Touch a database",
    kind=Kind.CHANGE,
    risk=Risk.DISRUPTIVE,
    params=Params,
    example="/db touch orders",
    plan=touch_plan,
    run=touch_run,
    pinned=frozenset(Pin),
)


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="tk", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def binaries() -> Binaries:
    return find_binaries(os.environ)


@pytest.fixture
async def primary(binaries: Binaries, home: Path) -> AsyncIterator[Server]:
    made = await create(binaries, home / "primary", settings=FAST, sync=False)
    await made.start()
    try:
        yield made
    finally:
        await made.remove()


class Site:
    """The real service and worker, and one database whose address a test may move."""

    def __init__(self, bench: Bench, dsn: str) -> None:
        TOUCHED.clear()
        self.bench = bench
        self.readers = Readers()
        self.orders = database("orders", dsn)
        self.operation = TOUCH
        self.approvals = Approvals(
            store=bench.store, keys=KEYS, queue=PgQueue(bench.store), clock=clock,
            policy=policy_of(2),
        )  # fmt: skip

    def moved_to(self, dsn: str) -> None:
        self.orders = replace(self.orders, dsn=SecretStr(dsn))

    def context(self) -> LiveContext:
        return LiveContext(
            target=self.orders, readers=self.readers, store=self.bench.store, clock=clock
        )

    def worker(self) -> Worker:
        databases: Mapping[str, Database] = {"orders": self.orders}
        return Worker(
            store=self.bench.store,
            approvals=self.approvals,
            directory=Town({person.id: person for person in (ANA, BEN, CLEO)}),
            operations={"touch": self.operation},
            databases=databases,
            home=self.bench.home,
            clock=clock,
            limits=QUICK,
        )

    async def granted(self) -> RunId:
        params = Params(database="orders")
        plan = await planned(self.operation, self.context(), params)
        body: dict[str, Any] = {
            "title": plan.title, "steps": list(plan.steps), "pins": dict(plan.pins)
        }  # fmt: skip
        ask = an_ask(operation="touch", params=params.model_dump(), plan=body)
        asked = await self.approvals.ask(ask)
        await self.approvals.vote(a_ballot(asked, BEN))
        decided: Decision = await self.approvals.vote(a_ballot(asked, CLEO))
        assert decided.request
        assert decided.request.run_id
        return decided.request.run_id

    async def comes_to(self, run_id: RunId) -> str:
        async with working(self.worker()):
            return await self.bench.until(run_id, "done", "failed", "refused")

    async def was_sent_back(self, run_id: RunId, *because: str) -> None:
        """To pending, without its votes, with the reason in its card and in the audit."""
        last = await self.bench.one("SELECT coalesce(max(id), 0) FROM outbox")
        assert await self.comes_to(run_id) == "refused"
        assert TOUCHED == []
        (record,) = await self.approvals.recent()
        assert (record.state, record.votes) == ("pending", ())
        assert record.detail.ending
        for part in because:
            assert part in record.detail.ending.text
        assert await self.bench.one("SELECT count(*) FROM outbox WHERE id > $1", last) >= 1
        action = "SELECT action FROM audit_log ORDER BY at DESC, seq DESC LIMIT 1"
        assert await self.bench.one(action) == "send_back"


@pytest.fixture
async def site(bench: Bench, work_target: str) -> AsyncIterator[Site]:
    made = Site(bench, work_target)
    try:
        yield made
    finally:
        await made.readers.close()


async def execute(dsn: str, statement: str) -> None:
    conn = await asyncpg.connect(dsn, timeout=30)
    try:
        await conn.execute(statement)
    finally:
        await conn.close()


async def test_what_has_not_moved_runs(site: Site) -> None:
    run_id = await site.granted()
    assert await site.comes_to(run_id) == "done"
    assert TOUCHED == ["orders"]


async def test_ddl_in_between_sends_it_back(site: Site, work_target: str) -> None:
    run_id = await site.granted()
    await execute(work_target, "CREATE INDEX by_run ON work (run)")
    try:
        await site.was_sent_back(run_id, "schema was ", "Ask for a new plan.")
    finally:
        await execute(work_target, "DROP INDEX by_run")


async def test_a_standby_that_was_promoted_in_between_sends_it_back(
    site: Site, primary: Server, home: Path
) -> None:
    follower = await standby(primary, home / "follower")
    async with follower.running():
        site.moved_to(follower.dsn())
        run_id = await site.granted()
        await follower.promote()
        await site.was_sent_back(
            run_id, "timeline was 1 and is 2", "(standby) and is ", "(primary)"
        )


async def test_an_address_that_leads_to_the_new_primary_sends_it_back(
    site: Site, primary: Server, home: Path
) -> None:
    follower = await standby(primary, home / "follower")
    async with follower.running():
        site.moved_to(primary.dsn())
        run_id = await site.granted()
        await primary.stop("immediate")
        await follower.promote()
        site.moved_to(follower.dsn())
        await site.was_sent_back(
            run_id, "timeline was 1 and is 2", f":{primary.port} (primary)", f":{follower.port}"
        )


async def test_a_connection_that_leads_to_where_the_address_led_is_not_asked(
    site: Site, primary: Server, home: Path
) -> None:
    follower = await standby(primary, home / "follower")
    async with follower.running():
        site.moved_to(primary.dsn())
        run_id = await site.granted()
        worker = site.worker()
        old = await worker.given.readers.of(site.orders).rows("SELECT 1")
        assert old
        object.__setattr__(site.orders, "dsn", SecretStr(follower.dsn()))
        async with working(worker):
            assert await site.bench.until(run_id, "done", "refused") == "refused"
    assert TOUCHED == []


async def test_a_cluster_that_was_dropped_and_made_anew_sends_it_back(
    site: Site, primary: Server, binaries: Binaries, home: Path
) -> None:
    site.moved_to(primary.dsn())
    run_id = await site.granted()
    await primary.stop("immediate")
    again = await create(binaries, home / "again", port=primary.port, settings=FAST, sync=False)
    async with again.running():
        site.moved_to(again.dsn())
        await site.was_sent_back(run_id, "system_identifier was ")


async def test_a_plan_that_pins_less_than_its_operation_is_sent_back(site: Site) -> None:
    site.operation = replace(TOUCH, pinned=frozenset())
    run_id = await site.granted()
    site.operation = TOUCH
    await site.was_sent_back(run_id, "does not say for which", "timeline")


async def test_a_new_plan_fits_again(site: Site, work_target: str) -> None:
    run_id = await site.granted()
    await execute(work_target, "CREATE INDEX by_step ON work (step)")
    try:
        await site.was_sent_back(run_id, "schema was")
        assert await site.comes_to(await site.granted()) == "done"
    finally:
        await execute(work_target, "DROP INDEX by_step")


def a_backup(number: int, state: str = "complete") -> BackupRecord:
    at = clock() + timedelta(seconds=number)
    return BackupRecord(
        id=f"b{number}", database="orders", kind="full", engine="native", state=state,
        folder="/nonexistent", started_at=at, ended_at=at, seconds=1.0, size_bytes=1, data_bytes=1,
        start_lsn="0/1", end_lsn="0/2", timeline=1, system_identifier="1", major=17,
        manifest_sha256="0" * 64, row_counts={}, request_id=None,
    )  # fmt: skip


def verified(number: int, *, ok: bool = True) -> Verification:
    return Verification(
        backup_id=f"b{number}", at=clock(), ok=ok, restore_seconds=1.0, total_seconds=1.0,
        checks=[], request_id=None,
    )  # fmt: skip


async def moved(site: Site, plan: Plan) -> str | None:
    return await what_moved(site.operation, site.context(), Params(database="orders"), plan)


@pytest.fixture
async def counting_on_a_backup(site: Site) -> Site:
    site.operation = replace(TOUCH, pinned=frozenset({Pin.VERIFIED_BACKUP}))
    async with site.bench.store.begin() as conn:
        for number in (1, 2, 3):
            await record_backup(conn, a_backup(number))
        for number in (1, 2):
            await record_verification(conn, verified(number))
    return site


async def test_the_newest_verified_backup_is_pinned_and_a_newer_one_changes_nothing(
    counting_on_a_backup: Site,
) -> None:
    site = counting_on_a_backup
    plan = await planned(site.operation, site.context(), Params(database="orders"))
    assert plan.pins == {"verified_backup": "b2"}
    async with site.bench.store.begin() as conn:
        await record_verification(conn, verified(3))
    assert await moved(site, plan) is None


@pytest.mark.parametrize(
    ("statement", "now"),
    [
        ("UPDATE backups SET state = 'removed' WHERE id = 'b2'", "is removed"),
        ("UPDATE backups SET state = 'damaged' WHERE id = 'b2'", "is damaged"),
        ("DELETE FROM verifications WHERE backup_id = 'b2'", "is not verified"),
    ],
)
async def test_a_pinned_backup_that_cannot_be_counted_on_any_more_sends_it_back(
    counting_on_a_backup: Site, statement: str, now: str
) -> None:
    site = counting_on_a_backup
    plan = await planned(site.operation, site.context(), Params(database="orders"))
    await execute(site.bench.store.dsn.get_secret_value(), statement)
    assert f"verified_backup was b2 and {now}" in str(await moved(site, plan))


async def test_who_agreed_without_a_backup_agrees_with_one(site: Site) -> None:
    site.operation = replace(TOUCH, pinned=frozenset({Pin.VERIFIED_BACKUP}))
    plan = await planned(site.operation, site.context(), Params(database="orders"))
    assert plan.pins == {"verified_backup": "none"}
    async with site.bench.store.begin() as conn:
        await record_backup(conn, a_backup(1))
        await record_verification(conn, verified(1))
    assert await moved(site, plan) is None


def test_every_change_of_a_target_pins_where_it_stands_unless_it_says_otherwise() -> None:
    plain = Operation(
        name="any", summary="s", kind=Kind.CHANGE, risk=Risk.NONE, params=Params, example="/db any"
    )
    assert plain.pinned == {Pin.SYSTEM_IDENTIFIER, Pin.TIMELINE, Pin.PRIMARY}
