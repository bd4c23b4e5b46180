"""Every kind of account, and the groups that they are in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from slack_sdk.web.async_client import AsyncWebClient

from sandbox.slack.errors import CannotError
from sandbox.slack.server import SlackStandIn
from tests.sandbox.support import client_of, scoped
from tests.sandbox.test_messages import refusal


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("U0ANA", {"deleted": False, "is_bot": False, "is_email_confirmed": True}),
        ("U0GUS", {"is_restricted": True, "is_ultra_restricted": False}),
        ("U0EVE", {"is_stranger": True, "team_id": "T0OTHER"}),
        ("U0DEE", {"deleted": True}),
        ("U0UNA", {"is_email_confirmed": False}),
        ("U0HAL", {"is_bot": True}),
        ("U0CLEO", {"tz": "Asia/Tokyo", "tz_offset": 32400}),
        ("U0TWOKEY", {"is_bot": True}),
    ],
)
async def test_what_slack_says_about_an_account(
    client: AsyncWebClient, user: str, expected: dict[str, Any]
) -> None:
    found = (await client.users_info(user=user, include_locale=True))["user"]
    assert expected.items() <= found.items()


async def test_a_deactivated_account_has_lost_its_other_flags(client: AsyncWebClient) -> None:
    found = (await client.users_info(user="U0DEE"))["user"]
    assert not {"tz", "is_restricted", "is_email_confirmed"} & set(found)


async def test_a_single_channel_guest_is_both_kinds_of_guest(
    slack: SlackStandIn, client: AsyncWebClient
) -> None:
    await slack.set_flags("U0BEN", single_channel_guest=True)
    found = (await client.users_info(user="U0BEN"))["user"]
    assert (found["is_restricted"], found["is_ultra_restricted"]) == (True, True)


async def test_a_flag_that_does_not_exist_is_refused(slack: SlackStandIn) -> None:
    with pytest.raises(CannotError, match="no flag king"):
        await slack.set_flags("U0BEN", king=True)


async def test_the_e_mail_needs_its_own_scope(
    client: AsyncWebClient, granting: Callable[..., Any]
) -> None:
    found = (await client.users_info(user="U0ANA"))["user"]
    assert found["profile"]["email"] == "ana@acme.example"
    slack = await granting(scoped(drop="users:read.email"))
    found = (await client_of(slack).users_info(user="U0ANA"))["user"]
    assert "email" not in found["profile"]


async def test_people_are_found_by_e_mail_and_listed_in_pages(client: AsyncWebClient) -> None:
    found = await client.users_lookupByEmail(email="BEN@acme.example")
    assert found["user"]["id"] == "U0BEN"
    error = await refusal(client.users_lookupByEmail(email="dee@acme.example"))
    assert error.response["error"] == "users_not_found"
    seen: list[str] = []
    async for page in await client.users_list(limit=5):
        seen += [member["id"] for member in page["members"]]
    assert len(seen) == len(set(seen)) > 10


async def test_nobody_is_not_found(client: AsyncWebClient) -> None:
    error = await refusal(client.users_info(user="U0NOBODY"))
    assert error.response["error"] == "user_not_found"


async def test_groups_list_their_members_fit_or_not(client: AsyncWebClient) -> None:
    members = await client.usergroups_users_list(usergroup="S0DBA")
    assert members["users"] == [
        "U0BEN",
        "U0CLEO",
        "U0GUS",
        "U0EVE",
        "U0DEE",
        "U0UNA",
        "U0HAL",
    ]
    groups = (await client.usergroups_list(include_users=True, include_count=True))["usergroups"]
    assert {group["handle"]: group["user_count"] for group in groups} == {
        "dba": 7,
        "oncall": 1,
        "security": 2,
        "owners": 1,
    }
    error = await refusal(client.usergroups_users_list(usergroup="S0NONE"))
    assert error.response["error"] == "no_such_subteam"


async def test_two_accounts_can_be_one_person(client: AsyncWebClient) -> None:
    mails = [
        (await client.users_info(user=user))["user"]["profile"]["email"]
        for user in ("U0ANA", "U0ANA2")
    ]
    assert mails[0] == mails[1]


async def test_somebody_new_can_join(slack: SlackStandIn, client: AsyncWebClient) -> None:
    ben = slack.workspace.people["U0BEN"]
    await slack.admin.join(replace(ben, id="U0NEW", name="new", email="new@acme.example"))
    assert (await client.users_info(user="U0NEW"))["user"]["name"] == "new"
