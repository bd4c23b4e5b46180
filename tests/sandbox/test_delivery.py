"""Commands, clicks, forms and events, through the real Bolt over HTTP and Socket Mode."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from slack_bolt.response import BoltResponse
from slack_sdk.web.async_client import AsyncWebClient

from sandbox.slack.errors import CannotError
from sandbox.slack.server import SlackStandIn
from tests.sandbox.support import Bot, actions, ask, button, modal, section
from tests.sandbox.test_messages import OPS

Json = dict[str, Any]


async def post_card(client: AsyncWebClient, channel: str = OPS) -> str:
    """A message with a button; its ts."""
    posted = await client.chat_postMessage(channel=channel, text="card", blocks=[actions()])
    return str(posted["ts"])


async def test_a_command_arrives_with_names_as_ids(bot: Bot) -> None:
    got: list[Json] = []

    @bot.app.command("/db")
    async def db(ack: Any, body: Json) -> None:
        got.append(body)
        await ack()

    async with bot.run():
        text = "/db cancel @ben #orders @dba <@U0CLEO> a<b&c @nobody"
        delivery = await bot.slack.command("U0ANA", OPS, text)
    assert (delivery.status, delivery.error) == (200, None)
    assert got[0]["command"] == "/db"
    assert got[0]["text"] == (
        "cancel <@U0BEN|ben> <#C0ORDERS|orders> <!subteam^S0DBA|@dba> <@U0CLEO|cleo> "
        "a&lt;b&amp;c @nobody"
    )
    assert (got[0]["user_id"], got[0]["channel_id"]) == ("U0ANA", OPS)
    assert got[0]["team_id"] == "T0DEMO"


async def test_somebody_of_another_company_comes_with_their_own_team(bot: Bot) -> None:
    got: list[Json] = []

    @bot.app.action("approve")
    async def approve(ack: Any, body: Json) -> None:
        got.append(body)
        await ack()

    async with bot.run():
        ts = await post_card(bot.app.client, "C0SHARED")
        await bot.slack.click("U0EVE", "C0SHARED", ts, "approve")
    assert got[0]["user"]["team_id"] == "T0OTHER"
    assert got[0]["team"]["id"] == "T0DEMO"


async def test_text_in_the_ack_is_seen_by_one_person(bot: Bot) -> None:
    @bot.app.command("/db")
    async def db(ack: Any) -> None:
        await ack(text="working on it", blocks=[section()])

    async with bot.run():
        delivery = await bot.slack.command("U0ANA", OPS, "/db help")
    assert [m["text"] for m in delivery.ephemerals] == ["working on it"]
    assert not bot.slack.messages(OPS)


async def test_an_ack_can_be_for_the_channel(bot: Bot) -> None:
    @bot.app.command("/db")
    async def db(ack: Any) -> None:
        await ack(text="for all", response_type="in_channel")

    async with bot.run():
        await bot.slack.command("U0ANA", OPS, "/db help")
    assert [m["text"] for m in bot.slack.messages(OPS)] == ["for all"]


async def test_a_command_that_is_not_acknowledged_in_time_fails_visibly(bot: Bot) -> None:
    release = asyncio.Event()

    @bot.app.command("/db")
    async def db(ack: Any) -> None:
        await release.wait()
        await ack()

    async with bot.run():
        delivery = await bot.slack.command("U0ANA", OPS, "/db help")
        release.set()
    assert (delivery.status, delivery.error) == (
        0,
        '/db failed with the error "operation_timeout"',
    )
    shown = bot.slack.messages(OPS, as_user="U0ANA")[-1]
    assert (shown["failed"], shown["ephemeral"]) == (delivery.error, True)
    assert delivery.ms > 1900


async def test_a_crash_in_the_app_fails_visibly(bot: Bot) -> None:
    @bot.app.command("/db")
    async def db() -> None:
        raise RuntimeError

    @bot.app.error
    async def failed() -> BoltResponse:
        return BoltResponse(status=500, body="")

    async with bot.run():
        delivery = await bot.slack.command("U0ANA", OPS, "/db help")
    word = "dispatch_failed" if bot.mode == "http" else "operation_timeout"
    assert delivery.error == f'/db failed with the error "{word}"'


@pytest.mark.parametrize("url", [None, "http://127.0.0.1:1/slack/events"])
async def test_an_app_that_is_away_fails_visibly(slack: SlackStandIn, url: str | None) -> None:
    slack.set_request_url(url)
    delivery = await slack.command("U0ANA", OPS, "/db help")
    assert delivery.error == '/db failed with the error "dispatch_failed"'


async def test_an_unknown_command_is_not_delivered(slack: SlackStandIn) -> None:
    delivery = await slack.command("U0ANA", OPS, "/dbb help")
    assert delivery.error is not None
    assert delivery.error.startswith("/dbb is not a valid command")
    assert len(slack.wire) == 0


async def test_a_command_in_a_thread_is_not_delivered(slack: SlackStandIn) -> None:
    root = (await slack.say("U0ANA", OPS, "root"))["ts"]
    delivery = await slack.command("U0ANA", OPS, "/db help", thread_ts=root)
    assert delivery.error == "/db is not supported in threads. Sorry!"
    assert len(slack.wire) == 0


@pytest.mark.parametrize(
    ("user", "channel"),
    [
        ("U0ANA", "D0ANA"),
        ("U0ANA", "C0NONE"),
        ("U0BEN", "C0OLD"),
        ("U0CLEO", "C0SECRET"),
        ("U0GUS", "C0SHARED"),
    ],
)
async def test_where_one_cannot_write_one_cannot_command(
    slack: SlackStandIn, user: str, channel: str
) -> None:
    slack.direct("U0ANA")
    with pytest.raises(CannotError):
        await slack.command(user, channel, "/db help")


async def test_a_click_carries_message_container_and_value(bot: Bot) -> None:
    got: list[Json] = []

    @bot.app.action("approve")
    async def approve(ack: Any, body: Json, respond: Any) -> None:
        got.append(body)
        await ack()
        await respond(text="done", replace_original=True)

    async with bot.run():
        ts = await post_card(bot.app.client)
        delivery = await bot.slack.click("U0BEN", OPS, ts, "approve")
    assert delivery.ok
    body = got[0]
    assert body["container"] == {
        "type": "message",
        "message_ts": ts,
        "channel_id": OPS,
        "is_ephemeral": False,
    }
    assert body["message"]["ts"] == ts
    assert (body["actions"][0]["value"], body["user"]["id"]) == ("v1", "U0BEN")
    assert bot.slack.messages(OPS)[0]["text"] == "done"


async def test_a_choice_in_a_message_is_sent_as_slack_does(bot: Bot) -> None:
    got: list[Json] = []

    @bot.app.action("pick")
    async def pick(ack: Any, action: Json) -> None:
        got.append(action)
        await ack()

    one = {"text": {"type": "plain_text", "text": "One"}, "value": "1"}
    select = {"type": "static_select", "action_id": "pick", "options": [one]}
    async with bot.run():
        posted = await bot.app.client.chat_postMessage(
            channel=OPS, text="x", blocks=[actions(select)]
        )
        await bot.slack.click("U0BEN", OPS, posted["ts"], "pick", value="1")
    assert got[0]["selected_option"] == one
    with pytest.raises(CannotError):
        await bot.slack.click("U0BEN", OPS, posted["ts"], "pick", value="2")


async def test_a_click_without_an_ack_shows_a_warning_until_it_works(bot: Bot) -> None:
    healthy = asyncio.Event()

    @bot.app.action("approve")
    async def approve(ack: Any) -> None:
        await asyncio.wait_for(healthy.wait(), 30)
        await ack()

    async with bot.run():
        ts = await post_card(bot.app.client)
        delivery = await bot.slack.click("U0BEN", OPS, ts, "approve")
        assert delivery.error
        assert bot.slack.messages(OPS, as_user="U0BEN")[0]["failed"] == delivery.error
        assert bot.slack.messages(OPS, as_user="U0ANA")[0]["failed"] is None
        healthy.set()
        assert (await bot.slack.click("U0BEN", OPS, ts, "approve")).ok
    assert bot.slack.messages(OPS, as_user="U0BEN")[0]["failed"] is None


async def test_a_button_that_is_not_there_cannot_be_pressed(
    slack: SlackStandIn, client: AsyncWebClient
) -> None:
    ts = await post_card(client)
    with pytest.raises(CannotError, match="no deny"):
        await slack.click("U0BEN", OPS, ts, "deny")
    posted = await client.chat_postMessage(
        channel=OPS, text="x", blocks=[actions(button()), actions(button())]
    )
    with pytest.raises(CannotError, match="2 times"):
        await slack.click("U0BEN", OPS, posted["ts"], "approve")


async def test_a_stale_card_can_still_be_pressed_by_who_sees_it(bot: Bot) -> None:
    got: list[Json] = []

    @bot.app.action("approve")
    async def approve(ack: Any, body: Json) -> None:
        got.append(body)
        await ack()

    async with bot.run():
        ts = await post_card(bot.app.client)
        seen = bot.slack.messages(OPS)[0]
        await bot.app.client.chat_update(channel=OPS, ts=ts, text="decided", blocks=[section()])
        delivery = await bot.slack.click("U0BEN", OPS, ts, "approve", shown=seen)
    assert delivery.ok
    assert got[0]["message"]["text"] == "card"


async def test_the_same_click_can_come_twice(bot: Bot) -> None:
    got: list[str] = []

    @bot.app.action("approve")
    async def approve(ack: Any, body: Json) -> None:
        got.append(body["trigger_id"])
        await ack()

    async with bot.run():
        ts = await post_card(bot.app.client)
        await bot.slack.click("U0BEN", OPS, ts, "approve")
        await bot.slack.again()
    assert len(got) == 2
    assert got[0] == got[1]


@pytest.mark.parametrize(("kind", "arrived"), [("drop_before", 0), ("drop_after", 1)])
async def test_a_click_can_be_lost_before_or_after_its_work(
    bot: Bot, kind: str, arrived: int
) -> None:
    got: list[Json] = []

    @bot.app.action("approve")
    async def approve(ack: Any, body: Json) -> None:
        got.append(body)
        await ack()

    async with bot.run():
        ts = await post_card(bot.app.client)
        bot.slack.faults.add(method="delivery", kind=kind)
        assert (await bot.slack.click("U0BEN", OPS, ts, "approve")).error
    assert len(got) == arrived


async def test_using_the_app_shows_which_scopes_it_needs(bot: Bot) -> None:
    @bot.app.command("/db")
    async def db(ack: Any) -> None:
        await ack()

    @bot.app.event("subteam_members_changed")
    async def changed() -> None:
        pass

    async with bot.run():
        await bot.slack.command("U0ANA", OPS, "/db help")
        await bot.slack.admin.set_group("S0DBA", ())
    assert bot.slack.scopes_used == {"commands", "usergroups:read"}


async def test_an_ephemeral_can_be_replaced_and_removed_through_its_response_url(
    bot: Bot,
) -> None:
    @bot.app.action("approve")
    async def approve(ack: Any, body: Json, respond: Any) -> None:
        await ack()
        assert "message" not in body
        assert body["container"]["is_ephemeral"]
        await respond(text="changed", replace_original=True)

    @bot.app.action("deny")
    async def deny(ack: Any, respond: Any) -> None:
        await ack()
        await respond(delete_original=True)

    async with bot.run():
        sent = await bot.app.client.chat_postEphemeral(
            channel=OPS, user="U0ANA", text="x", blocks=[actions(button(), button("deny"))]
        )
        ts = sent["message_ts"]
        shown = bot.slack.ephemerals("U0ANA")[0]
        await bot.slack.click("U0ANA", OPS, ts, "approve")
        assert [m["text"] for m in bot.slack.ephemerals("U0ANA")] == ["changed"]
        with pytest.raises(CannotError):
            await bot.slack.click("U0BEN", OPS, ts, "approve")
        await bot.slack.click("U0ANA", OPS, ts, "deny", shown=shown)
    assert not bot.slack.ephemerals("U0ANA")


async def test_a_response_url_works_five_times_and_half_an_hour(
    bot: Bot, session: aiohttp.ClientSession
) -> None:
    urls: list[str] = []

    @bot.app.command("/db")
    async def db(ack: Any, body: Json) -> None:
        urls.append(body["response_url"])
        await ack()

    async with bot.run():
        await bot.slack.command("U0ANA", OPS, "/db help")
        await bot.slack.command("U0ANA", OPS, "/db help")
    answers = []
    for number in range(6):
        async with session.post(urls[0], json={"text": str(number)}) as response:
            answers.append((response.status, (await response.json()).get("error")))
    assert answers == [(200, None)] * 5 + [(404, "used_url")]
    async with session.post(urls[1], json={"text": "x", "blocks": [{"type": "no"}]}) as response:
        assert (await response.json())["error"] == "invalid_blocks"
    bot.slack.advance(1801)
    async with session.post(urls[1], json={"text": "late"}) as response:
        assert (await response.json())["error"] == "expired_url"


async def test_a_response_url_can_fail_too(bot: Bot, session: aiohttp.ClientSession) -> None:
    urls: list[str] = []

    @bot.app.command("/db")
    async def db(ack: Any, body: Json) -> None:
        urls.append(body["response_url"])
        await ack()

    async with bot.run():
        await bot.slack.command("U0ANA", OPS, "/db help")
    bot.slack.faults.add(method="response_url", kind="500")
    async with session.post(urls[0], json={"text": "x"}) as response:
        assert response.status == 500
    assert not bot.slack.ephemerals("U0ANA")


async def test_the_home_tab_is_published_when_it_is_opened(bot: Bot) -> None:
    @bot.app.event("app_home_opened")
    async def opened(event: Json, client: AsyncWebClient) -> None:
        view = {"type": "home", "blocks": [section("hello"), actions()]}
        await client.views_publish(user_id=event["user"], view=view)

    got: list[Json] = []

    @bot.app.action("approve")
    async def approve(ack: Any, body: Json) -> None:
        got.append(body)
        await ack()

    async with bot.run():
        await bot.slack.open_home("U0ANA")
        home = bot.slack.home("U0ANA")
        assert home is not None
        await bot.slack.click_view("U0ANA", home["id"], "approve")
    assert got[0]["container"] == {"type": "view", "view_id": home["id"]}
    assert bot.slack.home("U0BEN") is None


async def test_changes_of_people_and_groups_are_told(bot: Bot) -> None:
    got: list[Json] = []

    async def note(event: Json) -> None:
        got.append(event)

    bot.app.event("user_change")(note)
    bot.app.event("subteam_members_changed")(note)
    async with bot.run():
        await bot.slack.set_flags("U0BEN", deactivated=True)
        await bot.slack.admin.set_group("S0DBA", ("U0CLEO", "U0OLE"))
    assert (got[0]["user"]["id"], got[0]["user"]["deleted"]) == ("U0BEN", True)
    assert got[1]["added_users"] == ["U0OLE"]
    assert "U0BEN" in got[1]["removed_users"]


async def test_an_event_that_fails_is_sent_three_times_more(bot: Bot) -> None:
    attempts: list[list[str]] = []

    @bot.app.event("app_home_opened")
    async def opened(request: Any) -> None:
        attempts.append(request.headers.get("x-slack-retry-num", ["0"]))
        if len(attempts) < 4:
            raise RuntimeError

    async with bot.run():
        await bot.slack.open_home("U0ANA")
        await bot.slack.wait_for(lambda: len(attempts) == 4)
        await bot.slack.wait_for(lambda: bot.slack.wire[-1].retry == 3)
    assert [int(header[0]) for header in attempts] == [0, 1, 2, 3]
    assert bot.slack.wire[-1].status == 200
    sent = bot.slack.wire.of("events_api")
    ids = {entry.body.partition('"event_id": "')[2][:13] for entry in sent}
    assert len(ids) == 1


async def test_an_event_that_was_not_subscribed_to_is_not_sent(slack: SlackStandIn) -> None:
    await slack.say("U0ANA", OPS, "<@U0TWOKEY> hello")
    assert len(slack.wire) == 0


async def test_a_mention_becomes_an_event_where_it_was_asked_for(
    granting: Callable[..., Any],
) -> None:
    def change(raw: Json) -> None:
        raw["oauth_config"]["scopes"]["bot"].append("app_mentions:read")
        raw["settings"]["event_subscriptions"]["bot_events"].append("app_mention")

    bot = Bot(await granting(change), "socket")
    got: list[Json] = []

    @bot.app.event("app_mention")
    async def mentioned(event: Json) -> None:
        got.append(event)

    async with bot.run():
        await bot.slack.say("U0ANA", OPS, "@twokey hello")
    assert got[0]["text"] == "<@U0TWOKEY> hello"


async def test_no_clicks_without_interactivity(granting: Callable[..., Any]) -> None:
    def change(raw: Json) -> None:
        raw["settings"]["interactivity"] = {"is_enabled": False}
        raw["features"].pop("shortcuts", None)

    slack = await granting(change)
    bot = Bot(slack, "socket")
    ts = await post_card(bot.app.client)
    with pytest.raises(CannotError, match="not configured"):
        await slack.click("U0BEN", OPS, ts, "approve")


async def test_options_are_asked_for_while_somebody_types(
    bot: Bot, session: aiohttp.ClientSession
) -> None:
    one = {"text": {"type": "plain_text", "text": "orders"}, "value": "orders"}

    @bot.app.options("which")
    async def which(ack: Any, payload: Json) -> None:
        await ack(options=[one] if "orders".startswith(payload["value"]) else [])

    body = {
        "user": "U0ANA",
        "container": {"type": "view", "view_id": "V1"},
        "block_id": "b",
        "action_id": "which",
        "value": "ord",
    }
    async with bot.run(), session.post(f"{bot.slack.url}/ui/options", json=body) as response:
        assert (await response.json())["options"] == [one]


async def open_form(bot: Bot, view: Json | None = None) -> str:
    """A modal in front of Ana; its id."""

    @bot.app.command("/db")
    async def db(ack: Any, body: Json, client: AsyncWebClient) -> None:
        await client.views_open(trigger_id=body["trigger_id"], view=view or modal())
        await ack()

    await bot.slack.command("U0ANA", OPS, "/db form")
    return str(bot.slack.views("U0ANA")[-1]["id"])


async def test_a_form_is_sent_with_what_was_entered_and_closes(bot: Bot) -> None:
    got: list[Json] = []

    @bot.app.view("form")
    async def sent(ack: Any, view: Json) -> None:
        got.append(view)
        await ack()

    async with bot.run():
        view = modal(ask(), ask("note", initial_value="as proposed"), private_metadata="r7")
        view_id = await open_form(bot, view)
        delivery = await bot.slack.submit("U0ANA", view_id, {"why": {"text": "because"}})
    assert delivery.ok
    assert got[0]["private_metadata"] == "r7"
    assert got[0]["state"]["values"] == {
        "why": {"text": {"type": "plain_text_input", "value": "because"}},
        "note": {"text": {"type": "plain_text_input", "value": "as proposed"}},
    }
    assert bot.slack.views("U0ANA") == []


async def test_what_is_told_about_a_form_belongs_to_its_delivery(bot: Bot) -> None:
    @bot.app.view("form")
    async def sent(ack: Any, client: AsyncWebClient) -> None:
        await client.chat_postEphemeral(channel=OPS, user="U0ANA", text="too late")
        await ack()

    async with bot.run():
        view_id = await open_form(bot)
        delivery = await bot.slack.submit("U0ANA", view_id, {"why": {"text": "x"}})
    assert [m["text"] for m in delivery.ephemerals] == ["too late"]


async def test_a_form_with_an_empty_field_is_not_sent(bot: Bot) -> None:
    async with bot.run():
        view_id = await open_form(bot, modal(ask(min_length=5), {**ask("b"), "optional": True}))
        before = len(bot.slack.wire.of("interactive"))
        empty = await bot.slack.submit("U0ANA", view_id)
        short = await bot.slack.submit("U0ANA", view_id, {"why": {"text": "abc"}})
    assert empty.errors == {"why": "Please complete this required field."}
    assert short.errors == {"why": "Please enter at least 5 characters."}
    assert len(bot.slack.wire.of("interactive")) == before


async def test_the_app_can_complain_about_a_field(bot: Bot) -> None:
    @bot.app.view("form")
    async def sent(ack: Any) -> None:
        await ack(response_action="errors", errors={"why": "Say more."})

    async with bot.run():
        view_id = await open_form(bot)
        delivery = await bot.slack.submit("U0ANA", view_id, {"why": {"text": "x"}})
    assert delivery.errors == {"why": "Say more."}
    assert len(bot.slack.views("U0ANA")) == 1


@pytest.mark.parametrize(
    "answer",
    [
        {"response_action": "errors", "errors": {"nowhere": "x"}},
        {"response_action": "update", "view": {"type": "modal"}},
        {"response_action": "shout"},
    ],
)
async def test_an_answer_that_slack_cannot_draw_is_shown_as_trouble(bot: Bot, answer: Json) -> None:
    @bot.app.view("form")
    async def sent(ack: Any) -> None:
        await ack(**answer)

    async with bot.run():
        view_id = await open_form(bot)
        delivery = await bot.slack.submit("U0ANA", view_id, {"why": {"text": "x"}})
    assert delivery.error == "We had some trouble connecting. Try again?"
    assert len(bot.slack.views("U0ANA")) == 1


async def test_a_form_can_be_replaced_pushed_and_cleared(bot: Bot) -> None:
    steps = [
        {"response_action": "update", "view": modal(section("second"), callback_id="form")},
        {"response_action": "push", "view": modal(section("third"), callback_id="form")},
        {"response_action": "clear"},
    ]

    @bot.app.view("form")
    async def sent(ack: Any) -> None:
        await ack(**steps.pop(0))

    async with bot.run():
        view_id = await open_form(bot)
        await bot.slack.submit("U0ANA", view_id, {"why": {"text": "x"}})
        (second,) = bot.slack.views("U0ANA")
        assert (second["id"], second["blocks"][0]["text"]["text"]) == (view_id, "second")
        await bot.slack.submit("U0ANA", view_id)
        _, third = bot.slack.views("U0ANA")
        assert (third["previous_view_id"], third["root_view_id"]) == (view_id, view_id)
        await bot.slack.submit("U0ANA", third["id"])
    assert bot.slack.views("U0ANA") == []


async def test_closing_is_told_where_it_was_asked_for(bot: Bot) -> None:
    got: list[Json] = []

    @bot.app.view_closed("form")
    async def closed(ack: Any, body: Json) -> None:
        got.append(body)
        await ack()

    async with bot.run():
        view_id = await open_form(bot, modal(notify_on_close=True))
        await bot.slack.close_view("U0ANA", view_id)
    assert got[0]["is_cleared"] is False
    assert bot.slack.views("U0ANA") == []


async def test_only_the_modal_in_front_can_be_sent(bot: Bot) -> None:
    async with bot.run():
        view_id = await open_form(bot)
        with pytest.raises(CannotError):
            await bot.slack.submit("U0BEN", view_id, {"why": {"text": "x"}})
        with pytest.raises(CannotError):
            await bot.slack.submit("U0ANA", view_id, {"nowhere": {"text": "x"}})
