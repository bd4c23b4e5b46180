"""Everybody who is in the policy's groups today, for what can be proven about them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Final

from approvals.words import Person, RefusedError
from bot.people import People
from bot.settings import Settings
from bot.slack import SlackError, call, open_session, web_client

SECONDS_MAX: Final = 20.0
PEOPLE_MAX: Final = 500
_AT_ONCE: Final = 8


async def members(settings: Settings, groups: Mapping[str, str]) -> tuple[list[Person] | None, str]:
    """The members of these groups, or None and why they are not known."""
    if settings.slack_bot_token is None:
        return None, "SLACK_BOT_TOKEN is not set"
    token = settings.slack_bot_token.get_secret_value()
    try:
        async with asyncio.timeout(SECONDS_MAX), open_session() as session:
            client = web_client(token, base_url=settings.slack_api_url, session=session)
            team = str((await call(client.auth_test()))["team_id"])
            people = People(
                client, team=team, groups=groups, fresh_for=timedelta(seconds=SECONDS_MAX)
            )
            accounts: dict[str, None] = {}
            for group in dict.fromkeys(groups.values()):
                listed = await call(client.usergroups_users_list(usergroup=group))
                accounts |= dict.fromkeys(str(user) for user in listed["users"])
            if len(accounts) > PEOPLE_MAX:
                return None, f"there are {len(accounts)} members, more than {PEOPLE_MAX}"
            return await _looked_up(people, team, list(accounts)), ""
    except (SlackError, RefusedError, TimeoutError) as error:
        return None, f"Slack's directory does not answer ({str(error) or 'it takes too long'})"


async def _looked_up(people: People, team: str, users: Sequence[str]) -> list[Person]:
    """Each person once, in the groups of all their accounts that may be used."""
    places = asyncio.Semaphore(_AT_ONCE)

    async def one(user: str) -> Person:
        async with places:
            return await people.by_slack(team, user)

    found = await asyncio.gather(*(one(user) for user in users))
    merged: dict[str, Person] = {}
    for person in sorted(found, key=lambda person: bool(person.flags)):
        known = merged.setdefault(person.id, person)
        if not person.flags:
            merged[person.id] = replace(known, groups=known.groups | person.groups)
    return list(merged.values())
