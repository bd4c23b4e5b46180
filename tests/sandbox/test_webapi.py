"""The Web API's edge: rights, arguments, limits and faults."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from slack_sdk.errors import SlackApiError
from slack_sdk.http_retry.builtin_async_handlers import AsyncRateLimitErrorRetryHandler
from slack_sdk.web.async_client import AsyncWebClient

from sandbox.slack.server import SlackStandIn
from sandbox.slack.timings import RateLimits, Timings
from sandbox.slack.webapi import METHODS
from tests.sandbox.support import client_of, scoped
from tests.sandbox.test_messages import OPS, refusal

# What one call of each method needs to come as far as the check of its scope.
SCOPED = sorted((name, method.scope) for name, method in METHODS.items() if method.scope)


async def test_an_unknown_method_says_so(client: AsyncWebClient) -> None:
    error = await refusal(client.api_call("chat.shout"))
    assert error.response["error"] == "unknown_method"


@pytest.mark.parametrize(("method", "scope"), SCOPED)
async def test_a_method_without_its_scope_names_what_is_missing(
    granting: Callable[..., Any], method: str, scope: str
) -> None:
    slack = await granting(scoped(drop=scope) if scope != "users:read" else _without_users)
    error = await refusal(client_of(slack).api_call(method, params={"channel": OPS}))
    assert error.response["error"] == "missing_scope"
    assert error.response["needed"] == scope
    assert scope not in error.response["provided"].split(",")


def _without_users(raw: dict[str, Any]) -> None:
    scoped(drop="users:read")(raw)
    scoped(drop="users:read.email")(raw)


async def test_history_needs_the_history_scope(granting: Callable[..., Any]) -> None:
    slack = await granting(scoped(drop="channels:history"))
    error = await refusal(client_of(slack).conversations_history(channel=OPS))
    assert (error.response["error"], error.response["needed"]) == (
        "missing_scope",
        "channels:history",
    )


async def test_every_scope_of_the_manifest_can_be_seen_in_use(
    slack: SlackStandIn, client: AsyncWebClient
) -> None:
    await client.chat_postMessage(channel=OPS, text="x")
    await client.users_info(user="U0ANA")
    await client.usergroups_list()
    await client.conversations_info(channel=OPS)
    await client.conversations_history(channel=OPS)
    await client.files_upload_v2(channel=OPS, filename="a.txt", content="a")
    assert slack.scopes_used == {
        "chat:write",
        "users:read",
        "users:read.email",
        "usergroups:read",
        "channels:read",
        "channels:history",
        "files:write",
    }


@pytest.mark.parametrize(
    ("token", "code"),
    [
        ("xoxb-wrong", "invalid_auth"),
        ("xapp-1-A0TWOKEY-demo-not-a-real-token", "not_allowed_token_type"),
    ],
)
async def test_a_wrong_token_is_refused(slack: SlackStandIn, token: str, code: str) -> None:
    error = await refusal(client_of(slack, token).auth_test())
    assert error.response["error"] == code


async def test_no_token_is_refused(slack: SlackStandIn, session: aiohttp.ClientSession) -> None:
    async with session.get(slack.api_url + "auth.test") as response:
        assert (await response.json())["error"] == "not_authed"
        assert response.headers["x-slack-req-id"]


async def test_auth_test_says_who_the_app_is_and_what_it_may(client: AsyncWebClient) -> None:
    answer = await client.auth_test()
    assert (answer["user_id"], answer["bot_id"]) == ("U0TWOKEY", "B0TWOKEY")
    assert "chat:write" in answer.headers["x-oauth-scopes"].split(",")


@pytest.mark.parametrize(
    "request_of",
    [
        {"params": {"channel": OPS, "text": "x"}},
        {"data": {"channel": OPS, "text": "x"}},
        {"json": {"channel": OPS, "text": "x"}},
        {"params": {"channel": OPS}, "data": {"text": "x"}},
        {"params": {"channel": OPS}, "json": {"text": "x"}},
    ],
)
async def test_query_form_and_json_are_one(
    slack: SlackStandIn, session: aiohttp.ClientSession, request_of: dict[str, Any]
) -> None:
    headers = {"Authorization": f"Bearer {slack.bot_token}"}
    url = slack.api_url + "chat.postMessage"
    async with session.post(url, headers=headers, **request_of) as response:
        assert (await response.json())["ok"] is True


async def test_a_token_can_stand_in_the_form_and_never_in_the_log(
    slack: SlackStandIn, session: aiohttp.ClientSession
) -> None:
    form = {"token": slack.bot_token, "channel": OPS, "text": "x"}
    async with session.post(slack.api_url + "chat.postMessage", data=form) as response:
        assert (await response.json())["ok"] is True
    assert slack.bot_token not in slack.wire[-1].body


@pytest.mark.parametrize(("body", "code"), [("{", "invalid_json"), ("[]", "json_not_object")])
async def test_a_broken_body_is_refused(
    slack: SlackStandIn, session: aiohttp.ClientSession, body: str, code: str
) -> None:
    headers = {"Content-Type": "application/json"}
    url = slack.api_url + "chat.postMessage"
    async with session.post(url, headers=headers, data=body) as response:
        assert (await response.json())["error"] == code


async def test_the_log_shows_every_call(slack: SlackStandIn, client: AsyncWebClient) -> None:
    await client.chat_postMessage(channel=OPS, text="hello there")
    await refusal(client.chat_postMessage(channel="C0NONE", text="x"))
    good, bad = slack.wire.of("chat.postMessage")
    assert (good.direction, good.status, good.summary) == ("from_app", 200, "ok")
    assert "hello there" in good.body
    assert bad.summary == "channel_not_found"
    assert slack.bot_token not in good.body


LIMITED = Timings(limits=RateLimits(enabled=True, posts_per_second=1, burst=2))


async def test_more_than_a_post_per_second_is_refused_until_retry_after(
    granting: Callable[..., Any],
) -> None:
    slack = await granting(lambda raw: None, LIMITED)
    client = client_of(slack)
    for _ in range(2):
        await client.chat_postMessage(channel=OPS, text="x")
    await client.chat_postMessage(channel="C0ORDERS", text="another channel is free")
    error = await refusal(client.chat_postMessage(channel=OPS, text="x"))
    assert error.response.status_code == 429
    assert error.response.headers["Retry-After"] == "1"
    slack.advance(1)
    await client.chat_postMessage(channel=OPS, text="x")


async def test_a_tier_counts_calls_per_minute(granting: Callable[..., Any]) -> None:
    slack = await granting(lambda raw: None, LIMITED)
    client = client_of(slack)
    for _ in range(20):
        await client.usergroups_list()
    error = await refusal(client.usergroups_list())
    assert error.response.status_code == 429
    slack.advance(3)
    await client.usergroups_list()


async def test_429_happens_as_often_as_asked(slack: SlackStandIn, client: AsyncWebClient) -> None:
    slack.faults.add(method="chat.postMessage", kind="429", times=2, retry_after_seconds=7)
    for _ in range(2):
        error = await refusal(client.chat_postMessage(channel=OPS, text="x"))
        assert error.response.headers["Retry-After"] == "7"
    await client.chat_postMessage(channel=OPS, text="x")
    assert not list(slack.faults)


async def test_the_sdk_waits_out_a_429(slack: SlackStandIn) -> None:
    slack.faults.add(method="chat.postMessage", kind="429", retry_after_seconds=0)
    client = AsyncWebClient(
        token=slack.bot_token,
        base_url=slack.api_url,
        retry_handlers=[AsyncRateLimitErrorRetryHandler(max_retry_count=1)],
    )
    await client.chat_postMessage(channel=OPS, text="x")
    assert [entry.status for entry in slack.wire.of("chat.postMessage")] == [429, 200]


async def test_500_and_html_do_nothing(slack: SlackStandIn, client: AsyncWebClient) -> None:
    slack.faults.add(method="chat.postMessage", kind="500")
    slack.faults.add(method="chat.postMessage", kind="html", status=503)
    error = await refusal(client.chat_postMessage(channel=OPS, text="x"))
    assert error.response.status_code == 500
    error = await refusal(client.chat_postMessage(channel=OPS, text="x"))
    assert error.response.status_code == 503
    assert not slack.messages(OPS)


@pytest.mark.parametrize(
    ("kind", "done"), [("drop_before", 0), ("abort_socket", 0), ("drop_after", 1)]
)
async def test_a_dropped_connection_may_have_done_its_work(
    slack: SlackStandIn, client: AsyncWebClient, kind: str, done: int
) -> None:
    slack.faults.add(method="chat.postMessage", kind=kind)
    with pytest.raises((aiohttp.ClientError, SlackApiError)):
        await client.chat_postMessage(channel=OPS, text="x")
    assert len(slack.messages(OPS)) == done
    await slack.wait_for(lambda: slack.wire.of("chat.postMessage"))
    assert slack.wire[-1].status == 0


async def test_slow_does_its_work_late(slack: SlackStandIn, client: AsyncWebClient) -> None:
    slack.faults.add(method="*", kind="slow", seconds=0.05)
    await client.chat_postMessage(channel=OPS, text="x")
    assert slack.wire[-1].ms >= 50


async def test_a_code_of_ones_choice_and_a_later_victim(
    slack: SlackStandIn, client: AsyncWebClient
) -> None:
    slack.faults.add(method="chat.update", kind="error", error="fatal_error", skip=1)
    ts = (await client.chat_postMessage(channel=OPS, text="x"))["ts"]
    await client.chat_update(channel=OPS, ts=ts, text="y")
    error = await refusal(client.chat_update(channel=OPS, ts=ts, text="z"))
    assert error.response["error"] == "fatal_error"


@pytest.mark.parametrize(
    "fault",
    [
        {"method": "x", "kind": "no such kind"},
        {"method": "x", "kind": "429", "times": 0},
        {"method": "x", "kind": "429", "unknown": 1},
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(slack: SlackStandIn, fault: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        slack.faults.add(**fault)


async def test_a_removed_app_has_no_rights(slack: SlackStandIn, client: AsyncWebClient) -> None:
    await slack.admin.uninstall()
    error = await refusal(client.auth_test())
    assert error.response["error"] == "token_revoked"


async def test_many_calls_at_once_all_arrive(slack: SlackStandIn, client: AsyncWebClient) -> None:
    calls = [client.chat_postMessage(channel=OPS, text=str(n)) for n in range(20)]
    await asyncio.gather(*calls)
    assert len({m["ts"] for m in slack.messages(OPS)}) == 20
