"""A migration in Slack: looked at, refused by its checklist, agreed to, done, and taken back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from commands import migrate
from sandbox.slack.server import SlackStandIn
from store.connect import Store
from tests.bot import world as base
from tests.bot.test_follow_up_stories import first
from tests.bot.test_form_stories import front
from tests.bot.views.cards import texts
from tests.bot.world import CHANNEL, World, running
from tests.conftest import Target

UP = "ALTER TABLE public.users ADD COLUMN first_name text"
DOWN = "ALTER TABLE public.users DROP COLUMN first_name"
POLICY = """
rules:
  - name: a checklist with gaps
    when: {operation: migrate, direction: up, kind: [blocking, destructive, opaque]}
    refuse: true
  - name: nobody notices
    when: {operation: migrate, direction: up, kind: [additive, online]}
    gates: [{id: dba, groups: [dba]}]
  - name: the way back
    when: {operation: migrate, direction: down}
    gates: [{id: dba, groups: [dba]}]
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
    await conn.execute("CREATE TABLE users (id int PRIMARY KEY, name text NOT NULL); ANALYZE users")
    await conn.close()
    folder = tmp_path / "migrations"
    folder.mkdir()
    written(folder, "0001_first_name", UP, DOWN)
    monkeypatch.setattr(base, "POLICY", POLICY)
    monkeypatch.setattr(
        base, "INVENTORY", base.INVENTORY + "    migrations: {folder: migrations}\n"
    )
    operations = {**base.OPERATIONS, "migrate": migrate.OPERATION}
    async with running(
        slack, store, tmp_path, target.dsn, http=True, operations=operations
    ) as made:
        yield made


def written(folder: Path, name: str, up: str, down: str) -> None:
    text = f"-- migrate:up\n{up};\n\n-- migrate:down\n{down};\n"
    (folder / f"{name}.sql").write_text(text)


async def columns(target: Target) -> str:
    conn = await asyncpg.connect(target.dsn)
    try:
        return str(
            await conn.fetchval(
                "SELECT string_agg(attname, ',' ORDER BY attnum) FROM pg_attribute"
                " WHERE attrelid = 'users'::regclass AND attnum > 0 AND NOT attisdropped"
            )
        )
    finally:
        await conn.close()


async def test_whoever_only_looks_gets_an_answer_and_no_request(
    world: World, target: Target
) -> None:
    slack = world.slack
    await slack.command("U0ANA", CHANNEL, "/db migrate orders plan")
    await world.told("U0ANA", "Migrate orders: 0001 first_name")
    shown = texts(slack.ephemerals("U0ANA")[-1]["blocks"])
    assert "ACCESS EXCLUSIVE: blocks reads and writes" in shown
    assert "Backup verified" in shown
    await slack.command("U0ANA", CHANNEL, "/db migrate orders status")
    await world.told("U0ANA", "1 migration pending")
    assert world.cards() == []
    assert await columns(target) == "id,name"


async def test_agreed_to_applied_and_taken_back_by_its_button(world: World, target: Target) -> None:
    slack = world.slack
    typed = await slack.command("U0ANA", CHANNEL, "/db migrate orders 0001")
    assert "Request 1 is stored" in typed.ephemerals[0]["text"]
    card = await world.card("Waiting for approval")
    shown = texts(card["blocks"])
    assert f"{UP};" in shown
    assert "Tested in staging" in shown
    assert "Undo: /db migrate orders rollback 0001" in shown
    await slack.click("U0ANA", CHANNEL, card["ts"], "approve")
    await world.told("U0ANA", "your own")
    assert await columns(target) == "id,name"
    await slack.click("U0BEN", CHANNEL, card["ts"], "approve")
    card = await first(world, 1, "Done")
    assert await columns(target) == "id,name,first_name"
    assert "1 migration applied on orders" in card["text"]

    await slack.click("U0ANA", CHANNEL, card["ts"], "undo")
    view = await front(world, "U0ANA")
    sent = await slack.submit("U0ANA", view["id"], {"reason": {"text": "It is postponed."}})
    assert sent.ok, (sent.error, sent.errors)
    back = await world.card("Take back on orders: 0001 first_name")
    assert "first_name" in texts(back["blocks"])
    await slack.click("U0BEN", CHANNEL, back["ts"], "approve")
    await first(world, 2, "Done")
    assert await columns(target) == "id,name"


async def test_what_the_policy_refuses_is_not_stored(
    world: World, target: Target, tmp_path: Path
) -> None:
    written(tmp_path / "migrations", "0002_rows", "TRUNCATE public.users", "SELECT 1")
    await world.slack.command("U0ANA", CHANNEL, "/db migrate orders")
    await world.told("U0ANA", "The policy refuses this on purpose")
    assert all("Waiting" not in texts(card["blocks"]) for card in world.cards())
    assert await columns(target) == "id,name"


async def test_a_file_that_changed_after_the_vote_does_not_run(
    world: World, target: Target, tmp_path: Path
) -> None:
    slack = world.slack
    await slack.command("U0ANA", CHANNEL, "/db migrate orders")
    card = await world.card("Waiting for approval")
    written(tmp_path / "migrations", "0001_first_name", f"{UP} DEFAULT 'x'", DOWN)
    await slack.click("U0BEN", CHANNEL, card["ts"], "approve")
    card = await world.card("files was")
    assert "Waiting" in card["text"]
    assert await columns(target) == "id,name"


async def test_a_mistake_in_the_folder_is_told_and_nothing_is_asked(
    world: World, tmp_path: Path
) -> None:
    (tmp_path / "migrations" / "0002_latin.sql").write_bytes(b"-- migrate:up\nSELECT '\xe9';\n")
    await world.slack.command("U0ANA", CHANNEL, "/db migrate orders")
    await world.told("U0ANA", "0002_latin.sql")
    assert world.cards() == []
