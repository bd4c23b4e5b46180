"""What somebody does besides approving, where a rule demands it, checked for every door.

Pages opened are kept (`approvals.readings`), a typed name is compared, a code is taken once.
What was shown goes into the signed vote, and the decision compares it with the rule.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from approvals.readings import Read, Readings
from approvals.records import RequestRecord
from approvals.refusals import Refusal, refuse
from approvals.second_factors import SecondFactors
from approvals.words import Care, PersonId, Why
from bot.cards import card_of
from bot.views.details import Reading, plan_pages

_NAMED_MAX: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A page (from 0) that is about to be shown to somebody."""

    record: RequestRecord
    person: PersonId
    page: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Careful:
    """Checks care."""

    readings: Readings
    factors: SecondFactors
    clock: Callable[[], datetime]

    async def read(self, record: RequestRecord, person: PersonId) -> Read:
        """Which of the plan's pages they have opened."""
        pages = len(plan_pages(card_of(record)))
        return await self.readings.read(record.id, record.plan_hash, person, pages=pages)

    async def reading(self, record: RequestRecord, person: PersonId, page: int) -> Reading:
        """What the details say of the pages opened, once `page` is shown as well."""
        if Care.READ not in record.care:
            return Reading()
        read = await self.read(record, person)
        return Reading(opened=read.opened | {page}, is_asked=True)

    async def opened(self, shown: Opened) -> None:
        """Keep that a page of the details was shown; those behind the plan do not matter."""
        pages = len(plan_pages(card_of(shown.record)))
        page = max(0, shown.page)
        if page < pages:
            await self._keep(shown.record, shown.person, page=page, pages=pages)

    async def opened_whole(self, record: RequestRecord, person: PersonId) -> None:
        """Keep that somebody was given the whole plan at once, as the API does."""
        pages = len(plan_pages(card_of(record)))
        for page in range(pages):
            await self._keep(record, person, page=page, pages=pages)

    async def _keep(
        self, record: RequestRecord, person: PersonId, *, page: int, pages: int
    ) -> None:
        await self.readings.opened(
            record.id, record.plan_hash, person, page=page, pages=pages, at=self.clock()
        )

    async def given(
        self, record: RequestRecord, person: PersonId, *, typed: str = "", code: str = ""
    ) -> frozenset[Care]:
        """What was shown of care for an approval. A code that is given is used up.

        Raises:
            RefusedError: a code was given where one is demanded, and it does not hold.
        """
        shown: set[Care] = set()
        if Care.READ in record.care and (await self.read(record, person)).is_whole:
            shown.add(Care.READ)
        if is_name(record, typed):
            shown.add(Care.NAMED)
        if Care.STEP_UP in record.care and code:
            await self.factors.check(person, code)
            shown.add(Care.STEP_UP)
        return frozenset(shown)


def is_name(record: RequestRecord, typed: str) -> bool:
    """Whether exactly the name of the request's database was typed. Pure."""
    return typed == (record.database or record.operation)


def misnamed(record: RequestRecord) -> Refusal:
    """What to say about another name than the database's. Pure."""
    return refuse(
        Why.NAME,
        record.id,
        problem="This is not the name of the database that the change is for.",
        next_step="Type it exactly as it stands above: same letters, same case, nothing around it.",
    )


def unread(record: RequestRecord, read: Read) -> Refusal:
    """What to say to somebody who has not opened every page. Pure."""
    missing = read.missing
    names = ", ".join(str(page + 1) for page in missing[:_NAMED_MAX])
    more = f" and {len(missing) - _NAMED_MAX} more" if len(missing) > _NAMED_MAX else ""
    opened = read.pages - len(missing)
    return refuse(
        Why.UNREAD,
        record.id,
        problem=f"You have opened {opened} of {read.pages} "
        f"page{'' if read.pages == 1 else 's'} of what request {record.id} would do.",
        next_step=f"Press Details and open page {names}{more}; then approve.",
    )
