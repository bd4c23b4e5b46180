"""What was decided before, read from the store for `approvals.backtest`, in bounded memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.ext.asyncio import AsyncConnection

from approvals.backtest import Past, Replayed, Summary, replay
from approvals.detail import Detail
from approvals.events import Request
from approvals.policy_file import LoadedPolicy
from approvals.records import to_request, to_vote
from approvals.rules import Policy
from approvals.signing import VoteKeys
from store.connect import Store

_BATCH_ROWS: Final = 200
_AT: Final = TIMESTAMP(timezone=True)
_SHOWN_MAX: Final = 20

# The newest `limit` of them, the oldest first.
_READ: Final = sa.text("""
    SELECT r.*,
           (SELECT coalesce(jsonb_agg(to_jsonb(v) ORDER BY v.id), '[]')
              FROM votes v
             WHERE v.request_id = r.id AND v.plan_hash = r.plan_hash
               AND v.id > CAST(coalesce(r.detail ->> 'void_before', '0') AS bigint)) AS votes
      FROM (SELECT * FROM requests
             WHERE (CAST(:since AS timestamptz) IS NULL OR asked_at >= :since)
               AND (NOT :open_only OR state IN ('pending', 'approved'))
             ORDER BY id DESC
             LIMIT :limit) AS r
     ORDER BY r.id
""").bindparams(
    sa.bindparam("since", type_=_AT),
    sa.bindparam("limit", type_=sa.BigInteger()),
    sa.bindparam("open_only", type_=sa.Boolean()),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Glance:
    """What a policy would change, in numbers and in its first changes."""

    summary: Summary
    changes: tuple[Replayed, ...]


async def pasts(
    conn: AsyncConnection,
    keys: VoteKeys,
    *,
    since: datetime | None = None,
    limit: int | None = None,
    open_only: bool = False,
) -> AsyncIterator[Past]:
    """Stored requests in the order asked, the newest `limit` of them."""
    values = {"since": since, "limit": limit, "open_only": open_only}
    found = await conn.stream(_READ, values, execution_options={"yield_per": _BATCH_ROWS})
    async for row in found.mappings():
        yield _past(dict(row), keys)


async def glance(
    store: Store, keys: VoteKeys, policy: LoadedPolicy, *, since: datetime, limit: int
) -> Glance:
    """What `policy` would have changed of the newest `limit` requests since then."""
    summary = Summary.empty()
    changes: list[Replayed] = []
    async with store.begin() as conn:
        async for past in pasts(conn, keys, since=since, limit=limit):
            replayed = replay(past, policy)
            summary.add(past, replayed)
            if replayed.is_change and len(changes) < _SHOWN_MAX:
                changes.append(replayed)
    return Glance(summary=summary, changes=tuple(changes))


async def would_move(
    store: Store, keys: VoteKeys, old: Policy, new: Policy, *, limit: int
) -> tuple[int, int]:
    """How many open requests meet another rule under `new`, and of how many: the newest `limit`."""
    moved = looked = 0
    async with store.begin() as conn:
        async for past in pasts(conn, keys, limit=limit, open_only=True):
            looked += 1
            moved += old.rule_for(past.attributes) != new.rule_for(past.attributes)
    return moved, looked


def _past(row: Mapping[str, Any], keys: VoteKeys) -> Past:
    detail = Detail.model_validate(row["detail"])
    votes = [to_vote(vote, row["id"], keys) for vote in row["votes"]]
    request: Request = to_request(row, detail, votes)
    return Past(
        id=request.id,
        state=request.state,
        operation=row["operation"],
        database=row["database"],
        requesters=request.requesters,
        authors=request.authors,
        plan_hash=request.plan_hash,
        attributes=request.attributes,
        rule=row["rule"],
        asked_at=request.asked_at,
        expires_at=request.expires_at,
        approved_at=request.approved_at,
        votes=request.votes,
        broke_glass=request.glass is not None,
    )
