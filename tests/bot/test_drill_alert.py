"""A drill that nobody has passed for too long: told, with the form filled in, until one passes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa

from bot.alerting import Watch
from bot.process import utc_now
from commands import drill
from sandbox.slack.server import SlackStandIn
from store.connect import Store
from store.drills import begin_drill, end_drill
from tests.bot import world as base
from tests.bot.incident_world import buttons, message
from tests.bot.test_form_stories import front
from tests.bot.world import CHANNEL, World, running
from tests.commands.archived import add_request

CLUSTER = """    monitoring: false
    cluster:
      kind: pair
      nodes:
        - {name: east, dsn: 'postgresql://nobody@127.0.0.1:1/x'}
        - {name: west, dsn: 'postgresql://nobody@127.0.0.1:2/x'}
      drills: {kinds: [replica-loss], schedule: null}
"""
DSN = "postgresql://nobody@127.0.0.1:1/orders"
MINUTE = timedelta(minutes=1)


@pytest.fixture
async def world(
    slack: SlackStandIn, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    drilled = base.INVENTORY.replace("    monitoring: false\n", CLUSTER)
    monkeypatch.setattr(base, "INVENTORY", drilled)
    async with running(
        slack, store, tmp_path, DSN, http=True, worker=False,
        operations={**base.OPERATIONS, "drill": drill.OPERATION},
    ) as made:  # fmt: skip
        yield made


async def looked(world: World, at: datetime) -> None:
    """The bot's watch looks at this time, beside its own."""
    watch = Watch(
        inventory=world.twokey.desk.inventory, store=world.store, clock=partial(_itself, at)
    )
    while await watch.look() is None:
        pass


def _itself(at: datetime) -> datetime:
    return at


async def states(world: World) -> list[tuple[str, str, str]]:
    async with world.store.begin() as conn:
        rows = await conn.execute(sa.text("SELECT name, severity, state FROM alerts"))
        return [(row[0], row[1], row[2]) for row in rows]


async def test_what_is_overdue_is_a_warning_whose_button_opens_the_form_until_one_passes(
    world: World,
) -> None:
    now = utc_now()
    await looked(world, now)
    card = await message(world, "DrillOverdue")
    assert "No drill of orders has ever passed" in str(card["blocks"])
    action = buttons(card)["Drill: replica-loss"]["action_id"]
    assert (await world.slack.click("U0ANA", CHANNEL, card["ts"], action, shown=card)).ok
    view = str(await front(world))
    assert "DrillOverdue: No drill of orders has ever passed" in view
    chosen = view.partition("initial_option")[2]
    assert "replica-loss" in chosen

    number = await add_request(world.store)
    async with world.store.begin() as conn:
        await begin_drill(
            conn, request_id=number, run_key="1", database="orders", environment="production",
            kind="replica-loss", at=now,
        )  # fmt: skip
        await end_drill(conn, number, report={"end": "passed"}, at=now)
    assert ("DrillOverdue", "warning", "firing") in await states(world)
    await looked(world, now + MINUTE)
    await looked(world, now + 2 * MINUTE + timedelta(seconds=1))
    assert ("DrillOverdue", "warning", "resolved") in await states(world)
