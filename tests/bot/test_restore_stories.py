"""A copy of a chosen moment, from the question in Slack to the table that is back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import sqlalchemy as sa

from bot.blocks import MESSAGE_BLOCKS_MAX
from bot.command_text import parse, words
from bot.elements import DatabaseName
from bot.forms import Meta, entered, form_view
from bot.inventory import Inventory, parse_inventory
from commands import drop_recovered, drop_scratch, recover_table, restore, scratches
from jobs.operation import Operation
from postgres.restore.lasting import lasting_folders, read_lasting, remove_all
from sandbox.slack.server import SlackStandIn
from store.connect import Store
from store.marks import write_mark
from tests.bot import world as base
from tests.bot.test_follow_up_stories import first
from tests.bot.views.cards import texts
from tests.bot.world import CHANNEL, World, running
from tests.commands.archived import Archived, make_archived, notes, remove_archived

OPERATIONS = {
    one.OPERATION.name: one.OPERATION
    for one in (restore, scratches, drop_scratch, recover_table, drop_recovered)
}
POLICY = """
rules:
  - name: a copy to look at
    when: {operation: restore, into: scratch, risk: none}
    gates: [{id: dba, groups: [dba]}]
  - name: the rest
    fallback: true
    gates: []
"""
EVERYTHING = sa.text("""
    SELECT concat_ws(' ', (SELECT jsonb_agg(o) FROM outbox o), (SELECT jsonb_agg(r) FROM runs r),
                     (SELECT jsonb_agg(s) FROM run_steps s), (SELECT jsonb_agg(l) FROM run_log l),
                     (SELECT jsonb_agg(s) FROM scratches s), (SELECT jsonb_agg(q) FROM requests q),
                     (SELECT jsonb_agg(a) FROM audit_log a))
""")


@pytest.fixture(scope="module")
def archived() -> Iterator[Archived]:
    made = asyncio.run(make_archived())
    try:
        yield made
    finally:
        asyncio.run(remove_all(made.home))
        asyncio.run(remove_archived(made))


@pytest.fixture
async def world(
    slack: SlackStandIn, store: Store, archived: Archived, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    def inventory(home: Path, dsn: str) -> Inventory:
        (home / "policy.yml").write_text(POLICY)
        made = parse_inventory(base.INVENTORY % dsn, path=home / "twokey.yml", environ={})
        shop = replace(archived.database(), channel=CHANNEL)
        return replace(made, databases={"shop": shop})

    monkeypatch.setattr(base, "OPERATIONS", OPERATIONS)
    monkeypatch.setattr(base, "inventory", inventory)
    async with store.begin() as conn:
        await write_mark(conn, archived.mark)
    dsn = archived.server.dsn("shop")
    async with running(slack, store, archived.home, dsn, http=True) as made:
        yield made


async def test_ask_agree_enter_the_copy_take_a_table_and_drop_it(
    world: World, archived: Archived, store: Store
) -> None:
    slack = world.slack
    good = f"{archived.good:%Y-%m-%d %H:%M:%S.%f} UTC"
    await slack.command("U0ANA", CHANNEL, f"/db restore shop --to '{good}' --into scratch")
    card = await first(world, 1, "Restore shop as of")
    assert "at most" in texts(card["blocks"])
    assert "of WAL, in" in texts(card["blocks"])
    assert (await slack.click("U0BEN", CHANNEL, card["ts"], "approve")).ok
    await first(world, 1, "Done")
    lasting = read_lasting(archived.home / "scratch" / "shop-1")
    await _said(world, f"Connect on .*{lasting.port}/shop?passfile=")
    assert await _ask(lasting.dsn, "SELECT count(*) FROM payments") == 4500
    await _keeps_the_password_to_itself(world, store, lasting.passfile)

    await slack.command("U0ANA", CHANNEL, "/db scratches")
    await world.told("U0ANA", "1 scratch server")
    await slack.command("U0ANA", CHANNEL, "/db recover-table shop public.payments --from shop-1")
    await first(world, 2, "Done")
    assert await archived.ask("SELECT count(*) FROM restored_2.payments") == 4500
    assert await archived.ask("SELECT count(*) FROM public.payments") == 0
    await slack.command("U0ANA", CHANNEL, "/db drop-recovered shop 2")
    await first(world, 3, "Done")
    assert await archived.ask("SELECT to_regnamespace('restored_2')") is None
    await slack.command("U0ANA", CHANNEL, "/db drop-scratch shop-1")
    await first(world, 4, "Done")
    assert lasting_folders(archived.home) == ()
    (note,) = await notes(store)
    assert note.startswith("The scratch server shop-1 was removed with all its data")


@pytest.mark.parametrize(
    ("typed", "given"),
    [
        ("restore shop --to '5 minutes ago'", {"to": "5 minutes ago", "into": "scratch"}),
        (
            "restore shop --to “2026-11-20 14:30:00 UTC” --into place --backup shop-1",
            {"to": "2026-11-20 14:30:00 UTC", "into": "place", "backup": "shop-1"},
        ),
        (
            "recover-table shop public.payments --from shop-1",
            {"table": "public.payments", "from_": "shop-1"},
        ),
        ("scratches", {"database": None}),
        ("drop-scratch shop-1", {"scratch": "shop-1"}),
        ("drop-recovered shop 17", {"request": 17}),
    ],
)
def test_what_is_typed_is_understood(typed: str, given: dict[str, Any]) -> None:
    name, *rest = words(typed)
    params = parse(name, rest, OPERATIONS).params.model_dump()
    assert {key: params[key] for key in given} == given


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=lambda one: one.name)
def test_each_has_a_form_that_can_be_sent(operation: Operation) -> None:
    names = [DatabaseName(name="shop", environment="production")]
    view = form_view(operation, names, meta=Meta(operation=operation.name))
    assert len(view["blocks"]) < MESSAGE_BLOCKS_MAX
    optional = {
        block["block_id"]: block["optional"] for block in view["blocks"] if "optional" in block
    }
    assert optional.get("param.to", True)
    assert optional.get("param.from_", False) is False
    if operation.name == "scratches":
        sent = entered(operation, {})
        assert sent.params == scratches.Params()


async def _keeps_the_password_to_itself(world: World, store: Store, passfile: Path) -> None:
    password = passfile.read_text().strip().rpartition(":")[2]
    async with store.begin() as conn:
        stored = (await conn.execute(EVERYTHING)).scalar_one()
    assert "shop-1" in stored
    assert password not in stored
    assert password not in str(world.slack.messages(CHANNEL))


async def _said(world: World, pattern: str) -> None:
    start, _, end = pattern.partition(".*")

    def found() -> bool:
        said = [message["text"] for message in world.slack.messages(CHANNEL)]
        return any(start in text and end in text for text in said)

    assert await world.slack.wait_for(found, seconds=30)


async def _ask(dsn: str, query: str) -> Any:
    conn = await asyncpg.connect(dsn, timeout=30)
    try:
        return await conn.fetchval(query)
    finally:
        await conn.close()
