"""The page's HTTP API, as its script uses it."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from sandbox.slack.server import SlackStandIn
from sandbox.slack.state import PAGE_MESSAGES_MAX
from sandbox.slack.workspace import Message
from tests.sandbox.support import Bot, actions, button, modal
from tests.sandbox.test_messages import OPS

Json = dict[str, Any]


class Page:
    """What the page's script does."""

    def __init__(self, slack: SlackStandIn, session: aiohttp.ClientSession) -> None:
        self._url = slack.url
        self._session = session

    async def get(self, path: str) -> Any:
        """The JSON at a path."""
        async with self._session.get(self._url + path) as response:
            return await response.json()

    async def send(self, path: str, body: Any, *, method: str = "POST") -> tuple[int, Any]:
        """Status and JSON."""
        async with self._session.request(method, self._url + path, json=body) as response:
            return response.status, await response.json()


@pytest.fixture
def page(slack: SlackStandIn, session: aiohttp.ClientSession) -> Page:
    """A page that is open."""
    return Page(slack, session)


async def test_the_page_itself_is_served(
    slack: SlackStandIn, session: aiohttp.ClientSession
) -> None:
    for path in ("/", "/static/app.js", "/static/style.css"):
        async with session.get(slack.url + path) as response:
            assert response.status == 200, path


async def test_the_state_is_what_one_person_sees(page: Page, client: AsyncWebClient) -> None:
    await client.chat_postEphemeral(channel=OPS, user="U0ANA", text="psst")
    await client.chat_postMessage(
        channel=OPS, text="x", metadata={"event_type": "a", "event_payload": {}}
    )
    ana = await page.get("/ui/state?user=U0ANA")
    ben = await page.get("/ui/state?user=U0BEN")
    assert [m["ephemeral"] for m in ana["messages"][OPS]] == [True, False]
    assert [m["text"] for m in ben["messages"][OPS]] == ["x"]
    assert "metadata" not in ben["messages"][OPS][0]
    assert ana["me"]["id"] == "U0ANA"
    assert ana["commands"][0]["command"] == "/db"
    assert ana["app"] == {"id": "A0TWOKEY", "name": "Twokey", "user_id": "U0TWOKEY"}
    assert {"team", "people", "views", "home", "now", "faults", "usergroups"} <= set(ana)
    assert "C0SECRET" in {c["id"] for c in ana["channels"]}
    cleo = await page.get("/ui/state?user=U0CLEO")
    assert "C0SECRET" not in {c["id"] for c in cleo["channels"]}
    assert "C0SECRET" not in cleo["messages"]


async def test_the_page_gets_the_newest_messages_of_a_busy_channel(
    page: Page, slack: SlackStandIn
) -> None:
    for number in range(PAGE_MESSAGES_MAX + 1):
        slack.workspace.put(
            Message(channel=OPS, ts=f"{number:06d}.0", user="U0ANA", text=str(number))
        )
    shown = (await page.get("/ui/state?user=U0ANA"))["messages"][OPS]
    assert (len(shown), shown[0]["text"]) == (PAGE_MESSAGES_MAX, "1")


async def test_a_guest_and_a_stranger_see_only_their_channels(page: Page) -> None:
    eve = await page.get("/ui/state?user=U0EVE")
    assert "C0GENERAL" not in {c["id"] for c in eve["channels"]}
    shared = next(c for c in eve["channels"] if c["id"] == "C0SHARED")
    assert (shared["is_ext_shared"], shared["is_member"]) == (True, True)


async def test_direct_messages_are_the_readers_own(page: Page, client: AsyncWebClient) -> None:
    await client.chat_postMessage(channel="U0ANA", text="for you")
    ana = await page.get("/ui/state?user=U0ANA")
    (im,) = [c for c in ana["channels"] if c["is_im"]]
    assert (im["user"], im["unread"]) == ("U0TWOKEY", 1)
    ben = await page.get("/ui/state?user=U0BEN")
    assert not [c for c in ben["channels"] if c["is_im"]]


async def test_nobody_has_no_state(page: Page, session: aiohttp.ClientSession) -> None:
    assert (await page.get("/ui/state?user=U0NO"))["ok"] is False


async def test_an_event_follows_every_change(
    slack: SlackStandIn, session: aiohttp.ClientSession
) -> None:
    async with session.get(slack.url + "/ui/events?user=U0ANA") as response:
        assert response.content_type == "text/event-stream"
        first = await response.content.readline()
        await response.content.readline()
        await slack.say("U0BEN", OPS, "hello")
        second = await response.content.readline()
    assert first.startswith(b'data: {"version": ')
    assert first != second


async def test_the_page_does_what_people_do(page: Page, bot: Bot) -> None:
    @bot.app.command("/db")
    async def db(ack: Any, client: AsyncWebClient) -> None:
        await ack()
        await client.chat_postMessage(channel=OPS, text="card", blocks=[actions()])

    @bot.app.action("approve")
    async def approve(ack: Any, body: Json, client: AsyncWebClient) -> None:
        await ack()
        await client.views_open(trigger_id=body["trigger_id"], view=modal())

    @bot.app.view("form")
    async def sent(ack: Any, view: Json) -> None:
        value = view["state"]["values"]["why"]["text"]["value"]
        if value == "bad":
            await ack(response_action="errors", errors={"why": "Better."})
        else:
            await ack()

    ben = {"user": "U0BEN"}
    async with bot.run():
        command = {"user": "U0ANA", "channel": OPS, "text": "/db backup orders"}
        assert (await page.send("/ui/command", command))[1]["ok"] is True
        (card,) = (await page.get("/ui/state?user=U0BEN"))["messages"][OPS]
        container = {"type": "message", "channel": OPS, "ts": card["ts"]}
        block_id = card["blocks"][0]["block_id"]
        click = {**ben, "container": container, "block_id": block_id, "action_id": "approve"}
        assert (await page.send("/ui/action", click))[1]["ok"] is True
        (view,) = (await page.get("/ui/state?user=U0BEN"))["views"]
        form = {**ben, "view_id": view["id"]}
        answers = []
        for value in ("", "bad", "good"):
            values = {"why": {"text": {"type": "plain_text_input", "value": value}}}
            answers.append((await page.send("/ui/submit", {**form, "values": values}))[1])
    assert [answer["ok"] for answer in answers] == [False, False, True]
    assert answers[1]["errors"] == {"why": "Better."}
    assert (await page.get("/ui/state?user=U0BEN"))["views"] == []


async def test_messages_homes_and_closing_work_too(
    page: Page, slack: SlackStandIn, client: AsyncWebClient
) -> None:
    body = {"user": "U0ANA", "channel": OPS, "text": "hello @ben"}
    assert (await page.send("/ui/message", body))[0] == 200
    assert slack.messages(OPS)[-1]["text"] == "hello <@U0BEN>"
    assert (await page.send("/ui/home", {"user": "U0ANA"}))[1]["ok"] is False  # no app yet
    view = (await client.views_open(trigger_id=slack._platform.new_trigger("U0ANA"), view=modal()))[
        "view"
    ]
    closing = {"user": "U0ANA", "view_id": view["id"]}
    assert (await page.send("/ui/close", closing))[1]["ok"] is True
    sent = await client.chat_postEphemeral(channel=OPS, user="U0ANA", text="x")
    dismiss = {"user": "U0ANA", "channel": OPS, "ts": sent["message_ts"]}
    assert (await page.send("/ui/dismiss", dismiss))[1]["ok"] is True
    assert not slack.ephemerals("U0ANA")


async def test_faults_are_added_seen_and_cleared(page: Page) -> None:
    fault = {"method": "chat.postMessage", "kind": "429", "times": 2}
    status, waiting = await page.send("/ui/faults", fault)
    assert (status, waiting[0]["times"]) == (200, 2)
    assert (await page.get("/ui/faults"))[0]["kind"] == "429"
    assert (await page.send("/ui/faults", {"kind": "x"}))[0] == 400
    assert (await page.send("/ui/faults", {}, method="DELETE"))[1] == []


async def test_flags_are_shown_and_flipped(page: Page) -> None:
    assert (await page.get("/ui/users/U0GUS/flags"))["guest"] is True
    status, flags = await page.send("/ui/users/U0GUS/flags", {"guest": False})
    assert (status, flags["guest"]) == (200, False)
    assert (await page.send("/ui/users/U0GUS/flags", {"king": True}))[0] == 400
    assert (await page.send("/ui/users/U0NO/flags", {}))[0] == 400


async def test_the_log_goes_on_where_it_ended(page: Page, client: AsyncWebClient) -> None:
    await client.auth_test()
    (first,) = await page.get("/ui/wire?after=0")
    assert {"n", "at", "direction", "transport", "kind", "status", "ms", "retry"} <= set(first)
    assert await page.get(f"/ui/wire?after={first['n']}") == []


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("command", {}),
        ("command", {"user": "U0NO", "channel": OPS, "text": "/db"}),
        ("command", []),
        ("action", {"user": "U0ANA"}),
        ("action", {"user": "U0ANA", "action_id": "x", "container": {"type": "view"}}),
        ("action", {"user": "U0ANA", "action_id": "x", "container": "message"}),
        ("submit", {"user": "U0ANA", "view_id": "V1"}),
        ("submit", {"user": "U0ANA", "view_id": "V1", "values": {"a": 1}}),
        ("submit", {"user": ["U0ANA"], "view_id": "V1"}),
        ("command", {"user": "U0ANA", "channel": OPS, "text": 7}),
        ("dismiss", {"user": "U0ANA", "channel": OPS, "ts": "1.0"}),
        ("home", {"user": "U0NO"}),
        ("message", {"user": "U0ANA", "channel": "C0OLD", "text": "x"}),
    ],
)
async def test_nonsense_is_refused_with_a_sentence(page: Page, path: str, body: Any) -> None:
    status, answer = await page.send(f"/ui/{path}", body)
    assert (status, answer["ok"]) == (400, False)
    assert answer["error"]


async def test_a_foreign_name_for_this_machine_gets_nothing(
    slack: SlackStandIn, session: aiohttp.ClientSession
) -> None:
    async with session.get(slack.url, headers={"Host": "evil.example"}) as response:
        assert response.status == 403


async def test_a_failed_click_is_seen_by_who_clicked(
    page: Page, slack: SlackStandIn, client: AsyncWebClient
) -> None:
    posted = await client.chat_postMessage(channel=OPS, text="x", blocks=[actions(button())])
    container = {"type": "message", "channel": OPS, "ts": posted["ts"]}
    body = {"user": "U0ANA", "container": container, "action_id": "approve"}
    assert (await page.send("/ui/action", body))[1]["ok"] is False
    (message,) = (await page.get("/ui/state?user=U0ANA"))["messages"][OPS]
    assert message["failed"]


async def test_slacks_clock_runs_ahead_and_a_trigger_expires(
    page: Page, slack: SlackStandIn, client: AsyncWebClient
) -> None:
    trigger = slack._platform.new_trigger("U0ANA")
    assert (await page.send("/ui/advance", {"seconds": 4}))[1]["ok"] is True
    with pytest.raises(SlackApiError, match="expired_trigger_id"):
        await client.views_open(trigger_id=trigger, view=modal())


@pytest.mark.parametrize("seconds", [0, -5, 10**9, "soon", None])
async def test_the_clock_takes_no_odd_step(page: Page, seconds: object) -> None:
    assert (await page.send("/ui/advance", {"seconds": seconds}))[0] == 400
