"""Alerts from the store to the channel: each told once when it begins and once when it is over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from bot.alerting import Watch
from bot.inventory import Inventory
from bot.outbox import Outbox
from bot.views.alert import alert_message
from sandbox.slack.server import SlackStandIn
from store.backups import record_backup
from store.connect import Store
from tests.bot.clock_world import SATURDAY, Clock, ClockWorld, clock_world, inventory
from tests.bot.test_scheduled import a_backup
from tests.bot.world import CHANNEL

DAY = timedelta(days=1)
HAND = "{archive: {method: none}, weekly: false, monthly: false, verify: false, prune: false}"


class Looker:
    """A watch on one store, with a clock that a test moves."""

    def __init__(self, store: Store, inventory: Inventory) -> None:
        self.store, self.clock = store, Clock()
        self.watch = Watch(inventory=inventory, store=store, clock=self.clock)

    async def rows(self, query: str) -> list[Any]:
        async with self.store.begin() as conn:
            return list((await conn.execute(sa.text(query))).all())

    async def told(self) -> list[tuple[str, str, str]]:
        return [
            tuple(row)
            for row in await self.rows(
                "SELECT payload ->> 'name', payload ->> 'state', payload ->> 'severity'"
                " FROM outbox WHERE topic = 'alert' ORDER BY id"
            )
        ]


@pytest.fixture
async def looker(store: Store, tmp_path: Path) -> Looker:
    made = Looker(store, inventory(tmp_path, HAND, grant=True))
    async with store.begin() as conn:
        await conn.execute(
            sa.text("INSERT INTO firings VALUES ('backup-daily orders', :at, :at, 'a', :detail)")
            .bindparams(sa.bindparam("detail", type_=sa.JSON)),
            {"at": SATURDAY, "detail": {"state": "begun"}},
        )  # fmt: skip
    return made


async def a_good_backup(looker: Looker) -> None:
    async with looker.store.begin() as conn:
        await record_backup(conn, a_backup("orders-1", looker.clock.now))


async def test_an_alert_is_told_once_by_any_number_of_bots_and_once_when_over(
    looker: Looker,
) -> None:
    looker.clock.now += 2 * DAY
    await asyncio.gather(*(looker.watch.look() for _ in range(4)))
    assert await looker.told() == [("BackupMissing", "firing", "critical")]
    for _ in range(3):
        looker.clock.now += timedelta(seconds=30)
        await looker.watch.look()
    assert len(await looker.told()) == 1
    await a_good_backup(looker)
    await looker.watch.look()
    assert len(await looker.told()) == 1  # it may come back within a minute
    looker.clock.now += timedelta(minutes=1)
    await asyncio.gather(*(looker.watch.look() for _ in range(4)))
    assert (await looker.told())[1:] == [("BackupMissing", "resolved", "critical")]
    assert await looker.rows("SELECT state FROM alerts") == [("resolved",)]


async def test_only_one_looks_at_a_time(looker: Looker) -> None:
    looker.clock.now += 2 * DAY
    async with looker.store.begin() as conn:
        held = "SELECT pg_advisory_xact_lock(hashtext('twokey'), hashtext('alerts'))"
        await conn.execute(sa.text(held))
        assert await looker.watch.look() is None
    assert await looker.told() == []
    assert await looker.watch.look() is not None


async def test_whoever_would_store_it_twice_finds_it_there(looker: Looker) -> None:
    """The index holds what the lock promises: two alerts of a name never fire together."""
    looker.clock.now += 2 * DAY
    await looker.watch.look()
    alert = "'orders', 'BackupMissing', 'warning', 'firing', '', '', now(), now(), '{}'"
    with pytest.raises(sa.exc.IntegrityError, match="alerts_firing"):
        await looker.rows(
            "INSERT INTO alerts (database, name, severity, state, problem, next_step, fired_at,"
            f" seen_at, detail) VALUES ({alert}) RETURNING id"
        )


async def test_a_warning_that_gets_critical_is_told_again(looker: Looker) -> None:
    await a_good_backup(looker)
    looker.clock.now += timedelta(hours=31)
    await looker.watch.look()
    looker.clock.now += DAY
    await looker.watch.look()
    assert len(await looker.told()) == 1
    looker.clock.now += timedelta(hours=7)
    await looker.watch.look()
    await looker.watch.look()
    assert await looker.told() == [
        ("BackupMissing", "firing", "warning"),
        ("BackupMissing", "firing", "critical"),
    ]


async def test_the_alert_of_a_database_that_left_the_inventory_ends_in_silence(
    looker: Looker,
) -> None:
    looker.clock.now += 2 * DAY
    await looker.watch.look()
    emptied = replace(looker.watch.inventory, databases={})
    looker.clock.now += timedelta(minutes=2)
    await replace(looker.watch, inventory=emptied).look()
    assert await looker.rows("SELECT state FROM alerts") == [("resolved",)]
    assert len(await looker.told()) == 1


async def test_old_alerts_are_forgotten(looker: Looker) -> None:
    await looker.rows(
        "INSERT INTO alerts (database, name, severity, state, problem, next_step, fired_at,"
        " seen_at, resolved_at, detail) SELECT 'orders', 'A', 'warning', 'resolved', '', '',"
        " now() - d, now() - d, now() - d, '{}'"
        " FROM unnest(ARRAY[interval '10 years', interval '1 day']) AS d RETURNING id"
    )
    await looker.watch.look()
    assert len(await looker.rows("SELECT id FROM alerts WHERE name = 'A'")) == 1


async def test_the_numbers_of_what_fires_are_measured(
    slack: SlackStandIn, store: Store, tmp_path: Path, looker: Looker
) -> None:
    looker.clock.now += 2 * DAY
    await looker.watch.look()
    async with clock_world(slack, store, tmp_path) as world:
        metrics = world.twokey.metrics
        await metrics.read(store)
        assert b'twokey_alerts{severity="critical"} 1.0' in metrics.text()
        assert b'twokey_alerts{severity="warning"} 0.0' in metrics.text()


@pytest.fixture
async def world(slack: SlackStandIn, store: Store, tmp_path: Path) -> AsyncIterator[ClockWorld]:
    async with clock_world(slack, store, tmp_path) as made:
        yield made


async def test_the_channel_reads_what_is_wrong_and_what_to_do(
    world: ClockWorld, slack: SlackStandIn
) -> None:
    world.clock.now += timedelta(days=40)
    stop = asyncio.Event()
    watch = Watch(
        inventory=world.desk.inventory, store=world.desk.store, clock=world.clock,
        poll=timedelta(milliseconds=50),
    )  # fmt: skip
    outbox: Outbox = world.twokey.outbox
    tasks = [asyncio.create_task(each.run(stop)) for each in (watch, outbox)]

    def told() -> str | None:
        texts = [message["text"] for message in slack.messages(CHANNEL)]
        return next((text for text in texts if "BackupMissing" in text), None)

    text = await slack.wait_for(told, seconds=10)
    stop.set()
    await asyncio.gather(*tasks)
    assert text is not None
    assert text.startswith("🚨 critical: BackupMissing on orders. There is no daily backup")


def test_a_message_says_when_it_is_over_and_cannot_be_made_to_mention() -> None:
    payload = {
        "name": "BackupMissing", "database": "orders", "severity": "warning", "state": "firing",
        "problem": "<!channel> is late", "next_step": "Take *one*", "fired_at": "2026-11-22T00:00Z",
    }  # fmt: skip
    begun = str(alert_message(payload).content())
    assert "<!channel>" not in begun
    assert "⚠️" in begun
    over = alert_message({**payload, "state": "resolved"})
    assert over.text == "✅ Over: BackupMissing on orders"
