"""The outbox's rows as the deliverer claims and settles them. SQL only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from store.connect import Store

# What `error` says while a message is on its way: whoever finds it there after a crash
# knows that the message may have arrived.
POSTING: Final = "posting"
UNCLEAR: Final = "unclear"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A claimed row. `maybe_posted`: an earlier attempt's outcome is unknown."""

    id: int
    topic: str
    request_id: int | None
    channel: str
    payload: Mapping[str, Any]
    created_at: datetime
    attempts: int
    maybe_posted: bool

    @property
    def incident_id(self) -> int:
        """The incident that it tells of, or 0."""
        return int(self.payload["incident"]) if self.topic == "incident" else 0

    @property
    def slot(self) -> str:
        """Under which name the message's place is kept, so that it can be replaced; or ''."""
        if self.topic == "incident":
            return "card" if self.payload.get("kind") == "card" else ""
        if self.request_id is None:
            return ""
        if self.topic in {"card", "progress"}:
            return self.topic
        return str(self.payload.get("slot", "")) if self.topic == "direct" else ""

    @property
    def is_in_thread(self) -> bool:
        """Whether it belongs below the card of its request or incident, if there is one."""
        if self.topic == "incident":
            return self.payload.get("kind") == "note"
        return self.topic not in {"card", "direct"}

    @property
    def is_loud(self) -> bool:
        """Whether a note in a thread is to be heard of in the channel too."""
        return self.topic == "incident" and bool(self.payload.get("loud"))

    @property
    def may_collapse(self) -> bool:
        """Whether a later one of its kind would show what this one shows."""
        if self.topic == "incident":
            return self.slot == "card"
        return self.request_id is not None and self.topic in {"card", "progress"}

    @property
    def is_redraw(self) -> bool:
        """Whether it only replaces a message that stands, and posts none."""
        return bool(self.slot) and bool(self.payload.get("is_over"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a message stands in Slack."""

    channel: str
    ts: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """How much waits."""

    waiting: int
    oldest_at: datetime | None


# The first waiting row of each channel, by one look into the index per channel, however
# much waits. DISTINCT ON would read all of it.
HEADS: Final = """head AS (
        (SELECT channel, id, due_at
           FROM outbox
          WHERE state = 'waiting'
          ORDER BY channel, id
          LIMIT 1)
      UNION ALL
         SELECT following.*
           FROM head
          CROSS JOIN LATERAL (
                SELECT o.channel, o.id, o.due_at
                  FROM outbox o
                 WHERE o.state = 'waiting'
                   AND o.channel > head.channel
                 ORDER BY o.channel, o.id
                 LIMIT 1) AS following
    )"""

# Only a channel's first waiting row can be claimed, so messages keep their order and a
# channel has one message in the air, whichever replica carries it. The lease stands in
# due_at: a replica that dies gives the row back by doing nothing.
CLAIM: Final = sa.text(f"""
    WITH RECURSIVE {HEADS}, mine AS (
        SELECT id, error
          FROM outbox
         WHERE id IN (SELECT id FROM head)
           AND state = 'waiting'
           AND due_at <= :now
         ORDER BY due_at
         LIMIT :rows_max
           FOR UPDATE SKIP LOCKED
    )
    UPDATE outbox o
       SET attempts = o.attempts + 1, due_at = :lease_until, error = '{POSTING}'
      FROM mine
     WHERE o.id = mine.id
 RETURNING o.id, o.topic, o.request_id, o.channel, o.payload, o.created_at, o.attempts,
           mine.error LIKE '{POSTING}%' OR mine.error LIKE '{UNCLEAR}%' AS maybe_posted
""")  # noqa: S608 - two constants of ours

# A later card or progress row of the same request would show what this one shows.
TWINS: Final = sa.text("""
    SELECT id, payload
      FROM outbox
     WHERE state = 'waiting'
       AND channel = :channel
       AND topic = :topic
       AND request_id = :request_id
     ORDER BY id
""")

# So would a later card of the same incident; its notes are each something new.
TWINS_OF_INCIDENT: Final = sa.text("""
    SELECT id, payload
      FROM outbox
     WHERE state = 'waiting'
       AND channel = :channel
       AND topic = 'incident'
       AND payload ->> 'kind' = 'card'
       AND payload ->> 'incident' = :incident
     ORDER BY id
""")

# A progress row's words may be replaced while the ones before are on their way.
SETTLE: Final = sa.text("""
    UPDATE outbox
       SET state = 'sent', sent_at = :now, error = ''
     WHERE id = ANY(:ids)
       AND state = 'waiting'
       AND (topic <> 'progress' OR id <> :last_id OR payload = :payload)
""").bindparams(sa.bindparam("payload", type_=JSONB))

# What was not settled has newer words: its turn comes again at once.
RELEASE: Final = sa.text("""
    UPDATE outbox
       SET due_at = :now, error = '', attempts = 0
     WHERE id = :id
       AND state = 'waiting'
       AND attempts = :attempts
""")

POSTPONE: Final = sa.text("""
    UPDATE outbox
       SET due_at = :due_at, error = :error, attempts = attempts - :forgive
     WHERE id = :id
       AND state = 'waiting'
       AND attempts = :attempts
""")

BURY: Final = sa.text("""
    UPDATE outbox
       SET state = 'dead', error = :error
     WHERE id = :id
       AND state = 'waiting'
       AND attempts = :attempts
""")

FIND_PLACE: Final = sa.text("""
    SELECT channel, ts
      FROM posts
     WHERE request_id = :request_id
       AND topic = :topic
""")

KEEP_PLACE: Final = sa.text("""
    INSERT INTO posts (request_id, topic, channel, ts)
    VALUES (:request_id, :topic, :channel, :ts)
        ON CONFLICT (request_id, topic) DO UPDATE SET channel = excluded.channel, ts = excluded.ts
""")

FIND_INCIDENT: Final = sa.text("""
    SELECT channel, ts
      FROM places
     WHERE kind = 'incident'
       AND key = :incident
""")

KEEP_INCIDENT: Final = sa.text("""
    INSERT INTO places (kind, key, channel, ts)
    VALUES ('incident', :incident, :channel, :ts)
        ON CONFLICT (kind, key) DO UPDATE SET channel = excluded.channel, ts = excluded.ts
""")

BACKLOG: Final = sa.text("""
    SELECT count(*)        AS waiting,
           min(created_at) AS oldest_at
      FROM outbox
     WHERE state = 'waiting'
""")

NEXT_DUE: Final = sa.text(f"""
    WITH RECURSIVE {HEADS}
    SELECT min(due_at) FROM head
""")  # noqa: S608 - a constant of ours


async def claim(
    store: Store, *, now: datetime, lease_until: datetime, rows_max: int
) -> Sequence[Row]:
    """Up to `rows_max` rows, of different channels, that are ours until `lease_until`."""
    async with store.begin() as conn:
        found = await conn.execute(
            CLAIM, {"now": now, "lease_until": lease_until, "rows_max": rows_max}
        )
        return [Row(**row) for row in found.mappings()]


async def twins(store: Store, row: Row) -> Sequence[tuple[int, Mapping[str, Any]]]:
    """The waiting rows that `row` can stand for, itself included, oldest first."""
    values: dict[str, Any] = {
        "channel": row.channel,
        "topic": row.topic,
        "request_id": row.request_id,
    }
    query = TWINS
    if row.incident_id:
        query, values = TWINS_OF_INCIDENT, _of_incident(row) | {"channel": row.channel}
    async with store.begin() as conn:
        return [(int(twin.id), twin.payload) for twin in await conn.execute(query, values)]


async def find_place(store: Store, request_id: int, topic: str) -> Place | None:
    """Where a request's card or progress message stands, or None before its first post."""
    async with store.begin() as conn:
        found = await conn.execute(FIND_PLACE, {"request_id": request_id, "topic": topic})
        row = found.mappings().first()
        return Place(**row) if row else None


async def place_of_incident(store: Store, incident_id: int) -> Place | None:
    """Where an incident's message stands, or None before its first post."""
    async with store.begin() as conn:
        found = await conn.execute(FIND_INCIDENT, {"incident": str(incident_id)})
        row = found.mappings().first()
        return Place(**row) if row else None


async def settle(
    store: Store,
    row: Row,
    ids: Sequence[int],
    *,
    payload: Mapping[str, Any],
    place: Place | None,
    now: datetime,
) -> None:
    """Mark rows as sent and remember where the message stands, together.

    `payload` is what was shown: the newest of the rows' `payload`s.
    """
    async with store.begin() as conn:
        if place is not None:
            await _keep(conn, row, place)
        await conn.execute(
            SETTLE,
            {"ids": list(ids), "now": now, "last_id": ids[-1], "payload": dict(payload)},
        )
        await conn.execute(RELEASE, {"id": row.id, "now": now, "attempts": row.attempts})


async def _keep(conn: AsyncConnection, row: Row, place: Place) -> None:
    where = {"channel": place.channel, "ts": place.ts}
    if row.incident_id:
        await conn.execute(KEEP_INCIDENT, _of_incident(row) | where)
    elif row.request_id is not None:
        await conn.execute(KEEP_PLACE, {"request_id": row.request_id, "topic": row.slot, **where})


def _of_incident(row: Row) -> dict[str, Any]:
    return {"incident": str(row.incident_id)}


async def postpone(store: Store, row: Row, *, due_at: datetime, error: str, counts: bool) -> None:
    """Try again at `due_at`; `counts` is False for what was no failure of this message."""
    async with store.begin() as conn:
        await conn.execute(
            POSTPONE,
            {
                "id": row.id,
                "due_at": due_at,
                "error": error,
                "attempts": row.attempts,
                "forgive": 0 if counts else 1,
            },
        )


async def bury(store: Store, row: Row, *, error: str) -> None:
    """Put a row aside for ever; the row behind it gets its turn."""
    async with store.begin() as conn:
        await conn.execute(BURY, {"id": row.id, "error": error, "attempts": row.attempts})


async def next_due_at(store: Store) -> datetime | None:
    """The soonest moment when something can be done; None when nothing waits."""
    async with store.begin() as conn:
        found: datetime | None = (await conn.execute(NEXT_DUE)).scalar_one()
        return found


async def backlog(store: Store) -> Backlog:
    """What waits at the moment; reads all of it, so it is for people and metrics."""
    async with store.begin() as conn:
        row = (await conn.execute(BACKLOG)).mappings().one()
        return Backlog(**row)
