"""A firing becomes one request, whoever asks for it and whatever dies on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from approvals.by_the_clock import CLOCK
from approvals.words import Door, State
from bot.cards import card_of
from bot.command_text import Asked
from bot.planning import attributes
from bot.scheduled import LEASE, ScheduledRequests
from bot.views.request import request_message
from jobs import firings
from jobs.alerts import findings
from jobs.backup_settings import PRUNE_CRON, TIERS, VERIFY_CRON, BackupSettings
from jobs.backup_state import states
from jobs.operation import Plan
from jobs.registry import load_operations
from jobs.timetable import GRACE, GRACE_MAX, timetable
from sandbox.slack.server import SlackStandIn
from store.backups import BackupRecord, record_backup
from store.connect import Store
from tests.bot.clock_world import ClockWorld, Params, clock_world
from tests.jobs.test_timetable import a_database

DAILY = "backup-daily orders"
TWO = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)  # a Sunday
MINUTE = timedelta(minutes=1)


@pytest.fixture
async def world(slack: SlackStandIn, store: Store, tmp_path: Path) -> AsyncIterator[ClockWorld]:
    async with clock_world(slack, store, tmp_path) as made:
        yield made


def a_backup(backup_id: str, at: datetime, **more: Any) -> BackupRecord:
    values: dict[str, Any] = {
        "id": backup_id, "database": "orders", "kind": "full", "engine": "native",
        "state": "complete", "folder": "/backups", "started_at": at, "ended_at": at + MINUTE,
        "seconds": 60.0, "size_bytes": 10, "data_bytes": 20, "start_lsn": "0/2000028",
        "end_lsn": "0/2000100", "timeline": 1, "system_identifier": "1", "major": 17,
        "manifest_sha256": "", "row_counts": {}, "request_id": None, "tiers": ["daily"],
    }  # fmt: skip
    return BackupRecord(**{**values, **more})


async def test_a_firing_is_asked_for_once_and_runs_by_the_standing_grant(world: ClockWorld) -> None:
    assert await world.fire_at(TWO) == [DAILY, "verify orders"]
    replicas = [world.asker() for _ in range(3)]
    assert sum(await asyncio.gather(*(each.look() for each in replicas))) == 2
    assert await replicas[0].look() == 0
    daily, verify = await world.rows(
        "SELECT operation, state, asked_by, door, attributes ->> 'scheduled', params, rule"
        " FROM requests ORDER BY operation"
    )
    assert daily[:5] == ("backup", "approved", CLOCK.id, "clock", "yes")
    assert daily[5] == {"database": "orders", "kind": "full", "tier": "daily", "at": ""}
    assert (verify[5]["at"], verify[6]) == ("random", "by the clock")
    assert len(await world.rows("SELECT 1 FROM runs WHERE state = 'queued'")) == 2
    assert {ask["state"] for ask in (await world.asks()).values()} == {"asked"}


async def test_without_a_grant_people_are_asked_and_see_who_asks(
    slack: SlackStandIn, store: Store, tmp_path: Path
) -> None:
    async with clock_world(slack, store, tmp_path, grant=False) as world:
        await world.fire_at(TWO)
        await world.asker().look()
        record, *_ = await world.desk.approvals.recent()
        assert (record.state, record.channel) == (State.PENDING, "C0DBOPS")
        shown = str(request_message(card_of(record), tokens=str).content())
        assert "by the schedule" in shown


async def test_who_dies_after_asking_leaves_one_request_to_be_found(world: ClockWorld) -> None:
    await world.fire_at(TWO)
    dying = world.asker()
    desk = world.desk
    taken = await firings.take(
        desk.store, dying.timed, since=TWO - GRACE_MAX, now=TWO, lease_until=TWO + LEASE, rows=9
    )
    for firing in taken:
        await dying._asked(firing, dying.timed[firing.schedule])  # and dies before it settles
    assert await world.asker().look() == 0  # its lease still holds
    world.clock.now = TWO + LEASE + MINUTE
    assert await world.asker().look() == 2
    assert len(await world.rows("SELECT 1 FROM requests")) == 2
    asks = await world.asks()
    assert {ask["state"] for ask in asks.values()} == {"asked"}
    numbers = {row[0] for row in await world.rows("SELECT id FROM requests")}
    assert {ask["request"] for ask in asks.values()} == numbers


async def test_a_plan_that_fails_is_tried_again_and_given_up_after_its_grace(
    world: ClockWorld,
) -> None:
    world.planning.fails = "orders cannot be reached."
    await world.fire_at(TWO)
    asker = world.asker()
    tries = 0
    while world.clock.now < TWO + GRACE["backup-daily"]:
        tries += await asker.look()
        world.clock.now += MINUTE
    assert 2 * 20 < tries < 2 * 40  # not each minute, and not once
    world.clock.now += timedelta(minutes=20)
    await asker.look()
    asks = await world.asks()
    assert asks[DAILY]["state"] == "failed"
    assert asks[DAILY]["problem"] == "orders cannot be reached."
    assert asks["verify orders"]["state"] == "waiting"  # half a day is its grace
    assert await world.rows("SELECT 1 FROM requests") == []


async def test_where_there_is_nothing_to_do_nobody_is_asked_and_nothing_is_wrong(
    world: ClockWorld,
) -> None:
    world.planning.nothing = True
    await world.fire_at(TWO)
    assert await world.asker().look() == 2
    world.clock.now += timedelta(minutes=30)
    assert await world.asker().look() == 0
    assert {ask["state"] for ask in (await world.asks()).values()} == {"nothing"}
    assert await world.rows("SELECT 1 FROM requests") == []


async def test_a_plan_that_works_again_in_time_is_asked_for(world: ClockWorld) -> None:
    world.planning.broken = True
    await world.fire_at(TWO)
    await world.asker().look()
    assert "broke" in (await world.asks())[DAILY]["problem"]
    world.planning.broken = False
    world.clock.now += 2 * MINUTE
    await world.asker().look()
    assert (await world.asks())[DAILY]["state"] == "asked"


async def test_what_fired_while_no_bot_asked_is_given_up_with_its_reason(world: ClockWorld) -> None:
    await world.fire_at(TWO)
    world.clock.now = TWO + GRACE["backup-daily"] + MINUTE
    await world.asker().look()
    ask = (await world.asks())[DAILY]
    assert (ask["state"], ask["problem"]) == (
        "failed", "No bot was there to ask for it in time.",
    )  # fmt: skip


async def test_a_weekly_backup_is_served_by_the_daily_one_before_it(world: ClockWorld) -> None:
    async with world.desk.store.begin() as conn:
        await record_backup(conn, a_backup("orders-1", TWO))
    await world.fire_at(TWO)
    await world.asker().look()
    assert await world.fire_at(TWO + timedelta(hours=1)) == ["backup-weekly orders"]
    await world.asker().look()
    ask = (await world.asks())["backup-weekly orders"]
    assert (ask["state"], ask["backup"]) == ("shared", "orders-1")
    assert await world.rows("SELECT tiers FROM backups") == [(["daily", "weekly"],)]
    weekly = "SELECT 1 FROM requests WHERE params ->> 'tier' = 'weekly'"
    assert await world.rows(weekly) == []


async def test_a_tier_waits_for_the_backup_that_is_being_taken_and_then_shares_it(
    world: ClockWorld,
) -> None:
    await world.fire_at(TWO)
    await world.asker().look()
    await world.fire_at(TWO + timedelta(hours=1))
    await world.asker().look()  # the daily one still waits for its worker
    weekly = (await world.asks())["backup-weekly orders"]
    assert weekly["state"] == "waiting"
    assert "takes a backup of orders already" in weekly["problem"]
    async with world.desk.store.begin() as conn:
        # It took four hours, which is longer than a tier may share otherwise.
        await record_backup(conn, a_backup("orders-1", TWO, ended_at=TWO + timedelta(hours=4)))
        await conn.execute(sa.text("UPDATE requests SET state = 'done'"))
    world.clock.now = TWO + timedelta(hours=4, minutes=1)
    await world.asker().look()
    assert (await world.asks())["backup-weekly orders"]["state"] == "shared"


async def test_tiers_that_are_due_at_once_take_one_backup(
    slack: SlackStandIn, store: Store, tmp_path: Path
) -> None:
    both = '{archive: {method: none}, weekly: {cron: "0 2 * * 0"}, verify: false, prune: false}'
    async with clock_world(slack, store, tmp_path, backups=both) as world:
        assert len(await world.fire_at(TWO)) == 2
        await world.asker().look()
        assert sorted(ask["state"] for ask in (await world.asks()).values()) == [
            "asked",
            "waiting",
        ]


async def test_where_there_is_nothing_to_do_nothing_is_asked_and_nothing_is_wrong(
    world: ClockWorld,
) -> None:
    world.planning.is_idle = True
    await world.fire_at(TWO + timedelta(hours=3))
    await world.asker().look()
    assert (await world.asks())["prune orders"]["state"] == "nothing"
    async with world.desk.store.begin() as conn:
        [state] = await states(conn, world.desk.inventory.databases.values(), world.clock.now)
    assert "ScheduledRequestFailed" not in {alert.name for alert in findings(state, TWO)}


async def test_a_damaged_backup_serves_no_tier(world: ClockWorld) -> None:
    await world.fire_at(TWO)
    await world.asker().look()
    async with world.desk.store.begin() as conn:
        await record_backup(conn, a_backup("orders-1", TWO, state="damaged"))
        await conn.execute(sa.text("UPDATE requests SET state = 'done'"))
    await world.fire_at(TWO + timedelta(hours=1))
    await world.asker().look()
    assert (await world.asks())["backup-weekly orders"]["state"] == "asked"


async def test_the_running_bot_fires_and_asks(world: ClockWorld) -> None:
    stop = asyncio.Event()
    world.clock.now = TWO
    asker = ScheduledRequests(desk=world.desk, poll=timedelta(milliseconds=20))
    await world.scheduler().look()
    task = asyncio.create_task(asker.run(stop))
    async with asyncio.timeout(30):
        while len(await world.rows("SELECT 1 FROM requests")) < 2:
            await asyncio.sleep(0.02)
    stop.set()
    async with asyncio.timeout(30):
        await task


def test_no_plan_says_that_a_schedule_asks(world: ClockWorld) -> None:
    operation = world.desk.operations["backup"]
    asked = Asked(operation=operation, params=Params(database=""), database="", reason="")
    plan = Plan(title="x", steps=("y",), attributes={"scheduled": "yes"})
    for door in Door:
        with pytest.raises(TypeError, match="scheduled"):
            attributes(asked, plan, None, door=door)
    found = attributes(asked, replace(plan, attributes={}), None, door=Door.SLACK)
    assert "scheduled" not in found


async def test_a_whole_bot_does_what_its_clock_says_and_the_channel_reads_it(
    world: ClockWorld, slack: SlackStandIn
) -> None:
    stop = asyncio.Event()
    urls: asyncio.Queue[str] = asyncio.Queue()
    world.clock.now = TWO
    task = asyncio.create_task(world.twokey.run(stop, listening=urls.put_nowait))

    def done() -> str | None:
        texts = [message["text"] for message in slack.messages("C0DBOPS")]
        return next((t for t in texts if "On orders daily" in t and "Done" in t), None)

    text = await slack.wait_for(done, seconds=30)
    stop.set()
    async with asyncio.timeout(30):
        await task
    assert text is not None
    assert "by the schedule" in text
    assert await world.rows("SELECT DISTINCT state FROM requests") == [("done",)]
    assert await world.rows("SELECT 1 FROM notices") == []  # nobody was asked for anything


async def test_everything_that_schedules_ask_is_what_the_operations_take() -> None:
    operations = load_operations("commands")
    settings = BackupSettings(tiers=TIERS, verify_cron=VERIFY_CRON, prune_cron=PRUNE_CRON)
    kinds = ("full", "incremental", "logical")
    for kind in kinds:
        tiers = {tier: replace(each, kind=kind) for tier, each in TIERS.items()}
        for timed in timetable(a_database(settings=replace(settings, tiers=tiers))):
            params = operations[timed.operation].params.model_validate(timed.params)
            assert params.model_dump(mode="json").items() >= timed.params.items()
