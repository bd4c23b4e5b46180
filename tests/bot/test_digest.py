"""Digests from the clock to the channel: which databases go together, and each posted once."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from bot.app import assembled
from bot.digest import DIGEST, planned
from bot.inventory import Inventory, parse_inventory
from bot.metrics import Metrics
from bot.schedules import schedules_of
from bot.views.digest import digest_message
from jobs.digest import Period
from jobs.health_settings import DigestSettings, MonitoringSettings
from jobs.operation import Database
from jobs.schedules import Scheduler
from sandbox.slack.server import SlackStandIn
from store.connect import Store
from store.samples import record
from store.tables import rollups
from tests.bot.clock_world import Clock
from tests.bot.world import CHANNEL, FAST, OPERATIONS, POLICY, settings
from tests.jobs.health import a_node
from tests.jobs.test_digest_words import BILLING, ORDERS, STOCK, a_digest
from tests.jobs.test_timetable import a_database

SUNDAY = datetime(2026, 11, 22, 12, tzinfo=UTC)
MONDAY_8 = datetime(2026, 11, 23, 8, tzinfo=UTC)
HOUR = timedelta(hours=1)
INVENTORY = """
policy: policy.yml
groups: {dba: S0DBA}
databases:
"""
ENTRY = """
  %s:
    dsn: postgresql://nobody@127.0.0.1:1/orders
    environment: production
    tier: critical
    channel: C0DBOPS
    backup_folder: backups
    monitoring: {digest: {channel: C0DBOPS}}
"""


def told(name: str, channel: str = "", **more: Any) -> Database:
    digest = DigestSettings(channel=channel, **more)
    return replace(a_database(name), monitoring=MonitoringSettings(digest=digest))


def test_databases_with_the_same_channel_and_time_are_one_digest() -> None:
    found = planned(
        [
            told("orders", "C0MANAGERS"),
            told("billing", "C0MANAGERS"),
            told("stock", "C0MANAGERS", zone="Europe/Berlin"),
            told("own", daily=""),
            a_database("quiet"),
        ]
    )
    groups = {each.name: [database.name for database in each.databases] for each in found}
    assert groups == {
        "digest-daily C0MANAGERS UTC 0 8 * * *": ["orders", "billing"],
        "digest-weekly C0MANAGERS UTC 0 8 * * 1": ["orders", "billing"],
        "digest-daily C0MANAGERS Europe/Berlin 0 8 * * *": ["stock"],
        "digest-weekly C0MANAGERS Europe/Berlin 0 8 * * 1": ["stock"],
        "digest-weekly C0DBOPS UTC 0 8 * * 1": ["own"],
    }


def inventory(home: Path) -> Inventory:
    (home / "policy.yml").write_text(POLICY)
    text = INVENTORY + ENTRY % "orders" + ENTRY % "billing"
    return parse_inventory(text, path=home / "twokey.yml", environ={})


def a_scheduler(store: Store, found: Inventory, clock: Clock, by: str) -> Scheduler:
    return Scheduler(
        store=store, schedules=schedules_of(found, clock, lambda timed: None), clock=clock, by=by,
        meter=Metrics().audit,
    )  # fmt: skip


async def rows(store: Store, statement: str) -> list[Any]:
    async with store.begin() as conn:
        return list((await conn.execute(sa.text(statement))).all())


async def test_two_bots_post_each_digest_once(store: Store, tmp_path: Path) -> None:
    clock, found = Clock(SUNDAY), inventory(tmp_path)
    bots = [a_scheduler(store, found, clock, by) for by in "ab"]
    await asyncio.gather(*(bot.look() for bot in bots))
    clock.now = MONDAY_8 + timedelta(seconds=5)
    await asyncio.gather(*(bot.look() for bot in bots))
    await bots[0].look()
    posted = await rows(
        store,
        "SELECT payload ->> 'period', channel FROM outbox WHERE topic = 'digest' ORDER BY 1",
    )
    assert posted == [("daily", CHANNEL), ("weekly", CHANNEL)]
    fired = await rows(
        store, "SELECT detail -> 'databases' FROM firings WHERE detail ->> 'state' = 'fired'"
    )
    assert fired == [(["orders", "billing"],)] * 2


async def test_a_digest_that_nobody_could_post_in_time_is_not_posted_late(
    store: Store, tmp_path: Path
) -> None:
    clock = Clock(SUNDAY)
    bot = a_scheduler(store, inventory(tmp_path), clock, "a")
    await bot.look()
    clock.now = MONDAY_8 + 7 * HOUR
    await bot.look()
    posted = await rows(store, "SELECT payload ->> 'period' FROM outbox")
    assert posted == [("weekly",)]  # yesterday's is no news any more, the week's still is


async def test_the_channel_of_managers_reads_how_it_is(
    slack: SlackStandIn, store: Store, tmp_path: Path
) -> None:
    clock = Clock(SUNDAY)
    async with store.begin() as conn:
        for name in ("orders", "billing"):
            await record(conn, [a_node(name, database=name, at=MONDAY_8)])
        hours = [
            {"database": "orders", "node": "orders", "width": "1h", "at": MONDAY_8 - age * HOUR,
             "numbers": {"up": [120, 1, 1, 1, 1], "qps": [120, 900 + age, 1, 1, 1]}}
            for age in range(1, 48)
        ]  # fmt: skip
        await conn.execute(sa.insert(rollups), hours)
    async with assembled(
        settings(slack, store, tmp_path, http=True), inventory(tmp_path), store=store,
        operations=OPERATIONS, clock=clock, pace=FAST,
    ) as twokey:  # fmt: skip
        bot = a_scheduler(store, twokey.desk.inventory, clock, "a")
        await bot.look()
        clock.now = MONDAY_8
        await bot.look()
        stop = asyncio.Event()
        carrying = asyncio.create_task(twokey.outbox.run(stop))
        message = await slack.wait_for(
            lambda: next((m for m in slack.messages(CHANNEL) if "Daily digest" in m["text"]), None),
            seconds=30,
        )
        stop.set()
        await carrying
    assert message is not None
    said = message["text"]
    assert "Daily digest: billing, orders. All 2 databases are healthy." in said
    assert "orders has no usable backup: /db backup orders" in said
    assert "Availability seen: 100 %" in said
    kinds = [block["type"] for block in message["blocks"]]
    assert "data_visualization" in kinds
    assert "🟢" in message["blocks"][0]["text"]["text"]


@pytest.mark.parametrize("period", list(Period))
def test_what_is_stored_is_what_is_drawn(period: Period) -> None:
    digest = a_digest(ORDERS, BILLING, STOCK, period=period)
    stored = DIGEST.dump_python(digest, mode="json")
    assert DIGEST.validate_python(stored) == digest
    assert digest_message(DIGEST.validate_python(stored)) == digest_message(digest)


def test_a_digest_of_a_hundred_databases_fits_into_one_message() -> None:
    many = [replace(BILLING, name=f"db{number:03}") for number in range(100)]
    message = digest_message(a_digest(*many))
    assert len(message.blocks) <= 50
    assert len(message.text) <= 4000
    assert any("70 more that are no worse" in str(block) for block in message.blocks)


def test_a_name_cannot_act_in_a_digest() -> None:
    evil = replace(BILLING, problem="<!channel> *bold* ✅")
    text = str(digest_message(a_digest(evil)).content())
    assert "<!channel>" not in text
    assert "⟨✅⟩" in text
