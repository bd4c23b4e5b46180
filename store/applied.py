"""What our runs have applied to databases, from which bytes and by which request.

What is applied now says the database's own bookkeeping; these rows prove that two databases got
the same, also for tools that keep no checksums, and remember the way back.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import sqlalchemy as sa
from pydantic import JsonValue
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from store.tables import applied_migrations

LISTED_MAX: Final = 200

# The last word on each version: what was taken back and applied again counts as applied.
STANDING: Final = sa.text("""
    SELECT DISTINCT ON (database, version) *
      FROM applied_migrations
     WHERE database = ANY(:databases)
       AND version = ANY(:versions)
     ORDER BY database, version, applied_at DESC, id DESC
""").bindparams(
    sa.bindparam("databases", type_=ARRAY(sa.Text())),
    sa.bindparam("versions", type_=ARRAY(sa.Text())),
)

TAKE_BACK: Final = sa.text("""
    UPDATE applied_migrations
       SET rolled_back_at = :at, rolled_back_by = :request_id
     WHERE database = :database
       AND version = :version
       AND rolled_back_at IS NULL
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedRow:
    """A migration that a run of ours has applied. `detail`: of `jobs.migration_detail`."""

    database: str
    tool: str
    version: str
    name: str
    sha256: str
    down_sha256: str
    request_id: int | None
    applied_at: datetime
    seconds: float
    detail: Mapping[str, JsonValue]
    rolled_back_at: datetime | None = None
    rolled_back_by: int | None = None


async def record_applied(conn: AsyncConnection, row: AppliedRow) -> None:
    """Enter what a run has applied. Doing so again for the same run changes nothing."""
    values = {name: getattr(row, name) for name in AppliedRow.__slots__}
    values["detail"] = dict(row.detail)
    await conn.execute(insert(applied_migrations).values(values).on_conflict_do_nothing())


async def record_taken_back(
    conn: AsyncConnection, database: str, version: str, *, request_id: int, at: datetime
) -> None:
    """Enter that a migration was rolled back; changes nothing where it stands so already."""
    await conn.execute(
        TAKE_BACK,
        {"database": database, "version": version, "request_id": request_id, "at": at},
    )


async def applied_rows(
    conn: AsyncConnection, databases: Collection[str], versions: Collection[str]
) -> Mapping[tuple[str, str], AppliedRow]:
    """The last row of each of these versions in each of these databases."""
    found = await conn.execute(
        STANDING, {"databases": sorted(databases), "versions": sorted(versions)}
    )
    return {(row["database"], row["version"]): _row(row) for row in found.mappings()}


async def newest_applied(conn: AsyncConnection, database: str) -> Sequence[AppliedRow]:
    """What was applied to a database last, newest first, at most `LISTED_MAX`."""
    query = (
        sa.select(applied_migrations)
        .where(applied_migrations.c.database == database)
        .order_by(applied_migrations.c.applied_at.desc(), applied_migrations.c.id.desc())
        .limit(LISTED_MAX)
    )
    return [_row(row) for row in (await conn.execute(query)).mappings()]


def _row(row: sa.RowMapping) -> AppliedRow:
    return AppliedRow(**{name: row[name] for name in AppliedRow.__slots__})
