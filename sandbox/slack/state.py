"""What the page draws: everything that one person sees."""

from __future__ import annotations

from typing import Final

from sandbox.slack.objects import message_object
from sandbox.slack.people import group_object, user_object
from sandbox.slack.platform import Platform
from sandbox.slack.viewstate import view_object
from sandbox.slack.workspace import Channel, Json, Message, View, Workspace

PAGE_MESSAGES_MAX: Final = 500  # per channel; the page is drawn again at every change


def page_state(platform: Platform, user: str) -> Json:
    """The whole page for `user`."""
    mute = platform.manifest.messages_read_only
    workspace, now = platform.workspace, platform.now()
    channels = [c for c in workspace.channels.values() if workspace.sees(user, c)]
    home = workspace.homes.get(user)
    people = [person_object(platform, person_id) for person_id in workspace.people]
    return {
        "version": workspace.changes.version,
        "team": {"id": workspace.team_id, "name": workspace.team_name},
        "me": person_object(platform, user),
        "people": people,
        "channels": [_channel(workspace, c, user, mute_im=mute) for c in channels],
        "commands": [
            {"command": c.name, "description": c.description, "usage_hint": c.usage_hint}
            for c in platform.manifest.commands.values()
        ],
        "shortcuts": [
            {"callback_id": s.callback_id, "name": s.name, "description": s.description}
            for s in platform.manifest.shortcuts.values()
        ],
        "messages": {
            c.id: seen_messages(workspace, c.id, user, most=PAGE_MESSAGES_MAX) for c in channels
        },
        "views": [_view(workspace, view) for view in workspace.stacks.get(user, [])],
        "home": _view(workspace, home) if home else None,
        "app": {
            "id": workspace.app.id,
            "name": workspace.app.name,
            "user_id": workspace.app.user,
        },
        "now": now,
        "faults": platform.faults.as_json(),
        "usergroups": [
            group_object(group, team=workspace.team_id, with_users=True, with_count=True)
            for group in workspace.groups.values()
        ],
    }


def person_object(platform: Platform, user: str) -> Json:
    """A person with e-mail and flags, for the page only."""
    person = platform.workspace.people[user]
    shown = user_object(person, now=platform.now(), with_email=True)
    return {**shown, "flags": person.flags()}


def seen_messages(
    workspace: Workspace,
    channel: str,
    user: str | None,
    *,
    with_metadata: bool = False,
    most: int | None = None,
) -> list[Json]:
    """A channel as `user` sees it, oldest first; None: without anybody's ephemerals.

    `most` keeps the newest ones only.
    """
    found = list(workspace.messages(channel))
    if user is not None:
        found += [m for m in workspace.ephemerals(user) if m.channel == channel]
    found.sort(key=lambda message: message.ts)
    if most is not None:
        found = found[-most:]
    return [_message(workspace, m, user, with_metadata=with_metadata) for m in found]


def _message(
    workspace: Workspace, message: Message, user: str | None, *, with_metadata: bool
) -> Json:
    failed = workspace.failures.get((user or "", message.channel, message.ts))
    shown = message_object(workspace, message, with_metadata=with_metadata)
    return {**shown, "ephemeral": message.only_for is not None, "failed": failed}


def _view(workspace: Workspace, view: View) -> Json:
    return {**view_object(workspace, view), "failed": view.failed}


def _channel(workspace: Workspace, channel: Channel, user: str, *, mute_im: bool) -> Json:
    is_im = bool(channel.im_with)
    other: Json = {"user": workspace.app.user} if is_im else {}
    return {
        **other,
        "id": channel.id,
        "name": workspace.app.name if is_im else channel.name,
        "topic": channel.topic,
        "is_member": user in channel.members,
        "is_private": channel.private,
        "is_archived": channel.archived,
        "is_ext_shared": channel.ext_shared,
        "is_im": is_im,
        "is_read_only": is_im and mute_im,
        "unread": workspace.unread(user, channel.id),
    }
