"""The last restore test of a database, whatever became of its backup since."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

LAST: Final = sa.text("""
    SELECT b.id AS backup_id, b.started_at, v.at
      FROM backups b
      JOIN verifications v ON v.backup_id = b.id
     WHERE b.database = :database
     ORDER BY v.at DESC
     LIMIT 1
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class LastProof:
    """Which backup was verified last: when it was begun, and when it was verified."""

    backup_id: str
    started_at: datetime
    at: datetime


async def last_proof(conn: AsyncConnection, database: str) -> LastProof | None:
    """The last verification of any backup of a database; None before the first."""
    row = (await conn.execute(LAST, {"database": database})).mappings().one_or_none()
    return LastProof(**row) if row else None
