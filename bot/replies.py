"""Answers to one person: only they see them, and a click always gets one."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import aiohttp
from slack_sdk.web.async_client import AsyncWebClient

from bot.blocks import Message
from bot.charts import BAD_BLOCKS, Charts
from bot.slack import SlackError, SlackRefusedError, bypasses_proxy, call

log: Final = logging.getLogger("twokey.replies")

_OK: Final = 200
_SAID_MAX: Final = 4_000


class Replies:
    """Tells one person something, by whichever way is open."""

    def __init__(
        self,
        client: AsyncWebClient,
        session: aiohttp.ClientSession,
        charts: Charts | None = None,
    ) -> None:
        self._client = client
        self._session = session
        self._charts = charts or Charts(client=client, clock=lambda: datetime.now(UTC))

    async def tell(
        self,
        body: Mapping[str, Any],
        message: Message,
        *,
        channel: str = "",
        instead: bool = False,
    ) -> None:
        """Answer the interaction in `body`.

        Its response_url works also where the bot is no member; without one, `channel` or
        the interaction's own channel; at last a direct message. `instead`: in place of the
        message that was acted in, where that is possible.
        """
        user = str(body["user"]["id"])
        where = str((body.get("channel") or {}).get("id") or channel)
        if (url := body.get("response_url")) and await self._by_url(
            str(url), message, instead=instead
        ):
            return
        if where and await self._by_ephemeral(where, user, message):
            return
        try:
            await self._charts.send(
                message,
                lambda content: call(self._client.chat_postMessage(channel=user, **content)),
            )
        except SlackError as error:
            log.warning("An answer to %s did not arrive: %s.", user, error)

    async def _by_url(self, url: str, message: Message, *, instead: bool) -> bool:
        def respond(content: Mapping[str, Any]) -> Awaitable[bool]:
            return self._respond(url, {**content, "replace_original": instead})

        try:
            return await self._charts.send(message, respond)
        except (SlackError, TimeoutError, aiohttp.ClientError, OSError):
            return False

    async def _respond(self, url: str, content: Mapping[str, Any]) -> bool:
        """Whether Slack took it; raises where it did not take its blocks."""
        told = {"response_type": "ephemeral", **content}
        proxy = None if bypasses_proxy(url) else self._client.proxy
        async with self._session.post(url, json=told, proxy=proxy) as answer:
            if answer.status == _OK:
                return True
            said = (await answer.content.read(_SAID_MAX)).decode("utf-8", "replace")
        if word := next((word for word in BAD_BLOCKS if word in said), None):
            raise SlackRefusedError(word)
        return False

    async def _by_ephemeral(self, channel: str, user: str, message: Message) -> bool:
        try:
            await self._charts.send(
                message,
                lambda content: call(
                    self._client.chat_postEphemeral(channel=channel, user=user, **content)
                ),
            )
        except SlackError:
            return False
        return True
