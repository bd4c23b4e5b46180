"""People, not accounts: each kind of unfit account is refused at request, vote and run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from slack_sdk.web.async_client import AsyncWebClient

from approvals.calls import Ask, Decision
from approvals.service import Approvals
from approvals.words import (
    DirectoryDownError,
    Flag,
    Person,
    PersonId,
    RefusedError,
    State,
    Why,
)
from bot.people import People, person
from sandbox.slack.server import SlackStandIn
from store.connect import Store
from tests.approvals.support import KEYS, Clock, Queue, a_ballot, an_ask, policy_of

TEAM = "T0DEMO"
GROUPS = {"dba": "S0DBA"}
Change = Callable[[SlackStandIn, str], Awaitable[object]]


class Watch:
    """A clock that one turns by hand."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@dataclass(slots=True)
class House:
    """Approvals over the real directory, with the oldest answers that are allowed."""

    slack: SlackStandIn
    store: Store
    people: People
    watch: Watch
    approvals: Approvals

    async def ask(self, user: str = "U0ANA") -> Decision:
        ask: Ask = an_ask(await self.people.by_slack(TEAM, user))
        return await self.approvals.ask(ask)

    async def vote(self, asked: Decision, user: str = "U0BEN") -> Decision:
        by = await self.people.by_slack(TEAM, user)
        return await self.approvals.vote(a_ballot(asked, by))

    async def begin(self, decided: Decision) -> Decision:
        """As `jobs.claims` does: everybody concerned is looked up, who is gone is left out."""
        assert decided.request
        record = decided.request
        known = {record.asked_by: record.asked_by_slack}
        known.update({vote.person: vote.slack for vote in record.votes})
        people: dict[PersonId, Person] = {}
        for name, slack in known.items():
            try:
                people[name] = await self.people.by_id(name, slack)
            except DirectoryDownError:
                raise
            except RefusedError:
                continue
        async with self.store.begin() as conn:
            return await self.approvals.begin(conn, record.id, people=people)

    async def count(self, table: str) -> int:
        async with self.store.begin() as conn:
            found = await conn.execute(sa.text(f"SELECT count(*) FROM {table}"))
            return int(found.scalar_one())


@pytest.fixture
def house(client: AsyncWebClient, slack: SlackStandIn, store: Store) -> House:
    watch = Watch()
    people = People(client, team=TEAM, groups=GROUPS, fresh_for=timedelta(seconds=60), clock=watch)
    approvals = Approvals(
        store=store, keys=KEYS, queue=Queue(), clock=Clock(), policy=policy_of(1), directory=people
    )
    return House(slack, store, people, watch, approvals)


def flagged(**flags: bool) -> Change:
    async def change(slack: SlackStandIn, user: str) -> None:
        await slack.set_flags(user, **flags)

    return change


def changed(**values: Any) -> Change:
    async def change(slack: SlackStandIn, user: str) -> None:
        await slack.admin.change_person(user, **values)

    return change


UNFIT: Mapping[str, Change] = {
    "deactivated": flagged(deactivated=True),
    "a guest": flagged(guest=True),
    "a guest of one channel": flagged(single_channel_guest=True),
    "of another team": changed(team="T0OTHER"),
    "a stranger of Slack Connect": flagged(external=True),
    "a bot": flagged(bot=True),
    "a workflow's bot": changed(workflow_bot=True),
    "unconfirmed": flagged(unconfirmed=True),
    "without an address": changed(email=""),
}


async def forgotten(house: House) -> None:
    """More than the cache's time later."""
    house.watch.seconds += 61


@pytest.mark.parametrize("what", UNFIT)
async def test_the_unfit_neither_ask_nor_vote(house: House, what: str) -> None:
    asked = await house.ask()
    await UNFIT[what](house.slack, "U0BEN")
    await forgotten(house)
    refused = await house.ask("U0BEN")
    assert (refused.ok, refused.why) == (False, Why.IDENTITY)
    voted = await house.vote(asked)
    assert (voted.ok, voted.why) == (False, Why.IDENTITY)
    assert "full account of this workspace with a confirmed e-mail" in voted.next_step
    assert (await house.count("requests"), await house.count("votes")) == (1, 0)


@pytest.mark.parametrize("what", UNFIT)
@pytest.mark.parametrize("who", ["U0ANA", "U0BEN"])
async def test_nothing_runs_of_somebody_who_has_become_unfit(
    house: House, who: str, what: str
) -> None:
    if (who, what) == ("U0ANA", "a bot") or (who, what) == ("U0ANA", "a workflow's bot"):
        return  # a bot may have asked for somebody; see what the policy's scenarios say
    decided = await house.vote(await house.ask())
    await UNFIT[what](house.slack, who)
    await forgotten(house)
    begun = await house.begin(decided)
    assert not begun.ok
    assert begun.why in (Why.IDENTITY, Why.NOT_APPROVED)
    assert begun.request
    assert begun.request.state is not State.EXECUTING


async def _gone(slack: SlackStandIn, user: str) -> None:
    slack.admin.remove_person(user)


async def _readdressed(slack: SlackStandIn, user: str) -> None:
    await slack.admin.change_person(user, email="successor@acme.example")


@pytest.mark.parametrize("change", [_gone, _readdressed])
@pytest.mark.parametrize("who", ["U0ANA", "U0BEN"])
async def test_an_account_that_is_gone_or_somebody_elses_now_stops_the_run(
    house: House, who: str, change: Change
) -> None:
    decided = await house.vote(await house.ask())
    await change(house.slack, who)
    await forgotten(house)
    begun = await house.begin(decided)
    assert not begun.ok
    assert begun.request
    assert begun.request.state is not State.EXECUTING


async def test_an_account_that_is_gone_neither_asks_nor_votes(house: House) -> None:
    asked = await house.ask()
    house.slack.admin.remove_person("U0BEN")
    await forgotten(house)
    for attempt in (house.ask("U0BEN"), house.vote(asked)):
        with pytest.raises(RefusedError, match="no such account") as refusal:
            await attempt
        assert refusal.value.why is Why.IDENTITY
    assert await house.count("votes") == 0


@pytest.mark.deadlines
@pytest.mark.parametrize("kind", ["429", "500", "html", "drop_before", "slow"])
@pytest.mark.parametrize("method", ["users.info", "usergroups.users.list"])
async def test_nothing_is_decided_while_the_directory_does_not_answer(
    house: House, method: str, kind: str
) -> None:
    asked = await house.ask()
    decided = await house.vote(asked)
    await forgotten(house)
    more = {"seconds": 6.0} if kind == "slow" else {}
    house.slack.faults.add(method=method, kind=kind, times=30, **more)
    for attempt in (house.ask("U0ANA"), house.vote(asked, "U0CLEO"), house.begin(decided)):
        with pytest.raises(DirectoryDownError, match="directory cannot be read") as refusal:
            await attempt
        assert "Nothing was changed" in refusal.value.next_step
    assert (await house.count("requests"), await house.count("votes")) == (1, 1)
    record = await house.approvals.load(asked.request.id) if asked.request else None
    assert record
    assert record.state is State.APPROVED


async def _removed(slack: SlackStandIn) -> None:
    await slack.admin.set_group("S0DBA", ("U0CLEO",))


async def _disabled(slack: SlackStandIn) -> None:
    await slack.admin.disable_group("S0DBA")


async def _deleted(slack: SlackStandIn) -> None:
    slack.admin.remove_group("S0DBA")


@pytest.mark.parametrize("change", [_removed, _disabled, _deleted])
async def test_whoever_is_no_member_any_more_neither_votes_nor_counts(
    house: House, change: Callable[[SlackStandIn], Awaitable[None]]
) -> None:
    asked, granted = await house.ask(), await house.vote(await house.ask())
    assert granted.request
    assert granted.request.votes[0].groups == ("dba",)  # as it was, kept with the vote
    await change(house.slack)
    house.watch.seconds = 59
    await forgotten(house)
    voted = await house.vote(asked)
    assert (voted.why, voted.ok) == (Why.NOT_ELIGIBLE, False)
    begun = await house.begin(granted)
    assert begun.why is Why.NOT_APPROVED
    assert begun.request
    assert begun.request.state is State.PENDING


async def test_a_removed_approver_may_vote_for_the_caches_time_at_most(house: House) -> None:
    asked = await house.ask()
    await house.people.by_slack(TEAM, "U0BEN")
    await _removed(house.slack)
    house.watch.seconds = 60
    assert (await house.vote(asked)).why is Why.NOT_ELIGIBLE


@pytest.mark.parametrize("change", [_removed, _disabled])
async def test_slacks_word_that_a_group_has_changed_counts_at_once(
    house: House, change: Callable[[SlackStandIn], Awaitable[None]]
) -> None:
    asked = await house.ask()
    await house.people.by_slack(TEAM, "U0BEN")
    await change(house.slack)
    house.people.forget_group("S0DBA")
    assert (await house.vote(asked)).why is Why.NOT_ELIGIBLE


@pytest.mark.parametrize(
    "names",
    [
        {"name": "ben", "real_name": "Ben Berger"},
        {"name": "dba", "real_name": "DBAs"},
        {"name": "ben@acme.example", "real_name": "U0BEN"},
        {"name": "T0DEMO/U0BEN", "title": "dba"},
    ],
)
async def test_what_somebody_calls_themselves_never_matters(
    house: House, names: dict[str, str]
) -> None:
    asked = await house.ask()
    await house.slack.admin.change_person("U0OLE", **names)
    await forgotten(house)
    voted = await house.vote(asked, "U0OLE")
    assert voted.why is Why.NOT_ELIGIBLE
    assert await house.count("votes") == 0


@pytest.mark.parametrize("email", ["ana@acme.example", "ANA@Acme.Example", "ana+dba@acme.example"])
async def test_two_accounts_of_one_person_are_one_person(house: House, email: str) -> None:
    await house.slack.admin.change_person("U0CLEO", email=email)
    await forgotten(house)
    asked = await house.ask("U0ANA")
    assert (await house.vote(asked, "U0CLEO")).why is Why.SELF
    by_second = await house.ask("U0CLEO")
    assert (await house.vote(by_second, "U0ANA")).why is Why.SELF
    assert (await house.vote(by_second, "U0CLEO")).why is Why.SELF


@pytest.mark.parametrize("answer", [{}, {"user": None}, {"user": {"id": "U0OTHER"}}])
async def test_an_answer_about_somebody_else_is_none(
    client: AsyncWebClient, monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any]
) -> None:
    async def odd(awaited: Any) -> Any:
        awaited.close()
        return {"ok": True, **answer}

    monkeypatch.setattr("bot.people.call", odd)
    people = People(client, team=TEAM, groups={}, fresh_for=timedelta(0))
    with pytest.raises(DirectoryDownError):
        await people.by_slack(TEAM, "U0BEN")


ACCOUNT = {"id": "U0ANA", "profile": {"email": "ana@acme.example"}}
GRID = {**ACCOUNT, "team_id": "T0SISTER", "enterprise_user": {"teams": [TEAM, "T0SISTER"]}}


@pytest.mark.parametrize(
    ("account", "seen", "external"),
    [
        (GRID, TEAM, False),
        (GRID, "T0SISTER", False),  # Slack names somebody's own team in a click
        (GRID, "T0THIRD", True),
        (GRID | {"is_stranger": True}, TEAM, True),
        (GRID | {"enterprise_user": {"teams": ["T0SISTER"]}}, TEAM, True),
        (GRID | {"enterprise_user": {"teams": ["T0SISTER"]}}, "T0SISTER", True),
        (ACCOUNT | {"team_id": TEAM}, TEAM, False),
        (ACCOUNT | {"team_id": TEAM}, "T0SISTER", True),
        (ACCOUNT | {"team_id": TEAM}, "", True),
        (ACCOUNT, TEAM, True),
    ],
)
def test_who_belongs_to_us_in_an_organisation_of_many_teams(
    account: dict[str, Any],
    seen: str,
    external: bool,  # noqa: FBT001 - a column of the table
) -> None:
    found = person(account, team=TEAM, seen_team=seen, groups=frozenset())
    assert (Flag.EXTERNAL in found.flags) is external


async def test_an_account_is_found_by_how_policies_name_people(house: House) -> None:
    names = {
        "ben@acme.example": "T0DEMO/U0BEN",
        "t0demo/u0ben": "T0DEMO/U0BEN",
        "u0ben": "T0DEMO/U0BEN",
        "nobody@acme.example": "",
        "ben": "",
    }
    found = {name: await house.people.account_of(name) for name in names}
    assert found == names
