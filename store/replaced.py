"""Servers that were replaced by restored ones: what stands aside until somebody confirms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

import sqlalchemy as sa
from pydantic import JsonValue
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from store.tables import replaced

LISTED_MAX = 50

ReplacedState = Literal["kept", "undone", "confirmed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplacedServer:
    """A data folder (`aside`) whose place `data` on `host` a restored copy has taken.

    `request_id` is the restore's. `kept`: it can still be put back; `undone`: it was;
    `confirmed`: it is removed.
    """

    request_id: int
    database: str
    host: str
    data: str
    aside: str
    state: ReplacedState
    at: datetime
    ended_at: datetime | None = None
    detail: Mapping[str, JsonValue] = field(default_factory=dict)


async def record_replaced(conn: AsyncConnection, server: ReplacedServer) -> None:
    """Store one. Recording it again changes nothing."""
    values = {name: getattr(server, name) for name in ReplacedServer.__slots__}
    values["detail"] = dict(server.detail)
    await conn.execute(insert(replaced).values(values).on_conflict_do_nothing())


async def find_replaced(
    conn: AsyncConnection, database: str, request_id: int
) -> ReplacedServer | None:
    """What a restore of this database has put aside, or None."""
    query = sa.select(replaced).where(
        replaced.c.database == database, replaced.c.request_id == request_id
    )
    row = (await conn.execute(query)).mappings().one_or_none()
    return ReplacedServer(**row) if row else None


async def kept_aside(conn: AsyncConnection, database: str) -> Sequence[ReplacedServer]:
    """What still stands aside, newest first."""
    query = (
        sa.select(replaced)
        .where(replaced.c.database == database, replaced.c.state == "kept")
        .order_by(replaced.c.at.desc())
        .limit(LISTED_MAX)
    )
    return [ReplacedServer(**row) for row in (await conn.execute(query)).mappings()]


async def end_replaced(
    conn: AsyncConnection,
    request_id: int,
    *,
    state: ReplacedState,
    at: datetime,
    detail: Mapping[str, JsonValue],
) -> bool:
    """It was put back or removed; False when it is no longer kept. `detail` is added."""
    changed = await conn.execute(
        replaced.update()
        .where(replaced.c.request_id == request_id, replaced.c.state == "kept")
        .values(
            state=state, ended_at=at, detail=replaced.c.detail.concat(sa.cast(dict(detail), _JSONB))
        )
        .returning(replaced.c.request_id)
    )
    return changed.one_or_none() is not None


_JSONB = replaced.c.detail.type
