"""chat.*: posting, changing and deleting messages."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from sandbox.slack.blocks import check_blocks, with_ids
from sandbox.slack.call import POST, Call, Method
from sandbox.slack.errors import ApiError
from sandbox.slack.objects import message_object
from sandbox.slack.platform import Platform
from sandbox.slack.workspace import Channel, Json, Message

TEXT_CHARS_MAX: Final = 40_000
METADATA_BYTES_MAX: Final = 8_000


def content(call: Call, *, must: bool = True) -> Json:
    """Text, blocks and attachments of a message, checked.

    Raises:
        ApiError: `no_text`, `msg_too_long`, `invalid_blocks` and the like.
    """
    text = call.optional("text")
    blocks = call.structure("blocks", code="invalid_blocks_format")
    attachments = call.objects("attachments", code="invalid_attachments")
    if must and not text and not blocks and not attachments:
        raise ApiError("no_text")
    if text and len(text) > TEXT_CHARS_MAX:
        raise ApiError("msg_too_long")
    found: Json = {"text": text or ""} if text is not None or must else {}
    if blocks is not None:
        found["blocks"] = tuple(checked_blocks(blocks, call.platform))
    if attachments is not None:
        found["attachments"] = tuple(attachments)
    return found


def checked_blocks(blocks: Any, platform: Platform) -> list[Json]:
    """The blocks of a message with all ids; raises `invalid_blocks`."""
    if not isinstance(blocks, list):
        raise ApiError("invalid_blocks_format")
    problems = check_blocks(blocks, surface="message") or list(_not_here(blocks, platform))
    if problems:
        bare = [problem.removeprefix("[ERROR] ") for problem in problems]
        raise ApiError("invalid_blocks", *problems, errors=bare)
    return with_ids(blocks)


def _not_here(blocks: list[Json], platform: Platform) -> Iterator[str]:
    """What is right in itself, but this workspace has no such block or no such file."""
    missing = platform.faults.missing_blocks()
    for index, block in enumerate(blocks):
        if block["type"] in missing:
            yield f"[ERROR] unsupported type: {block['type']} [json-pointer:/blocks/{index}/type]"
        file_id = (block.get("slack_file") or {}).get("id") if block["type"] == "image" else None
        if file_id and file_id not in platform.workspace.files:
            yield f"[ERROR] invalid slack file [json-pointer:/blocks/{index}/slack_file]"


def metadata(call: Call) -> Json | None:
    """The message's metadata, checked; None when there is none."""
    value = call.structure("metadata", code="invalid_metadata_format")
    if value is None:
        return None
    if (
        not isinstance(value, dict)
        or not isinstance(value.get("event_type"), str)
        or not isinstance(value.get("event_payload"), dict)
        or set(value) - {"event_type", "event_payload", "entities"}
    ):
        raise ApiError("invalid_metadata_format")
    if len(json.dumps(value).encode()) > METADATA_BYTES_MAX:
        raise ApiError("metadata_too_large")
    return value


def thread(call: Call, channel: Channel) -> str | None:
    """The thread to post into; raises `thread_not_found`."""
    ts = call.optional("thread_ts")
    if ts is None:
        return None
    root = call.workspace.find(channel.id, ts)
    if root is None:
        raise ApiError("thread_not_found")
    if root.thread_ts:
        raise ApiError("cannot_reply_to_message")
    return ts


def destination(call: Call) -> Channel:
    """The channel to post to; a person's id means the direct messages with them."""
    wanted = call.text("channel", missing="channel_not_found").lstrip("#")
    workspace = call.workspace
    if person := workspace.people.get(wanted):
        if person.bot:
            raise ApiError("cannot_dm_bot")
        if person.deactivated or person.external:
            raise ApiError("channel_not_found")
        return workspace.im(wanted)
    by_name = (c for c in workspace.channels.values() if c.name == wanted and wanted)
    channel = workspace.channels.get(wanted) or next(by_name, None)
    return writable(call, channel)


def writable(call: Call, channel: Channel | None) -> Channel:
    """The channel, if the app may post there; raises what Slack would answer."""
    member = channel is not None and call.workspace.app.user in channel.members
    if channel is None or (channel.private and not member):
        raise ApiError("channel_not_found")
    if channel.im_with and not call.platform.manifest.messages_tab:
        raise ApiError("messages_tab_disabled")
    if channel.archived:
        raise ApiError("is_archived")
    if not member and not call.granted("chat:write.public"):
        raise ApiError("not_in_channel")
    return channel


def _post(call: Call) -> Json:
    channel = destination(call)
    message = Message(
        channel=channel.id,
        ts=call.platform.next_ts(),
        user=call.workspace.app.user,
        thread_ts=thread(call, channel),
        broadcast=call.flag("reply_broadcast"),
        metadata=metadata(call),
        **content(call),
    )
    call.workspace.put(message)
    shown = message_object(call.workspace, message, with_metadata=True)
    return {"channel": channel.id, "ts": message.ts, "message": shown}


def _post_ephemeral(call: Call) -> Json:
    channel = destination(call)
    user = call.text("user", missing="user_not_in_channel")
    person = call.workspace.people.get(user)
    if person is None or person.deactivated or user not in channel.members:
        raise ApiError("user_not_in_channel")
    message = Message(
        channel=channel.id,
        ts=call.platform.next_ts(),
        user=call.workspace.app.user,
        thread_ts=thread(call, channel),
        only_for=user,
        **content(call),
    )
    call.workspace.put(message)
    return {"message_ts": message.ts}


def _own(call: Call, *, refused: str) -> Message:
    channel = call.channel()
    message = call.workspace.find(channel.id, call.text("ts", missing="message_not_found"))
    if message is None:
        raise ApiError("message_not_found")
    if message.user != call.workspace.app.user:
        raise ApiError(refused)
    return message


def _update(call: Call) -> Json:
    message = _own(call, refused="cant_update_message")
    if call.workspace.channels[message.channel].archived:
        raise ApiError("is_archived")
    changes = content(call)
    if call.args.get("text") is None:
        changes["text"] = message.text
    if (new := metadata(call)) is not None:
        changes["metadata"] = new
    changed = replace(message, edited=call.platform.next_ts(), **changes)
    call.workspace.put(changed)
    shown = message_object(call.workspace, changed, with_metadata=True)
    return {
        "channel": message.channel,
        "ts": message.ts,
        "text": changed.text,
        "message": shown,
    }


def _delete(call: Call) -> Json:
    message = _own(call, refused="cant_delete_message")
    call.workspace.drop(message)
    return {"channel": message.channel, "ts": message.ts}


def _permalink(call: Call) -> Json:
    channel = call.channel()
    ts = call.text("message_ts", missing="message_not_found")
    if call.workspace.find(channel.id, ts) is None:
        raise ApiError("message_not_found")
    link = f"https://acme.slack.example/archives/{channel.id}/p{ts.replace('.', '')}"
    return {"channel": channel.id, "permalink": link}


METHODS: Final[Mapping[str, Method]] = {
    "chat.postMessage": Method(run=_post, scope="chat:write", tier=POST),
    "chat.postEphemeral": Method(run=_post_ephemeral, scope="chat:write", tier=4),
    "chat.update": Method(run=_update, scope="chat:write", tier=3),
    "chat.delete": Method(run=_delete, scope="chat:write", tier=3),
    "chat.getPermalink": Method(run=_permalink, tier=4),
}
