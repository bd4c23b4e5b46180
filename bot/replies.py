"""Answers to one person: only they see them, and a click always gets one."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

import aiohttp
from slack_sdk.web.async_client import AsyncWebClient

from bot.blocks import Message
from bot.slack import SlackError, bypasses_proxy, call

log: Final = logging.getLogger("twokey.replies")

_OK: Final = 200


class Replies:
    """Tells one person something, by whichever way is open."""

    def __init__(self, client: AsyncWebClient, session: aiohttp.ClientSession) -> None:
        self._client = client
        self._session = session

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
            await call(self._client.chat_postMessage(channel=user, **message.content()))
        except SlackError as error:
            log.warning("An answer to %s did not arrive: %s.", user, error)

    async def _by_url(self, url: str, message: Message, *, instead: bool) -> bool:
        content = {
            "response_type": "ephemeral",
            "replace_original": instead,
            **message.content(),
        }
        proxy = None if bypasses_proxy(url) else self._client.proxy
        try:
            async with self._session.post(url, json=content, proxy=proxy) as answer:
                return answer.status == _OK
        except (TimeoutError, aiohttp.ClientError, OSError):
            return False

    async def _by_ephemeral(self, channel: str, user: str, message: Message) -> bool:
        try:
            await call(
                self._client.chat_postEphemeral(channel=channel, user=user, **message.content())
            )
        except SlackError:
            return False
        return True
