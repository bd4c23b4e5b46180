"""Whole stories through Slack, over HTTP and over Socket Mode."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from unittest.mock import patch

import pytest

from sandbox.slack.server import SlackStandIn
from store.connect import Store
from tests.bot import world as base
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


async def test_two_keys_turn_and_the_work_is_done(world: World) -> None:
    slack = world.slack
    typed = await slack.command("U0ANA", CHANNEL, "/db paint orders blue reason=festival")
    assert typed.ok
    assert "Request 1 is stored" in typed.ephemerals[0]["text"]
    assert "2 of dba" in typed.ephemerals[0]["text"]
    card = await world.card("Waiting for approval")
    assert "Paint orders blue" in texts(card["blocks"])

    assert (await slack.click("U0ANA", CHANNEL, card["ts"], "approve")).ok
    await world.told("U0ANA", "your own")
    assert (await slack.click("U0BEN", CHANNEL, card["ts"], "approve")).ok
    await world.told("U0BEN", "Your approve of request 1 is stored")
    card = await world.card("1 approval of dba")
    assert (await slack.click("U0CLEO", CHANNEL, card["ts"], "approve")).ok
    card = await world.card("Done")
    assert [
        e["action_id"] for b in card["blocks"] if b["type"] == "actions" for e in b["elements"]
    ] == ["details"]
    await slack.wait_for(
        lambda: any("Painted blue" in m["text"] for m in slack.messages(CHANNEL)), seconds=30
    )


async def test_a_deny_asks_for_its_reason_and_shows_it(world: World) -> None:
    slack = world.slack
    await slack.command("U0ANA", CHANNEL, "/db paint orders")
    card = await world.card("Waiting")
    assert (await slack.click("U0BEN", CHANNEL, card["ts"], "deny")).ok
    [view] = slack.views("U0BEN")
    assert view["callback_id"] == "deny_reason"
    assert (await slack.submit("U0BEN", view["id"], {"reason": {"text": "<!here> not today"}})).ok
    assert slack.views("U0BEN") == []
    card = await world.card("Denied")
    assert "not today" in texts(card["blocks"])
    assert "<!here>" not in texts(card["blocks"])
    await world.told("U0BEN", "Your deny of request 1 is stored")


async def test_a_deny_that_is_refused_keeps_what_was_typed(world: World) -> None:
    slack = world.slack
    await slack.command("U0ANA", CHANNEL, "/db paint orders")
    card = await world.card("Waiting")
    await slack.click("U0OLE", CHANNEL, card["ts"], "deny")
    [view] = slack.views("U0OLE")
    sent = await slack.submit("U0OLE", view["id"], {"reason": {"text": "I say so"}})
    assert "not yours to decide" in sent.errors["reason"]
    assert len(slack.views("U0OLE")) == 1


async def test_details_hold_the_plan_and_a_query_is_answered_at_once(world: World) -> None:
    slack = world.slack
    await slack.command("U0ANA", CHANNEL, "/db paint orders")
    card = await world.card("Waiting")
    assert (await slack.click("U0GUS", CHANNEL, card["ts"], "details")).ok
    await world.told("U0GUS", "guest")
    assert (await slack.click("U0BEN", CHANNEL, card["ts"], "details")).ok
    [view] = slack.views("U0BEN")
    assert "Open the tin" in texts(view["blocks"])
    typed = await slack.command("U0ANA", CHANNEL, "/db colours orders")
    assert "Colours of orders" in typed.ephemerals[0]["text"]
    assert "&lt;blue&gt;" in typed.ephemerals[0]["text"]


async def test_whoever_asked_cancels(world: World) -> None:
    slack = world.slack
    await slack.command("U0ANA", CHANNEL, "/db paint orders")
    card = await world.card("Waiting")
    await slack.click("U0BEN", CHANNEL, card["ts"], "cancel")
    await world.told("U0BEN", "asked for by somebody else")
    await slack.click("U0ANA", CHANNEL, card["ts"], "cancel")
    await world.told("U0ANA", "is cancelled")
    await world.card("Cancelled")


async def test_a_running_change_is_stopped(world: World) -> None:
    slack = world.slack
    await slack.command("U0ANA", CHANNEL, "/db free orders forever")
    card = await world.card("Running")
    await slack.wait_for(
        lambda: any("Painting" in m["text"] for m in slack.messages(CHANNEL)), seconds=30
    )
    await slack.click("U0BEN", CHANNEL, card["ts"], "cancel")
    await world.told("U0BEN", "not yours to stop")
    await slack.click("U0ANA", CHANNEL, card["ts"], "cancel")
    await world.told("U0ANA", "told to stop")
    await world.card("Failed")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("/db", "What /db can do"),
        ("/db help paint", "/db paint orders red"),
        ("/db pain orders", "Did you mean /db paint?"),
        ("/db paint ordrs", "Did you mean orders?"),
        ("/db paint", "needs database"),
        ("/db paint orders BLUE", "colour"),
        ("/db paint orders coats=many", "coats"),
        ("/db paint orders --colour", "no value"),
        ("/db paint orders color=red", "did you mean colour?"),
        ("/db paint orders red 2 extra", "extra"),
        ('/db paint orders reason="unclosed', "not closed"),
        pytest.param("/db paint orders slow", "took longer", marks=pytest.mark.deadlines),
        ("/db paint orders broken", "Something broke on our side"),
        ("/db forbidden orders", "No rule"),
        ("/db show 99", "There is no request 99"),
        ("/db show twelve", "number"),
        ("/db cancel", "number"),
        ("/db audit orders", "Audit of orders"),
        ("/db policy paint orders", "2 of dba"),
        ("/db policy", "refused"),
        ("/db requests", "Nothing waits for you"),
        ("/db requests open", "none"),
        ("/db requests orders mine", "none"),
        ("/db requests waiting", "Nothing waits"),
        ("/db requests open mine", "does not understand"),
        ("/db requests ordrs", "Did you mean orders?"),
    ],
)
async def test_everything_typed_gets_a_sentence(world: World, text: str, says: str) -> None:
    typed = await world.slack.command("U0ANA", CHANNEL, text)
    assert typed.ok
    shown = typed.ephemerals[0]
    assert says in shown["text"] + texts(shown.get("blocks", []))


@pytest.mark.parametrize(
    ("user", "says"),
    [("U0GUS", "guest"), ("U0UNA", "confirmed e-mail")],
)
async def test_the_unfit_may_ask_nothing(world: World, user: str, says: str) -> None:
    for text in ("/db paint orders", "/db colours orders", "/db requests"):
        typed = await world.slack.command(user, CHANNEL, text)
        assert says in typed.ephemerals[0]["text"]
    assert world.cards() == []


@pytest.mark.parametrize(
    ("user", "says"),
    [
        ("U0ANA", "your own"),
        ("U0ANA2", "your own"),
        ("U0OLE", "not yours"),
        ("U0GUS", "Guests"),
        ("U0UNA", "confirmed e-mail"),
    ],
)
async def test_every_click_gets_an_answer(world: World, user: str, says: str) -> None:
    slack = world.slack
    await slack.command("U0ANA", CHANNEL, "/db paint orders")
    card = await world.card("Waiting")
    assert (await slack.click(user, CHANNEL, card["ts"], "approve")).ok
    await world.told(user, says)


async def test_a_double_click_is_one_vote(world: World) -> None:
    slack = world.slack
    await slack.command("U0ANA", CHANNEL, "/db paint orders")
    card = await world.card("Waiting")
    for _ in range(2):
        assert (await slack.click("U0BEN", CHANNEL, card["ts"], "approve")).ok
    await world.told("U0BEN", "Nothing has changed")
    assert "0 of 2" not in texts((await world.card("1 approval"))["blocks"])


async def test_nobody_votes_while_the_directory_is_away(world: World) -> None:
    slack = world.slack
    await slack.command("U0ANA", CHANNEL, "/db paint orders")
    card = await world.card("Waiting")
    slack.faults.add(method="users.info", kind="500", times=1)
    await slack.click("U0BEN", CHANNEL, card["ts"], "approve")
    await world.told("U0BEN", "cannot be")
    assert "0 of 2" in texts((await world.card("2 approvals"))["blocks"])


async def test_the_home_tab_lists_what_is_open(world: World) -> None:
    slack = world.slack
    await slack.command("U0ANA", CHANNEL, "/db paint orders")
    await world.card("Waiting")
    await slack.open_home("U0BEN")
    home = await slack.wait_for(lambda: slack.home("U0BEN"))
    assert home is not None
    assert "#1" in texts(home["blocks"])
    await slack.open_home("U0GUS")
    refused = await slack.wait_for(lambda: slack.home("U0GUS"))
    assert refused is not None
    assert "guest" in texts(refused["blocks"])


async def test_what_too_few_people_could_grant_is_refused_when_it_is_asked_for(
    slack: SlackStandIn, store: Store, target: Target, tmp_path: Path
) -> None:
    strict = base.POLICY.replace("rules:", "check_satisfiable: true\nrules:", 1)
    assert strict != base.POLICY
    with patch.object(base, "POLICY", strict):
        async with running(slack, store, tmp_path, target.dsn, http=True, worker=False) as world:
            # Ben and Cleo are the only DBAs who are fit: of Ben's own, only Cleo is left.
            typed = await slack.command("U0BEN", CHANNEL, "/db paint orders")
            assert "not enough people" in typed.ephemerals[0]["text"]
            await world.card("Refused")
            typed = await slack.command("U0ANA", CHANNEL, "/db paint orders")
            assert "Request 2 is stored" in typed.ephemerals[0]["text"]
