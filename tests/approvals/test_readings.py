"""Which pages were opened, and how long a voter took."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import pytest
from sqlalchemy.exc import IntegrityError

from approvals.readings import Read, Readings, seconds_to_decide
from approvals.words import PersonId, PlanHash, RequestId
from store.connect import Store
from tests.approvals.support import BEN, CLEO, NOON, an_ask, approvals_on, policy_of

OLD, NEW = PlanHash("a" * 64), PlanHash("b" * 64)


@dataclass(frozen=True)
class Cast:
    """A vote."""

    person: PersonId
    at: datetime


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


@pytest.fixture
async def request_id(store: Store) -> RequestId:
    decision = await approvals_on(store, policy_of()).ask(an_ask())
    assert decision.request is not None
    return decision.request.id


async def test_every_page_is_kept_once_with_its_first_time(
    store: Store, request_id: RequestId
) -> None:
    readings = Readings(store=store)
    for seconds, page in ((1, 0), (2, 2), (3, 0)):
        await readings.opened(request_id, OLD, BEN.id, page=page, pages=3, at=after(seconds))
    read = await readings.read(request_id, OLD, BEN.id, pages=3)
    assert read == Read(pages=3, opened=frozenset({0, 2}))
    assert read.missing == (1,)
    assert not read.is_whole
    await readings.opened(request_id, OLD, BEN.id, page=1, pages=3, at=after(9))
    assert (await readings.read(request_id, OLD, BEN.id, pages=3)).is_whole
    assert await readings.first_opened(request_id, OLD) == {BEN.id: after(1)}


async def test_pages_of_another_plan_person_or_cut_do_not_count(
    store: Store, request_id: RequestId
) -> None:
    readings = Readings(store=store)
    await readings.opened(request_id, OLD, BEN.id, page=0, pages=1, at=NOON)
    assert (await readings.read(request_id, OLD, BEN.id, pages=1)).is_whole
    assert (await readings.read(request_id, NEW, BEN.id, pages=1)).missing == (0,)
    assert (await readings.read(request_id, OLD, CLEO.id, pages=1)).missing == (0,)
    assert (await readings.read(request_id, OLD, BEN.id, pages=2)).missing == (0, 1)
    assert await readings.first_opened(request_id, NEW) == {}


async def test_there_is_no_page_behind_the_last(store: Store, request_id: RequestId) -> None:
    with pytest.raises(IntegrityError):
        await Readings(store=store).opened(request_id, OLD, BEN.id, page=3, pages=3, at=NOON)


@pytest.mark.parametrize(
    ("opened", "votes", "seconds"),
    [
        ({BEN.id: after(0)}, [Cast(BEN.id, after(42))], {BEN.id: 42.0}),
        ({}, [Cast(BEN.id, after(42))], {BEN.id: None}),
        ({BEN.id: after(50)}, [Cast(BEN.id, after(42))], {BEN.id: None}),
        ({BEN.id: after(0)}, [Cast(BEN.id, after(9)), Cast(BEN.id, after(5))], {BEN.id: 5.0}),
        ({CLEO.id: after(0)}, [], {}),
    ],
)
def test_how_long_a_voter_took(
    opened: dict[PersonId, datetime], votes: list[Cast], seconds: dict[PersonId, float | None]
) -> None:
    assert seconds_to_decide(opened, votes) == seconds
