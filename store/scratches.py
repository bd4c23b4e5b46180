"""Scratch servers: who asked for them, where they run, and until when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal

import sqlalchemy as sa
from pydantic import JsonValue
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from store.tables import requests, scratches

LISTED_MAX: Final = 50

State = Literal["running", "removed", "lost"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scratch:
    """A scratch server. `folder` is absolute, on `host`; `dsn` has no password.

    `lost`: it was found not to run any more, and nobody had ended it.
    """

    id: str
    request_id: int
    database: str
    backup_id: str
    target: str
    host: str
    folder: str
    port: int
    dsn: str
    state: State
    created_at: datetime
    expires_at: datetime
    ended_at: datetime | None = None
    detail: Mapping[str, JsonValue] = field(default_factory=dict)


async def record_scratch(conn: AsyncConnection, scratch: Scratch) -> None:
    """Store that a server runs; a later attempt of the same run replaces an earlier one."""
    values = {name: getattr(scratch, name) for name in scratches.c.keys()}  # noqa: SIM118
    query = insert(scratches).values(**values)
    again = {name: query.excluded[name] for name in values if name != "id"}
    await conn.execute(query.on_conflict_do_update(index_elements=["id"], set_=again))


async def find_scratch(
    conn: AsyncConnection, scratch_id: str, *, lock: bool = False
) -> Scratch | None:
    """The scratch server of this id, whatever has become of it; `lock` keeps it as it is."""
    query = sa.select(scratches).where(scratches.c.id == scratch_id)
    row = (await conn.execute(query.with_for_update() if lock else query)).mappings().one_or_none()
    return Scratch(**row) if row else None


async def running_scratches(
    conn: AsyncConnection, *, host: str | None = None, database: str | None = None
) -> Sequence[Scratch]:
    """Those that run as far as we know, the oldest first: all, of a host, or of a database."""
    query = sa.select(scratches).where(scratches.c.state == "running")
    if host is not None:
        query = query.where(scratches.c.host == host)
    if database is not None:
        query = query.where(scratches.c.database == database)
    rows = (await conn.execute(query.order_by(scratches.c.created_at))).mappings()
    return [Scratch(**row) for row in rows]


async def ended_scratches(
    conn: AsyncConnection, *, since: datetime, database: str | None = None
) -> Sequence[Scratch]:
    """Those that have ended since then, the newest first, at most `LISTED_MAX`."""
    query = sa.select(scratches).where(scratches.c.ended_at >= since)
    if database is not None:
        query = query.where(scratches.c.database == database)
    query = query.order_by(scratches.c.ended_at.desc()).limit(LISTED_MAX)
    return [Scratch(**row) for row in (await conn.execute(query)).mappings()]


async def end_scratch(
    conn: AsyncConnection, scratch_id: str, *, state: State, now: datetime
) -> bool:
    """Store that it has ended; False when somebody else has stored that already."""
    query = (
        sa.update(scratches)
        .where(scratches.c.id == scratch_id, scratches.c.state == "running")
        .values(state=state, ended_at=now)
        .returning(scratches.c.id)
    )
    return (await conn.execute(query)).one_or_none() is not None


async def expire_scratch(conn: AsyncConnection, scratch_id: str, *, now: datetime) -> None:
    """Let its time be up: whoever looks after it on its host then ends it."""
    query = sa.update(scratches).where(
        scratches.c.id == scratch_id,
        scratches.c.state == "running",
        scratches.c.expires_at > now,
    )
    await conn.execute(query.values(expires_at=now))


async def channel_of(conn: AsyncConnection, request_id: int) -> str | None:
    """The channel in which a request's card stands."""
    query = sa.select(requests.c.channel).where(requests.c.id == request_id)
    return (await conn.execute(query)).scalar_one_or_none()
