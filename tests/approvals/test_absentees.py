"""In whose seats somebody may sit: looked up fresh, for now, and only where it is the same person.

Decisions look at each of this again; here it is kept from being handed to them at all.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from approvals.absentees import absentees
from approvals.rules import Delegation
from approvals.times import Span
from approvals.words import DirectoryDownError, Person, PersonId
from store.connect import Store
from tests.approvals.support import BEN, CLEO, NOON
from tests.approvals.test_delegations import DAY, DORA, OLE, Office


@pytest.fixture
def office(store: Store) -> Office:
    return Office(store)


async def seats(office: Office, by: Person, *named: Delegation) -> list[str]:
    """Whose seats `by` may sit in now."""
    found = await absentees(
        by,
        named=named,
        given=office.delegations,
        directory=office.town,
        now=office.clock(),
    )
    return sorted(found)


async def test_the_absent_are_looked_up_for_their_stand_in_alone(office: Office) -> None:
    await office.give(by=BEN, to=OLE)
    assert await seats(office, OLE) == [BEN.id]
    assert await seats(office, BEN) == []  # Ole is not away
    assert await seats(office, CLEO) == []


NEW = PersonId("new@acme.example")


@pytest.mark.parametrize(
    ("changed", "sits"),
    [
        (replace(BEN, id=NEW), []),
        (replace(BEN, id=NEW, aliases=frozenset({str(BEN.id)})), [NEW]),
        (replace(BEN, groups=frozenset()), [BEN.id]),  # whether it counts is for the rule
    ],
)
async def test_an_account_that_is_somebody_elses_now_is_nobodys_seat(
    office: Office, changed: Person, sits: list[str]
) -> None:
    await office.give(by=BEN, to=OLE)
    office.town.people[BEN.slack] = changed
    assert await seats(office, OLE) == sits


async def test_an_account_that_is_gone_is_nobodys_seat(office: Office) -> None:
    await office.give(by=BEN, to=OLE)
    await office.give(by=CLEO, to=OLE)
    del office.town.people[BEN.slack]
    assert await seats(office, OLE) == [CLEO.id]


async def test_there_is_no_seat_before_its_time_nor_after_it(office: Office) -> None:
    span = Span(start=NOON + DAY, end=NOON + 2 * DAY)
    await office.delegations.give(by=BEN, stand_in=OLE, span=span, delivery="")
    moment = timedelta(microseconds=1)
    for at, sits in (
        (span.start - moment, False),
        (span.start, True),
        (span.end - moment, True),
        (span.end, False),
    ):
        office.clock.now = at
        assert await seats(office, OLE) == ([BEN.id] if sits else [])


async def test_an_account_that_the_policy_names_counts_as_long_as_it_is_theirs(
    office: Office,
) -> None:
    always = Delegation(
        absent=BEN.slack.casefold(), stand_in=DORA.id, start=NOON - DAY, end=NOON + DAY
    )
    office.town.people[BEN.slack.casefold()] = BEN
    assert await seats(office, DORA, always) == [BEN.id]
    office.town.people[BEN.slack.casefold()] = CLEO
    assert await seats(office, DORA, always) == []


async def test_without_a_directory_there_is_no_seat_and_while_it_is_away_no_answer(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    await office.give(by=BEN, to=OLE)
    none = await absentees(
        OLE, named=(), given=office.delegations, directory=None, now=office.clock()
    )
    assert none == {}

    async def away(*_: object) -> Person:
        raise DirectoryDownError("away", next_step="wait")

    monkeypatch.setattr(type(office.town), "by_id", away)
    with pytest.raises(DirectoryDownError):
        await seats(office, OLE)
