"""What was done to a database last."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

LAST_RUN: Final = sa.text("""
    SELECT id || ' ' || ended_at
      FROM runs
     WHERE database = :database
       AND ended_at IS NOT NULL
     ORDER BY ended_at DESC
     LIMIT 1
""")


async def last_run_mark(conn: AsyncConnection, database: str) -> str:
    """A text that changes with every run that ends on the database; '' before the first."""
    found: str | None = (await conn.execute(LAST_RUN, {"database": database})).scalar_one_or_none()
    return found or ""
