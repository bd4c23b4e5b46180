"""Where a database stood when: its own clock, its WAL, and how many transactions it had begun."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from store.tables import wal_marks

READ_MAX: Final = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class WalMark:
    """At `at`, by the server's clock, it wrote at `lsn`; its next transaction was `next_xid`.

    `next_xid` counts on over wraparounds.
    """

    database: str
    at: datetime
    system_identifier: str
    timeline: int
    lsn: str
    next_xid: int


async def write_mark(conn: AsyncConnection, mark: WalMark) -> None:
    """Store a mark. One of the same moment is there already where a clock was set back."""
    await conn.execute(insert(wal_marks).values(asdict(mark)).on_conflict_do_nothing())


async def mark_at(conn: AsyncConnection, database: str, at: datetime) -> WalMark | None:
    """The newest mark at or before a moment, or None."""
    query = (
        sa.select(wal_marks)
        .where(wal_marks.c.database == database, wal_marks.c.at <= at)
        .order_by(wal_marks.c.at.desc())
        .limit(1)
    )
    row = (await conn.execute(query)).mappings().one_or_none()
    return WalMark(**row) if row else None


async def marks_between(
    conn: AsyncConnection, database: str, since: datetime, until: datetime
) -> Sequence[WalMark]:
    """The marks from `since` to `until`, both included, oldest first; at most `READ_MAX`."""
    query = (
        sa.select(wal_marks)
        .where(wal_marks.c.database == database, wal_marks.c.at.between(since, until))
        .order_by(wal_marks.c.at)
        .limit(READ_MAX)
    )
    return [WalMark(**row) for row in (await conn.execute(query)).mappings()]


async def trim_marks(conn: AsyncConnection, database: str, before: datetime) -> int:
    """Remove marks older than `before`; how many."""
    query = wal_marks.delete().where(wal_marks.c.database == database, wal_marks.c.at < before)
    return (await conn.execute(query)).rowcount
