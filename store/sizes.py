"""How large things were on a day (UTC): databases, volumes, WAL, the largest tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from store.tables import sizes

DATABASE: Final = "database"  # all databases of the cluster
VOLUME: Final = "volume"  # what is used of it
VOLUME_TOTAL: Final = "volume_total"
WAL: Final = "wal"
TABLE: Final = "table "  # and its name: schema.table
DAYS_MAX: Final = 2_000
TABLES_MAX: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How large something is. `rows`: of a table, as PostgreSQL estimates them."""

    bytes: int
    rows: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DaySize:
    """How large something was when it was last measured on `day` (UTC)."""

    day: date
    bytes: int
    rows: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSize:
    """A table (`name`: schema.table) with its indexes, as it was on `day`."""

    name: str
    day: date
    bytes: int
    rows: int | None = None


async def record_sizes(
    conn: AsyncConnection, database: str, day: date, found: Mapping[str, Size]
) -> None:
    """Store the sizes of a day by what they are of; the last measurement of a day stays."""
    values = [
        {"database": database, "what": what, "day": day, "bytes": size.bytes, "rows": size.rows}
        for what, size in sorted(found.items())
    ]
    if not values:
        return
    statement = insert(sizes)
    changed = {"bytes": statement.excluded.bytes, "rows": statement.excluded.rows}
    await conn.execute(
        statement.on_conflict_do_update(
            index_elements=[sizes.c.database, sizes.c.what, sizes.c.day], set_=changed
        ),
        values,
    )


async def size_history(
    conn: AsyncConnection, database: str, what: str, *, since: date
) -> Sequence[DaySize]:
    """The days from `since` on that something was measured, oldest first; the newest `DAYS_MAX`."""
    query = (
        sa.select(sizes.c.day, sizes.c.bytes, sizes.c.rows)
        .where(sizes.c.database == database, sizes.c.what == what, sizes.c.day >= since)
        .order_by(sizes.c.day.desc())
        .limit(DAYS_MAX)
    )
    return [DaySize(**row) for row in (await conn.execute(query)).mappings()][::-1]


async def tables_on(conn: AsyncConnection, database: str, day: date) -> Sequence[TableSize]:
    """The tables of the newest day up to `day` on which any was measured, the largest first.

    Only the largest are measured, so that a table that is missing was small.
    """
    is_table = sizes.c.what.startswith(TABLE, autoescape=True)
    newest = (
        sa.select(sa.func.max(sizes.c.day))
        .where(sizes.c.database == database, sizes.c.day <= day, is_table)
        .scalar_subquery()
    )
    query = (
        sa.select(sizes)
        .where(sizes.c.database == database, sizes.c.day == newest, is_table)
        .order_by(sizes.c.bytes.desc(), sizes.c.what)
        .limit(TABLES_MAX)
    )
    return [
        TableSize(name=row.what.removeprefix(TABLE), day=row.day, bytes=row.bytes, rows=row.rows)
        for row in await conn.execute(query)
    ]
