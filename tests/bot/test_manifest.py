"""manifest.yml and the code agree."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from bot.doctor_slack import SCOPES
from bot.listeners import commands, events
from sandbox.slack.server import SlackStandIn
from store.connect import Store
from tests.bot.world import CHANNEL, running
from tests.conftest import Target

ROOT = Path(__file__).parents[2]
MANIFEST: dict[str, Any] = yaml.safe_load((ROOT / "manifest.yml").read_text())


def test_the_command_is_the_one_that_we_listen_to() -> None:
    [command] = MANIFEST["features"]["slash_commands"]
    assert command["command"] == commands.COMMAND
    assert command["should_escape"] is True


def test_every_event_has_its_listener_and_every_listener_its_event() -> None:
    source = Path(events.__file__).read_text()
    listened = set(re.findall(r'app\.event\("(\w+)"\)', source))
    assert listened == set(MANIFEST["settings"]["event_subscriptions"]["bot_events"])


def test_the_doctor_asks_for_no_more_than_the_manifest_grants() -> None:
    assert set(MANIFEST["oauth_config"]["scopes"]["bot"]) >= SCOPES


async def test_what_we_do_needs_no_scope_that_the_manifest_lacks(
    slack: SlackStandIn, store: Store, target: Target, tmp_path: Path
) -> None:
    async with running(slack, store, tmp_path, target.dsn, http=True) as world:
        slack.faults.add(method="chat.postMessage", kind="drop_after")
        await slack.command("U0ANA", CHANNEL, "/db paint orders")
        card = await world.card("Waiting")
        await slack.click("U0BEN", CHANNEL, card["ts"], "details")
        await slack.open_home("U0BEN")
        await slack.click("U0BEN", CHANNEL, card["ts"], "approve")
        await world.told("U0BEN", "stored")
        await slack.click("U0CLEO", CHANNEL, card["ts"], "approve")
        await world.card("Done")
    refused = [entry for entry in slack.wire if "missing_scope" in str(entry.body)]
    assert refused == []
    granted = set(MANIFEST["oauth_config"]["scopes"]["bot"])
    assert slack.scopes_used <= granted
