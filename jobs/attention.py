"""A run that stopped half-way and waits for a person: that is an event of its own in the audit."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from approvals import audit
from jobs.runs import Run

ACTION: Final = "needs_attention"
_ACTOR: Final = "twokey"
_CHARS_MAX: Final = 4000


async def note(
    conn: AsyncConnection, run: Run, *, worker: str, problem: str, now: datetime
) -> None:
    """Add the entry, in the transaction that stops the run. The last thing that it locks."""
    await audit.append(
        conn,
        chain=run.database,
        at=now,
        actor=_ACTOR,
        action=ACTION,
        request_id=run.request_id,
        detail={
            "run_id": int(run.id),
            "worker": worker,
            "problem": problem[:_CHARS_MAX],
        },
    )
