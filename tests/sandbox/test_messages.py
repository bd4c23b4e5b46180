"""chat.*, conversations.* and reactions.*, through the SDK."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from sandbox.slack.server import SlackStandIn
from tests.sandbox.support import actions, client_of, scoped, section

OPS = "C0DBOPS"
META = {"event_type": "twokey", "event_payload": {"request_id": 7}}


async def refusal(work: Any) -> SlackApiError:
    """The error that the SDK raises."""
    with pytest.raises(SlackApiError) as caught:
        await work
    return caught.value


async def test_a_posted_message_stands_in_the_channel(
    slack: SlackStandIn, client: AsyncWebClient
) -> None:
    posted = await client.chat_postMessage(channel=OPS, text="hello", blocks=[section()])
    (message,) = slack.messages(OPS)
    assert message["ts"] == posted["ts"]
    assert message["bot_id"] == "B0TWOKEY"
    assert message["blocks"][0]["block_id"]


async def test_timestamps_are_unique_and_ascending(
    slack: SlackStandIn, client: AsyncWebClient
) -> None:
    stamps = [(await client.chat_postMessage(channel=OPS, text="x"))["ts"] for _ in range(5)]
    assert stamps == sorted(set(stamps))


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"channel": "C0NONE", "text": "x"}, "channel_not_found"),
        ({"channel": "C0SECRET", "text": "x"}, "channel_not_found"),
        ({"channel": "C0GENERAL", "text": "x"}, "not_in_channel"),
        ({"channel": "C0OLD", "text": "x"}, "is_archived"),
        ({"channel": OPS, "text": "x" * 40_001}, "msg_too_long"),
        ({"channel": OPS, "text": "x", "thread_ts": "1.000001"}, "thread_not_found"),
        ({"channel": OPS, "text": "x", "blocks": [{"type": "no"}]}, "invalid_blocks"),
        ({"channel": OPS, "text": "x", "metadata": {"a": 1}}, "invalid_metadata_format"),
        ({"channel": "U0DEE", "text": "x"}, "channel_not_found"),
        ({"channel": "U0HAL", "text": "x"}, "cannot_dm_bot"),
    ],
)
async def test_what_posting_refuses(
    slack: SlackStandIn, client: AsyncWebClient, arguments: dict[str, Any], code: str
) -> None:
    error = await refusal(client.chat_postMessage(**arguments))
    assert error.response["error"] == code
    assert error.response.status_code == 200
    assert not slack.messages(OPS)


@pytest.mark.filterwarnings("ignore:The top-level .text. argument:UserWarning")
async def test_a_message_without_anything_to_show_is_refused(client: AsyncWebClient) -> None:
    error = await refusal(client.chat_postMessage(channel=OPS, text=""))
    assert error.response["error"] == "no_text"


async def test_chat_write_public_posts_without_being_in_the_channel(
    granting: Callable[..., Any],
) -> None:
    slack = await granting(scoped("chat:write.public"))
    await client_of(slack).chat_postMessage(channel="C0GENERAL", text="hello")
    assert len(slack.messages("C0GENERAL")) == 1


async def test_a_persons_id_means_the_direct_messages_with_them(
    slack: SlackStandIn, client: AsyncWebClient
) -> None:
    posted = await client.chat_postMessage(channel="U0ANA", text="for you")
    assert posted["channel"] == "D0ANA"
    assert [m["text"] for m in slack.direct("U0ANA")] == ["for you"]


async def test_replies_are_counted_at_the_root(slack: SlackStandIn, client: AsyncWebClient) -> None:
    root = (await client.chat_postMessage(channel=OPS, text="root"))["ts"]
    reply = (await client.chat_postMessage(channel=OPS, text="1", thread_ts=root))["ts"]
    first = slack.messages(OPS)[0]
    assert (first["reply_count"], first["latest_reply"]) == (1, reply)
    error = await refusal(client.chat_postMessage(channel=OPS, text="2", thread_ts=reply))
    assert error.response["error"] == "cannot_reply_to_message"


async def test_an_update_replaces_and_marks_as_edited(
    slack: SlackStandIn, client: AsyncWebClient
) -> None:
    ts = (
        await client.chat_postMessage(channel=OPS, text="old", blocks=[actions()], metadata=META)
    )["ts"]
    await client.chat_update(channel=OPS, ts=ts, text="new", blocks=[section()])
    (message,) = slack.messages(OPS)
    assert (message["text"], message["blocks"][0]["type"]) == ("new", "section")
    assert message["edited"]["user"] == "U0TWOKEY"
    assert message["metadata"] == META


async def test_an_update_without_blocks_keeps_them(
    slack: SlackStandIn, client: AsyncWebClient
) -> None:
    ts = (await client.chat_postMessage(channel=OPS, text="a", blocks=[section()]))["ts"]
    await client.chat_update(channel=OPS, ts=ts, text="b")
    assert slack.messages(OPS)[0]["blocks"]


async def test_only_own_messages_can_be_changed_or_deleted(
    slack: SlackStandIn, client: AsyncWebClient
) -> None:
    ts = (await slack.say("U0ANA", OPS, "mine"))["ts"]
    error = await refusal(client.chat_update(channel=OPS, ts=ts, text="yours"))
    assert error.response["error"] == "cant_update_message"
    error = await refusal(client.chat_delete(channel=OPS, ts=ts))
    assert error.response["error"] == "cant_delete_message"
    error = await refusal(client.chat_update(channel=OPS, ts="1.000001", text="x"))
    assert error.response["error"] == "message_not_found"


async def test_a_deleted_message_is_gone(slack: SlackStandIn, client: AsyncWebClient) -> None:
    ts = (await client.chat_postMessage(channel=OPS, text="x"))["ts"]
    await client.chat_delete(channel=OPS, ts=ts)
    assert not slack.messages(OPS)


async def test_an_ephemeral_is_seen_by_one_person_and_not_in_the_history(
    slack: SlackStandIn, client: AsyncWebClient
) -> None:
    sent = await client.chat_postEphemeral(channel=OPS, user="U0ANA", text="psst")
    assert [m["ts"] for m in slack.ephemerals("U0ANA")] == [sent["message_ts"]]
    assert not slack.messages(OPS, as_user="U0BEN")
    assert slack.messages(OPS, as_user="U0ANA")[0]["ephemeral"] is True
    assert not (await client.conversations_history(channel=OPS))["messages"]


@pytest.mark.parametrize(
    ("channel", "user"), [(OPS, "U0NOBODY"), (OPS, "U0DEE"), ("C0SHARED", "U0CLEO")]
)
async def test_an_ephemeral_needs_a_member(client: AsyncWebClient, channel: str, user: str) -> None:
    error = await refusal(client.chat_postEphemeral(channel=channel, user=user, text="x"))
    assert error.response["error"] == "user_not_in_channel"


async def test_metadata_comes_back_only_when_asked_for(client: AsyncWebClient) -> None:
    await client.chat_postMessage(channel=OPS, text="x", metadata=META)
    plain = await client.conversations_history(channel=OPS)
    assert "metadata" not in plain["messages"][0]
    full = await client.conversations_history(channel=OPS, include_all_metadata=True)
    assert full["messages"][0]["metadata"] == META


async def test_history_is_newest_first_without_replies_and_in_pages(
    client: AsyncWebClient,
) -> None:
    root = (await client.chat_postMessage(channel=OPS, text="1"))["ts"]
    await client.chat_postMessage(channel=OPS, text="reply", thread_ts=root)
    await client.chat_postMessage(channel=OPS, text="2")
    first = await client.conversations_history(channel=OPS, limit=1)
    assert [m["text"] for m in first["messages"]] == ["2"]
    cursor = first["response_metadata"]["next_cursor"]
    second = await client.conversations_history(channel=OPS, limit=1, cursor=cursor)
    assert [m["text"] for m in second["messages"]] == ["1"]
    assert second["has_more"] is False
    after = await client.conversations_history(channel=OPS, oldest=root)
    assert [m["text"] for m in after["messages"]] == ["2"]
    thread = await client.conversations_replies(channel=OPS, ts=root)
    assert [m["text"] for m in thread["messages"]] == ["1", "reply"]


async def test_a_cursor_that_slack_never_gave_is_refused(client: AsyncWebClient) -> None:
    error = await refusal(client.conversations_history(channel=OPS, cursor="nonsense"))
    assert error.response["error"] == "invalid_cursor"


async def test_history_of_a_channel_without_the_app_is_refused(client: AsyncWebClient) -> None:
    error = await refusal(client.conversations_history(channel="C0GENERAL"))
    assert error.response["error"] == "not_in_channel"


async def test_channels_say_whether_they_are_shared_with_another_company(
    client: AsyncWebClient,
) -> None:
    shared = await client.conversations_info(channel="C0SHARED")
    assert shared["channel"]["is_ext_shared"] is True
    ours = await client.conversations_info(channel=OPS)
    assert ours["channel"]["is_ext_shared"] is False
    listed = await client.conversations_list(exclude_archived=True)
    assert "C0OLD" not in {channel["id"] for channel in listed["channels"]}
    members = await client.conversations_members(channel="C0SHARED")
    assert "U0EVE" in members["members"]


async def test_reactions_come_once_and_go_once(granting: Callable[..., Any]) -> None:
    slack = await granting(scoped("reactions:write"))
    client = client_of(slack)
    ts = (await client.chat_postMessage(channel=OPS, text="x"))["ts"]
    await client.reactions_add(channel=OPS, timestamp=ts, name="eyes")
    assert slack.messages(OPS)[0]["reactions"][0]["count"] == 1
    error = await refusal(client.reactions_add(channel=OPS, timestamp=ts, name="eyes"))
    assert error.response["error"] == "already_reacted"
    await client.reactions_remove(channel=OPS, timestamp=ts, name="eyes")
    error = await refusal(client.reactions_remove(channel=OPS, timestamp=ts, name="eyes"))
    assert error.response["error"] == "no_reaction"
