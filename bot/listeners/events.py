"""Events: somebody opened the home tab, or what we know of people has changed."""

from __future__ import annotations

import logging
import re
from typing import Any, Final

from slack_bolt.async_app import AsyncApp

from bot.background import Background
from bot.desk import Desk
from bot.homes import Homes

log: Final = logging.getLogger("twokey.listeners")

Event = dict[str, Any]


def register(app: AsyncApp, desk: Desk, *, homes: Homes, background: Background) -> None:
    """Listen to the events."""

    async def app_home_opened(event: Event, body: dict[str, Any]) -> None:
        if event.get("tab", "home") == "home":
            background.start(homes.opened(event["user"], str(body.get("team_id", ""))))

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
