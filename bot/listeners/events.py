"""Events: somebody opened the home tab, or what we know of people has changed."""

from __future__ import annotations

import logging
import re
from typing import Any, Final

from slack_bolt.async_app import AsyncApp
from slack_sdk.web.async_client import AsyncWebClient

from approvals.words import ExplainedError
from bot.background import Background
from bot.blocks import Block
from bot.cards import card_of
from bot.desk import Desk
from bot.slack import call
from bot.views.requests import home_view, refused_home

log: Final = logging.getLogger("twokey.listeners")

_CARDS_MAX: Final = 20
Event = dict[str, Any]


def register(app: AsyncApp, desk: Desk, *, client: AsyncWebClient, background: Background) -> None:
    """Listen to the events."""

    async def app_home_opened(event: Event, body: dict[str, Any]) -> None:
        if event.get("tab", "home") == "home":
            background.start(publish(event["user"], str(body.get("team_id", ""))))

    async def publish(user: str, team: str) -> None:
        view = await home(desk, team, user)
        await call(client.views_publish(user_id=user, view=dict(view)))

    async def user_change(event: Event) -> None:
        user = event.get("user")
        desk.people.forget(str(user["id"] if isinstance(user, dict) else user))

    async def subteam_members_changed(event: Event) -> None:
        desk.people.forget_group(str(event.get("subteam_id", "")))

    async def subteam_updated(event: Event) -> None:
        desk.people.forget_group(str((event.get("subteam") or {}).get("id", "")))

    app.event("app_home_opened")(app_home_opened)
    app.event("user_change")(user_change)
    app.event("subteam_members_changed")(subteam_members_changed)
    app.event("subteam_updated")(subteam_updated)
    # Without a listener Bolt answers 404, and Slack sends the event again and again.
    app.event(re.compile(".*"))(_nothing)


async def _nothing() -> None:
    return


async def home(desk: Desk, team: str, user: str) -> Block:
    """The home tab of somebody; what they may not see is not in it."""
    try:
        await desk.person(team, user)
    except ExplainedError as error:
        return refused_home(error.problem, error.next_step)
    records = await desk.approvals.recent(limit=_CARDS_MAX)
    databases = [
        (database.name, database.environment, str(database.tier))
        for _, database in sorted(desk.inventory.databases.items())
    ]
    return home_view([card_of(record) for record in records], databases)
