"""Changes whose consequences are watched for a time: what was before, and the way back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from store.tables import watches

OPEN_MAX: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchRow:
    """A change that is watched from `at`, its end, to `until`. `undo`: operation and params."""

    database: str
    request_id: int
    subject: str
    state: str  # watching, fine, worse
    at: datetime
    until: datetime
    before: Mapping[str, float]
    undo: Mapping[str, Any]


async def open_watch(conn: AsyncConnection, row: WatchRow) -> None:
    """Begin to watch; a run that is repeated begins once."""
    await conn.execute(
        insert(watches)
        .values(
            database=row.database, request_id=row.request_id, subject=row.subject,
            state=row.state, at=row.at, until=row.until, before=dict(row.before), seen={},
            undo=dict(row.undo),
        )
        .on_conflict_do_nothing()
    )  # fmt: skip


async def open_watches(conn: AsyncConnection) -> Sequence[WatchRow]:
    """What is watched now, or was found worse and is not over, oldest first."""
    query = (
        sa.select(*(watches.c[name] for name in WatchRow.__slots__))
        .where(watches.c.state != "fine")
        .order_by(watches.c.id)
        .limit(OPEN_MAX)
    )
    return [WatchRow(**row) for row in (await conn.execute(query)).mappings()]


async def change_watch(conn: AsyncConnection, request_id: int, *, state: str, at: datetime) -> None:
    """Store what became of it. `fine` ends it."""
    await conn.execute(
        watches.update()
        .where(watches.c.request_id == request_id, watches.c.state != "fine")
        .values(state=state, ended_at=at if state == "fine" else None)
    )


async def forget_watches(conn: AsyncConnection, *, before: datetime) -> None:
    """Remove those that ended before."""
    await conn.execute(watches.delete().where(watches.c.ended_at < before))
