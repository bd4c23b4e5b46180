"""The doctor's look at Slack: token, scopes, channels, groups."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from slack_sdk.web.async_client import AsyncWebClient

from approvals.counting import count_text
from bot.finding import Finding
from bot.inventory import Inventory
from bot.settings import Settings
from bot.slack import SlackError, call, open_session, scopes_of_token, web_client

SCOPES: Final = frozenset(
    {
        "channels:history",
        "channels:read",
        "chat:write",
        "commands",
        "im:history",
        "im:write",
        "usergroups:read",
        "users:read",
        "users:read.email",
    }
)


async def examine_slack(
    settings: Settings, inventory: Inventory, groups: Mapping[str, str]
) -> AsyncIterator[Finding]:
    """Everything about Slack; stops at what makes the rest pointless."""
    if settings.slack_bot_token is None:
        yield _bad(
            "slack",
            "SLACK_BOT_TOKEN is not set.",
            "Install the app of manifest.yml, set its token.",
        )
        return
    token = settings.slack_bot_token.get_secret_value()
    async with open_session() as session:
        client = web_client(token, base_url=settings.slack_api_url, session=session)
        try:
            granted = await scopes_of_token(client)
        except SlackError as error:
            yield _bad("slack", f"Slack does not take us: {error}.", "Check SLACK_BOT_TOKEN.")
            return
        yield Finding(name="slack", ok=True, says="the token is good")
        yield _way_in(settings)
        yield _scopes(granted)
        for _, database in sorted(inventory.databases.items()):
            yield await _channel(client, database.name, database.channel)
        if inventory.anchors and inventory.anchors.channel:
            yield await _channel(client, "audit anchors", inventory.anchors.channel)
        for name, group in sorted(groups.items()):
            yield await _group(client, name, group)


def _way_in(settings: Settings) -> Finding:
    ways = [
        *(["HTTP"] if settings.slack_signing_secret else []),
        *(["Socket Mode"] if settings.slack_app_token else []),
    ]
    if ways:
        return Finding(name="slack's way in", ok=True, says=" and ".join(ways))
    return _bad(
        "slack's way in",
        "Slack has no way to reach the bot.",
        "Set SLACK_SIGNING_SECRET for HTTP, or SLACK_APP_TOKEN for Socket Mode.",
    )


def _scopes(granted: frozenset[str]) -> Finding:
    missing = sorted(SCOPES - granted)
    if not missing:
        return Finding(name="slack scopes", ok=True, says="all there")
    return _bad(
        "slack scopes",
        f"The token lacks {', '.join(missing)}.",
        "Update the app from manifest.yml and install it again.",
    )


async def _channel(client: AsyncWebClient, database: str, channel: str) -> Finding:
    name = f"channel of {database}"
    try:
        answer = await call(client.conversations_info(channel=channel))
    except SlackError as error:
        return _bad(
            name,
            f"{channel} cannot be read: {error}.",
            "Check the id in the inventory; /invite the bot there.",
        )
    found: Mapping[str, Any] = answer["channel"]
    if found.get("is_archived"):
        return _bad(name, f"{channel} is archived.", "Name another channel in the inventory.")
    if not found.get("is_member"):
        return _bad(name, f"The bot is not in {channel}.", "Type /invite @twokey there.")
    if found.get("is_ext_shared"):
        return _bad(
            name,
            f"{channel} is shared with another company, which would read the plans.",
            "Name a channel of your own in the inventory.",
        )
    return Finding(name=name, ok=True, says=f"#{found.get('name', channel)}, the bot is in it")


async def _group(client: AsyncWebClient, name: str, group: str) -> Finding:
    try:
        users = (await call(client.usergroups_users_list(usergroup=group)))["users"]
    except SlackError as error:
        return _bad(f"group {name}", f"{group} cannot be read: {error}.", "Check the group's id.")
    if not users:
        return _bad(f"group {name}", f"{group} has no members.", "Add people to it in Slack.")
    return Finding(name=f"group {name}", ok=True, says=count_text(len(users), "member"))


def _bad(name: str, says: str, fix: str) -> Finding:
    return Finding(name=name, ok=False, says=says, fix=fix)
