"""Telling from the store: once by any number of bots, never about what we did not store."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta

import asyncpg
import pytest
import sqlalchemy as sa
from slack_sdk.web.async_client import AsyncWebClient

from approvals.calls import Decision
from approvals.notices import Notices
from approvals.service import Approvals
from approvals.words import DirectoryDownError, Door, Verdict
from bot.notices import Teller
from bot.people import People
from sandbox.slack.server import SlackStandIn
from store.connect import Store
from tests.approvals.support import KEYS, NOON, Clock, Queue, a_ballot, an_ask, policy_of

TEAM = "T0DEMO"
GROUPS = {
    "dba": "S0DBA", "security": "S0SECURITY", "oncall": "S0ONCALL", "owners": "S0OWNERS",
}  # fmt: skip
Told = list[tuple[str, str]]


@dataclass(slots=True)
class Office:
    """Approvals, and as many tellers as one wants, on one store and one clock."""

    store: Store
    people: People
    clock: Clock
    approvals: Approvals

    def teller(self) -> Teller:
        notices = Notices(store=self.store, keys=KEYS, clock=self.clock)
        return Teller(
            approvals=self.approvals, notices=notices, people=self.people, clock=self.clock
        )

    async def ask(self, user: str = "U0ANA") -> Decision:
        return await self.approvals.ask(an_ask(await self.people.by_slack(TEAM, user)))

    async def vote(self, asked: Decision, user: str, verdict: Verdict) -> Decision:
        by = await self.people.by_slack(TEAM, user)
        return await self.approvals.vote(a_ballot(asked, by, verdict))

    async def sent(self) -> Told:
        """What has been queued for each person since the last look, in order."""
        async with self.store.begin() as conn:
            rows = await conn.execute(
                sa.text(
                    "UPDATE outbox SET state = 'sent' WHERE topic = 'direct' AND state = 'waiting'"
                    " RETURNING id, channel, payload"
                )
            )
            found = sorted(rows, key=lambda row: row.id)
        return [
            (row.channel, "over" if row.payload["is_over"] else row.payload["notice"])
            for row in found
        ]


def office_on(client: AsyncWebClient, store: Store, **policy: object) -> Office:
    people = People(client, team=TEAM, groups=GROUPS, fresh_for=timedelta(0))
    clock = Clock()
    approvals = Approvals(
        store=store, keys=KEYS, queue=Queue(), clock=clock, policy=policy_of(2, **policy),
        directory=people,
    )  # fmt: skip
    return Office(store, people, clock, approvals)


@pytest.fixture
def office(client: AsyncWebClient, store: Store) -> Office:
    return office_on(client, store)


async def test_several_bots_tell_once(office: Office) -> None:
    await office.ask()
    await asyncio.gather(*(office.teller().look() for _ in range(6)))
    assert sorted(await office.sent()) == [("U0BEN", "ask"), ("U0CLEO", "ask")]
    for _ in range(3):
        assert await office.teller().look() == 0


async def test_what_was_looked_up_for_another_version_is_told_to_nobody_and_is_due_again(
    office: Office,
) -> None:
    asked = await office.ask()
    assert asked.request
    before = await office.approvals.load(asked.request.id)
    assert before
    await office.vote(asked, "U0BEN", Verdict.APPROVE)
    teller = office.teller()
    people = await teller._people(before, [])
    for version in (before.version, before.version + 2, 0):
        told = await teller.notices.tell(
            before.id, policy=office.approvals.policy, people=people, absences=[], version=version
        )
        assert told == 0
        assert await teller.notices.due(limit=10) == [before.id]
    assert await office.sent() == []
    await teller.look()
    assert await office.sent() == [("U0CLEO", "ask")]
    assert await teller.notices.due(limit=10) == []


async def test_it_is_over_for_everybody_when_it_is_denied(office: Office) -> None:
    asked = await office.ask()
    await office.teller().look()
    await office.sent()
    await office.vote(asked, "U0BEN", Verdict.DENY)
    await asyncio.gather(*(office.teller().look() for _ in range(3)))
    assert sorted(await office.sent()) == [("U0BEN", "over"), ("U0CLEO", "over")]
    async with office.store.begin() as conn:
        left = await conn.execute(sa.text("SELECT tell_at, told_version = version FROM requests"))
        assert [tuple(row) for row in left] == [(None, True)]


async def test_a_guest_a_stranger_and_who_has_left_are_never_told(
    office: Office, slack: SlackStandIn
) -> None:
    await slack.set_flags("U0CLEO", guest=True)
    await office.ask("U0BEN")
    await office.teller().look()
    assert await office.sent() == []
    await slack.set_flags("U0CLEO", guest=False)
    office.clock.forward(minutes=5)
    await office.teller().look()
    assert await office.sent() == [("U0CLEO", "ask")]


@pytest.mark.parametrize("method", ["users.info", "usergroups.users.list"])
async def test_nobody_is_told_while_nobody_is_known_and_nothing_is_lost(
    office: Office, slack: SlackStandIn, method: str
) -> None:
    await office.ask()
    slack.faults.add(method=method, kind="500", times=1)
    with pytest.raises(DirectoryDownError):
        await office.teller().look()
    assert await office.sent() == []
    await office.teller().look()
    assert len(await office.sent()) == 2


@pytest.mark.parametrize(
    "forgery", ["UPDATE requests SET reason = 'urgent'", "UPDATE requests SET authors = '{x}'"]
)
async def test_what_was_altered_in_the_store_is_told_to_nobody(
    office: Office, forgery: str
) -> None:
    await office.ask()
    conn = await asyncpg.connect(office.store.dsn.get_secret_value())
    await conn.execute(forgery)
    await conn.close()
    await office.teller().look()
    assert await office.sent() == []


async def test_escalation_goes_to_its_groups_when_its_time_has_come(
    client: AsyncWebClient, store: Store
) -> None:
    gates = [
        {"id": "dba", "groups": ["dba"], "approve": 2, "escalate_after": "2h",
         "escalate_groups": ["oncall"]}
    ]  # fmt: skip
    office = office_on(client, store, gates=gates)
    await office.ask()
    await office.teller().look()
    await office.sent()
    office.clock.now = NOON + timedelta(hours=2)
    await office.teller().look()
    assert await office.sent() == [("U0OLE", "escalated")]


async def test_reminders_come_in_working_hours_until_it_is_closed(
    client: AsyncWebClient, store: Store
) -> None:
    office = office_on(client, store, remind_every="4h", expires_after="20d")
    asked = await office.ask()
    reminded: dict[str, list[int]] = {}
    for _ in range(14 * 24):  # from Sunday noon on, for two weeks
        await office.teller().look()
        for user, kind in await office.sent():
            if kind == "remind":
                reminded.setdefault(user, []).append(office.clock.now.hour)
        office.clock.forward(hours=1)
    assert {user: len(hours) for user, hours in reminded.items()} == {"U0BEN": 5, "U0CLEO": 5}
    assert set(reminded["U0BEN"]) <= set(range(9, 18))
    assert set(reminded["U0CLEO"]) <= set(range(9))  # Tokyo is nine hours ahead
    await office.vote(asked, "U0BEN", Verdict.DENY)
    await office.teller().look()
    # Everything that was told is redrawn: the first message and five reminders of each.
    assert sorted(await office.sent()) == [("U0BEN", "over")] * 6 + [("U0CLEO", "over")] * 6


async def test_broken_glass_is_told_to_its_reviewers(client: AsyncWebClient, store: Store) -> None:
    glass = {"groups": ["oncall"], "reviewers": ["owners"], "review_within": "1d"}
    office = office_on(client, store, break_glass=glass)
    asked = await office.ask()
    await office.teller().look()
    await office.sent()
    assert asked.request
    ole = await office.people.by_slack(TEAM, "U0OLE")
    broken = await office.approvals.break_glass(
        asked.request.id, by=ole, reason="The site is down", door=Door.SLACK, delivery=""
    )
    assert broken.ok
    await office.teller().look()
    assert sorted(await office.sent()) == [
        ("U0BEN", "over"), ("U0CLEO", "over"), ("U0DORA", "glass"), ("U0OLE", "glass"),
    ]  # fmt: skip


async def test_one_request_that_cannot_be_looked_at_does_not_stop_the_others(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await office.ask(), await office.ask()
    assert first.request
    assert second.request
    teller, broken = office.teller(), first.request.id
    tell = Notices.tell

    async def failing(self: Notices, request_id: object, **more: object) -> int:
        if request_id == broken:
            raise KeyError("a bug")
        return await tell(self, request_id, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Notices, "tell", failing)
    await teller.look()
    assert len(await office.sent()) == 2
    assert await teller.notices.due(limit=10) == []
    office.clock.forward(minutes=11)
    assert broken in await teller.notices.due(limit=10)


async def test_few_are_looked_at_in_one_go(office: Office, client: AsyncWebClient) -> None:
    office.people = People(client, team=TEAM, groups=GROUPS, fresh_for=timedelta(seconds=60))
    for _ in range(5):
        await office.ask()
    assert await office.teller().look(limit=2) == 4
    assert await office.teller().look(limit=2) == 4
    assert await office.teller().look(limit=2) == 2
