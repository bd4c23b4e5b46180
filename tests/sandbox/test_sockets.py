"""Socket Mode on the wire: tickets, envelopes, acks, and connections that go."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from sandbox.slack.server import SlackStandIn
from tests.sandbox.support import Bot, client_of
from tests.sandbox.test_messages import OPS, refusal

Json = dict[str, Any]


async def ticket(slack: SlackStandIn) -> str:
    """The address of a new connection."""
    client = client_of(slack, slack.app_token)
    opened = await client.apps_connections_open(app_token=slack.app_token)
    return str(opened["url"])


async def connect(
    slack: SlackStandIn, session: aiohttp.ClientSession
) -> aiohttp.ClientWebSocketResponse:
    """A connection that has been greeted."""
    ws = await session.ws_connect(await ticket(slack))
    assert (await ws.receive_json(timeout=30))["type"] == "hello"
    return ws


async def test_a_ticket_works_once_and_only_for_a_while(
    slack: SlackStandIn, session: aiohttp.ClientSession
) -> None:
    url = await ticket(slack)
    ws = await session.ws_connect(url)
    hello = await ws.receive_json(timeout=30)
    assert (hello["type"], hello["num_connections"]) == ("hello", 1)
    assert hello["connection_info"] == {"app_id": "A0TWOKEY"}
    with pytest.raises(aiohttp.WSServerHandshakeError):
        await session.ws_connect(url)
    late = await ticket(slack)
    slack.advance(31)
    with pytest.raises(aiohttp.WSServerHandshakeError):
        await session.ws_connect(late)
    await ws.close()


async def test_the_bots_token_opens_no_connection(slack: SlackStandIn) -> None:
    error = await refusal(client_of(slack).apps_connections_open(app_token=slack.bot_token))
    assert error.response["error"] == "not_allowed_token_type"


async def test_in_http_mode_there_are_no_sockets(slack: SlackStandIn) -> None:
    slack.set_request_url("http://127.0.0.1:1/slack/events")
    error = await refusal(
        client_of(slack, slack.app_token).apps_connections_open(app_token=slack.app_token)
    )
    assert error.response["error"] == "socket_mode_not_enabled"


async def test_an_envelope_is_answered_with_a_payload(
    slack: SlackStandIn, session: aiohttp.ClientSession
) -> None:
    ws = await connect(slack, session)
    sending = asyncio.create_task(slack.command("U0ANA", OPS, "/db help"))
    envelope = await ws.receive_json(timeout=30)
    assert envelope["type"] == "slash_commands"
    assert envelope["accepts_response_payload"] is True
    assert envelope["payload"]["text"] == "help"
    await ws.send_str("no JSON")
    await ws.send_json({"envelope_id": "unknown"})
    await ws.send_json({"envelope_id": envelope["envelope_id"], "payload": {"text": "hi"}})
    delivery = await sending
    assert [m["text"] for m in delivery.ephemerals] == ["hi"]
    await ws.close()


async def test_ten_connections_take_turns_and_an_eleventh_is_refused(
    slack: SlackStandIn, session: aiohttp.ClientSession
) -> None:
    sockets = [await connect(slack, session) for _ in range(10)]
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await session.ws_connect(await ticket(slack))
    assert caught.value.status == 429
    sending = [asyncio.create_task(slack.command("U0ANA", OPS, f"/db {n}")) for n in range(10)]
    for ws in sockets:
        envelope = await ws.receive_json(timeout=30)
        await ws.send_json({"envelope_id": envelope["envelope_id"]})
    assert all(delivery.ok for delivery in await asyncio.gather(*sending))
    for ws in sockets:
        await ws.close()


async def test_an_event_that_nobody_acknowledges_comes_again(
    slack: SlackStandIn, session: aiohttp.ClientSession
) -> None:
    ws = await connect(slack, session)
    opening = asyncio.create_task(slack.open_home("U0ANA"))
    first = await ws.receive_json(timeout=30)
    await opening
    second = await ws.receive_json(timeout=30)
    assert (first["retry_attempt"], first["accepts_response_payload"]) == (0, False)
    assert (second["retry_attempt"], second["retry_reason"]) == (1, "timeout")
    assert first["payload"]["event_id"] == second["payload"]["event_id"]
    await ws.send_json({"envelope_id": second["envelope_id"]})
    await slack.wait_for(lambda: slack.wire[-1].status == 200)
    await ws.close()


async def test_a_connection_that_is_told_to_go_gets_nothing_new(
    slack: SlackStandIn, session: aiohttp.ClientSession
) -> None:
    old = await connect(slack, session)
    await slack.sockets.disconnect("warning")
    assert (await old.receive_json(timeout=30))["reason"] == "warning"
    await slack.sockets.disconnect("refresh_requested")
    assert (await old.receive_json(timeout=30))["reason"] == "refresh_requested"
    new = await connect(slack, session)
    for _ in range(2):
        sending = asyncio.create_task(slack.command("U0ANA", OPS, "/db help"))
        envelope = await new.receive_json(timeout=30)
        await new.send_json({"envelope_id": envelope["envelope_id"]})
        assert (await sending).ok
    assert (await old.receive(timeout=30)).type is aiohttp.WSMsgType.CLOSE
    await new.close()


async def test_a_disabled_link_takes_no_new_connection(
    slack: SlackStandIn, session: aiohttp.ClientSession
) -> None:
    ws = await connect(slack, session)
    await slack.sockets.disconnect("link_disabled")
    assert (await ws.receive_json(timeout=30))["reason"] == "link_disabled"
    error = await refusal(
        client_of(slack, slack.app_token).apps_connections_open(app_token=slack.app_token)
    )
    assert error.response["error"] == "socket_mode_not_enabled"


async def test_bolt_survives_a_refresh_and_a_cut_line(slack: SlackStandIn) -> None:
    bot = Bot(slack, "socket")

    @bot.app.command("/db")
    async def db(ack: Any) -> None:
        await ack()

    async with bot.run():
        await slack.sockets.disconnect("refresh_requested")
        await slack.wait_for(lambda: any(not s.leaving for s in slack.sockets._sockets))
        assert (await slack.command("U0ANA", OPS, "/db help")).ok
        slack.faults.add(method="socket", kind="abort_socket")
        assert not (await slack.command("U0ANA", OPS, "/db help")).ok
        await slack.wait_for(lambda: len(slack.sockets) == 0)
        await slack.wait_for(lambda: len(slack.sockets) == 1)
        assert (await slack.command("U0ANA", OPS, "/db help")).ok
