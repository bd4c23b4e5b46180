"""A declared change in Slack: looked at, its first phase agreed to, done, and taken back."""

from __future__ import annotations

import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from commands import change
from sandbox.slack.server import SlackStandIn
from store.connect import Store
from tests.bot import world as base
from tests.bot.test_follow_up_stories import first
from tests.bot.views.cards import texts
from tests.bot.world import CHANNEL, World, running
from tests.commands.changes import NAMES, TABLES
from tests.conftest import Target

POLICY = """
rules:
  - name: phases
    when: {operation: change, phase: [expand, back]}
    gates: [{id: dba, groups: [dba]}]
"""
COLUMNS = """
    SELECT count(*) FROM pg_attribute
     WHERE attrelid = 'shop."User"'::regclass AND attname = 'firstName' AND NOT attisdropped
"""


@pytest.fixture
async def world(
    slack: SlackStandIn,
    store: Store,
    target: Target,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[World]:
    conn = await asyncpg.connect(target.dsn)
    tables = TABLES.format("shop", 50)
    await conn.execute("\n".join(line for line in tables.splitlines() if "looker" not in line))
    await conn.close()
    (tmp_path / "changes").mkdir()
    (tmp_path / "changes" / "names.yml").write_text(textwrap.dedent(NAMES.format("shop")))
    monkeypatch.setattr(base, "POLICY", POLICY)
    monkeypatch.setattr(base, "INVENTORY", base.INVENTORY + "    migrations: {changes: changes}\n")
    operations = {**base.OPERATIONS, "change": change.OPERATION}
    async with running(
        slack, store, tmp_path, target.dsn, http=True, operations=operations
    ) as made:
        yield made


async def has_column(target: Target) -> bool:
    conn = await asyncpg.connect(target.dsn)
    try:
        return bool(await conn.fetchval(COLUMNS))
    finally:
        await conn.close()


async def test_a_phase_is_agreed_to_done_and_taken_back(world: World, target: Target) -> None:
    slack = world.slack
    looked = await slack.command("U0ANA", CHANNEL, "/db change orders names status")
    assert "names" in texts(looked.ephemerals[0]["blocks"])
    assert world.cards() == []
    await slack.command("U0ANA", CHANNEL, "/db change orders names expand")
    card = await first(world, 1, "Waiting for approval")
    assert "ADD COLUMN" in texts(card["blocks"])
    await slack.click("U0BEN", CHANNEL, card["ts"], "approve")
    await first(world, 1, "Done")
    assert await has_column(target)
    await slack.command("U0ANA", CHANNEL, "/db change orders names back")
    card = await first(world, 2, "Waiting for approval")
    await slack.click("U0BEN", CHANNEL, card["ts"], "approve")
    await first(world, 2, "Done")
    assert not await has_column(target)
