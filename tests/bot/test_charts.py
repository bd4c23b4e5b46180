"""Charts reach people in whatever way their workspace takes, and once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from slack_sdk.web.async_client import AsyncWebClient

from bot import charts, pictures
from bot.blocks import Message, section
from bot.charts import Charts
from bot.outbox_rows import Row
from bot.pictures import PictureError
from bot.replies import Replies
from bot.slack import SlackRefusedError, call, web_client
from bot.views.answer import answer_message
from jobs.operation import Answer, Chart, ChartKind, Series
from sandbox.slack.server import SlackStandIn, start_slack
from store.connect import Store
from tests.bot.test_outbox import CHANNEL, Drawing, add, delivering, emptied, now
from tests.sandbox.support import scoped

PNG = b"\x89PNG\r\n\x1a\n"
CHART = Chart(
    title="Size of orders",
    kind=ChartKind.LINE,
    labels=("Mon", "Tue"),
    series=(Series(name="GB", values=(1.0, 2.0)),),
    alt="It doubled.",
)
MESSAGE = answer_message(Answer(title="Forecast", lines=("a line",), charts=(CHART,)))


class Charting(Drawing):
    """Every row is a message with a chart."""

    async def __call__(self, row: Row, payload: Mapping[str, Any]) -> Message | None:
        self.drawn += 1
        return MESSAGE


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is drawn is another test's matter, and Slack need not be waited for."""
    monkeypatch.setattr(charts, "SETTLING", (timedelta(0), timedelta(milliseconds=10)))
    monkeypatch.setattr(pictures, "render", lambda chart: PNG + chart.title.encode())


def lack_charts(slack: SlackStandIn) -> None:
    slack.faults.add(method="data_visualization", kind="no_block")


def kinds(slack: SlackStandIn) -> list[list[str]]:
    """The types of the blocks of each message in the channel."""
    return [[block["type"] for block in one["blocks"]] for one in slack.messages(CHANNEL)]


def calls(slack: SlackStandIn, kind: str) -> int:
    return sum(entry.kind == kind for entry in slack.wire)


def posting(client: AsyncWebClient) -> Callable[[Mapping[str, Any]], Any]:
    return lambda content: call(client.chat_postMessage(channel=CHANNEL, **content))


async def test_slack_draws_what_it_can(slack: SlackStandIn, client: AsyncWebClient) -> None:
    await Charts(client=client, clock=now).send(MESSAGE, posting(client))
    assert kinds(slack) == [["header", "section", "data_visualization"]]
    assert calls(slack, "upload") == 0


async def test_a_workspace_without_charts_gets_a_picture_that_can_be_heard(
    slack: SlackStandIn, client: AsyncWebClient
) -> None:
    lack_charts(slack)
    await Charts(client=client, clock=now).send(MESSAGE, posting(client))
    assert kinds(slack) == [["header", "section", "image"]]
    image = slack.messages(CHANNEL)[0]["blocks"][2]
    assert image["alt_text"] == "Size of orders. It doubled."
    file = slack.workspace.files[image["slack_file"]["id"]]
    assert file.data.startswith(PNG)
    assert file.shared == ()


async def test_it_is_remembered_for_a_while_and_a_picture_is_uploaded_once(
    slack: SlackStandIn, client: AsyncWebClient
) -> None:
    lack_charts(slack)
    clock = [now()]
    sender = Charts(client=client, clock=lambda: clock[0])
    for _ in range(2):
        await sender.send(MESSAGE, posting(client))
    assert calls(slack, "upload") == 1
    assert calls(slack, "chat.postMessage") == 3
    slack.faults.clear()
    clock[0] += charts.NATIVE_AGAIN
    await sender.send(MESSAGE, posting(client))
    assert kinds(slack)[2] == ["header", "section", "data_visualization"]


async def test_a_file_that_slack_has_not_finished_is_tried_again(
    slack: SlackStandIn, client: AsyncWebClient
) -> None:
    lack_charts(slack)
    slack.faults.add(method="chat.postMessage", kind="error", error="invalid_blocks", skip=1)
    await Charts(client=client, clock=now).send(MESSAGE, posting(client))
    assert kinds(slack) == [["header", "section", "image"]]


async def test_a_picture_that_slack_never_takes_leaves_the_words(
    slack: SlackStandIn, client: AsyncWebClient
) -> None:
    lack_charts(slack)
    slack.faults.add(
        method="chat.postMessage", kind="error", error="invalid_blocks", skip=1, times=2
    )
    await Charts(client=client, clock=now).send(MESSAGE, posting(client))
    assert "It doubled." in str(slack.messages(CHANNEL)[0]["blocks"])
    assert kinds(slack) == [["header", "section", "section"]]


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        ("files.getUploadURLExternal", "500"),
        ("files.getUploadURLExternal", "429"),
        ("upload", "drop_before"),
        ("upload", "500"),
        ("files.completeUploadExternal", "drop_before"),
    ],
)
async def test_without_a_picture_there_are_words(
    slack: SlackStandIn, client: AsyncWebClient, method: str, kind: str
) -> None:
    lack_charts(slack)
    slack.faults.add(method=method, kind=kind)
    sender = Charts(client=client, clock=now)
    for _ in range(2):
        await sender.send(MESSAGE, posting(client))
    assert kinds(slack) == [["header", "section", "section"]] * 2
    assert calls(slack, "files.getUploadURLExternal") == 1


async def test_what_cannot_be_drawn_is_said(
    slack: SlackStandIn, client: AsyncWebClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(chart: Chart) -> bytes:
        raise ValueError("a font is missing")

    monkeypatch.setattr(pictures, "render", broken)
    lack_charts(slack)
    await Charts(client=client, clock=now).send(MESSAGE, posting(client))
    assert kinds(slack) == [["header", "section", "section"]]


async def test_drawing_and_sending_have_a_limit(
    slack: SlackStandIn, client: AsyncWebClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(charts, "PICTURES_MAX", timedelta(milliseconds=50))
    lack_charts(slack)
    slack.faults.add(method="upload", kind="slow", seconds=0.5)
    await Charts(client=client, clock=now).send(MESSAGE, posting(client))
    assert kinds(slack) == [["header", "section", "section"]]


async def test_a_picture_that_is_too_large_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "PICTURE_BYTES_MAX", 5)
    with pytest.raises(PictureError, match="too many"):
        await pictures.drawn(CHART)


async def test_another_refusal_is_nobody_elses_business(
    slack: SlackStandIn, client: AsyncWebClient
) -> None:
    slack.faults.add(method="chat.postMessage", kind="error", error="channel_not_found")
    with pytest.raises(SlackRefusedError, match="channel_not_found"):
        await Charts(client=client, clock=now).send(MESSAGE, posting(client))
    assert slack.messages(CHANNEL) == []
    assert calls(slack, "upload") == 0


async def test_a_workspace_without_the_scope_reads_words(
    session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    import yaml

    raw = yaml.safe_load((Path(__file__).parents[2] / "manifest.yml").read_text())
    scoped(drop="files:write")(raw)
    manifest = tmp_path / "manifest.yml"
    manifest.write_text(yaml.safe_dump(raw))
    slack = await start_slack(manifest=manifest)
    try:
        lack_charts(slack)
        client = web_client(slack.bot_token, base_url=slack.api_url, session=session)
        await Charts(client=client, clock=now).send(MESSAGE, posting(client))
        assert kinds(slack) == [["header", "section", "section"]]
    finally:
        await slack.close()


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        ("chat.postMessage", "drop_after"),
        ("chat.postMessage", "drop_before"),
        ("chat.postMessage", "500"),
        ("files.completeUploadExternal", "drop_after"),
        ("upload", "drop_after"),
    ],
)
async def test_the_outbox_posts_a_chart_once_whatever_is_lost(
    store: Store, slack: SlackStandIn, client: AsyncWebClient, method: str, kind: str
) -> None:
    lack_charts(slack)
    # The first post is refused for its chart; the second is the one that is lost.
    slack.faults.add(method=method, kind=kind, skip=1 if method.startswith("chat") else 0)
    await add(store, "note", "x")
    async with delivering(store, client, Charting()):
        await emptied(store)
        await asyncio.sleep(0.1)
    assert len(kinds(slack)) == 1
    assert kinds(slack)[0][2] in {"image", "section"}


async def test_an_answer_to_one_person_comes_with_a_picture(
    slack: SlackStandIn, client: AsyncWebClient, session: aiohttp.ClientSession
) -> None:
    lack_charts(slack)
    body = {"user": {"id": "U0ANA"}, "channel": {"id": CHANNEL}}
    url = slack._platform.new_hook("U0ANA", CHANNEL)
    replies = Replies(client, session)
    await replies.tell({**body, "response_url": url}, MESSAGE)
    assert calls(slack, "chat.postEphemeral") == 0
    await replies.tell(body, MESSAGE)
    shown = [[block["type"] for block in one["blocks"]] for one in slack.ephemerals("U0ANA")]
    assert shown == [["header", "section", "image"]] * 2


async def test_a_message_without_charts_is_sent_as_it_is(
    slack: SlackStandIn, client: AsyncWebClient
) -> None:
    plain = Message(text="x", blocks=(section("x"),) * 51)
    with pytest.raises(SlackRefusedError, match="invalid_blocks"):
        await Charts(client=client, clock=now).send(plain, posting(client))
    assert calls(slack, "chat.postMessage") == 1
