"""A workspace that does not have charts yet, and pictures in messages."""

from __future__ import annotations

import pytest
from slack_sdk.web.async_client import AsyncWebClient

from sandbox.slack.server import SlackStandIn
from tests.sandbox.test_block_kit import chart, picture
from tests.sandbox.test_messages import OPS, refusal


async def test_a_workspace_may_lack_a_kind_of_block_until_it_has_it(
    slack: SlackStandIn, client: AsyncWebClient
) -> None:
    slack.faults.add(method="data_visualization", kind="no_block")
    for _ in range(2):
        error = await refusal(client.chat_postMessage(channel=OPS, text="x", blocks=[chart()]))
        assert error.response["error"] == "invalid_blocks"
        assert error.response["errors"] == [
            "unsupported type: data_visualization [json-pointer:/blocks/0/type]"
        ]
    slack.faults.clear()
    assert (await client.chat_postMessage(channel=OPS, text="x", blocks=[chart()]))["ok"]


async def test_a_picture_must_be_there(client: AsyncWebClient) -> None:
    error = await refusal(
        client.chat_postMessage(channel=OPS, text="x", blocks=[picture("F0123456789")])
    )
    assert "invalid slack file" in error.response["errors"][0]


@pytest.mark.parametrize("kind", ["no_block"])
async def test_other_methods_do_not_notice(
    slack: SlackStandIn, client: AsyncWebClient, kind: str
) -> None:
    slack.faults.add(method="*", kind=kind)
    assert (await client.auth_test())["ok"]
