"""Further buttons that show what stands no more, or that no card of ours ever offered."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from approvals.notices import DIRECT_KIND
from approvals.telling import Kind
from approvals.words import RequestId
from bot.choices import Choice, Todo, seen_of
from bot.directs import Directs
from bot.outbox_rows import Row
from sandbox.slack.server import SlackStandIn
from store.connect import Store
from tests.bot.test_follow_up_stories import elements, first, sent_back
from tests.bot.test_form_stories import front
from tests.bot.world import CHANNEL, World, running
from tests.conftest import Target


@pytest.fixture
async def world(
    slack: SlackStandIn, store: Store, target: Target, tmp_path: Path
) -> AsyncIterator[World]:
    async with running(slack, store, tmp_path, target.dsn, http=True) as made:
        yield made


@pytest.fixture
async def idle(
    slack: SlackStandIn, store: Store, target: Target, tmp_path: Path
) -> AsyncIterator[World]:
    """A world without a worker."""
    async with running(slack, store, tmp_path, target.dsn, http=True, worker=False) as made:
        yield made


async def test_only_what_was_turned_back_is_planned_again(idle: World) -> None:
    await idle.slack.command("U0ANA", CHANNEL, "/db paint orders")
    card = await idle.card("Waiting")
    before = await idle.twokey.desk.cards.record(RequestId(1))
    assert (await press(idle, "U0ANA", card, await choice(idle, Todo.PLAN_AGAIN))).ok
    await idle.told("U0ANA", "was not turned back")
    after = await idle.twokey.desk.cards.record(RequestId(1))
    assert (after.plan_hash, after.version) == (before.plan_hash, before.version)


async def choice(world: World, todo: Todo, **change: Any) -> Choice:
    """What a card that shows request 1 as it stands might have offered."""
    record = await world.twokey.desk.cards.record(RequestId(1))
    made = Choice(
        todo=todo,
        request_id=record.id,
        seen=seen_of(record),
        expires_at=world.twokey.desk.clock() + timedelta(days=9),
    )
    return replace(made, **change)


async def press(world: World, user: str, card: dict[str, Any], made: Choice) -> Any:
    """Press a button that carries this, on a card that had it."""
    action = "more" if made.todo is Todo.WITHDRAW else str(made.todo)
    button = {
        "type": "button",
        "action_id": action,
        "text": {"type": "plain_text", "text": "Press"},
        "value": world.twokey.desk.cards.menus.choices.close(made),
    }
    row = {"type": "actions", "block_id": "follow_ups", "elements": [button]}
    shown = {**card, "blocks": [*card["blocks"][:-1], row]}
    return await world.slack.click(user, CHANNEL, card["ts"], action, shown=shown)


# What waits for somebody is about all of their requests, however old the card is.
@pytest.mark.parametrize("todo", sorted(set(Todo) - {Todo.WAITING}))
async def test_a_card_that_has_moved_on_is_drawn_anew_and_its_buttons_do_nothing(
    idle: World, todo: Todo
) -> None:
    card = await sent_back(idle)
    old = await choice(idle, todo)
    await idle.slack.click("U0ANA", CHANNEL, card["ts"], "cancel")
    await first(idle, 1, "Cancelled")
    before = await idle.twokey.desk.cards.record(RequestId(1))
    cards = await drawn(idle)
    assert (await press(idle, "U0ANA", card, old)).ok
    await idle.told("U0ANA", "has changed since it was drawn")
    assert await drawn(idle) > cards
    assert await idle.twokey.desk.cards.record(RequestId(1)) == before
    assert len(await idle.twokey.approvals.recent()) == 1
    assert idle.slack.views("U0ANA") == []


async def drawn(world: World) -> int:
    """How often cards were to be drawn."""
    async with world.store.begin() as conn:
        found = await conn.execute(sa.text("SELECT count(*) FROM outbox WHERE topic = 'card'"))
        return int(found.scalar_one())


async def test_an_undo_has_its_deadline_on_the_card_and_at_its_form(world: World) -> None:
    slack, desk = world.slack, world.twokey.desk
    await slack.command("U0ANA", CHANNEL, "/db varnish orders amber")
    card = await first(world, 1, "It can be undone until")
    record = await desk.cards.record(RequestId(1))
    assert record.ended_at
    until = record.ended_at + timedelta(hours=1)
    offered = desk.cards.menus.choices.open(elements(card)["undo"]["value"], now=record.ended_at)
    assert offered.expires_at == until.replace(microsecond=0)
    assert (await slack.click("U0BEN", CHANNEL, card["ts"], "undo")).ok
    view = await front(world, "U0BEN")
    # Also one whose button says that it lives longer, and whoever had the form open already.
    longer = await choice(world, Todo.UNDO)
    object.__setattr__(desk, "clock", lambda: until)
    assert (await press(world, "U0CLEO", card, longer)).ok
    await world.told("U0CLEO", "cannot be undone any more")
    assert slack.views("U0CLEO") == []
    sent = await slack.submit("U0BEN", view["id"], {"reason": {"text": "dark"}})
    assert "has run out" in str(sent.errors)
    object.__setattr__(desk, "clock", lambda: until - timedelta(microseconds=1))
    assert (await press(world, "U0CLEO", card, longer)).ok
    assert slack.views("U0CLEO") != []


async def test_what_is_not_done_cannot_be_undone(idle: World) -> None:
    await idle.slack.command("U0ANA", CHANNEL, "/db varnish orders amber")
    card = await first(idle, 1, "varnish")
    assert "undo" not in elements(card)
    assert (await press(idle, "U0BEN", card, await choice(idle, Todo.UNDO))).ok
    await idle.told("U0BEN", "cannot be undone any more")
    assert idle.slack.views("U0BEN") == []


@pytest.mark.parametrize("changed", ["nothing", "plan", "state"])
async def test_a_direct_message_that_is_drawn_late_asks_for_nothing_that_is_over(
    idle: World, changed: str
) -> None:
    await idle.slack.command("U0ANA", CHANNEL, "/db paint orders")
    card = await idle.card("Waiting")
    desk = idle.twokey.desk
    record = await desk.cards.record(RequestId(1))
    row = Row(
        id=1, topic="direct", request_id=1, channel="U0BEN", payload={}, attempts=1,
        created_at=record.asked_at, maybe_posted=False,
    )  # fmt: skip
    shown = record.plan_hash if changed != "plan" else "0" * 64
    if changed == "state":
        await idle.slack.click("U0ANA", CHANNEL, card["ts"], "cancel")
        await first(idle, 1, "Cancelled")
    directs = Directs(
        cards=desk.cards, incidents=desk.incidents, store=idle.store, client=desk.windows.client
    )
    for notice in (Kind.ASK, Kind.ESCALATED, Kind.REMIND, Kind.EXPIRING):
        payload = {"kind": DIRECT_KIND, "notice": str(notice), "plan_hash": shown}
        message = await directs(row, payload)
        assert (message is not None) == (changed == "nothing")
        assert await directs(row, {**payload, "is_over": True}) is not None
