"""What becomes of a backup after it was taken: holds, removal, and loss.

Each change is one statement that checks the state it changes, so that two who act at once
cannot undo one another: whoever comes second finds no row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from pydantic import JsonValue
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TIMESTAMP
from sqlalchemy.ext.asyncio import AsyncConnection

_AT: Final = TIMESTAMP(timezone=True)

# Who decides about removals of a database waits here for whoever decides already.
DECIDE_ALONE: Final = sa.text("""
    SELECT pg_advisory_xact_lock(hashtext('twokey prune'), hashtext(:database))
""")

# The request says who it is: nobody names the holder of a hold.
HOLD: Final = sa.text("""
    UPDATE backups
       SET hold = jsonb_build_object(
               'by', coalesce((SELECT asked_by FROM requests WHERE id = :request_id),
                              'request ' || :request_id),
               'at', :at, 'reason', :reason, 'request', :request_id)
     WHERE database = :database
       AND id = :id
       AND state IN ('complete', 'damaged', 'lost')
       AND (hold IS NULL OR (hold ->> 'request')::bigint = :request_id)
 RETURNING hold
""").bindparams(
    sa.bindparam("request_id", type_=sa.BigInteger()),
    sa.bindparam("at", type_=sa.Text()),
    sa.bindparam("reason", type_=sa.Text()),
)

RELEASE: Final = sa.text("""
    UPDATE backups
       SET hold = NULL,
           detail = detail || jsonb_build_object('released', hold || jsonb_build_object(
               'released_by', coalesce((SELECT asked_by FROM requests WHERE id = :request_id),
                                       'request ' || :request_id)))
     WHERE database = :database
       AND id = :id
       AND hold ->> 'at' = :held_at
 RETURNING id
""").bindparams(sa.bindparam("request_id", type_=sa.BigInteger()))

# A hold that was set in the meantime wins, and so does a backup that builds on this one.
BEGIN_REMOVAL: Final = sa.text("""
    UPDATE backups b
       SET state = 'removing', detail = detail || jsonb_build_object('removal', :removal)
     WHERE id = :id
       AND hold IS NULL
       AND state IN ('complete', 'damaged', 'lost')
       AND NOT EXISTS (SELECT FROM backups c WHERE c.base = b.id AND c.state <> 'removed')
 RETURNING id
""").bindparams(sa.bindparam("removal", type_=JSONB))

END_REMOVAL: Final = sa.text("""
    UPDATE backups
       SET state = 'removed', removed_at = :at
     WHERE id = :id
       AND state = 'removing'
 RETURNING size_bytes
""").bindparams(sa.bindparam("at", type_=_AT))

LOSE: Final = sa.text("""
    UPDATE backups
       SET state = 'lost',
           detail = detail || jsonb_build_object(
               'lost', jsonb_build_object('at', :at, 'was', state))
     WHERE database = :database
       AND id = ANY (:ids)
       AND state IN ('complete', 'damaged')
 RETURNING id
""").bindparams(sa.bindparam("ids", type_=ARRAY(sa.Text())), sa.bindparam("at", type_=sa.Text()))

FIND_AGAIN: Final = sa.text("""
    UPDATE backups
       SET state = coalesce(detail -> 'lost' ->> 'was', 'damaged'), detail = detail - 'lost'
     WHERE database = :database
       AND id = ANY (:ids)
       AND state = 'lost'
 RETURNING id
""").bindparams(sa.bindparam("ids", type_=ARRAY(sa.Text())))

NEWEST_MARK: Final = sa.text("""
    SELECT at, system_identifier, timeline
      FROM wal_marks
     WHERE database = :database
     ORDER BY at DESC
     LIMIT 1
""")


async def decide_alone(conn: AsyncConnection, database: str) -> None:
    """Wait until nobody else decides what of a database is removed, until the transaction ends."""
    await conn.execute(DECIDE_ALONE, {"database": database})


async def hold_backup(
    conn: AsyncConnection,
    *,
    database: str,
    backup_id: str,
    reason: str,
    at: datetime,
    request_id: int,
) -> Mapping[str, JsonValue] | None:
    """Keep a backup whatever its age; the hold, or None: it is going, gone, or held already."""
    values = {
        "database": database, "id": backup_id, "reason": reason, "at": at.isoformat(),
        "request_id": request_id,
    }  # fmt: skip
    row = await _one(conn, HOLD, values)
    return None if row is None else row["hold"]


async def release_backup(
    conn: AsyncConnection, *, database: str, backup_id: str, held_at: str, request_id: int
) -> bool:
    """End the hold that was set at that moment, and no other; False when it is over already."""
    values = {
        "database": database, "id": backup_id, "held_at": held_at, "request_id": request_id,
    }  # fmt: skip
    return await _one(conn, RELEASE, values) is not None


async def begin_removal(
    conn: AsyncConnection, backup_id: str, *, why: str, request_id: int, at: datetime
) -> bool:
    """From here on a backup counts no more. False: it is held, needed, or not there to remove."""
    removal = {"why": why, "request": request_id, "at": at.isoformat()}
    return await _one(conn, BEGIN_REMOVAL, {"id": backup_id, "removal": removal}) is not None


async def end_removal(conn: AsyncConnection, backup_id: str, *, at: datetime) -> bool:
    """Its files are gone; whether it is us who says so first."""
    return await _one(conn, END_REMOVAL, {"id": backup_id, "at": at}) is not None


async def lose_backups(
    conn: AsyncConnection, database: str, ids: Sequence[str], *, at: datetime
) -> Sequence[str]:
    """These have no files any more: they count no more. Which of them counted until now."""
    found = await conn.execute(LOSE, {"database": database, "ids": list(ids), "at": at.isoformat()})
    return list(found.scalars())


async def find_again(conn: AsyncConnection, database: str, ids: Sequence[str]) -> Sequence[str]:
    """The files of these were lost and are back; which of them were lost."""
    found = await conn.execute(FIND_AGAIN, {"database": database, "ids": list(ids)})
    return list(found.scalars())


async def newest_mark(conn: AsyncConnection, database: str) -> tuple[datetime, str, int] | None:
    """When the cluster was seen last, which one it was (its identifier), on which timeline."""
    row = await _one(conn, NEWEST_MARK, {"database": database})
    return None if row is None else (row["at"], row["system_identifier"], row["timeline"])


async def _one(
    conn: AsyncConnection, statement: sa.TextClause, values: Mapping[str, Any]
) -> Mapping[str, Any] | None:
    found = await conn.execute(statement, values)
    row = found.mappings().one_or_none()
    return None if row is None else dict(row)
