"""A plan that takes longer than Slack waits: it goes on, and the card follows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from sandbox.slack.server import SlackStandIn
from store.connect import Store
from tests.bot.world import CHANNEL, OPERATIONS, World, running
from tests.conftest import Target

pytestmark = pytest.mark.deadlines


@pytest.fixture
async def world(
    slack: SlackStandIn, store: Store, target: Target, tmp_path: Path
) -> AsyncIterator[World]:
    patient = replace(OPERATIONS["paint"], patience=timedelta(seconds=10))
    operations = {**OPERATIONS, "paint": patient}
    async with running(
        slack, store, tmp_path, target.dsn, http=True, operations=operations
    ) as made:
        yield made


async def test_a_late_plan_becomes_a_request_all_the_same(world: World) -> None:
    typed = await world.slack.command("U0ANA", CHANNEL, "/db paint orders late")
    assert "Planning it for orders" in typed.ephemerals[0]["text"]
    await world.card("Paint orders late")
    await world.told("U0ANA", "Request 1 is stored")


async def test_an_error_that_comes_late_is_told(world: World) -> None:
    await world.slack.command("U0ANA", CHANNEL, "/db paint orders late coats=1")
    await world.card("Paint orders late")
    soon = await world.slack.command("U0ANA", CHANNEL, "/db paint orders refused")
    assert "There is no more paint" in soon.ephemerals[0]["text"]


async def test_without_patience_a_plan_has_its_usual_limit(world: World) -> None:
    await world.slack.command("U0ANA", CHANNEL, "/db free orders late")
    await world.told("U0ANA", "took longer than")
    assert world.cards() == []
