"""Direct messages that keep their place: redrawn where they stand, and posted once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slack_sdk.web.async_client import AsyncWebClient

from bot.blocks import Message
from bot.outbox_rows import Row
from sandbox.slack.server import SlackStandIn
from store.connect import Store
from store.outbox import post
from tests.bot.test_outbox import Drawing, add_request, delivering, emptied, left, now


async def redraw(store: Store, request_id: int, text: str, *, is_over: bool) -> None:
    """A direct message that keeps its place, or what is to stand there from now on."""
    async with store.begin() as conn:
        await post(
            conn, topic="direct", request_id=request_id, channel="U0ANA",
            payload={"text": text, "slot": "direct:ana:1", "is_over": is_over}, now=now(),
        )  # fmt: skip


async def test_what_redraws_a_direct_message_never_posts_one(
    store: Store, slack: SlackStandIn, client: AsyncWebClient
) -> None:
    request_id = await add_request(store)
    async with delivering(store, client, Drawing()):
        await redraw(store, request_id, "over", is_over=True)  # there is none
        await emptied(store)
        assert slack.direct("U0ANA") == []
        await redraw(store, request_id, "asked", is_over=False)
        await redraw(store, request_id, "over", is_over=True)
        await emptied(store)
        [message] = slack.direct("U0ANA")
        assert message["text"] == "over"
        await client.chat_delete(channel="D0ANA", ts=message["ts"])
        await redraw(store, request_id, "over", is_over=True)  # there is none any more
        await emptied(store)
    assert slack.direct("U0ANA") == []
    assert await left(store, "dead") == 0


async def test_a_direct_message_whose_answer_was_lost_is_found_and_redrawn(
    store: Store, slack: SlackStandIn, client: AsyncWebClient
) -> None:
    request_id = await add_request(store)
    slack.faults.add(method="chat.postMessage", kind="drop_after")
    await redraw(store, request_id, "asked", is_over=False)
    await redraw(store, request_id, "over", is_over=True)
    async with delivering(store, client, Drawing()):
        await emptied(store)
    assert [message["text"] for message in slack.direct("U0ANA")] == ["over"]


async def test_one_that_is_no_longer_true_when_its_lost_answer_is_looked_for_is_redrawn_too(
    store: Store, slack: SlackStandIn, client: AsyncWebClient
) -> None:
    class Forgetting(Drawing):
        """What was asked is over by the second time that it is drawn."""

        async def __call__(self, row: Row, payload: Mapping[str, Any]) -> Message | None:
            message = await super().__call__(row, payload)
            return message if self.drawn != 2 else None

    request_id = await add_request(store)
    slack.faults.add(method="chat.postMessage", kind="drop_after")
    await redraw(store, request_id, "asked", is_over=False)
    await redraw(store, request_id, "over", is_over=True)
    async with delivering(store, client, Forgetting()):
        await emptied(store)
    assert [message["text"] for message in slack.direct("U0ANA")] == ["over"]
