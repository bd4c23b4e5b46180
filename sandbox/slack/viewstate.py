"""Views: the object that Slack shows of one, and what people have entered in it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sandbox.slack.blocks import elements_of
from sandbox.slack.elements import VALUE_FIELDS
from sandbox.slack.initials import number_problem
from sandbox.slack.workspace import Json, View, Workspace

REQUIRED: Final = "Please complete this required field."
_INITIAL: Final[Mapping[str, str]] = {
    "value": "initial_value",
    "selected_option": "initial_option",
    "selected_options": "initial_options",
    "selected_user": "initial_user",
    "selected_users": "initial_users",
    "selected_channel": "initial_channel",
    "selected_conversation": "initial_conversation",
    "selected_date": "initial_date",
    "selected_time": "initial_time",
    "selected_date_time": "initial_date_time",
}
VALUE_KEYS: Final = frozenset(_INITIAL)
_DEFAULTS: Final[Mapping[str, Any]] = {
    "private_metadata": "",
    "callback_id": "",
    "external_id": "",
    "submit": None,
    "close": None,
    "title": None,
    "clear_on_close": False,
    "notify_on_close": False,
}


def values_of(blocks: list[Json], entered: Json) -> Json:
    """`state.values` of these blocks: what was entered, else what the app proposed."""
    values: Json = {}
    for block in blocks:
        for element in elements_of(block):
            name = VALUE_FIELDS.get(element["type"])
            if name is None or element["type"] == "overflow":
                continue
            block_id, action_id = block["block_id"], element["action_id"]
            before = entered.get(block_id, {}).get(action_id)
            if before is None or before.get("type") != element["type"]:
                before = {"type": element["type"], name: _initial(element, name)}
            values.setdefault(block_id, {})[action_id] = before
    return values


def _initial(element: Json, name: str) -> Any:
    value = element.get(_INITIAL[name])
    return [] if value is None and name.endswith("s") else value


def read_value(element: Json, given: Any) -> Json:
    """What somebody entered, in the form of `state.values`.

    `given` is that form already, or just the value: text, or the value of an option.
    """
    kind = element["type"]
    name = VALUE_FIELDS[kind]
    if isinstance(given, Mapping):
        return {"type": kind, name: given.get(name)}
    if name == "selected_option":
        return {"type": kind, name: _option(element, given)}
    if name == "selected_options":
        return {"type": kind, name: [_option(element, one) for one in given]}
    return {"type": kind, name: given}


def _option(element: Json, value: str) -> Json:
    groups = element.get("option_groups") or [{"options": element.get("options", [])}]
    for group in groups:
        for option in group["options"]:
            if option["value"] == value:
                return dict(option)
    raise LookupError(f"{value!r} is no option of {element['action_id']}")


def complaints(blocks: list[Json], values: Json) -> dict[str, str]:
    """What Slack's own client refuses before it asks the app: by block_id."""
    found: dict[str, str] = {}
    for block in blocks:
        if block["type"] != "input":
            continue
        element = block["element"]
        entry = values.get(block["block_id"], {}).get(element["action_id"], {})
        value = entry.get(VALUE_FIELDS[element["type"]])
        if value in (None, "", []):
            if not block.get("optional"):
                found[block["block_id"]] = REQUIRED
        elif isinstance(value, str) and (problem := _problem(element, value)):
            found[block["block_id"]] = problem
    return found


def _problem(element: Json, value: str) -> str | None:
    if element["type"] == "number_input":
        return number_problem(element, value)
    return _length_problem(element, value) if element["type"] == "plain_text_input" else None


def _length_problem(element: Json, value: str) -> str | None:
    least, most = element.get("min_length", 0), element.get("max_length", 3000)
    if len(value) < least:
        return f"Please enter at least {least} characters."
    if len(value) > most:
        return f"Please enter at most {most} characters."
    return None


def view_object(workspace: Workspace, view: View) -> Json:
    """Slack's view object."""
    payload = {key: value for key, value in view.payload.items() if value is not None}
    return {
        **_DEFAULTS,
        **payload,
        "id": view.id,
        "team_id": workspace.team_id,
        "state": {"values": view.values},
        "hash": view.hash,
        "previous_view_id": view.previous,
        "root_view_id": view.root,
        "app_id": workspace.app.id,
        "app_installed_team_id": workspace.team_id,
        "bot_id": workspace.app.bot,
    }
