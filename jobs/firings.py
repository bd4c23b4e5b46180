"""What firings have left to be asked for, and what came of those before. SQL only.

A firing is stored by `jobs.schedules`; its `ask` says how far it is. Whoever asks takes it
first for a while, so that a crash gives it back by doing nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

import sqlalchemy as sa
from pydantic import JsonValue
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TIMESTAMP
from sqlalchemy.ext.asyncio import AsyncConnection

from jobs.schedules import AHEAD
from store.connect import Store

_AT: Final = TIMESTAMP(timezone=True)
_NAMES: Final = ARRAY(sa.Text())


class Asking(StrEnum):
    """How far a firing is with what it asks for."""

    WAITING = "waiting"
    ASKED = "asked"  # there is a request
    SHARED = "shared"  # a backup that there was serves its tier
    NOTHING = "nothing"  # there was nothing to do
    FAILED = "failed"  # nothing could be asked for, and it is too late now


# Few rows: names are given, and the primary key's index finds the youngest of each. A lease
# that ends far in the future was made by a clock that was ahead.
TAKE: Final = sa.text("""
    UPDATE firings f
       SET detail = jsonb_set(f.detail, '{ask}', (f.detail -> 'ask') || jsonb_build_object(
               'look_at', CAST(:lease_until AS text),
               'tries', coalesce((f.detail #>> '{ask,tries}')::int, 0) + 1))
      FROM (SELECT schedule, due_at
              FROM firings
             WHERE schedule = ANY(:names)
               AND due_at BETWEEN :since AND :now
               AND detail #>> '{ask,state}' = 'waiting'
               AND coalesce((detail #>> '{ask,look_at}')::timestamptz, '-infinity')
                   NOT BETWEEN :soon AND :far
             ORDER BY due_at
             LIMIT :rows
               FOR UPDATE SKIP LOCKED) AS mine
     WHERE (f.schedule, f.due_at) = (mine.schedule, mine.due_at)
 RETURNING f.schedule, f.due_at, f.at, (f.detail #>> '{ask,tries}')::int AS tries,
           coalesce(f.detail #>> '{ask,problem}', '') AS problem,
           coalesce(f.detail #>> '{ask,next_step}', '') AS next_step
""").bindparams(
    sa.bindparam("names", type_=_NAMES),
    *(sa.bindparam(name, type_=_AT) for name in ("since", "now", "soon", "far")),
)

# Only a firing that still waits: two who had it for one another's lease settle it once.
SETTLE: Final = sa.text("""
    UPDATE firings
       SET detail = jsonb_set(detail, '{ask}', (detail -> 'ask') || :ask)
     WHERE schedule = :schedule
       AND due_at = :due_at
       AND detail #>> '{ask,state}' = 'waiting'
 RETURNING schedule
""").bindparams(sa.bindparam("ask", type_=JSONB), sa.bindparam("due_at", type_=_AT))

# One look into the index per name and question, however many firings there were.
STANDING: Final = sa.text("""
    SELECT n.schedule, begun.due_at AS begun_at, last.due_at, last.detail, r.id AS request_id,
           r.state AS request_state, r.detail #>> '{ending,text}' AS said
      FROM unnest(:names) AS n(schedule)
      LEFT JOIN LATERAL (SELECT due_at FROM firings f
                          WHERE f.schedule = n.schedule
                          ORDER BY due_at LIMIT 1) AS begun ON true
      LEFT JOIN LATERAL (SELECT due_at, detail FROM firings f
                          WHERE f.schedule = n.schedule
                            AND f.due_at <= :now
                            AND f.detail ->> 'state' <> 'begun'
                          ORDER BY due_at DESC LIMIT 1) AS last ON true
      LEFT JOIN requests r ON r.id = (last.detail #>> '{ask,request}')::bigint
""").bindparams(sa.bindparam("names", type_=_NAMES), sa.bindparam("now", type_=_AT))


# What a schedule asked for and was allowed: it will be there soon, and may serve others too.
AT_WORK: Final = sa.text("""
    SELECT max(id)
      FROM requests
     WHERE database = :database
       AND operation = :operation
       AND state IN ('approved', 'executing')
       AND attributes ->> 'scheduled' = 'yes'
       AND reason <> :mine
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class ToAsk:
    """A firing that is ours to ask for now. `problem`: why the try before this one failed."""

    schedule: str
    due_at: datetime
    at: datetime
    tries: int
    problem: str
    next_step: str

    @property
    def delivery(self) -> str:
        """The same for whoever asks for this firing: it becomes one request."""
        return f"schedule:{self.schedule}:{self.due_at.isoformat()}:{self.at.isoformat()}"

    @property
    def reason(self) -> str:
        """What the request says of why; no other firing's says the same."""
        due = self.due_at.astimezone(UTC)
        return f"By the clock: {self.schedule}, due {due:%Y-%m-%d %H:%M} UTC."


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What came of a schedule's newest moment; `due_at` is None before its first.

    `begun_at`: since when it is known, or longer. `state`: of the firing, `fired` or `missed`.
    """

    schedule: str
    begun_at: datetime | None = None
    due_at: datetime | None = None
    state: str = ""
    asking: Asking | None = None
    problem: str = ""
    next_step: str = ""
    request_id: int | None = None
    request_state: str = ""
    said: str = ""


async def take(
    store: Store,
    names: Iterable[str],
    *,
    since: datetime,
    now: datetime,
    lease_until: datetime,
    rows: int,
) -> Sequence[ToAsk]:
    """Up to `rows` firings since `since` that wait, ours until `lease_until`."""
    values = {
        "names": list(names), "since": since, "now": now, "rows": rows,
        "lease_until": lease_until.isoformat(), "soon": now, "far": now + AHEAD,
    }  # fmt: skip
    async with store.begin() as conn:
        found = await conn.execute(TAKE, values)
        return sorted(
            (ToAsk(**row) for row in found.mappings()),
            key=lambda each: (each.due_at, each.schedule),
        )


async def settle(conn: AsyncConnection, firing: ToAsk, asking: Asking, **more: JsonValue) -> bool:
    """Store what became of a firing; False when somebody else has."""
    values = {
        "schedule": firing.schedule,
        "due_at": firing.due_at,
        "ask": {"state": str(asking), **more},
    }
    return (await conn.execute(SETTLE, values)).one_or_none() is not None


async def at_work(conn: AsyncConnection, *, database: str, operation: str, mine: str) -> int | None:
    """A request of a schedule that runs or is about to, or None. `mine`: its reason is not this."""
    values = {"database": database, "operation": operation, "mine": mine}
    found: int | None = (await conn.execute(AT_WORK, values)).scalar_one()
    return found


async def standing(
    conn: AsyncConnection, names: Iterable[str], now: datetime
) -> Mapping[str, Standing]:
    """What came of the newest moment of each schedule."""
    rows = await conn.execute(STANDING, {"names": list(names), "now": now})
    return {row["schedule"]: _standing(dict(row)) for row in rows.mappings()}


def _standing(row: Mapping[str, Any]) -> Standing:
    detail: Mapping[str, Any] = row["detail"] or {}
    ask: Mapping[str, Any] = detail.get("ask") or {}
    return Standing(
        schedule=row["schedule"],
        begun_at=row["begun_at"],
        due_at=row["due_at"],
        state=detail.get("state", ""),
        asking=Asking(ask["state"]) if ask else None,
        problem=ask.get("problem", ""),
        next_step=ask.get("next_step", ""),
        request_id=row["request_id"],
        request_state=row["request_state"] or "",
        said=row["said"] or "",
    )
