"""What a key of somebody's stood for when it came first."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from store.connect import Store

# The second of two at once waits for the first, and reads what it has said.
RESERVE: Final = sa.text("""
    INSERT INTO deliveries (id, at, answer) VALUES (:id, :at, :answer)
        ON CONFLICT (id) DO NOTHING
 RETURNING id
""").bindparams(sa.bindparam("answer", type_=JSONB))

READ: Final = sa.text("SELECT answer ->> 'says' FROM deliveries WHERE id = :id")


async def reserved(store: Store, name: str, *, says: str, at: datetime) -> str:
    """What `name` stands for: `says`, when it comes for the first time."""
    async with store.single() as conn:
        values = {"id": name, "at": at, "answer": {"says": says}}
        if (await conn.execute(RESERVE, values)).one_or_none() is not None:
            return says
        return str(await conn.scalar(READ, {"id": name}))
