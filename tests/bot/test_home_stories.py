"""What waits for me, what I asked for and what runs: by `/db requests` and as App Home."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from approvals.words import Door, RequestId
from bot.homes import LOOKING_FOR, Homes
from bot.process import utc_now
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


async def home(world: World, user: str, says_what: str) -> dict[str, Any]:
    """Somebody's home tab, once it says this."""

    def found() -> dict[str, Any] | None:
        view = world.slack.home(user)
        return view if view and says_what in texts(view["blocks"]) else None

    view = await world.slack.wait_for(found, seconds=30)
    assert view is not None
    return view


async def asked(world: World, user: str, text: str) -> str:
    typed = await world.slack.command(user, CHANNEL, text)
    return str(typed.ephemerals[0]["text"]) + texts(typed.ephemerals[0]["blocks"])


async def test_requests_says_what_waits_for_whom(world: World) -> None:
    await world.slack.command("U0ANA", CHANNEL, "/db paint orders")
    await world.card("Waiting")
    assert "1 request waits for you" in await asked(world, "U0BEN", "/db requests")
    mine = await asked(world, "U0ANA", "/db requests")
    assert "0 requests wait for you" in mine
    assert "Asked for by you" in mine
    assert "Paint orders red" in mine
    assert "#1" in await asked(world, "U0ANA", "/db requests mine")
    assert "none" in await asked(world, "U0BEN", "/db requests mine")
    assert "#1" in await asked(world, "U0BEN", "/db requests orders waiting")
    assert "#1" in await asked(world, "U0OLE", "/db requests open")
    assert "0 requests wait" in await asked(world, "U0OLE", "/db requests waiting")


async def test_a_card_is_looked_at_and_decided_about_from_a_list(world: World) -> None:
    slack = world.slack
    await slack.command("U0ANA", CHANNEL, "/db paint orders")
    await world.card("Waiting")
    await slack.open_home("U0BEN")
    tab = await home(world, "U0BEN", "Waits for you: 1")
    assert (await slack.click_view("U0BEN", tab["id"], "show_request", value=None)).ok
    view = await front(world, "U0BEN")
    assert view["callback_id"] == "request_card"
    assert "Open the tin" in texts(view["blocks"])
    assert (await slack.click_view("U0BEN", view["id"], "approve")).ok
    await says(world, "Your approve of request 1 is stored", "U0BEN")
    view = await says(world, "1 approval of dba", "U0BEN")
    # The window is drawn anew with buttons of its own, so the next click counts too.
    value = next(
        option["value"]
        for block in view["blocks"]
        for element in block.get("elements", [])
        if element.get("action_id") == "more"
        for option in element["options"]
        if option["text"]["text"] == "Withdraw my vote"
    )
    assert (await slack.click_view("U0BEN", view["id"], "more", value=value)).ok
    await says(world, "taken back", "U0BEN")


async def test_the_home_tab_is_drawn_anew_when_something_was_decided(world: World) -> None:
    slack = world.slack
    await slack.open_home("U0BEN")
    await home(world, "U0BEN", "Nothing waits for you")
    await slack.command("U0ANA", CHANNEL, "/db paint orders")
    await home(world, "U0BEN", "Waits for you: 1")
    card = await world.card("Waiting")
    await slack.click("U0ANA", CHANNEL, card["ts"], "cancel")
    await home(world, "U0BEN", "Nothing waits for you")


async def test_the_home_tab_opens_forms(world: World) -> None:
    slack = world.slack
    await slack.open_home("U0ANA")
    tab = await home(world, "U0ANA", "Nothing yet")
    assert (await slack.click_view("U0ANA", tab["id"], "open_form.paint")).ok
    view = await front(world)
    assert (await slack.submit("U0ANA", view["id"], values(database="orders"))).ok
    await says(world, "Request *#1* is stored")
    await home(world, "U0ANA", "Paint orders red")
    await slack.close_view("U0ANA", (await front(world))["id"])
    assert (await slack.click_view("U0ANA", tab["id"], "open_picker")).ok
    assert (await front(world))["callback_id"] == "pick_operation"


async def test_the_unfit_see_why_and_nothing_else(world: World) -> None:
    slack = world.slack
    await slack.command("U0ANA", CHANNEL, "/db paint orders")
    await world.card("Waiting")
    await slack.open_home("U0GUS")
    tab = await home(world, "U0GUS", "guest")
    assert "Paint" not in texts(tab["blocks"])


async def test_a_home_tab_while_the_directory_is_away_says_so_and_comes_back(
    world: World,
) -> None:
    slack = world.slack
    slack.faults.add(method="users.info", kind="500", times=1)
    await slack.open_home("U0BEN")
    await home(world, "U0BEN", "cannot")
    await slack.command("U0ANA", CHANNEL, "/db paint orders")
    await home(world, "U0BEN", "Waits for you: 1")


async def test_what_runs_is_told_with_how_far_it_is(world: World) -> None:
    slack = world.slack
    await slack.command("U0ANA", CHANNEL, "/db free orders forever")
    card = await world.card("Running")
    await slack.wait_for(
        lambda: any("Painting" in m["text"] for m in slack.messages(CHANNEL)), seconds=30
    )
    told = await asked(world, "U0BEN", "/db requests")
    assert "At work now" in told
    assert "1 change at work" in told
    await slack.click("U0ANA", CHANNEL, card["ts"], "cancel")
    await world.card("Failed")


async def test_a_home_tab_is_published_only_when_it_shows_something_else(world: World) -> None:
    slack, desk = world.slack, world.twokey.desk
    now = utc_now()
    homes = Homes(desk, clock=lambda: now, lookers_max=2)

    def published() -> int:
        return sum(entry.kind == "views.publish" for entry in slack.wire)

    await homes.opened("U0BEN", "T0DEMO")
    once = published()
    await homes.round()
    assert published() == once
    await slack.command("U0ANA", CHANNEL, "/db paint orders")
    await homes.round()
    assert published() == once + 1
    # Only so many are kept in mind, and none for longer than somebody looks.
    for user in ("U0CLEO", "U0ANA"):
        await homes.opened(user, "T0DEMO")
    before = published()
    await desk.approvals.cancel(
        RequestId(1),
        by=await desk.person("T0DEMO", "U0ANA"),
        door=Door.CLI,
        delivery="",
    )
    await homes.round()
    assert published() == before + 2
    now += LOOKING_FOR + timedelta(seconds=1)
    await slack.command("U0ANA", CHANNEL, "/db paint orders")
    await homes.round()
    assert published() == before + 2
