"""Who may vote in whose seat: signed, for dates, one step only, and checked again at the start."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta

import asyncpg
import pytest
import sqlalchemy as sa

from approvals.calls import Decision
from approvals.delegations import DELEGATIONS_MAX, Absence, Delegations
from approvals.service import Approvals
from approvals.times import Span
from approvals.words import (
    BadInputError,
    Flag,
    Person,
    PersonId,
    RefusedError,
    State,
    Verdict,
    Why,
)
from store.connect import Store
from tests.approvals.support import (
    ANA,
    BEN,
    CLEO,
    KEYS,
    NOON,
    Clock,
    Queue,
    a_ballot,
    an_ask,
    policy_of,
)

DAY = timedelta(days=1)
OLE, DORA = (
    Person(
        id=PersonId(f"{name}@acme.example"), name=name, slack_team="T0DEMO", slack_user=f"U0{key}"
    )
    for name, key in (("ole", "OLE"), ("dora", "DORA"))
)


@dataclass(slots=True)
class Town:
    """A directory that knows people by the account that they are remembered with."""

    people: dict[str, Person] = field(
        default_factory=lambda: {each.slack: each for each in (ANA, BEN, CLEO, OLE, DORA)}
    )

    async def by_slack(self, team: str, user: str) -> Person:
        return await self.by_id(PersonId(""), f"{team}/{user}")

    async def by_id(self, person: PersonId, slack: str) -> Person:
        if slack not in self.people:
            raise RefusedError(f"{person} is nobody.", next_step="Ask.", why=Why.IDENTITY)
        return self.people[slack]


@dataclass(slots=True)
class Office:
    """A service with a directory, on a clock that one turns."""

    store: Store
    clock: Clock = field(default_factory=Clock)
    town: Town = field(default_factory=Town)

    @property
    def approvals(self) -> Approvals:
        return Approvals(
            store=self.store,
            keys=KEYS,
            queue=Queue(),
            clock=self.clock,
            policy=policy_of(1),
            directory=self.town,
        )

    @property
    def delegations(self) -> Delegations:
        return self.approvals.delegations

    async def give(
        self, by: Person = BEN, to: Person = OLE, *, days: int = 2, delivery: str = ""
    ) -> Absence:
        span = Span(start=self.clock(), end=self.clock() + days * DAY)
        return await self.delegations.give(by=by, stand_in=to, span=span, delivery=delivery)

    async def vote(self, by: Person, asked: Decision | None = None) -> Decision:
        asked = asked or await self.approvals.ask(an_ask())
        return await self.approvals.vote(a_ballot(asked, by))

    async def begin(self, decided: Decision) -> Decision:
        """As a worker does: it looks up everybody concerned."""
        assert decided.request
        votes = decided.request.votes
        wanted = {vote.seat: vote.seat_slack for vote in votes}
        wanted |= {vote.person: vote.slack for vote in votes}
        wanted[ANA.id] = ANA.slack
        people = {
            person: self.town.people[slack]
            for person, slack in wanted.items()
            if slack in self.town.people
        }
        async with self.store.begin() as conn:
            return await self.approvals.begin(conn, decided.request.id, people=people)

    async def rows(self, query: str) -> list[tuple[object, ...]]:
        async with self.store.begin() as conn:
            return [tuple(row) for row in await conn.execute(sa.text(query))]


@pytest.fixture
def office(store: Store) -> Office:
    return Office(store)


async def by_owner(store: Store, *statements: str) -> None:
    """What somebody does who owns the database, triggers or not."""
    conn = await asyncpg.connect(store.dsn.get_secret_value())
    try:
        await conn.execute("SET session_replication_role = replica")
        for statement in statements:
            await conn.execute(statement)
    finally:
        await conn.close()


async def test_a_stand_in_votes_in_the_seat_and_the_worker_counts_it(office: Office) -> None:
    assert (await office.vote(OLE)).why is Why.NOT_ELIGIBLE
    await office.give()
    decided = await office.vote(OLE)
    assert decided.ok, decided.problem
    assert decided.request
    (vote,) = decided.request.votes
    assert (vote.person, vote.seat, vote.seat_slack) == (OLE.id, BEN.id, "T0DEMO/U0BEN")
    assert decided.request.state is State.APPROVED
    begun = await office.begin(decided)
    assert begun.ok, begun.problem


async def test_a_seat_is_one_seat(office: Office) -> None:
    await office.give()
    approvals = replace_policy(office, 2)
    asked = await approvals.ask(an_ask())
    assert (await approvals.vote(a_ballot(asked, OLE))).ok
    assert (await approvals.vote(a_ballot(asked, BEN))).why is Why.DUPLICATE
    assert (await approvals.vote(a_ballot(asked, CLEO))).ok


def replace_policy(office: Office, approve: int) -> Approvals:
    return Approvals(
        store=office.store,
        keys=KEYS,
        queue=Queue(),
        clock=office.clock,
        policy=policy_of(approve),
        directory=office.town,
    )


async def test_it_holds_from_its_first_moment_up_to_its_last(office: Office) -> None:
    span = Span(start=NOON + DAY, end=NOON + 2 * DAY)
    await office.delegations.give(by=BEN, stand_in=OLE, span=span, delivery="")
    asked = await office.approvals.ask(an_ask())
    assert (await office.vote(OLE, asked)).why is Why.NOT_ELIGIBLE
    office.clock.now = NOON + 2 * DAY
    assert (await office.vote(OLE, asked)).why is Why.NOT_ELIGIBLE
    office.clock.now = NOON + 2 * DAY - timedelta(seconds=1)
    assert (await office.vote(OLE, asked)).ok


async def test_nobody_votes_on_their_own_by_a_stand_in(office: Office) -> None:
    await office.give(by=BEN, to=OLE)
    by_ben = await office.approvals.ask(an_ask(BEN))
    assert (await office.vote(OLE, by_ben)).why is Why.SELF
    by_ole = await office.approvals.ask(an_ask(OLE))
    assert (await office.vote(OLE, by_ole)).why is Why.SELF


async def test_a_stand_in_of_a_stand_in_has_nothing(office: Office) -> None:
    await office.give(by=BEN, to=OLE)
    await office.give(by=OLE, to=DORA)
    assert (await office.vote(DORA)).why is Why.NOT_ELIGIBLE


@pytest.mark.parametrize("flag", list(Flag))
async def test_both_must_be_fit_when_it_is_given(office: Office, flag: Flag) -> None:
    unfit = frozenset({flag})
    for by, to in ((replace(BEN, flags=unfit), OLE), (BEN, replace(OLE, flags=unfit))):
        with pytest.raises(RefusedError, match="may not vote here"):
            await office.give(by, to)
    assert await office.rows("SELECT 1 FROM delegations") == []


async def test_a_second_account_is_no_stand_in(office: Office) -> None:
    second = replace(BEN, slack_user="U0BEN2")
    with pytest.raises(RefusedError, match="another account of yours") as refusal:
        await office.give(BEN, second)
    assert refusal.value.why is Why.SELF


@pytest.mark.parametrize("who", ["absent", "stand-in"])
@pytest.mark.parametrize("change", ["unfit", "gone", "somebody else's account", "left the group"])
async def test_whoever_does_not_count_today_stops_vote_and_run(
    office: Office, who: str, change: str
) -> None:
    if (who, change) == ("stand-in", "left the group"):
        return  # the seat's groups count, not the stand-in's
    await office.give()
    decided = await office.vote(OLE)
    other = await office.approvals.ask(an_ask())
    person = BEN if who == "absent" else OLE
    match change:
        case "unfit":
            changed = replace(person, flags=frozenset({Flag.DEACTIVATED}))
            office.town.people[person.slack] = changed
        case "gone":
            del office.town.people[person.slack]
        case "left the group":
            office.town.people[person.slack] = replace(person, groups=frozenset())
        case _:
            changed = replace(person, id=PersonId("new@acme.example"))
            office.town.people[person.slack] = changed
    begun = await office.begin(decided)
    assert not begun.ok
    assert begun.request
    assert begun.request.state is State.PENDING
    if who == "absent":
        assert (await office.vote(OLE, other)).why is Why.NOT_ELIGIBLE


async def test_a_vote_stays_valid_when_the_delegation_has_ended_since(office: Office) -> None:
    made = await office.give()
    decided = await office.vote(OLE)
    office.clock.forward(hours=1)
    await office.delegations.revoke(made.id, by=BEN, delivery="")
    assert (await office.vote(OLE)).why is Why.NOT_ELIGIBLE
    assert (await office.begin(decided)).ok


FORGE = """
    INSERT INTO delegations (absent, absent_slack, stand_in, stand_in_slack, starts_at, ends_at,
                             at, revokes, key_id, signature)
    SELECT absent, absent_slack, stand_in, stand_in_slack, starts_at, ends_at, at, revokes,
           key_id, signature
      FROM delegations WHERE revokes IS NULL
"""


TO_OLE = "stand_in = 'ole@acme.example', stand_in_slack = 'T0DEMO/U0OLE'"
OF_CLEO = "absent = 'cleo@acme.example', absent_slack = 'T0DEMO/U0CLEO'"


@pytest.mark.parametrize(
    "forgery",
    [
        f"UPDATE delegations SET {TO_OLE}",
        f"UPDATE delegations SET {OF_CLEO}, {TO_OLE}",
        FORGE + f"; UPDATE delegations SET {TO_OLE} WHERE id = 2",
    ],
)
async def test_a_row_that_we_did_not_sign_gives_nobody_a_seat(office: Office, forgery: str) -> None:
    await office.give(to=DORA)
    await by_owner(office.store, forgery)
    assert (await office.vote(OLE)).why is Why.NOT_ELIGIBLE


async def test_neither_a_longer_end_nor_a_copy_brings_a_delegation_back(office: Office) -> None:
    made = await office.give()
    office.clock.forward(hours=1)
    await office.delegations.revoke(made.id, by=OLE, delivery="")
    await by_owner(office.store, FORGE)
    assert len(await office.rows("SELECT 1 FROM delegations")) == 3
    assert (await office.vote(OLE)).why is Why.NOT_ELIGIBLE
    await office.give(days=1)
    longer = "UPDATE delegations SET ends_at = ends_at + interval '10 days'"
    await by_owner(office.store, longer)
    assert (await office.vote(OLE)).why is Why.NOT_ELIGIBLE


async def test_a_vote_whose_delegation_was_taken_out_does_not_start(office: Office) -> None:
    await office.give()
    decided = await office.vote(OLE)
    await by_owner(office.store, "DELETE FROM delegations")
    assert (await office.begin(decided)).why is Why.NOT_APPROVED


async def test_the_application_cannot_change_a_row(office: Office) -> None:
    await office.give()
    for statement in ("UPDATE delegations SET ends_at = now()", "DELETE FROM delegations"):
        with pytest.raises(sa.exc.DBAPIError, match="permission denied"):
            await office.rows(statement)


async def test_only_the_two_of_it_can_end_it(office: Office) -> None:
    made = await office.give()
    with pytest.raises(BadInputError, match=f"no delegation {made.id} of yours"):
        await office.delegations.revoke(made.id, by=CLEO, delivery="")
    ended = await office.delegations.revoke(made.id, by=OLE, delivery="")
    assert ended.revoked_at == office.clock()
    with pytest.raises(BadInputError):
        await office.delegations.revoke(made.id, by=BEN, delivery="")
    assert await office.delegations.of(BEN.id) == []


async def test_the_same_delivery_gives_once(office: Office) -> None:
    first = await office.give(delivery="d1")
    assert await office.give(delivery="d1") == first
    await office.delegations.revoke(first.id, by=BEN, delivery="d2")
    await office.delegations.revoke(first.id, by=BEN, delivery="d2")
    assert len(await office.rows("SELECT 1 FROM delegations")) == 2


async def test_it_is_in_the_audit_and_told_to_both(office: Office) -> None:
    made = await office.give()
    await office.delegations.revoke(made.id, by=BEN, delivery="")
    actions = "SELECT action, actor FROM audit_log WHERE chain = '' ORDER BY seq"
    assert await office.rows(actions) == [("delegate", BEN.id), ("revoke_delegation", BEN.id)]
    told = "SELECT channel, payload ->> 'revoked' FROM outbox WHERE topic = 'direct' ORDER BY id"
    assert await office.rows(told) == [
        ("U0BEN", "false"), ("U0OLE", "false"), ("U0BEN", "true"), ("U0OLE", "true"),
    ]  # fmt: skip


async def test_nobody_gives_more_than_a_few(office: Office) -> None:
    for _ in range(DELEGATIONS_MAX):
        await office.give()
    with pytest.raises(BadInputError, match="already"):
        await office.give()


async def test_only_what_one_gave_and_still_holds_counts_towards_that(office: Office) -> None:
    for _ in range(DELEGATIONS_MAX - 1):
        await office.give()
    await office.give(by=OLE, to=BEN)  # got, not given
    last = await office.give()
    with pytest.raises(BadInputError, match="already"):
        await office.give()
    await office.delegations.revoke(last.id, by=BEN, delivery="")
    await office.give()
    with pytest.raises(BadInputError, match="already"):
        await office.give()
    office.clock.forward(days=2)  # all of them have ended
    await office.give()


@pytest.mark.parametrize("flag", list(Flag))
async def test_whoever_is_unfit_ends_nothing(office: Office, flag: Flag) -> None:
    made = await office.give()
    for person in (BEN, OLE):
        with pytest.raises(RefusedError, match="may not vote here") as refusal:
            unfit = replace(person, flags=frozenset({flag}))
            await office.delegations.revoke(made.id, by=unfit, delivery="")
        assert refusal.value.why is Why.IDENTITY
    assert [each.revoked_at for each in await office.delegations.open()] == [None]


async def test_a_stand_in_may_deny_in_the_seat_too(office: Office) -> None:
    await office.give()
    asked = await office.approvals.ask(an_ask())
    denied = await office.approvals.vote(a_ballot(asked, OLE, Verdict.DENY))
    assert denied.request
    assert denied.request.state is State.DENIED
