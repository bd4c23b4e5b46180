"""What waits for somebody, what they asked for, and what runs: bounded lists for people."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.ext.asyncio import AsyncConnection

from approvals.cases import Case
from approvals.events import Facts, Request
from approvals.records import RequestRecord
from approvals.service import Approvals
from approvals.shelf import Shelf
from approvals.signing import VoteKeys
from approvals.waiting import may_review, may_turn_key
from approvals.words import Person, RequestId, State
from store.connect import Store

# So many open requests are looked at, those that expire first. Beyond it a list says so.
LOOKED_AT_MAX: Final = 2000
LISTED_MAX: Final = 20

# What decisions look at and nothing else: a plan may be long, and there may be many.
OPEN: Final = sa.text("""
    SELECT r.id, r.state, r.database, r.asked_by, r.authors, r.plan_hash, r.policy_hash,
           r.attributes, r.asked_at, r.expires_at, r.step, r.approved_at,
           r.approval_expires_at, r.detail,
           (SELECT coalesce(jsonb_agg(to_jsonb(v) ORDER BY v.id), '[]')
              FROM votes v
             WHERE v.request_id = r.id AND v.plan_hash = r.plan_hash
               AND v.id > CAST(coalesce(r.detail ->> 'void_before', '0') AS bigint)) AS votes
      FROM (SELECT *
              FROM requests
             WHERE state = :state
               AND (:state <> 'pending' OR expires_at > :at)
               AND (CAST(:database AS text) IS NULL OR database = :database)
             ORDER BY expires_at, id
             LIMIT :limit) AS r
     ORDER BY r.expires_at, r.id
""").bindparams(
    sa.bindparam("at", type_=TIMESTAMP(timezone=True)), sa.bindparam("state", type_=sa.Text())
)

ASKED_BY: Final = sa.text("""
    SELECT id
      FROM requests
     WHERE asked_by = :person
       AND (CAST(:database AS text) IS NULL OR database = :database)
     ORDER BY id DESC
     LIMIT :limit
""")

RUNNING: Final = sa.text("""
    SELECT q.id, u.progress ->> 'text' AS text,
           CAST(u.progress ->> 'fraction' AS double precision) AS fraction
      FROM requests q
      LEFT JOIN runs u ON u.request_id = q.id
     WHERE q.state = 'executing'
       AND (CAST(:database AS text) IS NULL OR q.database = :database)
     ORDER BY q.id DESC
     LIMIT :limit
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """The first of a list. `total` counts all of it; not `complete`: there may be more still."""

    records: tuple[RequestRecord, ...] = ()
    total: int = 0
    complete: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A request that is carried out now, and how far it is."""

    record: RequestRecord
    text: str
    fraction: float | None


class Inbox:
    """Reads what somebody should see. Changes nothing."""

    def __init__(
        self,
        *,
        store: Store,
        keys: VoteKeys,
        approvals: Approvals,
        clock: Callable[[], datetime],
        looked_at_max: int = LOOKED_AT_MAX,
    ) -> None:
        self._store = store
        self._keys = keys
        self._approvals = approvals
        self._clock = clock
        self._looked_at_max = looked_at_max

    async def waiting_for(
        self, person: Person, *, database: str | None = None, limit: int = LISTED_MAX
    ) -> Listed:
        """The requests in which this person may turn a key now; what expires first is first.

        Raises:
            DirectoryDownError: those whom the person stands in for cannot be looked up.
        """
        facts = await self._approvals.facts_for(person)
        return await self._chosen(
            State.PENDING, lambda request: may_turn_key(request, person, facts), facts,
            database=database, limit=limit,
        )  # fmt: skip

    async def owed_by(
        self, person: Person, *, database: str | None = None, limit: int = LISTED_MAX
    ) -> Listed:
        """What was run behind broken glass and this person may review."""
        facts = await self._approvals.facts_for(person)
        return await self._chosen(
            State.NEEDS_REVIEW, lambda request: may_review(request, person, facts), facts,
            database=database, limit=limit,
        )  # fmt: skip

    async def asked_by(
        self, person: Person, *, database: str | None = None, limit: int = LISTED_MAX
    ) -> Sequence[RequestRecord]:
        """What this person asked for, the newest first."""
        values = {"person": person.id, "database": database, "limit": limit}
        async with self._store.begin() as conn:
            found = (await conn.execute(ASKED_BY, values)).scalars()
            return await self._read(conn, list(found))

    async def running(
        self, *, database: str | None = None, limit: int = LISTED_MAX
    ) -> Sequence[Running]:
        """What is carried out now, the newest first."""
        async with self._store.begin() as conn:
            rows = (await conn.execute(RUNNING, {"database": database, "limit": limit})).all()
            records = {one.id: one for one in await self._read(conn, [row.id for row in rows])}
        return [
            Running(record=records[row.id], text=row.text or "", fraction=row.fraction)
            for row in rows
        ]

    async def _chosen(
        self,
        state: State,
        fits: Callable[[Request], bool],
        facts: Facts,
        *,
        database: str | None,
        limit: int,
    ) -> Listed:
        values: dict[str, Any] = {
            "state": str(state), "at": facts.at, "database": database,
            "limit": self._looked_at_max,
        }  # fmt: skip
        async with self._store.begin() as conn:
            rows = (await conn.execute(OPEN, values)).mappings().all()
            cases = (Case.of(dict(row), row["votes"], self._keys).request for row in rows)
            ids = [request.id for request in cases if fits(request)]
            records = await self._read(conn, ids[:limit])
        place = {request_id: number for number, request_id in enumerate(ids)}
        return Listed(
            records=tuple(sorted(records, key=lambda record: place[record.id])),
            total=len(ids),
            complete=len(rows) < self._looked_at_max,
        )

    async def _read(
        self, conn: AsyncConnection, ids: Sequence[RequestId | int]
    ) -> list[RequestRecord]:
        shelf = Shelf(keys=self._keys, policy=self._approvals.policy)
        return await shelf.read(conn, list(ids))
