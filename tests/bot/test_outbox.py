"""Messages reach Slack in order, once, whatever Slack does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from slack_sdk.web.async_client import AsyncWebClient

from bot.blocks import Message, section
from bot.metrics import Metrics
from bot.outbox import Outbox, Pace
from bot.outbox_rows import Row
from bot.slack import web_client
from sandbox.slack.server import SlackStandIn
from store.connect import Store
from store.outbox import Topic, post

FAST = Pace(
    between=timedelta(milliseconds=5),
    poll=timedelta(milliseconds=200),
    first_retry=timedelta(milliseconds=20),
    retry_max=timedelta(milliseconds=100),
)
CHANNEL = "C0DBOPS"

ADD_REQUEST = sa.text("""
    INSERT INTO requests (state, version, operation, database, asked_by, asked_by_slack, authors,
                          door, reason, params, plan, plan_hash, policy_hash, attributes, rule,
                          step, asked_at, expires_at, detail, channel)
    VALUES ('pending', 1, 'backup', 'orders', 'ana', 'T0DEMO/U0ANA', '{ana}', 'slack', '', '{}',
            '{}', 'h', 'p', '{}', 'r', 0, now(), now() + interval '1 hour', '{}', 'C0DBOPS')
    RETURNING id
""")


def now() -> datetime:
    return datetime.now(UTC)


class Drawing:
    """Draws what a row says; a card shows the state that it is told."""

    def __init__(self) -> None:
        self.state = "pending"
        self.drawn = 0

    async def __call__(self, row: Row, payload: Mapping[str, Any]) -> Message | None:
        self.drawn += 1
        text = f"card {self.state}" if row.topic == "card" else str(payload["text"])
        return Message(text=text, blocks=(section(text),))


async def add_request(store: Store) -> int:
    """A request that cards may be posted for."""
    async with store.begin() as conn:
        return int((await conn.execute(ADD_REQUEST)).scalar_one())


async def add(
    store: Store,
    topic: Topic,
    *texts: str,
    request_id: int | None = None,
    channel: str = CHANNEL,
    at: datetime | None = None,
) -> None:
    """Rows of one topic."""
    async with store.begin() as conn:
        for text in texts or ("",):
            await post(
                conn, topic=topic, request_id=request_id, channel=channel,
                payload={"text": text}, now=at or now(),
            )  # fmt: skip


@contextlib.asynccontextmanager
async def delivering(
    store: Store, client: AsyncWebClient, draw: Drawing, *, pace: Pace = FAST
) -> AsyncIterator[None]:
    """A deliverer at work; it is stopped at the end of the block."""
    stop = asyncio.Event()
    outbox = Outbox(store=store, client=client, draw=draw, clock=now, pace=pace, meter=Metrics())
    task = asyncio.create_task(outbox.run(stop))
    try:
        yield
    finally:
        stop.set()
        async with asyncio.timeout(30):
            await task


async def left(store: Store, *states: str) -> int:
    """How many rows are in these states; waiting when left out."""
    async with store.begin() as conn:
        found = await conn.execute(
            sa.text("SELECT count(*) FROM outbox WHERE state = ANY(:states)"),
            {"states": list(states or ("waiting",))},
        )
        return int(found.scalar_one())


async def emptied(store: Store, seconds: float = 30) -> None:
    """Until nothing waits."""
    async with asyncio.timeout(seconds):
        while await left(store):
            await asyncio.sleep(0.02)


def said(slack: SlackStandIn, channel: str = CHANNEL) -> list[str]:
    """The texts of a channel, oldest first."""
    return [message["text"] for message in slack.messages(channel)]


async def test_messages_arrive_in_order(
    store: Store, slack: SlackStandIn, client: AsyncWebClient
) -> None:
    texts = [f"note {number}" for number in range(10)]
    await add(store, "note", *texts)
    async with delivering(store, client, Drawing()):
        await emptied(store)
    assert said(slack) == texts


async def test_a_commit_wakes_the_deliverer(
    store: Store, slack: SlackStandIn, client: AsyncWebClient
) -> None:
    slow = Pace(poll=timedelta(hours=1), between=timedelta(0))
    async with delivering(store, client, Drawing(), pace=slow):
        await asyncio.sleep(0.3)
        await add(store, "note", "now")
        await slack.wait_for(lambda: "now" in said(slack), seconds=30)


async def test_a_card_is_posted_once_and_then_updated_and_its_thread_follows(
    store: Store, slack: SlackStandIn, client: AsyncWebClient
) -> None:
    request_id, draw = await add_request(store), Drawing()
    async with delivering(store, client, draw):
        await add(store, "card", request_id=request_id)
        await emptied(store)
        draw.state = "done"
        await add(store, "card", request_id=request_id)
        await add(store, "note", "warned", request_id=request_id)
        await add(store, "progress", "10 %", request_id=request_id)
        await emptied(store)
        await add(store, "progress", "90 %", request_id=request_id)
        await emptied(store)
    card, note, progress = slack.messages(CHANNEL)
    assert card["text"] == "card done"
    assert note["thread_ts"] == progress["thread_ts"] == card["ts"]
    assert progress["text"] == "90 %"


async def test_cards_that_wait_collapse_into_the_newest(
    store: Store, slack: SlackStandIn, client: AsyncWebClient
) -> None:
    request_id, draw = await add_request(store), Drawing()
    for _ in range(5):
        await add(store, "card", request_id=request_id)
    async with delivering(store, client, draw):
        await emptied(store)
    assert draw.drawn == 1
    assert said(slack) == ["card pending"]


async def test_words_that_changed_on_the_way_are_told_afterwards(
    store: Store, slack: SlackStandIn, client: AsyncWebClient
) -> None:
    request_id = await add_request(store)
    await add(store, "progress", "10 %", request_id=request_id)

    class Overtaken(Drawing):
        async def __call__(self, row: Row, payload: Mapping[str, Any]) -> Message | None:
            message = await super().__call__(row, payload)
            if self.drawn == 1:
                async with store.begin() as conn:
                    await conn.execute(
                        sa.text("""UPDATE outbox SET payload = '{"text": "20 %"}'""")
                    )
            return message

    async with delivering(store, client, Overtaken()):
        await emptied(store)
    assert said(slack) == ["20 %"]


@pytest.mark.parametrize("kind", ["429", "500", "html", "drop_before", "drop_after"])
async def test_nothing_is_lost_and_nothing_doubled(
    store: Store, slack: SlackStandIn, client: AsyncWebClient, kind: str
) -> None:
    texts = [f"note {number}" for number in range(4)]
    await add(store, "note", *texts)
    slack.faults.add(method="chat.postMessage", kind=kind, times=3, skip=1)
    async with delivering(store, client, Drawing()):
        await emptied(store)
    assert said(slack) == texts


async def test_a_card_whose_answer_was_lost_is_found_again_and_updated(
    store: Store, slack: SlackStandIn, client: AsyncWebClient
) -> None:
    request_id, draw = await add_request(store), Drawing()
    slack.faults.add(method="chat.postMessage", kind="drop_after")
    slack.faults.add(method="conversations.history", kind="500", times=2)
    await add(store, "card", request_id=request_id)
    async with delivering(store, client, draw):
        await slack.wait_for(lambda: said(slack) == ["card pending"])
        draw.state = "approved"
        await emptied(store)
    assert said(slack) == ["card approved"]


async def test_nothing_is_posted_again_while_the_channel_cannot_be_read(
    store: Store, slack: SlackStandIn, client: AsyncWebClient
) -> None:
    slack.faults.add(method="chat.postMessage", kind="drop_after")
    slack.faults.add(method="conversations.history", kind="error", error="missing_scope", times=50)
    await add(store, "note", "once")
    async with delivering(store, client, Drawing()):
        await asyncio.sleep(1)
    assert said(slack) == ["once"]
    assert await left(store) == 1


async def test_what_slack_did_late_is_not_done_twice(
    store: Store, slack: SlackStandIn, client: AsyncWebClient
) -> None:
    hasty = Pace(
        between=timedelta(0), poll=timedelta(milliseconds=100),
        first_retry=timedelta(milliseconds=1500), delivery_max=timedelta(milliseconds=500),
        lease=timedelta(milliseconds=1500),
    )  # fmt: skip
    slack.faults.add(method="chat.postMessage", kind="slow", seconds=0.8)
    await add(store, "note", "slow")
    async with delivering(store, client, Drawing(), pace=hasty):
        await emptied(store)
    assert said(slack) == ["slow"]


async def test_a_deliverer_that_died_after_posting_does_not_post_again(
    store: Store, slack: SlackStandIn, client: AsyncWebClient
) -> None:
    await add(store, "note", "once")
    stop = asyncio.Event()
    outbox = Outbox(
        store=store, client=client, draw=Drawing(), clock=now, pace=FAST, meter=Metrics()
    )
    slack.faults.add(method="chat.postMessage", kind="slow", seconds=0.2)
    task = asyncio.create_task(outbox.run(stop))
    await slack.wait_for(lambda: any("postMessage" in e.kind for e in slack.wire) or said(slack))
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await slack.wait_for(lambda: said(slack) == ["once"])
    async with store.begin() as conn:  # the lease of the dead one runs out
        await conn.execute(sa.text("UPDATE outbox SET due_at = now()"))
    async with delivering(store, client, Drawing()):
        await emptied(store)
    assert said(slack) == ["once"]


async def test_several_deliverers_share_the_work(
    store: Store, slack: SlackStandIn, client: AsyncWebClient
) -> None:
    texts = [f"note {number}" for number in range(20)]
    for channel in (CHANNEL, "C0ORDERS"):
        await add(store, "note", *texts, channel=channel)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(3):
            await stack.enter_async_context(delivering(store, client, Drawing()))
        await emptied(store)
    assert said(slack, CHANNEL) == texts
    assert said(slack, "C0ORDERS") == texts


async def test_a_channel_that_refuses_does_not_hold_up_another(
    store: Store, slack: SlackStandIn, client: AsyncWebClient
) -> None:
    await add(store, "note", "nobody reads", channel="C0OLD")
    await add(store, "note", "read")
    async with delivering(store, client, Drawing()):
        await slack.wait_for(lambda: said(slack) == ["read"])
    assert await left(store) == 1


async def test_what_nobody_could_deliver_for_days_is_put_aside(
    store: Store, slack: SlackStandIn, client: AsyncWebClient
) -> None:
    await add(store, "note", "too old", channel="C0OLD", at=now() - timedelta(days=4))
    async with delivering(store, client, Drawing()):
        await emptied(store)
    assert await left(store, "dead") == 1


async def test_slack_may_be_away_for_a_while(
    store: Store, slack: SlackStandIn, client: AsyncWebClient
) -> None:
    away = web_client("xoxb-x", base_url="http://127.0.0.1:9/api/", session=client.session)  # type: ignore[arg-type]
    await add(store, "note", "later")
    async with delivering(store, away, Drawing()):
        await asyncio.sleep(0.5)
    assert await left(store) == 1
    async with delivering(store, client, Drawing()):
        await emptied(store)
    assert said(slack) == ["later"]


async def test_a_message_that_cannot_be_drawn_holds_up_only_its_channel(
    store: Store, slack: SlackStandIn, client: AsyncWebClient, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Drawing):
        async def __call__(self, row: Row, payload: Mapping[str, Any]) -> Message | None:
            if row.channel == "C0ORDERS":
                raise KeyError("a bug")
            return await super().__call__(row, payload)

    await add(store, "note", "broken", channel="C0ORDERS")
    await add(store, "note", "fine")
    async with delivering(store, client, Broken()):
        await slack.wait_for(lambda: said(slack) == ["fine"])
    assert "could not be handled" in caplog.text
    assert await left(store) == 1


async def test_blocks_that_slack_refuses_leave_the_words(
    store: Store, slack: SlackStandIn, client: AsyncWebClient
) -> None:
    class TooLong(Drawing):
        async def __call__(self, row: Row, payload: Mapping[str, Any]) -> Message | None:
            return Message(text="the words", blocks=(section("x"),) * 60)

    await add(store, "note", "x")
    async with delivering(store, client, TooLong()):
        await emptied(store)
    assert said(slack) == ["the words"]


async def test_a_direct_message_reaches_one_person(
    store: Store, slack: SlackStandIn, client: AsyncWebClient
) -> None:
    await add(store, "direct", "for you", channel="U0ANA")
    async with delivering(store, client, Drawing()):
        await emptied(store)
    assert [message["text"] for message in slack.direct("U0ANA")] == ["for you"]


async def test_a_card_that_was_deleted_is_posted_anew(
    store: Store, slack: SlackStandIn, client: AsyncWebClient
) -> None:
    request_id, draw = await add_request(store), Drawing()
    await add(store, "card", request_id=request_id)
    async with delivering(store, client, draw):
        await emptied(store)
        [card] = slack.messages(CHANNEL)
        await client.chat_delete(channel=CHANNEL, ts=card["ts"])
        await add(store, "card", request_id=request_id)
        await emptied(store)
    assert said(slack) == ["card pending"]
