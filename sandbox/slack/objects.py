"""Slack's objects for messages, channels and files, as its API shows them. Pure."""

from __future__ import annotations

from sandbox.slack.workspace import Channel, File, Json, Message, Workspace


def message_object(workspace: Workspace, message: Message, *, with_metadata: bool = False) -> Json:
    """A message, with what its thread has grown to."""
    wire: Json = {
        "type": "message",
        "user": message.user,
        "ts": message.ts,
        "text": message.text,
        "team": workspace.team_id,
    }
    if message.user == workspace.app.user:
        wire |= {"bot_id": workspace.app.bot, "app_id": workspace.app.id}
        wire["bot_profile"] = _bot_profile(workspace)
    if message.blocks:
        wire["blocks"] = list(message.blocks)
    if message.attachments:
        wire["attachments"] = list(message.attachments)
    if message.edited:
        wire["edited"] = {"user": message.user, "ts": message.edited}
    if message.reactions:
        wire["reactions"] = [
            {"name": name, "users": list(users), "count": len(users)}
            for name, users in message.reactions
        ]
    if message.files:
        found = (workspace.files.get(file_id) for file_id in message.files)
        wire["files"] = [file_object(workspace, file) for file in found if file]
    if with_metadata and message.metadata:
        wire["metadata"] = message.metadata
    return wire | _thread(workspace, message)


def _thread(workspace: Workspace, message: Message) -> Json:
    if message.thread_ts:
        root = workspace.find(message.channel, message.thread_ts)
        parent: Json = {"parent_user_id": root.user} if root else {}
        if message.broadcast:
            parent["subtype"] = "thread_broadcast"
        return {"thread_ts": message.thread_ts, **parent}
    if message.only_for or not (replies := workspace.replies(message.channel, message.ts)):
        return {}
    users = list(dict.fromkeys(reply.user for reply in replies))
    return {
        "thread_ts": message.ts,
        "reply_count": len(replies),
        "reply_users": users[:5],
        "reply_users_count": len(users),
        "latest_reply": replies[-1].ts,
        "is_locked": False,
        "subscribed": False,
    }


def _bot_profile(workspace: Workspace) -> Json:
    app = workspace.app
    return {
        "id": app.bot,
        "app_id": app.id,
        "user_id": app.user,
        "name": app.name,
        "team_id": workspace.team_id,
        "deleted": False,
    }


def channel_object(workspace: Workspace, channel: Channel) -> Json:
    """A conversation, as the app sees it."""
    wire: Json = {
        "id": channel.id,
        "created": 1_700_000_000,
        "is_archived": channel.archived,
        "is_im": bool(channel.im_with),
        "is_org_shared": False,
        "context_team_id": workspace.team_id,
    }
    if channel.im_with:
        person = workspace.people.get(channel.im_with)
        gone = bool(person and person.deactivated)
        return wire | {"user": channel.im_with, "is_user_deleted": gone, "is_open": True}
    return wire | {
        "name": channel.name,
        "name_normalized": channel.name,
        "is_channel": not channel.private,
        "is_group": channel.private,
        "is_mpim": False,
        "is_private": channel.private,
        "is_general": channel.name == "general",
        "is_member": workspace.app.user in channel.members,
        "is_shared": channel.ext_shared,
        "is_ext_shared": channel.ext_shared,
        "is_pending_ext_shared": False,
        "creator": "U0DORA",
        "topic": {"value": channel.topic, "creator": "", "last_set": 0},
        "purpose": {"value": "", "creator": "", "last_set": 0},
        "num_members": len(channel.members),
    }


def file_object(workspace: Workspace, file: File) -> Json:
    """A file; the app fetches it with its token, the page from its permalink."""
    team = workspace.team_id
    private = f"{workspace.url}/files-pri/{team}-{file.id}"
    return {
        "id": file.id,
        "created": file.created,
        "timestamp": file.created,
        "name": file.name,
        "title": file.title,
        "mimetype": file.mimetype,
        "filetype": file.name.rpartition(".")[2],
        "user": file.user,
        "user_team": team,
        "size": len(file.data),
        "mode": "hosted",
        "is_external": False,
        "is_public": True,
        "url_private": f"{private}/{file.name}",
        "url_private_download": f"{private}/download/{file.name}",
        "permalink": f"{workspace.url}/ui/file/{file.id}",
        "channels": list(file.shared),
    }
