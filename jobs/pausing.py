"""A run that is asked to wait, and to go on: kept in its row, whatever becomes of its worker."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from approvals.words import RunId

# As for cancelling: whoever has not begun can be cancelled instead, whoever ends does not wait.
PAUSE: Final = sa.text("""
    UPDATE runs
       SET paused_by = :by, paused_at = :now
     WHERE id = :run_id
       AND (state = 'running' OR (state = 'queued' AND started_at IS NOT NULL))
       AND (paused_by = '') <> (:by = '')
       AND cancel_by = ''
    RETURNING id
""").bindparams(
    sa.bindparam("by", type_=sa.Text()), sa.bindparam("now", type_=sa.TIMESTAMP(timezone=True))
)


async def request_pause(conn: AsyncConnection, run_id: RunId, by: str, *, now: datetime) -> bool:
    """Ask a begun run to wait; its worker sees it within a second.

    False when it does so already, has not begun, has ended, or is being cancelled.
    """
    return await _set(conn, run_id, by, now)


async def request_resume(conn: AsyncConnection, run_id: RunId) -> bool:
    """Have a waiting run go on; False when it does so already, or is being cancelled."""
    return await _set(conn, run_id, "", None)


async def _set(conn: AsyncConnection, run_id: RunId, by: str, now: datetime | None) -> bool:
    found = await conn.execute(PAUSE, {"run_id": run_id, "by": by, "now": now})
    return found.one_or_none() is not None
