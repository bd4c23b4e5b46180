"""The newest entries of the audit, for people in Slack. `twokey audit` verifies all of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from store.connect import Store

NEWEST: Final = sa.text("""
    SELECT chain, seq, at, actor, action, request_id
      FROM audit_log
     WHERE (CAST(:request_id AS bigint) IS NULL OR request_id = :request_id)
       AND (CAST(:chain AS text) IS NULL OR chain = :chain)
     ORDER BY at DESC, seq DESC
     LIMIT :rows_max
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditLine:
    """One entry, without its detail and hashes."""

    chain: str
    seq: int
    at: datetime
    actor: str
    action: str
    request_id: int | None


async def newest(
    store: Store, *, request_id: int | None, chain: str | None, rows_max: int
) -> Sequence[AuditLine]:
    """Newest first: of a request, of a database's chain, or with None of both of everything."""
    async with store.begin() as conn:
        found = await conn.execute(
            NEWEST, {"request_id": request_id, "chain": chain, "rows_max": rows_max}
        )
        return [AuditLine(**row) for row in found.mappings()]
