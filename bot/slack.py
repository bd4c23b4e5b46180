"""Slack's Web API with outcomes that a caller can act on: done, not done, or nobody knows."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import urllib.request
from collections.abc import Awaitable, Mapping
from datetime import timedelta
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
from slack_sdk.errors import SlackApiError, SlackClientError
from slack_sdk.web.async_client import AsyncWebClient
from slack_sdk.web.async_slack_response import AsyncSlackResponse

from bot.watched_client import WatchedClient

CALL_SECONDS_MAX: Final = 10.0
_RETRY_AFTER_DEFAULT: Final = timedelta(seconds=5)
_RETRY_AFTER_MAX: Final = timedelta(hours=1)
_TOO_MANY: Final = 429
_SERVER_ERROR: Final = 500
# Slack says of these that part of the work may have been done.
_MAYBE_DONE: Final = frozenset(
    {"fatal_error", "internal_error", "service_unavailable", "request_timeout"}
)


class SlackError(Exception):
    """Base of what can go wrong with a call.

    ```
    SlackError
    ├── SlackRefusedError   Slack said no, and why: nothing was done
    ├── SlackLimitedError   too many calls: nothing was done, come back later
    ├── SlackAwayError      no connection was made: nothing was done
    └── SlackUnclearError   no proper answer: it may or may not have been done
    ```
    """


class SlackRefusedError(SlackError):
    """Slack answered `ok: false`; `error` is Slack's word for it."""

    def __init__(self, error: str) -> None:
        super().__init__(error)
        self.error = error


class SlackLimitedError(SlackError):
    """Slack wants to be asked again after `retry_after`."""

    def __init__(self, retry_after: timedelta) -> None:
        super().__init__(f"rate limited for {retry_after.total_seconds():g} s")
        self.retry_after = retry_after


class SlackAwayError(SlackError):
    """Slack could not be reached."""


class SlackUnclearError(SlackError):
    """The connection broke, the answer took too long, or it was none of Slack's."""


def open_session() -> aiohttp.ClientSession:
    """The one HTTP session of a process. slack_sdk's own timeout does not apply to it."""
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=CALL_SECONDS_MAX))


def web_client(
    token: str | None, *, base_url: str, session: aiohttp.ClientSession
) -> AsyncWebClient:
    """A client that never retries by itself: its default would post a message twice."""
    client = WatchedClient(token=token, base_url=base_url, session=session, retry_handlers=[])
    # slack_sdk honours HTTPS_PROXY and ignores NO_PROXY, also for this very machine.
    if bypasses_proxy(base_url):
        client.proxy = None
    return client


def bypasses_proxy(url: str) -> bool:
    """Whether a URL is to be reached directly: loopback, or named in NO_PROXY."""
    host = urlsplit(url).hostname or ""
    return is_loopback(host) or bool(urllib.request.proxy_bypass(host))


def is_loopback(host: str) -> bool:
    """Whether a host is this machine by name or by address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def call(answer: Awaitable[AsyncSlackResponse]) -> Mapping[str, Any]:
    """The data of a call's answer.

    Raises:
        SlackError: one of its four kinds; see there what is known of the outcome.
    """
    try:
        async with asyncio.timeout(CALL_SECONDS_MAX):
            response = await answer
    except SlackApiError as error:
        raise _refusal(error) from error
    except aiohttp.ClientConnectorError as error:
        raise SlackAwayError(type(error).__name__) from error
    except (aiohttp.ClientError, TimeoutError, OSError, SlackClientError) as error:
        raise SlackUnclearError(type(error).__name__) from error
    except (json.JSONDecodeError, AttributeError) as error:  # slack_sdk trips over plain text
        raise SlackUnclearError("the answer was no JSON") from error
    if not isinstance(response.data, dict):
        raise SlackUnclearError("the answer was no JSON")
    return response.data


def _refusal(error: SlackApiError) -> SlackError:
    response = error.response
    if not isinstance(response, AsyncSlackResponse):
        return SlackUnclearError("no answer")
    if response.status_code == _TOO_MANY:
        return SlackLimitedError(_retry_after(response.headers))
    word = response.data.get("error") if isinstance(response.data, dict) else None
    if response.status_code >= _SERVER_ERROR or not word or word in _MAYBE_DONE:
        return SlackUnclearError(f"status {response.status_code}, {word or 'no error word'}")
    if word in {"ratelimited", "rate_limited"}:
        return SlackLimitedError(_RETRY_AFTER_DEFAULT)
    return SlackRefusedError(str(word))


def _retry_after(headers: Mapping[str, Any]) -> timedelta:
    text = next(
        (str(value) for name, value in headers.items() if name.lower() == "retry-after"), ""
    )
    if not (text.isascii() and text.isdigit()):
        return _RETRY_AFTER_DEFAULT
    return min(timedelta(seconds=int(text[:9])), _RETRY_AFTER_MAX)


async def scopes_of_token(client: AsyncWebClient) -> frozenset[str]:
    """What the token may do, as Slack says with every answer.

    Raises:
        SlackError: as `call`.
    """
    answers: list[AsyncSlackResponse] = []

    async def asked() -> AsyncSlackResponse:
        answers.append(await client.auth_test())
        return answers[-1]

    await call(asked())
    named = {name.lower(): str(value) for name, value in answers[0].headers.items()}
    return frozenset(
        scope.strip() for scope in named.get("x-oauth-scopes", "").split(",") if scope.strip()
    )
