"""Forms through Slack: opened, filled, refused at their fields, planned, sent once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.slack.server import SlackStandIn
from store.connect import Store
from tests.bot.views.cards import texts
from tests.bot.world import CHANNEL, World, running
from tests.conftest import Target


@pytest.fixture(params=["http", "socket"])
async def world(
    request: pytest.FixtureRequest,
    slack: SlackStandIn,
    store: Store,
    target: Target,
    tmp_path: Path,
) -> AsyncIterator[World]:
    http = request.param == "http"
    async with running(slack, store, tmp_path, target.dsn, http=http) as made:
        yield made


def values(**given: Any) -> dict[str, Any]:
    """What somebody enters, by field."""
    entered: dict[str, Any] = {}
    for name, value in given.items():
        action = {"database": "form_database", "reason": "text"}.get(name, "value")
        block = "reason" if name == "reason" else f"param.{name}"
        entered[block] = {action: value}
    return entered


async def front(world: World, user: str = "U0ANA") -> dict[str, Any]:
    view = await world.slack.wait_for(lambda: next(iter(world.slack.views(user)[-1:]), None))
    assert view is not None
    return view


async def opened(world: World, text: str = "/db form paint") -> dict[str, Any]:
    typed = await world.slack.command("U0ANA", CHANNEL, text)
    assert typed.ok
    return await front(world)


async def says(world: World, words: str, user: str = "U0ANA") -> dict[str, Any]:
    """The modal in front, once it says this."""

    def found() -> dict[str, Any] | None:
        view = next(iter(world.slack.views(user)[-1:]), None)
        return view if view and words in texts(view["blocks"]) else None

    view = await world.slack.wait_for(found, seconds=30)
    assert view is not None
    return view


async def test_a_form_asks_for_everything_and_what_it_brings_is_a_request(world: World) -> None:
    view = await opened(world)
    assert [block["block_id"] for block in view["blocks"] if block["type"] == "input"] == [
        "param.database", "param.colour", "param.coats", "reason",
    ]  # fmt: skip
    assert view["state"]["values"]["param.colour"]["value"]["value"] == "red"
    sent = await world.slack.submit(
        "U0ANA", view["id"], values(database="orders", colour="blue", coats="2", reason="festival")
    )
    assert sent.ok
    shown = await says(world, "Request *#1* is stored")
    assert "2 of dba" in texts(shown["blocks"])
    assert f"<#{CHANNEL}>" in texts(shown["blocks"])
    card = await world.card("Waiting")
    assert "Paint orders blue" in texts(card["blocks"])
    assert "festival" in texts(card["blocks"])


async def test_a_command_that_lacks_something_opens_its_form_with_what_was_typed(
    world: World,
) -> None:
    typed = await world.slack.command("U0ANA", CHANNEL, "/db paint colour=blue reason=festival")
    assert "needs database" in typed.ephemerals[0]["text"]
    assert "A form has opened" in typed.ephemerals[0]["text"]
    view = await front(world)
    state = view["state"]["values"]
    assert state["param.colour"]["value"]["value"] == "blue"
    assert state["reason"]["text"]["value"] == "festival"
    assert (await world.slack.submit("U0ANA", view["id"], values(database="orders"))).ok
    await says(world, "Request *#1* is stored")


@pytest.mark.deadlines
async def test_a_form_that_slack_does_not_open_leaves_the_sentence(world: World) -> None:
    world.slack.faults.add(method="views.open", kind="500", times=1)
    typed = await world.slack.command("U0ANA", CHANNEL, "/db paint")
    assert "needs database" in typed.ephemerals[0]["text"]
    assert "form has opened" not in typed.ephemerals[0]["text"]
    world.slack.faults.add(method="views.open", kind="slow", times=1, seconds=3.5)
    typed = await world.slack.command("U0ANA", CHANNEL, "/db form paint")
    assert typed.ok
    assert "took too long" in typed.ephemerals[0]["text"]
    assert world.slack.views("U0ANA") == []


async def test_errors_stand_at_their_fields_and_nothing_is_lost(world: World) -> None:
    view = await opened(world)
    sent = await world.slack.submit(
        "U0ANA", view["id"], values(database="orders", colour="BLUE", coats="9")
    )
    assert set(sent.errors) == {"param.colour"}
    assert "pattern" in sent.errors["param.colour"]
    state = (await front(world))["state"]["values"]
    assert state["param.colour"]["value"]["value"] == "BLUE"
    assert world.cards() == []
    assert (await world.slack.submit("U0ANA", view["id"], values(colour="blue", coats="1"))).ok
    await says(world, "Request *#1* is stored")


@pytest.mark.parametrize(
    ("colour", "says_what"), [("refused", "There is no more paint"), ("broken", "Something broke")]
)
async def test_what_cannot_be_planned_is_said_in_the_form(
    world: World, colour: str, says_what: str
) -> None:
    view = await opened(world)
    sent = await world.slack.submit(
        "U0ANA", view["id"], values(database="orders", colour=colour, reason="festival")
    )
    assert sent.ok
    shown = await says(world, says_what)
    assert world.cards() == []
    if colour == "refused":
        assert shown["state"]["values"]["reason"]["text"]["value"] == "festival"
        assert (await world.slack.submit("U0ANA", shown["id"], values(colour="blue"))).ok
        await says(world, "is stored")


async def test_a_plan_that_takes_longer_than_slack_waits_is_shown_when_it_is_there(
    world: World,
) -> None:
    view = await opened(world)
    sent = await world.slack.submit("U0ANA", view["id"], values(database="orders", colour="late"))
    assert sent.ok
    assert "Planning" in texts((await front(world))["blocks"])
    await says(world, "Request *#1* is stored")
    assert len(world.slack.views("U0ANA")) == 1
    await world.card("Waiting")


async def test_who_closes_a_form_that_is_planned_is_told_all_the_same(world: World) -> None:
    view = await opened(world)
    await world.slack.submit("U0ANA", view["id"], values(database="orders", colour="late"))
    await world.slack.close_view("U0ANA", (await front(world))["id"])
    await world.card("Waiting")
    await world.told("U0ANA", "Request 1 is stored")
    assert world.slack.views("U0ANA") == []


@pytest.mark.deadlines
async def test_a_plan_that_never_comes_is_given_up_with_what_was_entered(world: World) -> None:
    view = await opened(world)
    await world.slack.submit("U0ANA", view["id"], values(database="orders", colour="slow"))
    shown = await says(world, "took longer")
    assert shown["state"]["values"]["param.colour"]["value"]["value"] == "slow"
    assert world.cards() == []


async def test_a_form_that_comes_twice_is_one_request(world: World) -> None:
    view = await opened(world)
    await world.slack.submit("U0ANA", view["id"], values(database="orders"))
    await says(world, "Request *#1* is stored")
    for _ in range(2):
        # Within the same second it is a replay to the letter, and the gate refuses it.
        assert (await world.slack.again()).status in {200, 401}
    await world.card("Waiting")
    assert len(await world.twokey.approvals.recent()) == 1


async def test_the_shortcut_asks_what_is_to_be_done_and_then_for_the_rest(world: World) -> None:
    assert (await world.slack.shortcut("U0ANA", "ask_for_change")).ok
    picker = await front(world)
    assert picker["callback_id"] == "pick_operation"
    assert (await world.slack.click_view("U0ANA", picker["id"], "pick_operation", value="paint")).ok
    form = await front(world)
    assert form["id"] == picker["id"]
    assert form["callback_id"] == "form"
    assert (await world.slack.submit("U0ANA", form["id"], values(database="orders"))).ok
    await says(world, "Request *#1* is stored")


async def test_a_query_is_answered_in_its_form(world: World) -> None:
    view = await opened(world, "/db form colours")
    assert (await world.slack.submit("U0ANA", view["id"], values(database="orders"))).ok
    shown = await says(world, "Colours of orders")
    assert "&lt;blue&gt;" in texts(shown["blocks"])


async def test_what_no_rule_allows_is_stored_and_said(world: World) -> None:
    view = await opened(world, "/db form forbidden")
    assert (await world.slack.submit("U0ANA", view["id"], values(database="orders"))).ok
    await says(world, "No rule")


@pytest.mark.parametrize(("user", "why"), [("U0GUS", "guest"), ("U0UNA", "confirmed")])
async def test_the_unfit_get_no_form_and_send_none(world: World, user: str, why: str) -> None:
    typed = await world.slack.command(user, CHANNEL, "/db form paint")
    assert why in typed.ephemerals[0]["text"]
    typed = await world.slack.command(user, CHANNEL, "/db paint")
    assert why in typed.ephemerals[0]["text"]
    assert (await world.slack.shortcut(user, "ask_for_change")).ok
    assert world.slack.views(user) == []


async def test_who_became_a_guest_while_filling_a_form_in_sends_none(world: World) -> None:
    view = await opened(world)
    await world.slack.set_flags("U0ANA", guest=True)
    assert (await world.slack.submit("U0ANA", view["id"], values(database="orders"))).ok
    await says(world, "guest")
    assert world.cards() == []


async def test_a_form_is_kept_while_the_directory_is_away(world: World) -> None:
    view = await opened(world)
    world.slack.faults.add(method="users.info", kind="500", times=1)
    sent = await world.slack.submit("U0ANA", view["id"], values(database="orders", colour="blue"))
    assert sent.ok
    shown = await says(world, "⚠️")
    assert world.cards() == []
    assert (await world.slack.submit("U0ANA", shown["id"])).ok
    await says(world, "Request *#1* is stored")


async def test_there_is_no_form_for_what_nobody_knows(world: World) -> None:
    typed = await world.slack.command("U0ANA", CHANNEL, "/db form pant")
    assert "Did you mean" in typed.ephemerals[0]["text"]
    typed = await world.slack.command("U0ANA", CHANNEL, "/db form")
    assert typed.ephemerals == ()
    assert (await front(world))["callback_id"] == "pick_operation"


async def test_databases_are_found_by_what_was_typed(world: World) -> None:
    view = await opened(world)
    found = await world.slack.suggest("U0ANA", view["id"], "param.database", "form_database", "ord")
    assert [o["value"] for g in found["option_groups"] for o in g["options"]] == ["orders"]
