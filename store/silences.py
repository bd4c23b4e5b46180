"""Silences: what is not told for a time, why, and who wants it so.

Nothing is silent for ever: each has an end from its beginning, and who ends one earlier is
taken down. Rows of what is over stay for a year.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, TIMESTAMP
from sqlalchemy.ext.asyncio import AsyncConnection

SILENCES_MAX: Final = 5000
_AT: Final = TIMESTAMP(timezone=True)
_COLUMNS: Final = (
    "id, database, name, source, reason, by, by_slack, request_id, starts_at, ends_at, ended_at,"
    " ended_by"
)

ADD: Final = sa.text("""
    INSERT INTO silences (database, name, source, reason, by, by_slack, request_id, starts_at,
                          ends_at)
    VALUES (:database, :name, :source, :reason, :by, :by_slack, :request_id, :starts_at, :ends_at)
 RETURNING id
""").bindparams(
    sa.bindparam("request_id", type_=sa.BigInteger()),
    sa.bindparam("starts_at", type_=_AT),
    sa.bindparam("ends_at", type_=_AT),
)

ACTIVE: Final = sa.text(f"""
    SELECT {_COLUMNS}
      FROM silences
     WHERE ends_at > :now
       AND starts_at <= :now
       AND ended_at IS NULL
       AND (CAST(:database AS text) IS NULL OR database = :database)
     ORDER BY starts_at, id
     LIMIT :rows
""").bindparams(sa.bindparam("now", type_=_AT))  # noqa: S608 - our own constants

END: Final = sa.text("""
    UPDATE silences
       SET ended_at = :at, ended_by = :by
     WHERE id = :id
       AND ended_at IS NULL
       AND ends_at > :at
 RETURNING id
""").bindparams(sa.bindparam("at", type_=_AT))

# Runs that people notice, or that can lose data, while their worker is alive: a run whose
# worker has died silences nothing.
RUNS: Final = sa.text("""
    SELECT r.id AS run_id, r.request_id, r.database, r.operation, q.asked_by, q.asked_by_slack
      FROM runs r
      JOIN requests q ON q.id = r.request_id
     WHERE r.state = 'running'
       AND r.heartbeat_at > :since
       AND q.attributes ->> 'risk' IN ('disruptive', 'destructive')
       AND r.database <> ''
       AND NOT r.beside
       AND r.operation <> ALL (:except)
     ORDER BY r.id
     LIMIT :rows
""").bindparams(sa.bindparam("since", type_=_AT), sa.bindparam("except", type_=ARRAY(sa.Text())))

# One of a run, however many bots see it; each look moves its end, never beyond `span_max`.
# A silence that a person has ended stays ended: the run gets no other.
KEEP_OF_RUN: Final = sa.text("""
    WITH kept AS (
        UPDATE silences
           SET ends_at = greatest(ends_at, least(:ends_at, starts_at + :span_max))
         WHERE source = 'run' AND request_id = :request_id
     RETURNING id
    )
    INSERT INTO silences (database, name, source, reason, by, by_slack, request_id, starts_at,
                          ends_at)
    SELECT :database, '', 'run', :reason, :by, :by_slack, :request_id, :now, :ends_at
     WHERE NOT EXISTS (SELECT FROM kept)
""").bindparams(
    sa.bindparam("request_id", type_=sa.BigInteger()),
    sa.bindparam("now", type_=_AT),
    sa.bindparam("ends_at", type_=_AT),
    sa.bindparam("span_max", type_=sa.Interval()),
)

FORGET: Final = sa.text("""
    DELETE FROM silences
     WHERE id IN (SELECT id FROM silences WHERE ends_at < :before ORDER BY ends_at LIMIT :rows)
""").bindparams(sa.bindparam("before", type_=_AT))


@dataclass(frozen=True, slots=True, kw_only=True)
class SilenceRow:
    """A silence. `name` '': all alerts of the database. `source`: person, or a run at work."""

    id: int
    database: str
    name: str
    source: str
    reason: str
    by: str
    by_slack: str
    request_id: int | None
    starts_at: datetime
    ends_at: datetime
    ended_at: datetime | None
    ended_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunAtWork:
    """A run that people notice, on whose database alerts say nothing new."""

    run_id: int
    request_id: int
    database: str
    operation: str
    asked_by: str
    asked_by_slack: str


async def add_silence(
    conn: AsyncConnection,
    *,
    database: str,
    name: str,
    source: Literal["person", "run"],
    reason: str,
    by: str,
    by_slack: str,
    request_id: int | None,
    starts_at: datetime,
    ends_at: datetime,
) -> int:
    """Silence one alert of a database, or all of them (`name` ''), until `ends_at`; its id.

    Raises:
        ValueError: it would end before it begins.
    """
    if ends_at <= starts_at:
        raise ValueError("a silence ends after it begins")
    values = {
        "database": database, "name": name, "source": source, "reason": reason, "by": by,
        "by_slack": by_slack, "request_id": request_id, "starts_at": starts_at, "ends_at": ends_at,
    }  # fmt: skip
    return int((await conn.execute(ADD, values)).scalar_one())


async def active_silences(
    conn: AsyncConnection, now: datetime, database: str | None = None
) -> Sequence[SilenceRow]:
    """What is silent at `now`, on one database or anywhere (None), oldest first."""
    values = {"now": now, "database": database, "rows": SILENCES_MAX}
    return [SilenceRow(**row) for row in (await conn.execute(ACTIVE, values)).mappings()]


async def end_silence(conn: AsyncConnection, silence_id: int, *, by: str, at: datetime) -> bool:
    """End a silence before its time; False: there is none of this number, or it is over."""
    found = await conn.execute(END, {"id": silence_id, "by": by, "at": at})
    return found.one_or_none() is not None


async def runs_at_work(
    conn: AsyncConnection, *, heard_since: datetime, besides: Iterable[str], rows: int
) -> Sequence[RunAtWork]:
    """Disruptive and destructive runs that are under way, and were heard of since then.

    `besides`: operations that leave the server alone, as what runs beside others does.
    """
    values = {"since": heard_since, "except": sorted(besides), "rows": rows}
    found = await conn.execute(RUNS, values)
    return [RunAtWork(**row) for row in found.mappings()]


async def keep_silence_of_run(
    conn: AsyncConnection,
    run: RunAtWork,
    *,
    reason: str,
    now: datetime,
    ends_at: datetime,
    span_max: timedelta,
) -> None:
    """Silence a run's database until `ends_at`, at most for `span_max` since it began."""
    values = {
        "database": run.database, "reason": reason, "by": run.asked_by,
        "by_slack": run.asked_by_slack, "request_id": run.request_id, "now": now,
        "ends_at": ends_at, "span_max": span_max,
    }  # fmt: skip
    await conn.execute(KEEP_OF_RUN, values)


async def forget_silences(conn: AsyncConnection, *, before: datetime, rows: int) -> None:
    """Remove some that are long over."""
    await conn.execute(FORGET, {"before": before, "rows": rows})
