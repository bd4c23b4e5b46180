"""What is known of a call's outcome."""

from __future__ import annotations

import pytest
from slack_sdk.web.async_client import AsyncWebClient

from bot.slack import (
    SlackAwayError,
    SlackError,
    SlackLimitedError,
    SlackRefusedError,
    SlackUnclearError,
    bypasses_proxy,
    call,
    open_session,
    web_client,
)
from sandbox.slack.server import SlackStandIn


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("429", SlackLimitedError),
        ("500", SlackUnclearError),
        ("html", SlackUnclearError),
        ("drop_before", SlackUnclearError),
        ("drop_after", SlackUnclearError),
        ("error", SlackUnclearError),  # fatal_error: part of it may have been done
    ],
)
async def test_a_failure_says_what_is_known(
    slack: SlackStandIn, client: AsyncWebClient, kind: str, error: type[SlackError]
) -> None:
    slack.faults.add(method="chat.postMessage", kind=kind)
    with pytest.raises(error):
        await call(client.chat_postMessage(channel="C0DBOPS", text="x"))


async def test_a_refusal_has_slacks_word(client: AsyncWebClient) -> None:
    with pytest.raises(SlackRefusedError, match="channel_not_found"):
        await call(client.chat_postMessage(channel="C0NONE", text="x"))


async def test_without_a_connection_nothing_was_done() -> None:
    async with open_session() as session:
        away = web_client("xoxb-x", base_url="http://127.0.0.1:9/api/", session=session)
        with pytest.raises(SlackAwayError):
            await call(away.auth_test())


async def test_a_post_is_never_sent_twice_by_the_client_itself(
    slack: SlackStandIn, client: AsyncWebClient
) -> None:
    slack.faults.add(method="chat.postMessage", kind="drop_after")
    with pytest.raises(SlackUnclearError):
        await call(client.chat_postMessage(channel="C0DBOPS", text="once"))
    assert [message["text"] for message in slack.messages("C0DBOPS")] == ["once"]


async def test_a_proxy_is_not_used_for_this_machine(
    slack: SlackStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    async with open_session() as session:
        client = web_client(slack.bot_token, base_url=slack.api_url, session=session)
        assert (await call(client.auth_test()))["team_id"] == "T0DEMO"
        far = web_client("x", base_url="https://slack.com/api/", session=session)
        assert far.proxy


@pytest.mark.parametrize("url", ["http://localhost:1/", "http://127.9.9.9/", "http://[::1]:3/"])
def test_loopback_has_several_names(url: str) -> None:
    assert bypasses_proxy(url)
