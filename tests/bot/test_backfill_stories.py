"""A backfill in Slack: asked for, agreed to, held up by a person, and done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import sqlalchemy as sa

from commands import backfill, restore_aside
from sandbox.slack.server import SlackStandIn
from store.connect import Store
from tests.bot import world as base
from tests.bot.test_form_stories import front
from tests.bot.views.cards import texts
from tests.bot.world import CHANNEL, World, running
from tests.conftest import Target

ROWS = 60_000
TABLE = f"""
    CREATE TABLE users (id int PRIMARY KEY, name text NOT NULL, first_name text);
    INSERT INTO users SELECT n, 'Ada Nr ' || n FROM generate_series(1, {ROWS}) n;
    ANALYZE users;
"""
# So slow that it cannot end before its worker has seen a pause, however busy the machine is.
SLOW = """
    CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql
        AS 'BEGIN PERFORM pg_sleep(0.001); RETURN NEW; END';
    CREATE TRIGGER slow BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION slowly();
"""
ASK = (
    "/db backfill orders public.users \"first_name = split_part(name, ' ', 1)\""
    ' where="first_name IS NULL" ranges=1 rows=500 batch-ms=20'
)
POLICY = """
rules:
  - name: rows
    when: {operation: backfill, kind: data, risk: recoverable}
    gates: [{id: dba, groups: [dba]}]
  - name: the rest
    fallback: true
    gates: []
"""
RUN = sa.text("SELECT paused_by, paused_at FROM runs")
AUDIT = sa.text("""
    SELECT actor, action FROM audit_log WHERE action LIKE '%_run' ORDER BY chain, seq
""")


@pytest.fixture
async def world(
    slack: SlackStandIn,
    store: Store,
    target: Target,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[World]:
    await do(target, TABLE)
    operations = {**base.OPERATIONS, "backfill": backfill.OPERATION}
    operations["restore-aside"] = restore_aside.OPERATION
    monkeypatch.setattr(base, "POLICY", POLICY)
    async with running(
        slack, store, tmp_path, target.dsn, http=True, operations=operations
    ) as made:
        yield made


def buttons(card: dict[str, Any]) -> list[str]:
    return [e["action_id"] for b in card["blocks"] if b["type"] == "actions" for e in b["elements"]]


async def do(target: Target, statements: str) -> None:
    conn = await asyncpg.connect(target.dsn)
    try:
        await conn.execute(statements)
    finally:
        await conn.close()


async def filled(target: Target) -> int:
    conn = await asyncpg.connect(target.dsn)
    try:
        return int(await conn.fetchval("SELECT count(first_name) FROM users"))
    finally:
        await conn.close()


async def test_a_backfill_is_asked_for_held_up_and_done(
    world: World, target: Target, store: Store
) -> None:
    slack = world.slack
    await slack.command("U0ANA", CHANNEL, ASK)
    card = await world.card("Waiting for approval")
    assert "Backfill first_name of public.users" in texts(card["blocks"])
    assert "UPDATE public.users SET first_name = split_part(name, ' ', 1)" in texts(card["blocks"])
    assert buttons(card) == ["approve", "deny", "details", "cancel"]
    await do(target, SLOW)
    await slack.click("U0BEN", CHANNEL, card["ts"], "approve")
    card = await world.card("Running")
    assert buttons(card) == ["details", "cancel", "pause"]

    await slack.click("U0OLE", CHANNEL, card["ts"], "pause")
    await world.told("U0OLE", "not yours to hold up")
    async with asyncio.timeout(60):
        while not await filled(target):
            await asyncio.sleep(0.02)
    await slack.click("U0ANA", CHANNEL, card["ts"], "pause")
    await world.told("U0ANA", "is told to wait")
    card = await world.card("Paused. By <@U0ANA>")
    assert buttons(card) == ["details", "cancel", "resume"]
    assert "Other changes of orders wait" in texts(card["blocks"])
    await slack.wait_for(
        lambda: any("paused: it holds no lock" in m["text"] for m in slack.messages(CHANNEL)), 30
    )
    before = await filled(target)
    assert 0 < before < ROWS
    again = await slack.command("U0BEN", CHANNEL, "/db pause 1")
    assert "waits already" in again.ephemerals[0]["text"]
    assert await filled(target) == before
    await do(target, "DROP TRIGGER slow ON users")

    went_on = await slack.command("U0BEN", CHANNEL, "/db resume 1")
    assert "goes on" in went_on.ephemerals[0]["text"]
    await slack.wait_for(lambda: "Done" in world.cards()[-1]["text"], seconds=60)
    card = await world.card("Done")
    assert buttons(card) == ["details"]
    assert await filled(target) == ROWS
    await slack.wait_for(
        lambda: any("60,000 rows of public.users are changed" in m["text"]
                    for m in slack.messages(CHANNEL)), 30,
    )  # fmt: skip
    async with store.begin() as conn:
        assert [tuple(row) for row in await conn.execute(AUDIT)] == [
            ("ana@acme.example", "pause_run"),
            ("ben@acme.example", "resume_run"),
        ]


async def test_what_was_overwritten_is_put_back_by_its_button(world: World, target: Target) -> None:
    slack = world.slack
    ask = '/db backfill orders public.users "name = \'x\'" where="id <= 500" keep=7d'
    await slack.command("U0ANA", CHANNEL, ask)
    card = await says(world, 1, "Waiting for approval")
    assert "Undo: /db restore-aside orders users_" in texts(card["blocks"])
    await slack.click("U0BEN", CHANNEL, card["ts"], "approve")
    card = await says(world, 1, "Done")
    assert await named(target) == 500
    assert buttons(card) == ["details", "undo"]

    await slack.click("U0ANA", CHANNEL, card["ts"], "undo")
    view = await front(world, "U0ANA")
    sent = await slack.submit("U0ANA", view["id"], {"reason": {"text": "A mistake."}})
    assert sent.ok, (sent.error, sent.errors)
    back = await says(world, 2, "Done")
    assert "Put values public.users.name of orders back" in texts(back["blocks"])
    assert await named(target) == 0


async def says(world: World, request_id: int, what: str) -> dict[str, Any]:
    """The card of a request, once it says this."""

    def found() -> dict[str, Any] | None:
        cards = [c for c in world.cards() if f"Request {request_id} " in c["text"]]
        return cards[-1] if cards and what in cards[-1]["text"] else None

    card = await world.slack.wait_for(found, 30)
    assert card is not None
    return card


async def named(target: Target) -> int:
    conn = await asyncpg.connect(target.dsn)
    try:
        return int(await conn.fetchval("SELECT count(*) FROM users WHERE name = 'x'"))
    finally:
        await conn.close()


async def test_a_paused_run_is_stopped(world: World, target: Target, store: Store) -> None:
    slack = world.slack
    await slack.command("U0ANA", CHANNEL, ASK)
    card = await world.card("Waiting")
    await do(target, SLOW)
    await slack.click("U0BEN", CHANNEL, card["ts"], "approve")
    card = await world.card("Running")
    await slack.click("U0ANA", CHANNEL, card["ts"], "pause")
    card = await world.card("Paused")
    async with store.begin() as conn:
        row = (await conn.execute(RUN)).one()
        assert row.paused_by == "ana@acme.example"
        assert row.paused_at is not None
    await slack.click("U0ANA", CHANNEL, card["ts"], "cancel")
    await world.told("U0ANA", "told to stop")
    await world.card("Failed")
    assert await filled(target) < ROWS
    late = await slack.command("U0ANA", CHANNEL, "/db resume 1")
    assert "no run that could wait" in late.ephemerals[0]["text"]


async def test_only_what_can_wait_has_the_button(world: World) -> None:
    slack = world.slack
    await slack.command("U0ANA", CHANNEL, "/db free orders forever")
    card = await world.card("Running")
    assert buttons(card) == ["details", "cancel"]
    typed = await slack.command("U0ANA", CHANNEL, "/db pause 1")
    assert "no run that could wait" in typed.ephemerals[0]["text"]
    typed = await slack.command("U0ANA", CHANNEL, "/db pause soon")
    assert "/db pause 12" in typed.ephemerals[0]["text"]
    await slack.click("U0ANA", CHANNEL, card["ts"], "cancel")
    await world.card("Failed")
