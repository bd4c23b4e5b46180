"""Files: announced, sent, shared, fetched."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest
from slack_sdk.web.async_client import AsyncWebClient

from sandbox.slack.server import SlackStandIn
from tests.sandbox.test_messages import OPS, refusal

PNG = b"\x89PNG\r\n\x1a\n" + b"0" * 100


async def test_an_uploaded_file_is_shared_in_a_thread(
    slack: SlackStandIn, client: AsyncWebClient, session: aiohttp.ClientSession
) -> None:
    root = (await client.chat_postMessage(channel=OPS, text="x"))["ts"]
    await client.files_upload_v2(
        channel=OPS,
        thread_ts=root,
        filename="c.png",
        title="Chart",
        file=PNG,
        initial_comment="this week",
    )
    message = slack.messages(OPS)[-1]
    (file,) = message["files"]
    assert (message["text"], message["thread_ts"]) == ("this week", root)
    assert (file["title"], file["mimetype"], file["size"]) == ("Chart", "image/png", len(PNG))
    async with session.get(file["permalink"]) as response:
        assert (response.content_type, await response.read()) == ("image/png", PNG)


async def test_a_private_address_needs_the_token(
    slack: SlackStandIn, client: AsyncWebClient, session: aiohttp.ClientSession
) -> None:
    await client.files_upload_v2(channel=OPS, filename="c.png", file=PNG)
    url = slack.messages(OPS)[-1]["files"][0]["url_private"]
    async with session.get(url) as response:
        assert response.status == 403
    bearer = {"Authorization": f"Bearer {slack.bot_token}"}
    async with session.get(url, headers=bearer) as response:
        assert await response.read() == PNG


async def test_an_upload_of_another_length_is_refused(
    client: AsyncWebClient, session: aiohttp.ClientSession
) -> None:
    announced = await client.files_getUploadURLExternal(filename="a.txt", length=3)
    async with session.post(announced["upload_url"], data=b"four") as response:
        assert response.status == 409
    files: Any = [{"id": announced["file_id"], "title": "a"}]
    error = await refusal(client.files_completeUploadExternal(files=files, channel_id=OPS))
    assert error.response["error"] == "file_not_found"


@pytest.mark.parametrize("channel", ["C0GENERAL", "C0NONE", "U0ANA"])
async def test_a_file_goes_only_where_the_app_may_post(
    client: AsyncWebClient, channel: str
) -> None:
    error = await refusal(client.files_upload_v2(channel=channel, filename="a", content="a"))
    assert error.response["error"] in {"not_in_channel", "channel_not_found"}


async def test_a_page_of_somebody_elses_is_never_served_as_a_page(
    slack: SlackStandIn, client: AsyncWebClient, session: aiohttp.ClientSession
) -> None:
    await client.files_upload_v2(channel=OPS, filename="a.html", content="<script>")
    link = slack.messages(OPS)[-1]["files"][0]["permalink"]
    async with session.get(link) as response:
        assert response.content_type == "application/octet-stream"


async def test_a_deleted_file_leaves_its_message(
    slack: SlackStandIn, client: AsyncWebClient
) -> None:
    await client.files_upload_v2(channel=OPS, filename="a.txt", content="a", initial_comment="look")
    file_id = slack.messages(OPS)[-1]["files"][0]["id"]
    await client.files_delete(file=file_id)
    assert "files" not in slack.messages(OPS)[-1]
    error = await refusal(client.files_delete(file=file_id))
    assert error.response["error"] == "file_not_found"
