"""People and user groups of a workspace. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

# The page's and the tests' names of what can be wrong with an account.
FLAGS: Final[tuple[str, ...]] = (
    "deactivated",
    "guest",
    "single_channel_guest",
    "external",
    "unconfirmed",
    "bot",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """An account, as `users.info` shows it."""

    id: str
    name: str
    real_name: str
    email: str
    team: str
    title: str = ""
    color: str = "4b7bec"
    tz: str = "Europe/Zurich"
    locale: str = "en-US"
    admin: bool = False
    deactivated: bool = False
    guest: bool = False
    single_channel_guest: bool = False
    external: bool = False
    unconfirmed: bool = False
    bot: bool = False
    workflow_bot: bool = False
    enterprise_teams: tuple[str, ...] = ()
    bot_id: str = ""
    updated: int = 0

    def flags(self) -> dict[str, bool]:
        """Every flag by its name in `FLAGS`."""
        return {flag: bool(getattr(self, flag)) for flag in FLAGS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A user group: a handle and its members, fit or not."""

    id: str
    handle: str
    name: str
    members: tuple[str, ...]
    updated: int = 0
    disabled: bool = False


def user_object(
    person: Person, *, now: float, with_email: bool, with_locale: bool = False
) -> dict[str, Any]:
    """Slack's user object. As in Slack, a deactivated account has lost most of its fields."""
    user: dict[str, Any] = {
        "id": person.id,
        "team_id": person.team,
        "name": person.name,
        "deleted": person.deactivated,
        "color": person.color,
        "real_name": person.real_name,
        "profile": _profile(person, with_email=with_email),
        "is_bot": person.bot,
        "is_app_user": False,
        "updated": person.updated,
    }
    if person.deactivated:
        return user
    user |= _zone(person.tz, now) | {
        "is_admin": person.admin,
        "is_owner": False,
        "is_primary_owner": False,
        "is_restricted": person.guest or person.single_channel_guest,
        "is_ultra_restricted": person.single_channel_guest,
        "is_email_confirmed": not person.unconfirmed,
        "who_can_share_contact_card": "EVERYONE",
    }
    if person.external:
        user["is_stranger"] = True
    if person.workflow_bot:
        user["is_workflow_bot"] = True
    if person.enterprise_teams:
        user["enterprise_user"] = {
            "id": f"W{person.id[1:]}",
            "enterprise_id": "E0DEMO",
            "enterprise_name": "Acme Group",
            "teams": list(person.enterprise_teams),
        }
    if with_locale:
        user["locale"] = person.locale
    return user


def _profile(person: Person, *, with_email: bool) -> dict[str, Any]:
    profile: dict[str, Any] = {
        "title": person.title,
        "real_name": person.real_name,
        "real_name_normalized": person.real_name,
        "display_name": person.name,
        "display_name_normalized": person.name,
        "avatar_hash": f"g{person.id.lower()}",
        "team": person.team,
    }
    if person.bot:
        profile["bot_id"] = person.bot_id
    elif with_email:
        profile["email"] = person.email
    return profile


def _zone(name: str, now: float) -> dict[str, Any]:
    local = datetime.fromtimestamp(now, tz=UTC).astimezone(ZoneInfo(name))
    offset = local.utcoffset()
    seconds = int(offset.total_seconds()) if offset else 0
    return {"tz": name, "tz_label": local.tzname() or name, "tz_offset": seconds}


def group_object(group: Group, *, team: str, with_users: bool, with_count: bool) -> dict[str, Any]:
    """Slack's usergroup object."""
    wire: dict[str, Any] = {
        "id": group.id,
        "team_id": team,
        "is_usergroup": True,
        "name": group.name,
        "handle": group.handle,
        "description": "",
        "is_external": False,
        "date_create": 1_700_000_000,
        "date_update": group.updated,
        "date_delete": group.updated if group.disabled else 0,
        "auto_type": None,
        "prefs": {"channels": [], "groups": []},
    }
    if with_users:
        wire["users"] = list(group.members)
    if with_count:
        wire["user_count"] = len(group.members)
    return wire
