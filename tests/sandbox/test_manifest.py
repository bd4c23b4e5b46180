"""The manifest: what Slack would refuse, and that ours is as small as it can be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import yaml

from sandbox.slack.manifest import ManifestError, check, load, parse
from tests.sandbox.support import MANIFEST

Json = dict[str, Any]


def ours() -> Json:
    """The product's manifest, to be changed."""
    found: Json = yaml.safe_load(MANIFEST.read_text())
    return found


def test_our_manifest_is_fine_and_asks_for_little() -> None:
    manifest = load(MANIFEST)
    assert list(manifest.commands) == ["/db"]
    assert manifest.commands["/db"].should_escape
    assert (manifest.interactive, manifest.home_tab) == (True, True)
    assert set(manifest.scopes) == {
        "commands",
        "chat:write",
        "users:read",
        "users:read.email",
        "usergroups:read",
        "files:write",
        "channels:read",
        "channels:history",
        "im:write",
        "im:history",
    }
    assert manifest.events == {
        "app_home_opened",
        "user_change",
        "subteam_members_changed",
        "subteam_updated",
    }


def test_every_scope_and_event_of_ours_says_what_it_is_for() -> None:
    lines = MANIFEST.read_text().splitlines()
    wanted = [*load(MANIFEST).scopes, *load(MANIFEST).events]
    for name in wanted:
        (line,) = [one for one in lines if one.strip().startswith(f"- {name} ")]
        assert "# " in line


def _scopes(raw: Json) -> list[str]:
    scopes: list[str] = raw["oauth_config"]["scopes"]["bot"]
    return scopes


def _command(raw: Json) -> Json:
    command: Json = raw["features"]["slash_commands"][0]
    return command


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda raw: raw.update(colour="red"), "colour is no part"),
        (lambda raw: raw["display_information"].update(name="x" * 36), "1 to 35"),
        (lambda raw: raw["display_information"].update(description="x" * 141), "1 to 140"),
        (lambda raw: raw["display_information"].update(long_description="x"), "175 to 4000"),
        (lambda raw: raw["display_information"].update(background_color="red"), "#1f3a4d"),
        (lambda raw: _scopes(raw).append("chat:wrote"), "chat:wrote is no scope"),
        (lambda raw: _scopes(raw).remove("commands"), "need the scope commands"),
        (lambda raw: _scopes(raw).remove("users:read"), "users:read.email needs users:read"),
        (lambda raw: _scopes(raw).remove("usergroups:read"), "needs the scope usergroups:read"),
        (lambda raw: raw["features"].pop("bot_user"), "need features.bot_user"),
        (lambda raw: _command(raw).update(command="/DB"), "/DB must be"),
        (lambda raw: _command(raw).update(command="db"), "db must be"),
        (lambda raw: _command(raw).update(command="/" + "x" * 32), "up to 31"),
        (lambda raw: _command(raw).pop("description"), "/db: description"),
        (lambda raw: _command(raw).update(usage_hint="x" * 1001), "/db: usage_hint"),
        (lambda raw: _command(raw).update(url="http://x.example"), "https://"),
        (lambda raw: raw["features"]["slash_commands"].append(_command(raw)), "stands twice"),
        (
            lambda raw: raw["features"].update(
                slash_commands=[{**_command(raw), "command": f"/c{n}"} for n in range(51)]
            ),
            "at most 50",
        ),
        (
            lambda raw: raw["settings"]["event_subscriptions"]["bot_events"].append("app_opened"),
            "app_opened is no event",
        ),
        (
            lambda raw: raw["settings"]["event_subscriptions"].pop("request_url"),
            "event_subscriptions.request_url",
        ),
        (
            lambda raw: raw["settings"]["interactivity"].update(request_url="http://x.example"),
            "interactivity.request_url",
        ),
    ],
)
def test_what_slack_would_refuse(change: Callable[[Json], object], problem: str) -> None:
    raw = ours()
    change(raw)
    assert any(problem in line for line in check(raw)), check(raw)
    with pytest.raises(ManifestError):
        parse(raw)


def test_in_socket_mode_no_address_is_needed() -> None:
    raw = ours()
    raw["settings"]["socket_mode_enabled"] = True
    del _command(raw)["url"]
    raw["settings"]["interactivity"].pop("request_url")
    raw["settings"]["event_subscriptions"].pop("request_url")
    assert check(raw) == []


@pytest.mark.parametrize("text", ["[", "- a list"])
def test_a_file_that_is_no_manifest_is_refused(tmp_path: Any, text: str) -> None:
    path = tmp_path / "manifest.yml"
    path.write_text(text)
    with pytest.raises(ManifestError):
        load(path)
