"""Requests that come out of earlier ones: asked again, or to undo what one has done.

The new request knows the former one, and the former one knows what came of it. Both are
written in one transaction, with an audit entry at each.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from approvals import audit
from approvals.lineage import FOLLOWERS_MAX, Follower, Former, Origin, OriginKind, objection
from approvals.words import RefusedError, RequestId, State, Why
from store import outbox

_ACTIONS: Final[Mapping[OriginKind, str]] = {
    OriginKind.AGAIN: "asked_again",
    OriginKind.UNDO: "asked_to_undo",
}
LOCK: Final = sa.text("""
    SELECT id, state, database, channel, detail FROM requests WHERE id = :id FOR UPDATE
""")
STATES: Final = sa.text("SELECT id, state FROM requests WHERE id = ANY(:ids)").bindparams(
    sa.bindparam("ids", type_=ARRAY(sa.BigInteger()))
)
# The version grows with each change of the row. No state, so a final one stays final.
FOLLOW: Final = sa.text("""
    UPDATE requests
       SET version = version + 1, detail = detail || jsonb_build_object('followers', :followers)
     WHERE id = :id
""").bindparams(sa.bindparam("followers", type_=JSONB))


async def lock(conn: AsyncConnection, origin: Origin) -> Former:
    """The former request under a lock, taken before anything of the new one is.

    Raises:
        RefusedError: there is none.
    """
    row = (await conn.execute(LOCK, {"id": origin.request_id})).one_or_none()
    if row is None:
        raise RefusedError(
            f"There is no request {origin.request_id}.",
            next_step="/db requests lists what there is.",
            why=Why.CLOSED,
        )
    followers = tuple(Follower.model_validate(each) for each in row.detail.get("followers") or ())
    return Former(
        id=row.id,
        state=State(row.state),
        database=row.database,
        channel=row.channel,
        followers=followers,
    )


async def follow(
    conn: AsyncConnection, former: Former, origin: Origin, new: int, *, actor: str, at: datetime
) -> None:
    """Write at the former request what came out of it, and have its card drawn anew.

    Raises:
        RefusedError: it may not be followed so; the caller's transaction must not stand.
    """
    ids = [each.id for each in former.followers if each.kind is origin.kind]
    rows = (await conn.execute(STATES, {"ids": ids})).all() if ids else []
    if error := objection(former, origin.kind, {row.id: State(row.state) for row in rows}):
        raise error
    followers = [*former.followers, Follower(kind=origin.kind, id=new)][-FOLLOWERS_MAX:]
    kept = [each.model_dump(mode="json") for each in followers]
    await conn.execute(FOLLOW, {"id": former.id, "followers": kept})
    await audit.append(
        conn, chain=former.database, at=at, actor=actor, action=_ACTIONS[origin.kind],
        request_id=RequestId(former.id), detail={"as": new},
    )  # fmt: skip
    await outbox.post(
        conn, topic="card", request_id=former.id, channel=former.channel, payload={}, now=at
    )
