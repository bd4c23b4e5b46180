"""views.*: modals and the home tab."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from sandbox.slack.blocks import check_view, too_large, with_ids
from sandbox.slack.call import Call, Method
from sandbox.slack.errors import ApiError
from sandbox.slack.platform import Platform
from sandbox.slack.viewstate import values_of, view_object
from sandbox.slack.workspace import Json, View, Workspace

STACK_MAX: Final = 3


def checked_view(payload: Any, *, kind: str) -> Json:
    """The view as Slack keeps it, with all ids.

    Raises:
        ApiError: `invalid_arguments` with what is wrong, or `view_too_large`.
    """
    if problems := check_view(payload, kind=kind):
        raise ApiError("invalid_arguments", *problems)
    if too_large(payload):
        raise ApiError("view_too_large")
    return {**payload, "blocks": with_ids(payload["blocks"])}


def new_hash() -> str:
    """A hash that no other state of a view has."""
    return f"{secrets.randbelow(10**10)}.{secrets.token_hex(4)}"


def opened(platform: Platform, user: str, payload: Json) -> View:
    """Open a modal; what this person had open of the app's is gone."""
    platform.workspace.stacks[user] = []
    return pushed(platform, user, payload)


def pushed(platform: Platform, user: str, payload: Json) -> View:
    """Put a modal on top of this person's stack; raises `push_limit_reached`."""
    workspace = platform.workspace
    stack = workspace.stacks.setdefault(user, [])
    if len(stack) >= STACK_MAX:
        raise ApiError("push_limit_reached")
    _check_external_id(workspace, payload, but=None)
    view_id = workspace.next_id("V")
    view = View(
        id=view_id,
        user=user,
        payload=payload,
        hash=new_hash(),
        root=stack[0].id if stack else view_id,
        previous=stack[-1].id if stack else None,
        values=values_of(payload["blocks"], {}),
    )
    stack.append(view)
    workspace.changes.bump()
    return view


def updated(workspace: Workspace, view: View, payload: Json) -> View:
    """Give a view new content; what people entered in blocks that stay is kept."""
    _check_external_id(workspace, payload, but=view.id)
    values = values_of(payload["blocks"], view.values)
    return workspace.replace_view(
        replace(view, payload=payload, hash=new_hash(), values=values, failed=None)
    )


def _check_external_id(workspace: Workspace, payload: Json, *, but: str | None) -> None:
    wanted = payload.get("external_id")
    for view in workspace.views():
        if wanted and view.id != but and view.payload.get("external_id") == wanted:
            raise ApiError("duplicate_external_id")


def _payload(call: Call, kind: str) -> Json:
    return checked_view(call.structure("view", code="invalid_arguments"), kind=kind)


def _open(call: Call) -> Json:
    trigger_id = call.text("trigger_id")
    payload = _payload(call, "modal")
    trigger = call.platform.use_trigger(trigger_id)
    view = opened(call.platform, trigger.user, payload)
    return {"view": view_object(call.workspace, view)}


def _push(call: Call) -> Json:
    trigger_id = call.text("trigger_id")
    payload = _payload(call, "modal")
    trigger = call.platform.use_trigger(trigger_id)
    if trigger.view is None or not call.workspace.stacks.get(trigger.user):
        raise ApiError("invalid_trigger_id")
    view = pushed(call.platform, trigger.user, payload)
    return {"view": view_object(call.workspace, view)}


def _find(call: Call) -> View:
    external = call.optional("external_id")
    wanted = call.optional("view_id")
    if not external and not wanted:
        raise ApiError("invalid_arguments", "[ERROR] missing required field: view_id")
    for view in call.workspace.views():
        if view.id == wanted or (external and view.payload.get("external_id") == external):
            return view
    raise ApiError("not_found")


def _update(call: Call) -> Json:
    view = _find(call)
    payload = _payload(call, view.payload["type"])
    expected = call.optional("hash")
    if expected is not None and expected != view.hash:
        raise ApiError("hash_conflict")
    return {"view": view_object(call.workspace, updated(call.workspace, view, payload))}


def _publish(call: Call) -> Json:
    if not call.platform.manifest.home_tab:
        raise ApiError("not_enabled")
    user = call.text("user_id")
    workspace = call.workspace
    if user not in workspace.people:
        raise ApiError("invalid_arguments", "[ERROR] unknown user [json-pointer:/user_id]")
    payload = _payload(call, "home")
    old, expected = workspace.homes.get(user), call.optional("hash")
    if expected is not None and (old is None or expected != old.hash):
        raise ApiError("hash_conflict")
    if old is not None:
        return {"view": view_object(workspace, updated(workspace, old, payload))}
    view_id = workspace.next_id("V")
    values = values_of(payload["blocks"], {})
    view = View(
        id=view_id, user=user, payload=payload, hash=new_hash(), root=view_id, values=values
    )
    workspace.homes[user] = view
    workspace.changes.bump()
    return {"view": view_object(workspace, view)}


METHODS: Final[Mapping[str, Method]] = {
    "views.open": Method(run=_open, tier=4),
    "views.push": Method(run=_push, tier=4),
    "views.update": Method(run=_update, tier=4),
    "views.publish": Method(run=_publish, tier=4),
}
