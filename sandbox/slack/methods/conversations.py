"""conversations.* and reactions.*: channels, what was said in them, and who is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from sandbox.slack.call import Call, Method
from sandbox.slack.errors import ApiError
from sandbox.slack.methods.paging import page
from sandbox.slack.objects import channel_object, message_object
from sandbox.slack.workspace import Channel, Json, Message


def _info(call: Call) -> Json:
    channel = call.channel(public_scope="channels:read", private_scope="groups:read")
    return {"channel": channel_object(call.workspace, channel)}


def _list(call: Call) -> Json:
    kinds = (call.optional("types") or "public_channel").split(",")
    scopes = {
        "public_channel": "channels:read",
        "private_channel": "groups:read",
        "im": "im:read",
        "mpim": "mpim:read",
    }
    for kind in kinds:
        if kind not in scopes:
            raise ApiError("invalid_types")
        call.need(scopes[kind])
    hide_archived = call.flag("exclude_archived")
    channels = [
        channel
        for channel in call.workspace.channels.values()
        if _kind(channel) in kinds
        and not (hide_archived and channel.archived)
        and (not channel.private or call.workspace.app.user in channel.members)
    ]
    found, cursor = page(call, channels, default=100, most=1000)
    return {
        "channels": [channel_object(call.workspace, channel) for channel in found],
        "response_metadata": {"next_cursor": cursor},
    }


def _kind(channel: Channel) -> str:
    if channel.im_with:
        return "im"
    return "private_channel" if channel.private else "public_channel"


def _members(call: Call) -> Json:
    channel = call.channel(public_scope="channels:read", private_scope="groups:read")
    found, cursor = page(call, sorted(channel.members), default=100, most=1000)
    return {"members": found, "response_metadata": {"next_cursor": cursor}}


def _readable(call: Call) -> Channel:
    channel = call.channel(public_scope="channels:history", private_scope="groups:history")
    if call.workspace.app.user not in channel.members:
        raise ApiError("not_in_channel")
    return channel


def _page_of(call: Call, messages: list[Message]) -> Json:
    found, cursor = page(call, messages, default=100, most=999)
    with_metadata = call.flag("include_all_metadata")
    body: Json = {
        "messages": [
            message_object(call.workspace, message, with_metadata=with_metadata)
            for message in found
        ],
        "has_more": bool(cursor),
    }
    if cursor:
        body["response_metadata"] = {"next_cursor": cursor}
    return body


def _within(call: Call, ts: str) -> bool:
    oldest, latest = call.optional("oldest"), call.optional("latest")
    try:
        at, first = float(ts), float(oldest or 0)
        last = float(latest) if latest else float("inf")
    except ValueError:
        raise ApiError("invalid_ts_oldest") from None
    if call.flag("inclusive"):
        return first <= at <= last
    return first < at < last


def _history(call: Call) -> Json:
    channel = _readable(call)
    messages = [
        message
        for message in reversed(call.workspace.messages(channel.id))
        if (message.thread_ts is None or message.broadcast) and _within(call, message.ts)
    ]
    return {**_page_of(call, messages), "pin_count": 0}


def _replies(call: Call) -> Json:
    channel = _readable(call)
    root = call.workspace.find(channel.id, call.text("ts", missing="thread_not_found"))
    if root is None:
        raise ApiError("thread_not_found")
    if root.thread_ts:
        return _page_of(call, [root])
    replies = call.workspace.replies(channel.id, root.ts)
    return _page_of(call, [root, *(m for m in replies if _within(call, m.ts))])


def _open(call: Call) -> Json:
    user = call.text("users", missing="users_list_not_supplied")
    person = call.workspace.people.get(user)
    if person is None:
        raise ApiError("user_not_found")
    if person.bot:
        raise ApiError("cannot_dm_bot")
    if person.deactivated:
        raise ApiError("user_disabled")
    channel = call.workspace.im(user)
    body: Json = {"id": channel.id}
    if call.flag("return_im"):
        body = channel_object(call.workspace, channel)
    return {"channel": body}


def _join(call: Call) -> Json:
    channel = call.channel()
    if channel.private:
        raise ApiError("method_not_supported_for_channel_type")
    if channel.archived:
        raise ApiError("is_archived")
    members = channel.members | {call.workspace.app.user}
    joined = call.workspace.set_members(channel.id, members)
    return {"channel": channel_object(call.workspace, joined)}


def _react(call: Call, *, add: bool) -> Json:
    channel = call.channel()
    message = call.workspace.find(channel.id, call.text("timestamp", missing="message_not_found"))
    if message is None:
        raise ApiError("message_not_found")
    name = call.text("name", missing="invalid_name").strip(":")
    reactions = dict(message.reactions)
    users = reactions.get(name, ())
    me = call.workspace.app.user
    if (me in users) is add:
        raise ApiError("already_reacted" if add else "no_reaction")
    reactions[name] = (*users, me) if add else tuple(user for user in users if user != me)
    kept = tuple((key, value) for key, value in reactions.items() if value)
    call.workspace.put(replace(message, reactions=kept))
    return {}


METHODS: Final[Mapping[str, Method]] = {
    "conversations.info": Method(run=_info, tier=3),
    "conversations.list": Method(run=_list, tier=2),
    "conversations.members": Method(run=_members, tier=4),
    "conversations.history": Method(run=_history, tier=3),
    "conversations.replies": Method(run=_replies, tier=3),
    "conversations.open": Method(run=_open, scope="im:write", tier=3),
    "conversations.join": Method(run=_join, scope="channels:join", tier=3),
    "reactions.add": Method(
        run=lambda call: _react(call, add=True), scope="reactions:write", tier=3
    ),
    "reactions.remove": Method(
        run=lambda call: _react(call, add=False), scope="reactions:write", tier=2
    ),
}
