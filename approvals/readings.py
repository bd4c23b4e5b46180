"""Which pages of a plan somebody has opened: kept once for each page, and counted.

A page counts for the plan that it was a page of, and while that plan is cut into as many pages.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import TIMESTAMP

from approvals.words import PersonId, PlanHash, RequestId
from store.connect import Store

# The first time is what counts: who opens a page again changes nothing.
KEEP: Final = sa.text("""
    INSERT INTO readings (request_id, plan_hash, person, pages, page, at)
    VALUES (:request_id, :plan_hash, :person, :pages, :page, :at)
        ON CONFLICT DO NOTHING
""").bindparams(sa.bindparam("at", type_=TIMESTAMP(timezone=True)))

OPENED: Final = sa.text("""
    SELECT page
      FROM readings
     WHERE request_id = :request_id
       AND plan_hash = :plan_hash
       AND person = :person
       AND pages = :pages
""")

FIRST: Final = sa.text("""
    SELECT person, min(at) AS at
      FROM readings
     WHERE request_id = :request_id
       AND plan_hash = :plan_hash
     GROUP BY person
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """What somebody has opened of a plan with so many pages (from 0)."""

    pages: int
    opened: frozenset[int]

    @property
    def missing(self) -> tuple[int, ...]:
        """The pages that they have not opened, in order."""
        return tuple(page for page in range(self.pages) if page not in self.opened)

    @property
    def is_whole(self) -> bool:
        """Whether every page was opened."""
        return not self.missing


class Decided(Protocol):
    """A vote, as far as it matters here."""

    @property
    def person(self) -> PersonId:
        """Whose it is."""
        ...

    @property
    def at(self) -> datetime:
        """When it was cast."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """The table of that name. Times come from whoever calls."""

    store: Store

    async def opened(
        self,
        request_id: RequestId,
        plan_hash: PlanHash,
        person: PersonId,
        *,
        page: int,
        pages: int,
        at: datetime,
    ) -> None:
        """Keep that a page (from 0) was shown to somebody. Only the first time is kept."""
        values = {
            "request_id": request_id, "plan_hash": plan_hash, "person": person,
            "pages": pages, "page": page, "at": at,
        }  # fmt: skip
        async with self.store.begin() as conn:
            await conn.execute(KEEP, values)

    async def read(
        self, request_id: RequestId, plan_hash: PlanHash, person: PersonId, *, pages: int
    ) -> Read:
        """What somebody has opened of this plan, cut into so many pages."""
        values = {
            "request_id": request_id, "plan_hash": plan_hash, "person": person, "pages": pages,
        }  # fmt: skip
        async with self.store.single() as conn:
            found = (await conn.execute(OPENED, values)).scalars()
            return Read(pages=pages, opened=frozenset(found))

    async def first_opened(
        self, request_id: RequestId, plan_hash: PlanHash
    ) -> Mapping[PersonId, datetime]:
        """When each reader opened the plan first."""
        async with self.store.single() as conn:
            rows = await conn.execute(FIRST, {"request_id": request_id, "plan_hash": plan_hash})
            return {PersonId(row.person): row.at for row in rows}


def seconds_to_decide(
    first_opened: Mapping[PersonId, datetime], votes: Iterable[Decided]
) -> Mapping[PersonId, float | None]:
    """How long each voter took from opening the plan to the first vote. Pure.

    None: they never opened it, or only after they had voted.
    """
    taken: dict[PersonId, float | None] = {}
    for vote in sorted(votes, key=lambda vote: vote.at):
        opened = first_opened.get(vote.person)
        seen = opened is not None and opened <= vote.at
        taken.setdefault(
            vote.person, (vote.at - opened).total_seconds() if opened and seen else None
        )
    return taken
