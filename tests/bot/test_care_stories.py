"""The riskiest kinds through Slack: every page opened, the name typed, a code given."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from approvals.words import PersonId
from sandbox.slack.server import SlackStandIn
from store.connect import Store
from tests.bot.care_world import CHANNEL, PAGES, CareWorld, care_world
from tests.bot.views.cards import texts
from tests.conftest import Target

BEN, CLEO = "ben@acme.example", "cleo@acme.example"


@pytest.fixture
async def world(
    slack: SlackStandIn, store: Store, target: Target, tmp_path: Path
) -> AsyncIterator[CareWorld]:
    async with care_world(slack, store, tmp_path, target.dsn) as made:
        yield made


async def asked(world: CareWorld, text: str = "/db wipe orders") -> dict[str, Any]:
    await world.slack.command("U0ANA", CHANNEL, text)
    return await world.card("Waiting")


async def modal(world: CareWorld, user: str, card: dict[str, Any]) -> dict[str, Any]:
    assert (await world.slack.click(user, CHANNEL, card["ts"], "approve")).ok
    [view] = world.slack.views(user)
    assert view["callback_id"] == "approve_care"
    return view


async def send(world: CareWorld, user: str, view: dict[str, Any], **typed: str) -> Any:
    values = {block: {"text": text} for block, text in typed.items()}
    return await world.slack.submit(user, view["id"], values)


async def test_the_card_says_up_front_what_approving_needs(world: CareWorld) -> None:
    shown = texts((await asked(world))["blocks"])
    assert "every page of Details opened, the database's name typed, a code" in shown


async def test_all_of_it_makes_a_vote_that_says_so(world: CareWorld) -> None:
    card = await asked(world)
    await world.enrol("U0BEN", BEN)
    assert await world.read_all("U0BEN", card) == PAGES
    view = await modal(world, "U0BEN", card)
    assert "Wipe orders red" in texts(view["blocks"])
    assert (await send(world, "U0BEN", view, typed="orders", code=world.code("U0BEN"))).ok
    await world.told("U0BEN", "Your approve of request 1 is stored")
    assert world.slack.views("U0BEN") == []
    [vote] = await world.rows("SELECT groups FROM votes")
    assert {"!read", "!named", "!step_up"} <= set(vote.groups)
    record = await world.twokey.desk.cards.record(1)  # type: ignore[arg-type]
    assert set(record.votes[0].care) == {"read", "named", "step_up"}


async def test_pages_that_were_not_opened_are_named(world: CareWorld) -> None:
    card = await asked(world)
    slack = world.slack
    await slack.click("U0BEN", CHANNEL, card["ts"], "approve")
    await world.told("U0BEN", f"You have opened 0 of {PAGES} pages")
    await slack.click("U0BEN", CHANNEL, card["ts"], "details")
    [view] = slack.views("U0BEN")
    assert f"You have opened 1 of {PAGES} pages" in texts(view["blocks"])
    await slack.click_view("U0BEN", view["id"], "page_next")
    await slack.close_view("U0BEN", view["id"])
    await slack.click("U0BEN", CHANNEL, card["ts"], "approve")
    told = await world.told("U0BEN", f"You have opened 2 of {PAGES} pages")
    assert "open page 3; then approve" in told
    assert slack.views("U0BEN") == []
    assert await world.rows("SELECT 1 FROM votes") == []


async def test_the_last_page_says_that_all_were_opened(world: CareWorld) -> None:
    card = await asked(world)
    await world.read_all("U0BEN", card)
    await world.slack.click("U0BEN", CHANNEL, card["ts"], "details")
    [view] = world.slack.views("U0BEN")
    assert f"every page of the plan: {PAGES} of {PAGES}" in texts(view["blocks"])


async def test_somebody_elses_reading_is_not_yours(world: CareWorld) -> None:
    card = await asked(world)
    await world.read_all("U0CLEO", card)
    await world.slack.click("U0BEN", CHANNEL, card["ts"], "approve")
    await world.told("U0BEN", f"You have opened 0 of {PAGES} pages")


async def test_pages_of_the_plan_before_do_not_count(world: CareWorld) -> None:
    card = await asked(world)
    await world.read_all("U0BEN", card)
    desk = world.twokey.desk
    gus = await desk.people.by_slack("T0DEMO", "U0OLE")
    plan = {**_plan_of(await desk.cards.record(1)), "title": "Wipe something else"}  # type: ignore[arg-type]
    await desk.approvals.change_plan(1, by=gus, plan=plan, delivery="x")  # type: ignore[arg-type]
    card = await world.card("something else")
    await world.slack.click("U0BEN", CHANNEL, card["ts"], "approve")
    await world.told("U0BEN", f"You have opened 0 of {PAGES} pages")


def _plan_of(record: Any) -> dict[str, Any]:
    from approvals.plans import plan_of

    return dict(plan_of(record.plan))


@pytest.mark.parametrize(
    "typed", ["order", "Orders", "orders ", "0rders", "\N{CYRILLIC SMALL LETTER O}rders"]
)
async def test_another_name_is_an_error_on_its_field(world: CareWorld, typed: str) -> None:
    card = await asked(world, "/db erase orders")
    await world.read_all("U0BEN", card)
    view = await modal(world, "U0BEN", card)
    assert "code" not in {block.get("block_id") for block in view["blocks"]}
    sent = await send(world, "U0BEN", view, typed=typed)
    assert "not the name of the database" in sent.errors["typed"]
    [open_still] = world.slack.views("U0BEN")
    assert open_still["state"]["values"]["typed"]["text"]["value"] == typed
    assert await world.rows("SELECT 1 FROM votes") == []
    assert (await send(world, "U0BEN", view, typed="orders")).ok
    await world.told("U0BEN", "Your approve of request 1 is stored")


async def test_a_wrong_code_is_an_error_on_its_field_and_a_code_counts_once(
    world: CareWorld,
) -> None:
    card = await asked(world)
    for user, person in (("U0BEN", BEN), ("U0CLEO", CLEO)):
        await world.enrol(user, person)
        await world.read_all(user, card)
    view = await modal(world, "U0BEN", card)
    sent = await send(world, "U0BEN", view, typed="orders", code=world.code("U0BEN", steps=99))
    assert "not the code" in sent.errors["code"]
    used = world.code("U0BEN")
    assert (await send(world, "U0BEN", view, typed="orders", code=used)).ok
    await world.told("U0BEN", "is stored")
    view = await modal(world, "U0CLEO", await world.card("1 approval"))
    sent = await send(world, "U0CLEO", view, typed="orders", code=used)
    assert "not the code" in sent.errors["code"]  # it was Ben's


async def test_who_has_no_second_factor_is_told_how_to_get_one(world: CareWorld) -> None:
    card = await asked(world)
    await world.read_all("U0BEN", card)
    view = await modal(world, "U0BEN", card)
    sent = await send(world, "U0BEN", view, typed="orders", code="123456")
    assert "no second factor" in sent.errors["code"]
    assert "/db mfa enroll" in sent.errors["code"]


async def test_who_may_not_vote_is_told_so_and_sees_no_modal(world: CareWorld) -> None:
    card = await asked(world)
    for user, says in (("U0ANA", "your own"), ("U0OLE", "not yours to decide")):
        await world.slack.click(user, CHANNEL, card["ts"], "approve")
        await world.told(user, says)
        assert world.slack.views(user) == []


async def test_a_plan_that_changes_while_the_modal_is_open_is_not_approved(
    world: CareWorld,
) -> None:
    card = await asked(world)
    await world.enrol("U0BEN", BEN)
    await world.read_all("U0BEN", card)
    view = await modal(world, "U0BEN", card)
    desk = world.twokey.desk
    ole = await desk.people.by_slack("T0DEMO", "U0OLE")
    plan = {**_plan_of(await desk.cards.record(1)), "title": "Wipe all"}  # type: ignore[arg-type]
    await desk.approvals.change_plan(1, by=ole, plan=plan, delivery="x")  # type: ignore[arg-type]
    code = world.code("U0BEN")
    sent = await send(world, "U0BEN", view, typed="orders", code=code)
    assert "plan of request 1 has changed" in sent.errors["typed"]
    assert await world.rows("SELECT 1 FROM votes") == []
    await world.twokey.desk.factors.check(PersonId(BEN), code)  # it was spared


async def test_a_code_is_spared_when_the_request_has_ended_meanwhile(world: CareWorld) -> None:
    card = await asked(world)
    await world.enrol("U0BEN", BEN)
    await world.read_all("U0BEN", card)
    view = await modal(world, "U0BEN", card)
    await world.slack.click("U0ANA", CHANNEL, card["ts"], "cancel")
    await world.card("Cancelled")
    code = world.code("U0BEN")
    sent = await send(world, "U0BEN", view, typed="orders", code=code)
    assert "cancelled" in sent.errors["typed"]
    await world.twokey.desk.factors.check(PersonId(BEN), code)


async def test_a_modal_sent_twice_is_one_vote(world: CareWorld) -> None:
    card = await asked(world)
    await world.enrol("U0BEN", BEN)
    await world.read_all("U0BEN", card)
    view = await modal(world, "U0BEN", card)
    assert (await send(world, "U0BEN", view, typed="orders", code=world.code("U0BEN"))).ok
    again = await world.again()
    assert again.status == 200
    assert "errors" not in str(again.body)
    assert len(await world.rows("SELECT 1 FROM votes")) == 1


async def test_breaking_the_glass_takes_the_name_and_a_code(world: CareWorld) -> None:
    await asked(world)
    await world.enrol("U0BEN", BEN)
    slack = world.slack
    typed = await slack.command("U0BEN", CHANNEL, "/db break-glass 1 the site is down")
    assert typed.ok
    [view] = slack.views("U0BEN")
    assert view["callback_id"] == "break_glass"
    assert view["state"]["values"]["reason"]["text"]["value"] == "the site is down"
    sent = await send(world, "U0BEN", view, typed="order", code=world.code("U0BEN"))
    assert "not the name" in sent.errors["typed"]
    sent = await send(world, "U0BEN", view, typed="orders", code=world.code("U0BEN", steps=99))
    assert "not the code" in sent.errors["code"]
    assert await world.rows("SELECT 1 FROM requests WHERE state = 'executing'") == []
    assert (await send(world, "U0BEN", view, typed="orders", code=world.code("U0BEN"))).ok
    await world.told("U0BEN", "runs without its votes")
    [row] = await world.rows("SELECT state FROM requests")
    assert row.state == "executing"


async def test_who_may_not_break_the_glass_sees_no_modal(world: CareWorld) -> None:
    await asked(world)
    typed = await world.slack.command("U0OLE", CHANNEL, "/db break-glass 1 now")
    assert "may not run request 1" in typed.ephemerals[0]["text"]
    assert world.slack.views("U0OLE") == []
