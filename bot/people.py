"""Who somebody is, as Slack knows them right now. Without Slack's word nobody is anybody."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any, Final, Generic, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from slack_sdk.web.async_client import AsyncWebClient

from approvals.words import DirectoryDownError, Flag, Person, PersonId, RefusedError, Why
from bot.slack import SlackError, SlackRefusedError, SlackUnclearError, call

_ENTRIES_MAX: Final = 10_000
_LOOKUP_SECONDS_MAX: Final = 1.2  # a listener has 3 s in all
_NO_GROUP: Final = frozenset({"no_such_subteam", "subteam_not_found"})
_USER_ID: Final = re.compile(r"[UW][A-Z0-9]{1,20}")
_UNKNOWN: Final = frozenset({"user_not_found", "user_not_visible", "users_not_found"})
_Value = TypeVar("_Value")

log: Final = logging.getLogger("twokey.people")


class People:
    """The directory of one Slack workspace.

    An answer is believed for `fresh_for`; several who ask the same at once share one call.
    Nothing that is older is ever used, also when Slack is away.
    """

    def __init__(
        self,
        client: AsyncWebClient,
        *,
        team: str,
        groups: Mapping[str, str],
        fresh_for: timedelta,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`groups`: the policy's name for a group -> Slack's user group id."""
        self._client = client
        self._team = team
        self._groups = groups
        self._accounts = _Fresh[Mapping[str, Any]](fresh_for.total_seconds(), clock)
        self._emails = _Fresh[str](fresh_for.total_seconds(), clock)
        self._members = _Fresh[frozenset[str]](fresh_for.total_seconds(), clock)

    @property
    def team(self) -> str:
        """Our workspace."""
        return self._team

    async def by_slack(self, team: str, user: str) -> Person:
        """The person behind an account.

        Raises:
            DirectoryDownError: Slack cannot be asked.
            RefusedError: there is no such account.
        """
        account, members = self._known(user) or await self._looked_up(user)
        groups = {name for name, users in members.items() if user in users}
        return person(account, team=self._team, seen_team=team, groups=frozenset(groups))

    async def by_id(self, person: PersonId, slack: str) -> Person:
        """The person who acted as `person` through the account `slack` (`TEAM/USER`).

        The answer's id differs from `person` when the account now belongs to another
        address; who compares them decides.

        Raises:
            DirectoryDownError: Slack cannot be asked.
            RefusedError: no account is remembered, or it is gone.
        """
        team, _, user = slack.partition("/")
        if not user:
            raise RefusedError(
                f"{person} has no Slack account that could be looked up.",
                next_step="Ask and vote from Slack, so that it can be checked who somebody is.",
                why=Why.IDENTITY,
            )
        return await self.by_slack(team, user)

    async def account_of(self, identity: str) -> str:
        """`TEAM/USER` of an identity as policies write it: an address, `TEAM/USER` or `USER`.

        Empty for what is none of these, or belongs to nobody.

        Raises:
            DirectoryDownError: Slack cannot be asked.
        """
        team, _, user = identity.upper().rpartition("/")
        if _USER_ID.fullmatch(user):
            return f"{team or self._team}/{user}"
        if "@" not in identity:
            return ""
        try:
            found = await self._asked(self._emails.get(identity, partial(self._email, identity)))
        except DirectoryDownError:
            raise
        except RefusedError:
            return ""
        return f"{self._team}/{found}"

    async def members(self, group: str) -> frozenset[str]:
        """The accounts in a group, by the policy's name for it, fit or not.

        Raises:
            DirectoryDownError: Slack cannot be asked.
        """
        if group not in self._groups:
            return frozenset()
        known = self._members.known(self._groups[group])
        return known if known is not None else (await self._asked(self._all_members()))[group]

    async def zone(self, user: str) -> ZoneInfo:
        """The time zone that an account has chosen; UTC where there is none.

        Raises:
            DirectoryDownError: Slack cannot be asked.
            RefusedError: there is no such account.
        """
        account = self._accounts.known(user)
        if account is None:
            account = await self._asked(self._accounts.get(user, partial(self._account, user)))
        return zone_of(account)

    def forget(self, user: str) -> None:
        """Slack says that an account has changed: ask anew."""
        self._accounts.forget(user)

    def forget_group(self, group: str) -> None:
        """Slack says that a group's members have changed: ask anew."""
        self._members.forget(group)

    def _known(self, user: str) -> tuple[Mapping[str, Any], Mapping[str, frozenset[str]]] | None:
        """What is fresh still, if nothing has to be asked: most calls, so it takes no task."""
        account = self._accounts.known(user)
        if account is None:
            return None
        members: dict[str, frozenset[str]] = {}
        for name, group in self._groups.items():
            users = self._members.known(group)
            if users is None:
                return None
            members[name] = users
        return account, members

    async def _looked_up(self, user: str) -> tuple[Mapping[str, Any], Mapping[str, frozenset[str]]]:
        return await self._asked(
            asyncio.gather(
                self._accounts.get(user, partial(self._account, user)), self._all_members()
            )
        )

    async def _asked(self, answer: Awaitable[_Value]) -> _Value:
        """What Slack answers in time, or why nobody can be identified."""
        try:
            async with asyncio.timeout(_LOOKUP_SECONDS_MAX):
                return await answer
        except SlackRefusedError as error:
            if error.error in _UNKNOWN:
                raise RefusedError(
                    "Slack knows no such account.",
                    next_step="Ask from an account of this workspace.",
                    why=Why.IDENTITY,
                ) from error
            raise _down(error.error) from error
        except (SlackError, TimeoutError) as error:
            raise _down(str(error) or "it took too long") from error

    async def _all_members(self) -> Mapping[str, frozenset[str]]:
        groups = dict(self._groups)  # another policy may come into force meanwhile
        lists = await asyncio.gather(
            *(self._members.get(group, partial(self._group, group)) for group in groups.values())
        )
        return dict(zip(groups, lists, strict=True))

    async def _account(self, user: str) -> Mapping[str, Any]:
        data = await call(self._client.users_info(user=user))
        account = data.get("user")
        if not isinstance(account, dict) or account.get("id") != user:
            raise SlackUnclearError("the answer is about nobody, or somebody else")
        return account

    async def _email(self, email: str) -> str:
        data = await call(self._client.users_lookupByEmail(email=email))
        return str((data.get("user") or {}).get("id", ""))

    async def _group(self, group: str) -> frozenset[str]:
        """The members of a group. One that is deleted or disabled has none."""
        try:
            data = await call(self._client.usergroups_users_list(usergroup=group))
        except SlackRefusedError as error:
            if error.error not in _NO_GROUP:
                raise
            log.error("The user group %s is gone or disabled: nobody belongs to it.", group)  # noqa: TRY400
            return frozenset()
        users = data.get("users")
        if not isinstance(users, list):
            raise SlackUnclearError("the answer names no members")
        return frozenset(str(user) for user in users)


def person(
    account: Mapping[str, Any], *, team: str, seen_team: str, groups: frozenset[str]
) -> Person:
    """The person in Slack's user object. Pure.

    `team` is ours; `seen_team` is the one that the request named, which counts only
    against somebody.
    """
    profile: Mapping[str, Any] = account.get("profile") or {}
    email = str(profile.get("email") or "").strip().lower()
    mailbox = _mailbox(email)
    confirmed = "@" in email and account.get("is_email_confirmed") is not False
    user = str(account["id"])
    flags = {
        Flag.DEACTIVATED: bool(account.get("deleted")),
        Flag.BOT: bool(account.get("is_bot") or account.get("is_workflow_bot")),
        Flag.GUEST: bool(account.get("is_restricted") or account.get("is_ultra_restricted")),
        Flag.EXTERNAL: not _belongs(account, team, seen_team),
        Flag.UNCONFIRMED: not confirmed,
    }
    name = profile.get("display_name") or account.get("real_name") or account.get("name") or user
    return Person(
        # Two accounts with one confirmed address are one person; an address that nobody
        # confirmed proves nothing.
        id=PersonId(mailbox if confirmed else f"{account.get('team_id', team)}/{user}"),
        name=str(name),
        slack_team=team,
        slack_user=user,
        flags=frozenset(flag for flag, raised in flags.items() if raised),
        groups=groups,
        aliases=frozenset({email}) if confirmed and email != mailbox else frozenset(),
    )


def zone_of(account: Mapping[str, Any]) -> ZoneInfo:
    """The time zone in Slack's user object. Pure."""
    try:
        return ZoneInfo(str(account.get("tz") or "UTC"))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return ZoneInfo("UTC")


def _mailbox(email: str) -> str:
    """The address without its tag: a second account is mostly ana+test@acme.example."""
    local, at, domain = email.rpartition("@")
    return f"{local.partition('+')[0] or local}{at}{domain}"


def _belongs(account: Mapping[str, Any], team: str, seen_team: str) -> bool:
    if account.get("is_stranger"):
        return False
    home: Mapping[str, Any] = account.get("enterprise_user") or {}
    teams = set(home.get("teams") or ())
    # In an organisation somebody's own team may be another one, and they still belong here.
    if account.get("team_id") != team and team not in teams:
        return False
    return seen_team == team or (team in teams and seen_team in teams)


def _down(reason: str) -> DirectoryDownError:
    return DirectoryDownError(
        f"Slack's directory cannot be read ({reason}), so it cannot be checked who you are.",
        next_step="Nothing was changed. Try again in a minute; twokey doctor says what is wrong.",
    )


@dataclass(slots=True)
class _Fresh(Generic[_Value]):
    """Answers by key, each believed for a while; one question at a time for one key."""

    seconds: float
    clock: Callable[[], float]
    _answers: dict[str, tuple[float, _Value]] = field(default_factory=dict)
    _asking: dict[str, asyncio.Task[_Value]] = field(default_factory=dict)

    def known(self, key: str) -> _Value | None:
        """An answer that is fresh still, or None."""
        if (known := self._answers.get(key)) and self.clock() - known[0] < self.seconds:
            return known[1]
        return None

    async def get(self, key: str, ask: Callable[[], Awaitable[_Value]]) -> _Value:
        if (known := self.known(key)) is not None:
            return known
        asking = self._asking.get(key)
        if asking is None:
            asking = asyncio.ensure_future(self._ask(key, ask))
            self._asking[key] = asking
            asking.add_done_callback(partial(self._asked, key))
        # Shielded: the one who gives up first must not spoil it for the others.
        return await asyncio.shield(asking)

    def forget(self, key: str) -> None:
        self._answers.pop(key, None)
        # An answer that is on its way may be older than what we were told.
        self._asking.pop(key, None)

    def _asked(self, key: str, asking: asyncio.Task[_Value]) -> None:
        if self._asking.get(key) is asking:
            del self._asking[key]
        if not asking.cancelled():
            asking.exception()  # whoever still waits gets it; nobody waiting is no mistake

    async def _ask(self, key: str, ask: Callable[[], Awaitable[_Value]]) -> _Value:
        asked_at = self.clock()  # it can only have been true since then
        answer = await ask()
        if self._asking.get(key) is asyncio.current_task():  # else it was forgotten meanwhile
            if len(self._answers) >= _ENTRIES_MAX:
                self._answers.clear()
            self._answers[key] = (asked_at, answer)
        return answer
