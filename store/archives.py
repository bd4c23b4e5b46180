"""Continuous archiving of each database, as whoever looks after it saw it last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

import sqlalchemy as sa
from pydantic import JsonValue
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from store.tables import archives


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveState:
    """One database's archive. `at`: when it was looked at; an old row has nobody who looks.

    `state`: streaming, starting, behind, broken or off. `lag_bytes`: WAL that the server has
    written and the archive has not got. `slot_state`: active, inactive, lost, missing, or ''
    where there is to be none; `slot_bytes`: WAL that the server keeps for it. `gaps`: what is
    missing between segments that are kept ({timeline, first, last, count}). `problem` and
    `next_step` are sentences; '' when all is well.
    """

    database: str
    at: datetime
    keeper: str
    method: str
    state: str
    timeline: int | None = None
    last_segment: str = ""
    received_lsn: str | None = None
    lag_bytes: int | None = None
    slot: str = ""
    slot_state: str = ""
    slot_bytes: int | None = None
    gaps: Sequence[Mapping[str, JsonValue]] = ()
    problem: str = ""
    next_step: str = ""


async def save_archive(conn: AsyncConnection, state: ArchiveState) -> None:
    """Store how a database's archive stands now."""
    values = asdict(state) | {"gaps": [dict(gap) for gap in state.gaps]}
    statement = insert(archives).values(values)
    changed = {name: statement.excluded[name] for name in values if name != "database"}
    await conn.execute(
        statement.on_conflict_do_update(index_elements=[archives.c.database], set_=changed)
    )


async def forget_archive(conn: AsyncConnection, database: str) -> None:
    """Remove the row of a database that is not archived any more."""
    await conn.execute(archives.delete().where(archives.c.database == database))


async def list_archives(conn: AsyncConnection) -> Sequence[ArchiveState]:
    """All archives, by the names of their databases."""
    query = sa.select(archives).order_by(archives.c.database)
    return [ArchiveState(**row) for row in (await conn.execute(query)).mappings()]


async def find_archive(conn: AsyncConnection, database: str) -> ArchiveState | None:
    """The archive of one database, or None when nobody has ever looked after it."""
    query = sa.select(archives).where(archives.c.database == database)
    row = (await conn.execute(query)).mappings().one_or_none()
    return ArchiveState(**row) if row else None
