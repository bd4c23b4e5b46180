"""Alerts through Slack: one message for all that fires, acknowledged, silenced, over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import sqlalchemy as sa

from sandbox.slack.server import SlackStandIn
from store.connect import Store
from tests.bot.incident_world import REAL, buttons, end, fire, message, said_below, tell, thread
from tests.bot.test_form_stories import front, says, values
from tests.bot.test_home_stories import home
from tests.bot.test_outbox import emptied
from tests.bot.views.cards import texts
from tests.bot.world import CHANNEL, World, running
from tests.conftest import Target

BEN = "ben@acme.example"


@pytest.fixture
async def world(
    slack: SlackStandIn, store: Store, target: Target, tmp_path: Path
) -> AsyncIterator[World]:
    async with running(slack, store, tmp_path, target.dsn, http=True, operations=REAL) as made:
        yield made


async def press(world: World, user: str, card: Mapping[str, Any], text: str) -> None:
    """Press a button of a message as it was then."""
    action = buttons(card)[text]["action_id"]
    assert (await world.slack.click(user, CHANNEL, card["ts"], action, shown=dict(card))).ok


async def audited(world: World) -> list[tuple[str, str, object]]:
    async with world.store.begin() as conn:
        found = await conn.execute(
            sa.text(
                "SELECT chain, actor, detail -> 'alerts' FROM audit_log"
                " WHERE action = 'alert.acknowledged' ORDER BY seq"
            )
        )
        return [tuple(row) for row in found]


async def test_an_incident_is_one_message_from_its_first_alert_to_its_end(world: World) -> None:
    number = await fire(world.store)
    card = await message(world, "Critical on orders: ReplicationLag")
    shown = texts(card["blocks"])
    assert "1 min 15 s" in shown
    assert "Next:" in shown
    await fire(world.store, "PoolUsage", severity="warning")
    await message(world, "Critical on orders: 2 alerts")
    await press(world, "U0BEN", card, "Acknowledge")
    await world.told("U0BEN", "You look after 2 alerts of incident 1")
    seen = await message(world, "Acknowledged, critical on orders")
    assert f"Acknowledged by {BEN}" in texts(seen["blocks"])
    assert "Acknowledge" not in buttons(seen)
    await end(world.store, number)
    over = await message(world, "Over on orders: 2 alerts")
    assert over["ts"] == card["ts"]
    assert not buttons(over)
    await said_below(world, card, f"Acknowledged by {BEN}")
    assert len(thread(world.slack, card)) == 3
    assert await audited(world) == [("orders", BEN, ["PoolUsage", "ReplicationLag"])]


async def test_of_two_who_acknowledge_at_once_one_does_and_the_other_is_told_by_whom(
    world: World,
) -> None:
    await fire(world.store)
    card = await message(world, "Critical on orders")
    people = {"U0BEN": BEN, "U0CLEO": "cleo@acme.example", "U0OLE": "ole@acme.example"}
    await asyncio.gather(*(press(world, user, card, "Acknowledge") for user in people))
    [(_, actor, _)] = await audited(world)
    first = next(user for user, person in people.items() if person == actor)
    await world.told(first, "You look after 1 alert")
    for other in people.keys() - {first}:
        await world.told(other, f"Incident 1 is acknowledged already, by {actor} at ")
    await said_below(world, card, f"Acknowledged by {actor}")
    assert len(thread(world.slack, card)) == 2


async def test_what_is_over_is_not_acknowledged_and_says_since_when(world: World) -> None:
    number = await fire(world.store)
    card = await message(world, "Critical on orders")
    await end(world.store, number)
    await message(world, "Over on orders")
    await press(world, "U0BEN", card, "Acknowledge")
    text = await world.told("U0BEN", "Incident 1 on orders is over since ")
    assert "UTC" in text
    assert await audited(world) == []


async def test_who_may_not_use_twokey_acknowledges_nothing_and_a_forged_button_neither(
    world: World,
) -> None:
    await fire(world.store)
    card = await message(world, "Critical on orders")
    await press(world, "U0GUS", card, "Acknowledge")
    await world.told("U0GUS", "is a guest's")
    own, silence = buttons(card)["Acknowledge"], buttons(card)["Silence"]
    sealed = own["value"]
    own["value"] = f"{sealed[:-4]}AAAA"
    await press(world, "U0BEN", card, "Acknowledge")
    await world.told("U0BEN", "was not made by Twokey")
    own["value"] = silence["value"]  # ours, but for something else
    await press(world, "U0CLEO", card, "Acknowledge")
    await world.told("U0CLEO", "was not made by Twokey")
    assert await audited(world) == []


async def test_an_incident_is_acknowledged_by_its_number_too(world: World) -> None:
    await fire(world.store)
    await message(world, "Critical on orders")
    typed = await world.slack.command("U0BEN", CHANNEL, "/db ack 1")
    assert "You look after 1 alert" in typed.ephemerals[0]["text"]
    for text, problem in (
        ("/db ack", "needs the number of an incident"),
        ("/db ack soon", "'soon' is none"),
        ("/db ack 9", "There is no incident 9"),
        ("/db ack 1", f"acknowledged already, by {BEN}"),
    ):
        typed = await world.slack.command("U0CLEO", CHANNEL, text)
        assert problem in typed.ephemerals[0]["text"]
    guest = await world.slack.command("U0GUS", CHANNEL, "/db ack 1")
    assert "is a guest's" in guest.ephemerals[0]["text"]


async def test_a_silence_is_asked_for_from_the_message_and_ended_from_it(world: World) -> None:
    await fire(world.store)
    card = await message(world, "Critical on orders")
    await press(world, "U0BEN", card, "Silence")
    view = await front(world, "U0BEN")
    state = view["state"]["values"]
    assert state["param.alert"]["value"]["value"] == "ReplicationLag"
    assert state["param.until"]["value"]["value"] == "4h"
    why = {"param.reason": {"value": "the standby is being rebuilt"}}
    assert (await world.slack.submit("U0BEN", view["id"], why)).ok
    await says(world, "Request *#1* is stored", "U0BEN")
    hushed = await message(world, "Silenced, critical on orders: ReplicationLag")
    shown = texts(hushed["blocks"])
    assert f"by {BEN}: the standby is being rebuilt" in shown
    await said_below(world, card, "ReplicationLag is silenced until")
    await press(world, "U0CLEO", hushed, "End the silence")
    view = await front(world, "U0CLEO")
    assert (await world.slack.submit("U0CLEO", view["id"], values())).ok
    await message(world, "Critical on orders: ReplicationLag")
    await said_below(world, card, "heard again: cleo@acme.example ended the silence")


async def test_alerts_lists_what_fires_and_who_is_at_it(world: World) -> None:
    await fire(world.store)
    await message(world, "Critical on orders")
    await world.slack.command("U0BEN", CHANNEL, "/db ack 1")
    for text in ("/db alerts", "/db alerts orders"):
        typed = await world.slack.command("U0ANA", CHANNEL, text)
        shown = texts(typed.ephemerals[0]["blocks"])
        assert "1 alert fires on" in shown
        assert "acknowledged" in shown
        assert BEN in shown


async def test_an_escalation_leads_to_the_message_and_is_not_told_once_somebody_is_at_it(
    world: World,
) -> None:
    number = await fire(world.store)
    card = await message(world, "Critical on orders")
    await emptied(world.store)  # so that the message's place is known
    told = {"kind": "escalation", "text": "Nobody has looked for 15 min."}
    await tell(world.store, number, told, channel="C0ORDERS")
    [escalation] = await world.slack.wait_for(lambda: world.slack.messages("C0ORDERS"))
    shown = texts(escalation["blocks"])
    assert "Nobody has acknowledged" in shown
    assert f"/p{card['ts'].replace('.', '')}" in shown
    await press(world, "U0BEN", card, "Acknowledge")
    await message(world, "Acknowledged, critical")
    await tell(world.store, number, told, channel="C0ORDERS")
    await emptied(world.store)
    assert len(world.slack.messages("C0ORDERS")) == 1


async def test_the_home_tab_shows_what_fires_and_forgets_it_when_it_is_over(world: World) -> None:
    number = await fire(world.store)
    await message(world, "Critical on orders")
    await world.slack.open_home("U0ANA")
    tab = await home(world, "U0ANA", "Fires now: 1")
    assert "ReplicationLag" in texts(tab["blocks"])
    await end(world.store, number)
    await world.slack.wait_for(
        lambda: "Fires now" not in texts((world.slack.home("U0ANA") or {"blocks": []})["blocks"]),
        seconds=30,
    )


async def test_the_door_for_alerts_of_others_is_there_and_says_that_it_is_not_open(
    world: World, session: aiohttp.ClientSession
) -> None:
    async with session.post(f"{world.url}/alerts/alertmanager", json={}) as answer:
        assert answer.status == 404
        assert "TWOKEY_ALERTMANAGER_TOKEN" in (await answer.json())["next_step"]
