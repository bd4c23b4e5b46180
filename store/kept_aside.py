"""Data that was kept instead of dropped: where it stands, until when, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from store.tables import kept_aside

LISTED_MAX: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptRow:
    """Something kept in `database`. `kept`: schema.name there. `detail`: of `Kept.to_json`."""

    database: str
    what: str
    original: str
    kept: str
    bytes: int
    rows: int | None
    request_id: int | None
    at: datetime
    until: datetime
    detail: Mapping[str, Any]
    id: int = 0
    told_at: datetime | None = None
    ended_at: datetime | None = None
    ended_by: int | None = None
    outcome: str = ""


async def record_kept(conn: AsyncConnection, row: KeptRow) -> None:
    """Store it; a run that is repeated after a crash stores it once."""
    values = {
        name: getattr(row, name)
        for name in ("database", "what", "original", "kept", "bytes", "rows", "request_id", "at",
                     "until")
    } | {"detail": dict(row.detail)}  # fmt: skip
    await conn.execute(insert(kept_aside).values(values).on_conflict_do_nothing())


async def measure_kept(
    conn: AsyncConnection, row: KeptRow, *, bytes_: int, rows: int | None, until: datetime
) -> None:
    """Store how large it has become, and until when it stays: told anew when that is later."""
    await conn.execute(
        sa.update(kept_aside)
        .where(
            kept_aside.c.database == row.database,
            kept_aside.c.kept == row.kept,
            kept_aside.c.ended_at.is_(None),
        )
        .values(bytes=bytes_, rows=rows, until=until, told_at=None)
    )


async def end_unmade(conn: AsyncConnection, row: KeptRow, *, at: datetime) -> None:
    """Store that nothing was kept after all by the request that was about to."""
    await conn.execute(
        sa.update(kept_aside)
        .where(
            kept_aside.c.database == row.database,
            kept_aside.c.kept == row.kept,
            kept_aside.c.request_id == row.request_id,
            kept_aside.c.ended_at.is_(None),
        )
        .values(ended_at=at, ended_by=row.request_id, outcome="nothing kept")
    )


async def open_kept(conn: AsyncConnection, database: str | None = None) -> Sequence[KeptRow]:
    """What is kept now, what ends first before the rest; at most `LISTED_MAX`."""
    query = sa.select(kept_aside).where(kept_aside.c.ended_at.is_(None))
    if database is not None:
        query = query.where(kept_aside.c.database == database)
    query = query.order_by(kept_aside.c.until, kept_aside.c.id).limit(LISTED_MAX)
    return [KeptRow(**row) for row in (await conn.execute(query)).mappings()]


async def untold_kept(conn: AsyncConnection, *, now: datetime) -> Sequence[KeptRow]:
    """What is due and was not told, for whoever asks first: locked until the end."""
    query = (
        sa.select(kept_aside)
        .where(
            kept_aside.c.ended_at.is_(None),
            kept_aside.c.told_at.is_(None),
            kept_aside.c.until <= now,
        )
        .order_by(kept_aside.c.id)
        .limit(LISTED_MAX)
        .with_for_update(skip_locked=True)
    )
    return [KeptRow(**row) for row in (await conn.execute(query)).mappings()]


async def mark_told(conn: AsyncConnection, ids: Sequence[int], *, at: datetime) -> None:
    """They have been told of."""
    await conn.execute(sa.update(kept_aside).where(kept_aside.c.id.in_(ids)).values(told_at=at))


async def end_kept(
    conn: AsyncConnection, row_id: int, *, by: int | None, at: datetime, outcome: str
) -> None:
    """Store what became of it; the first word counts."""
    await conn.execute(
        sa.update(kept_aside)
        .where(kept_aside.c.id == row_id, kept_aside.c.ended_at.is_(None))
        .values(ended_at=at, ended_by=by, outcome=outcome)
    )
