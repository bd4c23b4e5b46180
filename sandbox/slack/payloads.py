"""What Slack sends to an app when somebody does something. Pure."""

from __future__ import annotations

import html
import re
from typing import Any

from sandbox.slack.elements import VALUE_FIELDS
from sandbox.slack.people import Person
from sandbox.slack.workspace import Channel, Json, Workspace

_MENTION = re.compile(r"&lt;(@U\w+|#C\w+)&gt;|(?<![\w&;])([@#])([a-z0-9][a-z0-9._-]*)")


def command_payload(
    workspace: Workspace,
    *,
    person: Person,
    channel: Channel,
    command: str,
    text: str,
    response_url: str,
    trigger_id: str,
) -> Json:
    """The fields of a slash command."""
    return {
        "token": "stand-in",
        "team_id": person.team,
        "team_domain": "acme",
        "channel_id": channel.id,
        "channel_name": channel_name(channel),
        "user_id": person.id,
        "user_name": person.name,
        "command": command,
        "text": text,
        "api_app_id": workspace.app.id,
        "is_enterprise_install": "false",
        "response_url": response_url,
        "trigger_id": trigger_id,
    }


def channel_name(channel: Channel) -> str:
    """The name of a channel as payloads have it."""
    if channel.im_with:
        return "directmessage"
    return "privategroup" if channel.private else channel.name


def escaped(workspace: Workspace, text: str) -> str:
    """The text with `should_escape`: control characters as entities, names as ids."""

    def reference(found: re.Match[str]) -> str:
        given, sign, name = found.groups()
        if given:
            return _by_id(workspace, given) or found.group()
        word = name.rstrip(".-_")
        known = _by_name(workspace, sign, word)
        return known + name[len(word) :] if known else found.group()

    return _MENTION.sub(reference, html.escape(text, quote=False))


def without_labels(text: str) -> str:
    """Mentions as they stand in messages: only slash commands carry the names."""
    return re.sub(r"<(@U\w+)\|[^>]*>", r"<\1>", text)


def _by_id(workspace: Workspace, given: str) -> str | None:
    if person := workspace.people.get(given[1:]):
        return f"<@{person.id}|{person.name}>"
    if channel := workspace.channels.get(given[1:]):
        return f"<#{channel.id}|{channel.name}>"
    return None


def _by_name(workspace: Workspace, sign: str, name: str) -> str | None:
    if sign == "#":
        channels = (c for c in workspace.channels.values() if c.name == name)
        found = next(channels, None)
        return f"<#{found.id}|{found.name}>" if found else None
    for person in workspace.people.values():
        if person.name == name:
            return f"<@{person.id}|{person.name}>"
    for group in workspace.groups.values():
        if group.handle == name:
            return f"<!subteam^{group.id}|@{group.handle}>"
    return None


def _interaction(workspace: Workspace, kind: str, person: Person, trigger_id: str) -> Json:
    return {
        "type": kind,
        "team": {"id": workspace.team_id, "domain": "acme"},
        "user": {
            "id": person.id,
            "username": person.name,
            "name": person.name,
            "team_id": person.team,
        },
        "api_app_id": workspace.app.id,
        "token": "stand-in",
        "trigger_id": trigger_id,
        "enterprise": None,
        "is_enterprise_install": False,
    }


def message_click(
    workspace: Workspace,
    *,
    person: Person,
    channel: Channel,
    message: Json,
    ephemeral: bool,
    action: Json,
    response_url: str,
    trigger_id: str,
) -> Json:
    """`block_actions` from a message."""
    container: Json = {
        "type": "message",
        "message_ts": message["ts"],
        "channel_id": channel.id,
        "is_ephemeral": ephemeral,
    }
    if thread_ts := message.get("thread_ts"):
        container["thread_ts"] = thread_ts
    payload = _interaction(workspace, "block_actions", person, trigger_id) | {
        "container": container,
        "channel": {"id": channel.id, "name": channel_name(channel)},
        "state": {"values": {}},
        "response_url": response_url,
        "actions": [action],
    }
    if not ephemeral:  # of an ephemeral message Slack does not send the content
        payload["message"] = message
    return payload


def view_click(
    workspace: Workspace, *, person: Person, view: Json, action: Json, trigger_id: str
) -> Json:
    """`block_actions` from a modal or the home tab."""
    return _interaction(workspace, "block_actions", person, trigger_id) | {
        "container": {"type": "view", "view_id": view["id"]},
        "view": view,
        "actions": [action],
    }


def shortcut(workspace: Workspace, *, person: Person, callback_id: str, trigger_id: str) -> Json:
    """A global shortcut: it says where nobody was, so there is no channel and no response_url."""
    interaction = _interaction(workspace, "shortcut", person, trigger_id)
    del interaction["api_app_id"]
    return interaction | {"callback_id": callback_id, "action_ts": trigger_id.partition(".")[0]}


def suggestion(
    workspace: Workspace,
    *,
    person: Person,
    container: Json,
    block_id: str,
    action_id: str,
    value: str,
) -> Json:
    """`block_suggestion`: what somebody has typed into an `external_select` so far."""
    payload = _interaction(workspace, "block_suggestion", person, "")
    del payload["trigger_id"]
    return payload | {
        "container": container,
        "block_id": block_id,
        "action_id": action_id,
        "value": value,
    }


def submission(workspace: Workspace, *, person: Person, view: Json, trigger_id: str) -> Json:
    """`view_submission`."""
    return _interaction(workspace, "view_submission", person, trigger_id) | {
        "view": view,
        "response_urls": [],
    }


def closing(workspace: Workspace, *, person: Person, view: Json, is_cleared: bool) -> Json:
    """`view_closed`; it has no trigger_id, as nothing may be opened from it."""
    payload = _interaction(workspace, "view_closed", person, "")
    del payload["trigger_id"]
    return payload | {"view": view, "is_cleared": is_cleared}


def action_of(block: Json, element: Json, *, ts: str, given: Json | None) -> Json:
    """One entry of `actions`; `given` is what was chosen or typed, in Slack's form."""
    action: dict[str, Any] = {
        "action_id": element["action_id"],
        "block_id": block["block_id"],
        "type": element["type"],
        "action_ts": ts,
    }
    if element["type"] == "button":
        for name in ("text", "value", "style", "url"):
            if element.get(name) is not None:
                action[name] = element[name]
        return action
    name = VALUE_FIELDS[element["type"]]
    return {**action, name: (given or {}).get(name)}
