"""What people do with a request besides deciding: withdraw, ask again, retry, plan again, undo."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from approvals.words import RequestId, State
from bot.choices import Choice, Todo
from jobs.operation import Context, Operation, Plan
from sandbox.slack.server import SlackStandIn
from store.connect import Store
from tests.bot.test_form_stories import front, says, values
from tests.bot.views.cards import texts
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


def elements(card: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The buttons and the menu of a card by their action ids."""
    return {
        element["action_id"]: element
        for block in card["blocks"]
        if block["type"] == "actions"
        for element in block["elements"]
    }


def entry(card: dict[str, Any], text: str) -> str:
    """The value of an entry of the card's menu."""
    options = elements(card)["more"]["options"]
    return next(str(o["value"]) for o in options if o["text"]["text"] == text)


async def first(world: World, request_id: int, says_what: str) -> dict[str, Any]:
    """The card of a request, once it says this."""

    def found() -> dict[str, Any] | None:
        cards = [c for c in world.cards() if f"Request {request_id} " in c["text"]]
        return cards[-1] if cards and says_what in texts(cards[-1]["blocks"]) else None

    card = await world.slack.wait_for(found, seconds=30)
    assert card is not None
    return card


async def failed(world: World) -> dict[str, Any]:
    await world.slack.command("U0ANA", CHANNEL, "/db free orders fails reason=festival")
    return await world.card("Failed")


async def test_a_vote_is_taken_back_from_the_cards_menu(world: World) -> None:
    slack = world.slack
    await slack.command("U0ANA", CHANNEL, "/db paint orders")
    card = await world.card("Waiting")
    assert "more" not in elements(card)
    await slack.click("U0BEN", CHANNEL, card["ts"], "approve")
    card = await first(world, 1, "1 approval of dba")
    value = entry(card, "Withdraw my vote")
    assert (await slack.click("U0CLEO", CHANNEL, card["ts"], "more", value=value)).ok
    await world.told("U0CLEO", "Nothing has changed")
    assert (await slack.click("U0BEN", CHANNEL, card["ts"], "more", value=value)).ok
    await world.told("U0BEN", "taken back")
    card = await first(world, 1, "2 approvals of dba")
    assert "more" not in elements(card)
    assert (await slack.click("U0BEN", CHANNEL, card["ts"], "approve")).ok
    await first(world, 1, "1 approval of dba")


async def test_the_menu_tells_what_waits_for_whoever_asks(world: World) -> None:
    slack = world.slack
    await slack.command("U0ANA", CHANNEL, "/db paint orders")
    card = await world.card("Waiting")
    await slack.click("U0BEN", CHANNEL, card["ts"], "approve")
    card = await first(world, 1, "1 approval of dba")
    value = entry(card, "What waits for me")
    await slack.click("U0CLEO", CHANNEL, card["ts"], "more", value=value)
    await world.told("U0CLEO", "1 request waits for you")
    await slack.click("U0BEN", CHANNEL, card["ts"], "more", value=value)
    await world.told("U0BEN", "0 requests wait for you")


async def test_what_has_ended_is_asked_again_with_its_form(world: World) -> None:
    slack = world.slack
    await slack.command("U0ANA", CHANNEL, "/db paint orders blue coats=2 reason=festival")
    card = await world.card("Waiting")
    await slack.click("U0ANA", CHANNEL, card["ts"], "cancel")
    card = await first(world, 1, "Cancelled")
    assert list(elements(card)) == ["details", "ask_again"]
    assert (await slack.click("U0BEN", CHANNEL, card["ts"], "ask_again")).ok
    view = await front(world, "U0BEN")
    state = view["state"]["values"]
    assert state["param.database"]["form_database"]["selected_option"]["value"] == "orders"
    assert state["param.colour"]["value"]["value"] == "blue"
    assert state["param.coats"]["value"]["value"] == "2"
    assert state["reason"]["text"]["value"] == "festival"
    assert (await slack.submit("U0BEN", view["id"], values(colour="green"))).ok
    await says(world, "Request *#2* is stored", "U0BEN")
    new = await first(world, 2, "this repeats request #1")
    assert "Paint orders green" in texts(new["blocks"])
    old = await first(world, 1, "Asked again as #2")
    assert list(elements(old)) == ["details"]


async def test_what_was_asked_again_meanwhile_is_refused_in_the_form(world: World) -> None:
    slack = world.slack
    await slack.command("U0ANA", CHANNEL, "/db paint orders")
    card = await world.card("Waiting")
    await slack.click("U0ANA", CHANNEL, card["ts"], "cancel")
    card = await first(world, 1, "Cancelled")
    for user in ("U0ANA", "U0BEN"):
        assert (await slack.click(user, CHANNEL, card["ts"], "ask_again")).ok
    assert (await slack.submit("U0BEN", (await front(world, "U0BEN"))["id"])).ok
    await says(world, "is stored", "U0BEN")
    assert (await slack.submit("U0ANA", (await front(world, "U0ANA"))["id"])).ok
    await says(world, "as request 2 already", "U0ANA")
    assert len(await world.twokey.approvals.recent()) == 2


async def test_a_failed_run_is_retried_as_a_request_of_its_own(world: World) -> None:
    slack = world.slack
    card = await failed(world)
    assert list(elements(card)) == ["details", "retry", "ask_again"]
    assert (await slack.click("U0BEN", CHANNEL, card["ts"], "retry")).ok
    await world.told("U0BEN", "Request 2 is stored")
    await first(world, 1, "Asked again as #2")
    new = await world.twokey.approvals.load(RequestId(2))
    assert new is not None
    assert new.detail.again == 1
    assert new.asked_by == "ben@acme.example"
    assert new.reason == "festival"
    await first(world, 2, "Failed")


async def test_a_retry_is_asked_for_under_todays_rules(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = await failed(world)
    desk = world.twokey.desk
    # What was free has meanwhile become what no rule allows.
    monkeypatch.setitem(desk.operations, "free", desk.operations["forbidden"])
    assert (await world.slack.click("U0BEN", CHANNEL, card["ts"], "retry")).ok
    await world.told("U0BEN", "No rule")
    record = await world.twokey.approvals.load(RequestId(2))
    assert record is not None
    assert record.state is State.REFUSED


async def test_a_button_that_is_out_of_date_does_nothing(world: World) -> None:
    slack = world.slack
    card = await failed(world)
    await slack.click("U0BEN", CHANNEL, card["ts"], "retry")
    await world.told("U0BEN", "Request 2 is stored")
    await first(world, 2, "Failed")
    assert (await slack.click("U0CLEO", CHANNEL, card["ts"], "retry", shown=card)).ok
    await world.told("U0CLEO", "Request 3 is stored")  # the second has ended: it may be repeated
    assert (await slack.click("U0CLEO", CHANNEL, card["ts"], "retry", shown=forged(card))).ok
    await world.told("U0CLEO", "not made by Twokey")


def forged(card: dict[str, Any]) -> dict[str, Any]:
    """The card with another request's number in its retry button."""
    blocks = [dict(block) for block in card["blocks"]]
    row = dict(blocks[-1])
    row["elements"] = [
        {**each, "value": "x" + each["value"][1:]} if each["action_id"] == "retry" else each
        for each in row["elements"]
    ]
    return {**card, "blocks": [*blocks[:-1], row]}


async def test_a_value_of_one_button_does_nothing_at_another(world: World) -> None:
    slack = world.slack
    card = await failed(world)
    stolen = elements(card)["ask_again"]["value"]
    blocks = [*card["blocks"][:-1], {**card["blocks"][-1], "elements": [
        {**each, "value": stolen} for each in card["blocks"][-1]["elements"]
    ]}]  # fmt: skip
    assert (
        await slack.click("U0BEN", CHANNEL, card["ts"], "retry", shown={**card, "blocks": blocks})
    ).ok
    await world.told("U0BEN", "another button")
    assert len(await world.twokey.approvals.recent()) == 1


@pytest.mark.parametrize("user", ["U0GUS", "U0UNA"])
async def test_the_unfit_repeat_nothing(world: World, user: str) -> None:
    card = await failed(world)
    for action in ("retry", "ask_again"):
        assert (await world.slack.click(user, CHANNEL, card["ts"], action)).ok
    await world.told(user, "may not use Twokey")
    assert world.slack.views(user) == []
    assert len(await world.twokey.approvals.recent()) == 1


async def granted(world: World) -> None:
    await world.slack.command("U0ANA", CHANNEL, "/db paint orders")
    card = await world.card("Waiting")
    for user in ("U0BEN", "U0CLEO"):
        await world.slack.click(user, CHANNEL, card["ts"], "approve")
    await first(world, 1, "It starts as soon as")


async def sent_back(world: World) -> dict[str, Any]:
    await granted(world)
    async with world.store.begin() as conn:
        problem = "The schema has changed since it was planned."
        assert (await world.twokey.approvals.send_back(conn, RequestId(1), problem=problem)).ok
    return await first(world, 1, "The schema has changed")


async def test_a_grant_that_was_turned_back_is_planned_again_by_who_asked(
    idle: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    slack, desk = idle.slack, idle.twokey.desk
    card = await sent_back(idle)
    assert (await slack.click("U0BEN", CHANNEL, card["ts"], "plan_again")).ok
    await idle.told("U0BEN", "asked for by somebody else")
    assert (await slack.click("U0ANA", CHANNEL, card["ts"], "plan_again")).ok
    await idle.told("U0ANA", "the same as before")
    await slack.click("U0BEN", CHANNEL, card["ts"], "approve")
    card = await first(idle, 1, "1 approval of dba")
    before = await desk.cards.record(RequestId(1))
    monkeypatch.setitem(desk.operations, "paint", repainted(desk.operations["paint"]))
    assert (await slack.click("U0ANA", CHANNEL, card["ts"], "plan_again")).ok
    await idle.told("U0ANA", "is planned anew")
    after = await desk.cards.record(RequestId(1))
    assert after.plan_hash != before.plan_hash
    assert after.votes == ()
    card = await first(idle, 1, "planned it again")
    assert "plan_again" not in elements(card)
    assert "2 approvals of dba" in texts(card["blocks"])


def repainted(operation: Operation) -> Operation:
    """The same with another plan."""
    before = operation.plan
    assert before is not None

    async def plan(context: Context, params: Any) -> Plan:
        return replace(await before(context, params), title="Paint it twice")

    return replace(operation, plan=plan)


async def test_what_is_done_is_undone_by_a_request_of_its_own(world: World) -> None:
    slack = world.slack
    await slack.command("U0ANA", CHANNEL, "/db varnish orders amber coats=3")
    card = await first(world, 1, "It can be undone until")
    assert list(elements(card)) == ["details", "undo"]
    assert (await slack.click("U0BEN", CHANNEL, card["ts"], "undo")).ok
    view = await front(world, "U0BEN")
    assert "bare" in texts(view["blocks"])
    sent = await slack.submit("U0BEN", view["id"], {"reason": {"text": "it is too dark"}})
    assert sent.ok
    new = await first(world, 2, "This undoes request #1")
    assert "Paint orders bare" in texts(new["blocks"])
    assert "it is too dark" in texts(new["blocks"])
    assert "2 approvals of dba" in texts(new["blocks"])
    await first(world, 1, "To be undone by #2")
    record = await world.twokey.approvals.load(RequestId(2))
    assert record is not None
    assert record.detail.undo_of == 1
    assert record.params["coats"] == 3
    async with world.store.begin() as conn:
        found = await conn.execute(
            sa.text("SELECT detail FROM audit_log WHERE request_id = 2 AND action = 'ask'")
        )
        assert found.scalar_one()["undo"] == 1


async def test_nothing_is_undone_twice(world: World) -> None:
    slack = world.slack
    await slack.command("U0ANA", CHANNEL, "/db varnish orders amber")
    card = await first(world, 1, "It can be undone until")
    for user in ("U0BEN", "U0CLEO"):
        await slack.click(user, CHANNEL, card["ts"], "undo")
    view = await front(world, "U0BEN")
    assert (await slack.submit("U0BEN", view["id"], {"reason": {"text": "dark"}})).ok
    view = await front(world, "U0CLEO")
    sent = await slack.submit("U0CLEO", view["id"], {"reason": {"text": "dark"}})
    assert "as request 2 already" in sent.errors["reason"]


async def test_what_has_no_undo_or_none_any_more_offers_none(world: World) -> None:
    slack = world.slack
    await slack.command("U0ANA", CHANNEL, "/db varnish orders clear")
    card = await world.card("Done")
    assert list(elements(card)) == ["details"]
    await slack.command("U0ANA", CHANNEL, "/db varnish orders amber")
    card = await first(world, 2, "It can be undone until")
    desk = world.twokey.desk
    menus = desk.cards.menus
    record = await desk.cards.record(RequestId(2))
    late = Choice(
        todo=Todo.UNDO,
        request_id=RequestId(2),
        seen=menus.choices.open(elements(card)["undo"]["value"], now=record.asked_at).seen,
        expires_at=desk.clock() - timedelta(seconds=1),
    )
    blocks = [*card["blocks"][:-1], {**card["blocks"][-1], "elements": [
        {**elements(card)["undo"], "value": menus.choices.close(late)}
    ]}]  # fmt: skip
    await slack.click("U0BEN", CHANNEL, card["ts"], "undo", shown={**card, "blocks": blocks})
    await world.told("U0BEN", "has run out")
    assert slack.views("U0BEN") == []
