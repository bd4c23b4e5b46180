"""The stand-in as a program: where it listens, whom it talks to, and how it ends."""

from __future__ import annotations

import asyncio
import hashlib
import hmac

import pytest
from aiohttp import web
from slack_sdk.web.async_client import AsyncWebClient

from sandbox.slack.bounded import Background, Bounded
from sandbox.slack.server import (
    PORTS,
    PortTakenError,
    SlackStandIn,
    check_loopback,
    start_slack,
)
from sandbox.slack.standalone import serve
from sandbox.slack.wire import ENTRIES_MAX, Wire
from sandbox.slack.workspace import EPHEMERALS_MAX, MESSAGES_MAX, Message
from tests.sandbox.support import MANIFEST, QUICK, Bot, listen
from tests.sandbox.test_messages import OPS


async def test_it_listens_on_this_machine_only_on_a_low_port(slack: SlackStandIn) -> None:
    host, _, port = slack.url.removeprefix("http://").partition(":")
    assert host == "127.0.0.1"
    assert int(port) in PORTS
    assert slack.api_url == f"{slack.url}/api/"


async def test_a_taken_port_is_said(slack: SlackStandIn) -> None:
    port = int(slack.url.rpartition(":")[2])
    with pytest.raises(PortTakenError, match=f"Port {port}"):
        await start_slack(manifest=MANIFEST, port=port)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/slack/events",
        "http://example.com/slack/events",
        "http://10.0.0.1:8080/",
        "https://127.0.0.1/",
        "http://127.0.0.1.example.com/",
        "nonsense",
    ],
)
def test_it_delivers_to_this_machine_only(url: str) -> None:
    with pytest.raises(ValueError, match="only to this machine"):
        check_loopback(url)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/x", "http://localhost:1/x", "http://[::1]:1/"])
def test_every_name_of_this_machine_will_do(url: str) -> None:
    assert check_loopback(url) == url


async def test_what_is_sent_over_http_is_signed_over_its_raw_bytes(slack: SlackStandIn) -> None:
    seen: list[tuple[str, str, bytes]] = []

    async def receive(request: web.Request) -> web.Response:
        raw = await request.read()
        headers = request.headers
        seen.append((headers["X-Slack-Request-Timestamp"], headers["X-Slack-Signature"], raw))
        return web.Response(status=503, headers={"X-Slack-No-Retry": "1"})

    app = web.Application()
    app.add_routes([web.post("/slack/events", receive)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    slack.set_request_url(f"http://127.0.0.1:{await listen(runner)}/slack/events")
    await slack.command("U0ANA", OPS, "/db help äöü")
    await slack.open_home("U0ANA")
    assert not slack._dispatcher._background._tasks  # X-Slack-No-Retry was heeded
    await runner.cleanup()
    assert len(seen) == 2
    for timestamp, signature, raw in seen:
        text = b"v0:" + timestamp.encode() + b":" + raw
        mac = hmac.new(slack.signing_secret.encode(), text, hashlib.sha256).hexdigest()
        assert signature == f"v0={mac}"


async def test_a_request_url_is_verified_by_its_challenge(slack: SlackStandIn) -> None:
    bot = Bot(slack, "http")
    async with bot.run():
        assert await slack.verify_request_url()
    assert not await slack.verify_request_url()


async def test_waiting_ends_at_the_change_or_says_what_came_last(
    slack: SlackStandIn, client: AsyncWebClient
) -> None:
    waiting = asyncio.create_task(slack.wait_for(lambda: slack.messages(OPS)))
    await client.chat_postMessage(channel=OPS, text="x")
    assert (await waiting)[0]["text"] == "x"
    with pytest.raises(TimeoutError, match=r"chat\.postMessage ok"):
        await slack.wait_for(lambda: False, seconds=0.01)


async def test_standing_alone_it_says_how_to_reach_it() -> None:
    said: list[str] = []
    stop = asyncio.Event()
    stop.set()
    await serve(MANIFEST, timings=QUICK, say=said.append, stop=stop)
    await serve(MANIFEST, 0, "http://127.0.0.1:1/x", timings=QUICK, say=said.append, stop=stop)
    text = "\n".join(said)
    for name in ("SLACK_API_URL=http://127.0.0.1:", "SLACK_APP_TOKEN=", "SLACK_SIGNING_SECRET="):
        assert name in text


async def test_nothing_runs_on_after_the_end() -> None:
    before = asyncio.all_tasks()
    slack = await start_slack(manifest=MANIFEST, timings=QUICK)
    await slack.open_home("U0ANA")  # nobody listens: its retries are pending
    await slack.close()
    assert asyncio.all_tasks() == before


def test_memory_has_a_bound(slack: SlackStandIn) -> None:
    for number in range(MESSAGES_MAX + 5):
        message = Message(channel=OPS, ts=f"{number:06d}.0", user="U0ANA", text="x")
        slack.workspace.put(message)
    for number in range(EPHEMERALS_MAX + 5):
        slack.workspace.put(
            Message(channel=OPS, ts=f"e{number:05d}", user="U", text="x", only_for="U0ANA")
        )
    assert len(slack.workspace.messages(OPS)) == MESSAGES_MAX
    assert len(slack.workspace.ephemerals("U0ANA")) == EPHEMERALS_MAX
    wire = Wire()
    for _ in range(ENTRIES_MAX + 5):
        wire.record(ms=0, body="x" * 10_000, at=0.0, direction="", transport="", kind="", status=0)
    assert len(wire) == ENTRIES_MAX
    assert len(wire[-1].body) < 5000
    few: Bounded[int, int] = Bounded(2)
    for number in range(3):
        few[number] = number
    assert list(few) == [1, 2]


async def test_work_in_the_background_is_bounded_and_ends() -> None:
    background = Background(most=1)
    background.start(asyncio.sleep(60))
    background.start(asyncio.sleep(60))
    await background.close()
    assert len(asyncio.all_tasks()) == 1
