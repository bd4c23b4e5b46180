"""What people are told directly, through a whole Twokey and the stand-in."""

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


@pytest.fixture
async def world(
    slack: SlackStandIn, store: Store, target: Target, tmp_path: Path
) -> AsyncIterator[World]:
    async with running(slack, store, tmp_path, target.dsn, http=True) as made:
        yield made


def direct(world: World, user: str) -> list[dict[str, Any]]:
    return world.slack.messages(f"D{user[1:]}")


async def told(world: World, user: str, says: str) -> dict[str, Any]:
    """The newest direct message to somebody that says this, once there is one."""

    def found() -> dict[str, Any] | None:
        mine = [m for m in direct(world, user) if says in m["text"] + texts(m["blocks"])]
        return mine[-1] if mine else None

    message = await world.slack.wait_for(found, seconds=30)
    assert message is not None
    return message


async def test_whoever_may_approve_is_told_and_told_when_it_is_over(world: World) -> None:
    slack = world.slack
    await slack.command("U0ANA", CHANNEL, '/db paint orders blue reason="<!here> festival"')
    asked = await told(world, "U0BEN", "Your decision is asked for")
    shown = texts(asked["blocks"])
    for part in ("Paint orders blue", "<@U0ANA>", "festival", "2 more of dba", "It expires"):
        assert part in shown
    assert "<!here>" not in shown
    card = await world.card("Waiting")
    assert f"p{card['ts'].replace('.', '')}|Open the card" in shown
    await told(world, "U0CLEO", "Your decision is asked for")
    for user in ("U0ANA", "U0DORA", "U0GUS", "U0UNA", "U0EVE", "U0DEE"):
        assert direct(world, user) == []
    await slack.click("U0ANA", CHANNEL, card["ts"], "cancel")
    for user in ("U0BEN", "U0CLEO"):
        await told(world, user, "nothing left for you to do")
        assert len(direct(world, user)) == 1


async def test_the_button_opens_the_details_before_and_after(world: World) -> None:
    slack = world.slack
    await slack.command("U0ANA", CHANNEL, "/db paint orders")
    asked = await told(world, "U0BEN", "Your decision is asked for")
    assert (await slack.click("U0BEN", "D0BEN", asked["ts"], "details")).ok
    [view] = slack.views("U0BEN")
    assert "Open the tin" in texts(view["blocks"])
    card = await world.card("Waiting")
    await slack.click("U0ANA", CHANNEL, card["ts"], "cancel")
    over = await told(world, "U0BEN", "nothing left")
    assert (await slack.click("U0BEN", "D0BEN", over["ts"], "details")).ok
    assert "Open the tin" in texts(slack.views("U0BEN")[-1]["blocks"])


async def test_who_has_voted_is_told_what_is_still_missing(world: World) -> None:
    slack = world.slack
    await slack.command("U0ANA", CHANNEL, "/db paint orders")
    await told(world, "U0BEN", "asked for")
    card = await world.card("Waiting")
    await slack.click("U0BEN", CHANNEL, card["ts"], "approve")
    await told(world, "U0BEN", "no longer waits for you. Still missing: 1 more of dba")


async def test_an_answer_that_was_lost_is_not_told_twice(world: World) -> None:
    slack = world.slack
    for _ in range(3):
        slack.faults.add(method="chat.postMessage", kind="drop_after", times=1)
    await slack.command("U0ANA", CHANNEL, "/db paint orders")
    for user in ("U0BEN", "U0CLEO"):
        await told(world, user, "asked for")
    card = await world.card("Waiting")
    await slack.click("U0ANA", CHANNEL, card["ts"], "cancel")
    for user in ("U0BEN", "U0CLEO"):
        await told(world, user, "nothing left")
        assert len(direct(world, user)) == 1
    assert [entry for entry in slack.wire if "missing_scope" in str(entry.body)] == []


async def test_a_stand_in_is_told_and_votes_in_the_seat(world: World) -> None:
    slack = world.slack
    typed = await slack.command("U0BEN", CHANNEL, "/db delegate <@U0DORA|dora> for 3 days")
    assert "Europe/London" in typed.ephemerals[0]["text"]
    assert "Europe/Zurich" in typed.ephemerals[0]["text"]
    for user in ("U0BEN", "U0DORA"):
        await told(world, user, "may vote in the place of <@U0BEN>")
    await slack.command("U0ANA", CHANNEL, "/db paint orders")
    await told(world, "U0DORA", "You may vote in the place of <@U0BEN>")
    card = await world.card("Waiting")
    await slack.click("U0DORA", CHANNEL, card["ts"], "approve")
    card = await world.card("1 approval of dba")
    assert "<@U0DORA> for <@U0BEN>" in texts(card["blocks"])
    await slack.click("U0BEN", CHANNEL, card["ts"], "approve")
    await world.told("U0BEN", "Your seat on Request 1 has already voted")
    await slack.click("U0CLEO", CHANNEL, card["ts"], "approve")
    await world.card("Done")


@pytest.mark.parametrize(
    ("user", "text", "says"),
    [
        ("U0BEN", "<@U0BEN> until Friday", "another account of yours"),
        ("U0ANA", "<@U0ANA2> until Friday", "another account of yours"),
        ("U0BEN", "<@U0GUS|gus> until Friday", "may not vote here"),
        ("U0BEN", "<@U0EVE> until Friday", "may not vote here"),
        ("U0BEN", "<@U0HAL> until Friday", "may not vote here"),
        ("U0BEN", "<@U0DEE> until Friday", "may not vote here"),
        ("U0BEN", "<@U0NOBODY> until Friday", "no such account"),
        ("U0BEN", "cleo until Friday", "does not begin with a person"),
        ("U0BEN", "<@U0CLEO> for <@U0DORA> until Friday", "no length of time"),
        ("U0BEN", "<@U0CLEO> <@U0DORA> until Friday", "Only your own seat"),
        ("U0BEN", "<@U0CLEO|cleo caduff>", "until when"),
        ("U0BEN", "<@U0CLEO> until 2020-01-01", "end before it starts"),
        ("U0BEN", "revoke", "needs the number"),
        ("U0BEN", "revoke 99", "no delegation 99"),
        ("U0BEN", "revoke 9999999999999999999999", "needs the number"),
        ("U0BEN", "", "Nobody"),
        ("U0GUS", "<@U0CLEO> until Friday", "guest"),
    ],
)
async def test_every_word_about_delegation_gets_a_sentence(
    world: World, user: str, text: str, says: str
) -> None:
    typed = await world.slack.command(user, CHANNEL, f"/db delegate {text}")
    assert says in typed.ephemerals[0]["text"]


async def test_a_delegation_is_listed_and_revoked_by_either(world: World) -> None:
    slack = world.slack
    await slack.command("U0BEN", CHANNEL, "/db delegate <@U0DORA> until tomorrow")
    typed = await slack.command("U0DORA", CHANNEL, "/db delegate")
    assert "`1` <@U0DORA> for <@U0BEN>, now until" in typed.ephemerals[0]["text"]
    typed = await slack.command("U0CLEO", CHANNEL, "/db delegate revoke 1")
    assert "no delegation 1 of yours" in typed.ephemerals[0]["text"]
    typed = await slack.command("U0DORA", CHANNEL, "/db delegate revoke 1")
    assert "no longer votes" in typed.ephemerals[0]["text"]
    await told(world, "U0BEN", "no longer votes in the place of")
    typed = await slack.command("U0BEN", CHANNEL, "/db delegate")
    assert "`1`" not in typed.ephemerals[0]["text"]
