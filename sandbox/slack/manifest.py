"""The app's manifest: what Slack would refuse in it, and what it grants. Pure but for `load`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

Json = dict[str, Any]

SCOPES: Final = frozenset(
    {
        "app_mentions:read",
        "channels:history",
        "channels:join",
        "channels:read",
        "chat:write",
        "chat:write.public",
        "commands",
        "files:read",
        "files:write",
        "groups:history",
        "groups:read",
        "im:history",
        "im:read",
        "im:write",
        "pins:write",
        "reactions:read",
        "reactions:write",
        "team:read",
        "usergroups:read",
        "users:read",
        "users:read.email",
    }
)

# An event that can be subscribed to, and the scope without which Slack would not send it.
EVENT_SCOPES: Final[Mapping[str, str | None]] = {
    "app_home_opened": None,
    "app_mention": "app_mentions:read",
    "app_uninstalled": None,
    "message.channels": "channels:history",
    "message.groups": "groups:history",
    "message.im": "im:history",
    "reaction_added": "reactions:read",
    "reaction_removed": "reactions:read",
    "subteam_created": "usergroups:read",
    "subteam_members_changed": "usergroups:read",
    "subteam_updated": "usergroups:read",
    "team_join": "users:read",
    "tokens_revoked": None,
    "user_change": "users:read",
}

SHORTCUTS_MAX: Final = 10
_TOP: Final = frozenset(
    {"_metadata", "display_information", "features", "oauth_config", "settings", "functions"}
)
_COMMAND: Final = re.compile(r"/[a-z0-9_\-.]{1,31}")


class ManifestError(Exception):
    """Slack would not take this manifest; the message lists every reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A slash command."""

    name: str
    description: str
    usage_hint: str
    should_escape: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortcut:
    """A global shortcut: an entry of Slack's own menu, wherever one is."""

    callback_id: str
    name: str
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What the app is, what it may do, and what it is told."""

    name: str
    bot_name: str
    scopes: tuple[str, ...]
    commands: Mapping[str, Command]
    events: frozenset[str]
    interactive: bool
    home_tab: bool
    messages_tab: bool
    messages_read_only: bool
    shortcuts: Mapping[str, Shortcut] = field(default_factory=dict)


def load(path: Path) -> Manifest:
    """The manifest in a YAML file.

    Raises:
        ManifestError: Slack would refuse it, and why.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ManifestError(f"{path.name} is no YAML: {error}") from None
    return parse(raw)


def parse(raw: Any) -> Manifest:
    """The manifest in parsed form. Raises `ManifestError` as `load` does."""
    if not isinstance(raw, dict):
        raise ManifestError("A manifest is a mapping.")
    if problems := check(raw):
        raise ManifestError("\n".join(problems))
    features, settings = raw.get("features", {}), raw.get("settings", {})
    home = features.get("app_home", {})
    commands = [_command(entry) for entry in features.get("slash_commands", [])]
    return Manifest(
        name=raw["display_information"]["name"],
        bot_name=features.get("bot_user", {}).get("display_name", ""),
        scopes=tuple(_at(raw, "oauth_config", "scopes", "bot") or ()),
        commands={command.name: command for command in commands},
        events=frozenset(_at(settings, "event_subscriptions", "bot_events") or ()),
        interactive=bool(_at(settings, "interactivity", "is_enabled")),
        home_tab=bool(home.get("home_tab_enabled")),
        messages_tab=bool(home.get("messages_tab_enabled")),
        messages_read_only=bool(home.get("messages_tab_read_only_enabled")),
        shortcuts={
            entry["callback_id"]: Shortcut(
                callback_id=entry["callback_id"],
                name=entry["name"],
                description=entry["description"],
            )
            for entry in features.get("shortcuts", [])
            if entry["type"] == "global"
        },
    )


def check(raw: Json) -> list[str]:
    """Every reason why Slack would refuse this manifest, or silently not do what it asks."""
    problems = [f"{key} is no part of a manifest" for key in sorted(set(raw) - _TOP)]
    problems += _check_information(raw.get("display_information") or {})
    problems += _check_features(raw)
    problems += _check_scopes(raw)
    problems += _check_settings(raw)
    return problems


def _command(entry: Json) -> Command:
    return Command(
        name=entry["command"],
        description=entry["description"],
        usage_hint=entry.get("usage_hint", ""),
        should_escape=bool(entry.get("should_escape", False)),
    )


def _at(value: Any, *path: str) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _length(value: object, name: str, most: int, least: int = 1) -> list[str]:
    if not isinstance(value, str) or not least <= len(value) <= most:
        return [f"{name} must be text of {least} to {most} characters"]
    return []


def _check_information(information: Json) -> list[str]:
    problems = _length(information.get("name"), "display_information.name", 35)
    if "description" in information:
        problems += _length(information["description"], "display_information.description", 140)
    if "long_description" in information:
        problems += _length(
            information["long_description"], "display_information.long_description", 4000, 175
        )
    color = information.get("background_color", "#000000")
    if not re.fullmatch(r"#([0-9a-fA-F]{3}|[0-9a-fA-F]{6})", str(color)):
        problems.append("display_information.background_color must look like #1f3a4d")
    return problems


def _check_features(raw: Json) -> list[str]:
    features = raw.get("features") or {}
    entries = features.get("slash_commands") or []
    problems = ["at most 50 slash commands"] if len(entries) > 50 else []  # noqa: PLR2004
    names = [entry.get("command") for entry in entries]
    problems += [
        f"{name} stands twice" for name in sorted({n for n in names if names.count(n) > 1})
    ]
    for entry in entries:
        problems += _check_command(entry, socket=bool(_at(raw, "settings", "socket_mode_enabled")))
    problems += _check_shortcuts(features.get("shortcuts") or [])
    if "bot_user" in features:
        problems += _length(features["bot_user"].get("display_name"), "bot_user.display_name", 80)
    elif _at(raw, "oauth_config", "scopes", "bot"):
        problems.append("bot scopes need features.bot_user")
    return problems


def _check_shortcuts(entries: list[Json]) -> list[str]:
    problems = ["at most 10 shortcuts"] if len(entries) > SHORTCUTS_MAX else []
    ids = [str(entry.get("callback_id")) for entry in entries]
    problems += [f"{one} stands twice" for one in sorted({i for i in ids if ids.count(i) > 1})]
    for entry in entries:
        name = f"shortcut {entry.get('name')}"
        problems += _length(entry.get("name"), f"{name}: name", 24)
        problems += _length(entry.get("description"), f"{name}: description", 150)
        problems += _length(entry.get("callback_id"), f"{name}: callback_id", 255)
        if entry.get("type") not in {"global", "message"}:
            problems.append(f"{name}: type must be global or message")
    return problems


def _check_command(entry: Json, *, socket: bool) -> list[str]:
    name = str(entry.get("command"))
    problems = []
    if not _COMMAND.fullmatch(name):
        problems.append(f"{name} must be / and up to 31 of a-z, 0-9, - and _")
    problems += _length(entry.get("description"), f"{name}: description", 2000)
    if "usage_hint" in entry:
        problems += _length(entry["usage_hint"], f"{name}: usage_hint", 1000)
    if not socket:
        problems += _check_url(entry.get("url"), f"{name}: url")
    return problems


def _check_url(url: object, name: str) -> list[str]:
    if not isinstance(url, str) or not url.startswith("https://"):
        return [f"{name} must be an https:// address"]
    return []


def _check_scopes(raw: Json) -> list[str]:
    scopes = _at(raw, "oauth_config", "scopes", "bot") or []
    problems = [f"{scope} is no scope of a bot" for scope in scopes if scope not in SCOPES]
    if "users:read.email" in scopes and "users:read" not in scopes:
        problems.append("users:read.email needs users:read")
    if (raw.get("features") or {}).get("slash_commands") and "commands" not in scopes:
        problems.append("slash commands need the scope commands")
    if (raw.get("features") or {}).get("shortcuts") and "commands" not in scopes:
        problems.append("shortcuts need the scope commands")
    for event in _at(raw, "settings", "event_subscriptions", "bot_events") or []:
        if event not in EVENT_SCOPES:
            problems.append(f"{event} is no event")
        elif (needed := EVENT_SCOPES[event]) and needed not in scopes:
            problems.append(f"{event} needs the scope {needed}")
    return problems


def _check_settings(raw: Json) -> list[str]:
    settings = raw.get("settings") or {}
    if settings.get("socket_mode_enabled"):
        return []
    problems = []
    shortcuts = _at(raw, "features", "shortcuts")
    if shortcuts and not _at(settings, "interactivity", "is_enabled"):
        problems.append("shortcuts need settings.interactivity")
    if _at(settings, "interactivity", "is_enabled"):
        problems += _check_url(
            _at(settings, "interactivity", "request_url"), "interactivity.request_url"
        )
    if _at(settings, "event_subscriptions", "bot_events"):
        problems += _check_url(
            _at(settings, "event_subscriptions", "request_url"), "event_subscriptions.request_url"
        )
    return problems
