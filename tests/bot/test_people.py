"""Who somebody is, and that nobody is anybody while Slack cannot be asked."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from slack_sdk.web.async_client import AsyncWebClient

from approvals.directory import Directory
from approvals.words import DirectoryDownError, Flag, PersonId, RefusedError, Why
from bot.people import People, person
from sandbox.slack.server import SlackStandIn

TEAM = "T0DEMO"
GROUPS = {"dba": "S0DBA", "security": "S0SECURITY"}


class Watch:
    """A clock that one turns by hand."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def people(client: AsyncWebClient, watch: Watch) -> People:
    return People(client, team=TEAM, groups=GROUPS, fresh_for=timedelta(seconds=30), clock=watch)


def calls(slack: SlackStandIn, method: str) -> int:
    return sum(method in entry.kind for entry in slack.wire)


@pytest.mark.parametrize(
    ("user", "id_", "groups", "flags"),
    [
        ("U0ANA", "ana@acme.example", set(), set()),
        ("U0BEN", "ben@acme.example", {"dba"}, set()),
        ("U0CLEO", "cleo@acme.example", {"dba", "security"}, set()),
        ("U0GUS", "gus@acme.example", {"dba"}, {Flag.GUEST}),
        ("U0DEE", "dee@acme.example", {"dba"}, {Flag.DEACTIVATED}),
        ("U0UNA", "T0DEMO/U0UNA", {"dba"}, {Flag.UNCONFIRMED}),
        ("U0ANA2", "ana@acme.example", set(), set()),
    ],
)
async def test_everybody_is_who_slack_says(
    people: People, user: str, id_: str, groups: set[str], flags: set[Flag]
) -> None:
    found = await people.by_slack(TEAM, user)
    assert (found.id, found.groups, found.flags) == (id_, groups, flags)


@pytest.mark.parametrize(("user", "flag"), [("U0EVE", Flag.EXTERNAL), ("U0HAL", Flag.BOT)])
async def test_strangers_and_bots_are_marked(people: People, user: str, flag: Flag) -> None:
    assert flag in (await people.by_slack(TEAM, user)).flags


async def test_a_request_that_names_another_team_makes_one_external(people: People) -> None:
    found = await people.by_slack("T0OTHER", "U0ANA")
    assert Flag.EXTERNAL in found.flags


async def test_an_unknown_account_is_nobody(people: People) -> None:
    with pytest.raises(RefusedError) as refusal:
        await people.by_slack(TEAM, "U0NOBODY")
    assert refusal.value.why is Why.IDENTITY


@pytest.mark.parametrize("kind", ["429", "500", "html", "drop_before"])
@pytest.mark.parametrize("method", ["users.info", "usergroups.users.list"])
async def test_nobody_is_anybody_while_slack_cannot_be_asked(
    people: People, slack: SlackStandIn, kind: str, method: str
) -> None:
    slack.faults.add(method=method, kind=kind, times=10)
    with pytest.raises(DirectoryDownError):
        await people.by_slack(TEAM, "U0BEN")


@pytest.mark.deadlines
async def test_an_answer_that_takes_too_long_is_none(people: People, slack: SlackStandIn) -> None:
    slack.faults.add(method="users.info", kind="slow", seconds=2)
    with pytest.raises(DirectoryDownError):
        await people.by_slack(TEAM, "U0BEN")


async def test_an_answer_is_believed_for_a_while_and_no_longer(
    people: People, slack: SlackStandIn, watch: Watch
) -> None:
    await people.by_slack(TEAM, "U0BEN")
    await slack.set_flags("U0BEN", deactivated=True)
    watch.seconds = 29
    assert not (await people.by_slack(TEAM, "U0BEN")).flags
    watch.seconds = 31
    assert (await people.by_slack(TEAM, "U0BEN")).flags == {Flag.DEACTIVATED}


async def test_an_old_answer_is_not_used_when_slack_is_away(
    people: People, slack: SlackStandIn, watch: Watch
) -> None:
    await people.by_slack(TEAM, "U0BEN")
    slack.faults.add(method="*", kind="500", times=50)
    watch.seconds = 31
    with pytest.raises(DirectoryDownError):
        await people.by_slack(TEAM, "U0BEN")


async def test_many_at_once_share_one_call(people: People, slack: SlackStandIn) -> None:
    await asyncio.gather(*(people.by_slack(TEAM, "U0BEN") for _ in range(50)))
    assert calls(slack, "users.info") == 1
    assert calls(slack, "usergroups.users.list") == len(GROUPS)


async def test_a_failure_is_not_remembered(people: People, slack: SlackStandIn) -> None:
    slack.faults.add(method="users.info", kind="500")
    with pytest.raises(DirectoryDownError):
        await people.by_slack(TEAM, "U0BEN")
    assert (await people.by_slack(TEAM, "U0BEN")).groups == {"dba"}


async def test_what_slack_tells_us_to_forget_is_asked_anew(
    people: People, slack: SlackStandIn
) -> None:
    await people.by_slack(TEAM, "U0BEN")
    await slack.set_flags("U0BEN", guest=True)
    people.forget("U0BEN")
    people.forget_group("S0DBA")
    assert (await people.by_slack(TEAM, "U0BEN")).flags == {Flag.GUEST}
    assert calls(slack, "usergroups.users.list") == len(GROUPS) + 1


async def test_somebody_remembered_without_an_account_cannot_be_looked_up(people: People) -> None:
    with pytest.raises(RefusedError) as refusal:
        await people.by_id(PersonId("ana@acme.example"), "")
    assert refusal.value.why is Why.IDENTITY
    found = await people.by_id(PersonId("ana@acme.example"), "T0DEMO/U0ANA")
    assert found.id == "ana@acme.example"


@pytest.mark.parametrize(
    ("change", "flag"),
    [
        ({"deleted": True}, Flag.DEACTIVATED),
        ({"is_bot": True}, Flag.BOT),
        ({"is_restricted": True}, Flag.GUEST),
        ({"is_ultra_restricted": True}, Flag.GUEST),
        ({"is_stranger": True}, Flag.EXTERNAL),
        ({"team_id": "T0OTHER"}, Flag.EXTERNAL),
        ({"is_email_confirmed": False}, Flag.UNCONFIRMED),
        ({"profile": {}}, Flag.UNCONFIRMED),
    ],
)
def test_each_mark_of_slacks_counts(change: dict[str, Any], flag: Flag) -> None:
    account = {"id": "U0ANA", "team_id": TEAM, "profile": {"email": "Ana@Acme.example"}}
    found = person(account | change, team=TEAM, seen_team=TEAM, groups=frozenset())
    assert found.flags == {flag}


def test_somebody_of_the_same_organisation_is_not_external() -> None:
    account = {
        "id": "U0ANA", "team_id": "T0SISTER", "profile": {"email": "Ana@Acme.example"},
        "enterprise_user": {"teams": [TEAM]},
    }  # fmt: skip
    found = person(account, team=TEAM, seen_team=TEAM, groups=frozenset())
    assert not found.flags
    assert found.id == "ana@acme.example"


def test_it_is_a_directory(people: People) -> None:
    directory: Directory = people
    assert directory
