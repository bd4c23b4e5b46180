"""An incident's message: posted once, edited where it stands, its history in its thread."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import JsonValue
from slack_sdk.web.async_client import AsyncWebClient

from sandbox.slack.server import SlackStandIn
from store.connect import Store
from store.outbox import post
from tests.bot.test_outbox import CHANNEL, Drawing, delivering, emptied, now, said

ELSEWHERE = "C0ORDERS"


async def tell(
    store: Store,
    text: str,
    *,
    kind: str = "card",
    incident: int = 7,
    channel: str = CHANNEL,
    loud: bool = False,
) -> None:
    """A row about an incident."""
    payload: dict[str, JsonValue] = {
        "incident": incident, "kind": kind, "text": text, "loud": loud,
    }  # fmt: skip
    async with store.begin() as conn:
        await post(
            conn, topic="incident", request_id=None, channel=channel, payload=payload, now=now()
        )


def messages(slack: SlackStandIn) -> list[tuple[str, bool]]:
    """The texts of the channel, and whether they stand in a thread."""
    return [
        (message["text"], message.get("thread_ts", message["ts"]) != message["ts"])
        for message in slack.messages(CHANNEL)
    ]


async def places(store: Store) -> list[Any]:
    async with store.begin() as conn:
        found = await conn.execute(sa.text("SELECT kind, key, channel FROM places ORDER BY key"))
        return [tuple(row) for row in found]


async def test_an_incident_is_posted_once_edited_in_place_and_its_notes_stand_in_its_thread(
    store: Store, slack: SlackStandIn, client: AsyncWebClient
) -> None:
    async with delivering(store, client, Drawing()):
        await tell(store, "firing")
        await tell(store, "fired", kind="note")
        await emptied(store)
        await tell(store, "resolved")
        await tell(store, "over", kind="note")
        await emptied(store)
    assert messages(slack) == [("resolved", False), ("fired", True), ("over", True)]
    assert await places(store) == [("incident", "7", CHANNEL)]


async def test_cards_of_one_incident_that_wait_collapse_and_its_notes_and_others_do_not(
    store: Store, slack: SlackStandIn, client: AsyncWebClient
) -> None:
    for text in ("first", "second"):
        await tell(store, text)
        await tell(store, f"{text} note", kind="note")
    await tell(store, "other", incident=8)
    draw = Drawing()
    async with delivering(store, client, draw):
        await emptied(store)
    assert draw.drawn == 4
    assert messages(slack) == [
        ("second", False), ("first note", True), ("second note", True), ("other", False),
    ]  # fmt: skip


async def test_an_escalation_stands_in_no_thread_also_in_the_incidents_own_channel(
    store: Store, slack: SlackStandIn, client: AsyncWebClient
) -> None:
    async with delivering(store, client, Drawing()):
        await tell(store, "firing")
        await tell(store, "nobody has looked", kind="escalation")
        await tell(store, "nobody has looked", kind="escalation", channel=ELSEWHERE)
        await emptied(store)
    assert messages(slack) == [("firing", False), ("nobody has looked", False)]
    assert said(slack, ELSEWHERE) == ["nobody has looked"]


async def test_what_must_not_be_missed_in_a_thread_is_heard_of_in_the_channel_too(
    store: Store, slack: SlackStandIn, client: AsyncWebClient
) -> None:
    async with delivering(store, client, Drawing()):
        await tell(store, "firing")
        await tell(store, "joined", kind="note", loud=True)
        await tell(store, "is seen", kind="note")
        await emptied(store)
    _, loud, quiet = slack.messages(CHANNEL)
    assert loud["subtype"] == "thread_broadcast"
    assert "subtype" not in quiet


@pytest.mark.parametrize("kind", ["500", "drop_before", "drop_after"])
async def test_an_incident_whose_answer_was_lost_is_found_again(
    store: Store, slack: SlackStandIn, client: AsyncWebClient, kind: str
) -> None:
    slack.faults.add(method="chat.postMessage", kind=kind, times=2)
    await tell(store, "firing")
    await tell(store, "fired", kind="note")
    async with delivering(store, client, Drawing()):
        await emptied(store)
        await tell(store, "over")
        await emptied(store)
    assert messages(slack) == [("over", False), ("fired", True)]


async def test_two_bots_post_one_message_per_incident(
    store: Store, slack: SlackStandIn, client: AsyncWebClient
) -> None:
    async with delivering(store, client, Drawing()), delivering(store, client, Drawing()):
        for incident in range(1, 5):
            await asyncio.gather(*(tell(store, "firing", incident=incident) for _ in range(5)))
        await emptied(store)
    assert said(slack) == ["firing"] * 4
    assert [key for _, key, _ in await places(store)] == ["1", "2", "3", "4"]


async def test_a_message_that_somebody_deleted_is_posted_anew(
    store: Store, slack: SlackStandIn, client: AsyncWebClient
) -> None:
    async with delivering(store, client, Drawing()):
        await tell(store, "firing")
        await emptied(store)
        [message] = slack.messages(CHANNEL)
        await client.chat_delete(channel=CHANNEL, ts=message["ts"])
        await tell(store, "worse")
        await tell(store, "got worse", kind="note")
        await emptied(store)
    assert messages(slack) == [("worse", False), ("got worse", True)]
