"""Charts in messages: drawn by Slack, as a picture where it does not, else in words.

Slack brings its charts to workspaces one after the other: where they are not there yet, a
message that has one is refused as a whole, and nothing of it was posted. So a message is tried
in one way after the other; what a workspace does not take is remembered for a while.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

import aiohttp
from slack_sdk.web.async_client import AsyncWebClient

from bot.blocks import Block, Message, section
from bot.pictures import PictureError, drawn
from bot.slack import SlackError, SlackRefusedError, bypasses_proxy, call
from bot.views.chart import CHART_BLOCK, chart_text
from jobs.operation import Chart

log: Final = logging.getLogger("twokey.charts")

# Slack's words for a message whose blocks it does not take; nothing of it was posted.
BAD_BLOCKS: Final = frozenset({"invalid_blocks", "invalid_blocks_format", "msg_blocks_too_long"})
NATIVE_AGAIN: Final = timedelta(hours=6)
PICTURES_AGAIN: Final = timedelta(hours=1)
# All pictures of a message: drawn, sent, and looked at by Slack.
PICTURES_MAX: Final = timedelta(seconds=20)
# Slack finishes an upload a moment after it says so; until then the file is an invalid block.
SETTLING: Final = (timedelta(0), timedelta(seconds=1), timedelta(seconds=2))
_KEPT_MAX: Final = 50
_ALT_CHARS_MAX: Final = 1900
_OK: Final = 200


T = TypeVar("T")
Post = Callable[[Mapping[str, Any]], Awaitable[T]]


class Charts:
    """Knows how a workspace takes charts, and brings pictures into it."""

    def __init__(self, *, client: AsyncWebClient, clock: Callable[[], datetime]) -> None:
        self._client = client
        self._clock = clock
        self._natives_from: datetime | None = None
        self._pictures_from: datetime | None = None
        self._files: dict[Chart, str] = {}

    async def send(self, message: Message, post: Post[T]) -> T:
        """What `post` brings, for the first way of showing the charts that Slack takes.

        `post` sends a message's content. It is called again only after Slack refused the
        blocks of the last one, so that nothing is ever posted twice.

        Raises:
            SlackError: as `post`; a refusal of blocks when not even words were taken.
        """
        if not message.charts:
            return await post(message.content())
        is_tried = self._is_open(self._natives_from)
        if is_tried:
            try:
                return await post(message.content())
            except SlackRefusedError as error:
                _unless_blocks(error)
        answer = await self._otherwise(message, post)
        if is_tried:
            log.warning("This workspace draws no charts yet; it gets pictures or words for a while")
            self._natives_from = self._clock() + NATIVE_AGAIN
        return answer

    async def _otherwise(self, message: Message, post: Post[T]) -> T:
        content = await self._pictured(message)
        for pause in SETTLING if content is not None else ():
            await asyncio.sleep(pause.total_seconds())
            try:
                return await post(content or {})
            except SlackRefusedError as error:
                _unless_blocks(error)
        if content is not None:
            for chart in message.charts:  # it may be gone from Slack
                self._files.pop(chart, None)
        return await post(_in_words(message))

    def _is_open(self, since: datetime | None) -> bool:
        return since is None or self._clock() >= since

    async def _pictured(self, message: Message) -> Mapping[str, Any] | None:
        """The message with pictures, which are in Slack then; None where that does not work."""
        if not self._is_open(self._pictures_from):
            return None
        try:
            async with asyncio.timeout(PICTURES_MAX.total_seconds()):
                files = [await self._file(chart) for chart in message.charts]
        except (PictureError, SlackError, TimeoutError, aiohttp.ClientError, OSError) as error:
            log.warning(
                "No picture of a chart, words instead: %s (%s)", error, type(error).__name__
            )
            self._pictures_from = self._clock() + PICTURES_AGAIN
            return None
        return _with_pictures(message, files)

    async def _file(self, chart: Chart) -> str:
        """The id of a picture of `chart` in Slack, uploaded once."""
        if chart not in self._files:
            file_id = await self._uploaded(await drawn(chart), chart)
            while len(self._files) >= _KEPT_MAX:
                del self._files[next(iter(self._files))]
            self._files[chart] = file_id
        return self._files[chart]

    async def _uploaded(self, png: bytes, chart: Chart) -> str:
        place = await call(
            self._client.files_getUploadURLExternal(
                filename="chart.png", length=len(png), alt_txt=_alt(chart)
            )
        )
        await self._send(str(place["upload_url"]), png)
        file_id = str(place["file_id"])
        await call(
            self._client.files_completeUploadExternal(files=[{"id": file_id, "title": chart.title}])
        )
        return file_id

    async def _send(self, url: str, png: bytes) -> None:
        session = self._client.session
        if session is None:
            raise PictureError("there is no HTTP session to send it with")
        proxy = None if bypasses_proxy(url) else self._client.proxy
        async with session.post(
            url, data=png, headers={"Content-Type": "image/png"}, proxy=proxy
        ) as answer:
            if answer.status != _OK:
                raise PictureError(f"the upload was answered with {answer.status}")


def _unless_blocks(error: SlackRefusedError) -> None:
    if error.error not in BAD_BLOCKS:
        raise error


def _with_pictures(message: Message, files: Sequence[str]) -> Mapping[str, Any]:
    images = iter(
        {"type": "image", "slack_file": {"id": file_id}, "alt_text": _alt(chart)}
        for chart, file_id in zip(message.charts, files, strict=True)
    )
    return _replaced(message, lambda: next(images))


def _in_words(message: Message) -> Mapping[str, Any]:
    words = iter(section(chart_text(chart)) for chart in message.charts)
    return _replaced(message, lambda: next(words))


def _replaced(message: Message, following: Callable[[], Block]) -> Mapping[str, Any]:
    """The message with each chart in another block."""
    blocks = [
        dict(following() if block["type"] == CHART_BLOCK else block) for block in message.blocks
    ]
    return {"text": message.text, "blocks": blocks}


def _alt(chart: Chart) -> str:
    """What a screen reader says instead of the picture."""
    return " ".join(f"{chart.title}. {chart.alt}".split())[:_ALT_CHARS_MAX]
