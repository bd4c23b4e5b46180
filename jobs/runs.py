"""The rows of `runs`: who owns a run, and how it ended. Every write is fenced by the epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

import sqlalchemy as sa
from pydantic import JsonValue
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from approvals.words import RequestId, RunId
from store.connect import Store
from store.quick import Statement
from store.redact import redact, redact_json


class RunState(StrEnum):
    """Where a run stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REFUSED = "refused"  # not begun: the worker's own checks said no
    NEEDS_ATTENTION = "needs_attention"  # stopped at a step whose outcome nobody knows


class FencedError(Exception):
    """The run belongs to somebody else by now; nothing was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run as it was read. `begun` says that some worker has passed the checks already."""

    id: RunId
    request_id: RequestId
    database: str
    operation: str
    state: RunState
    epoch: int
    begun: bool
    cancel_by: str
    waiting: str  # what people were told that it waits for; '' for nothing
    waiting_since: datetime | None
    is_beside: bool  # needs its database to nobody's exclusion


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The right to write to a run, until the run's epoch grows.

    `paused_by`: who had asked it to wait when it was claimed; a life of it begins so.
    """

    run_id: RunId
    epoch: int
    worker: str
    paused_by: str = ""

    def params(self) -> dict[str, object]:
        """The parameters of a fenced statement."""
        return {"run_id": self.run_id, "epoch": self.epoch, "worker": self.worker}


LOAD: Final = sa.text("""
    SELECT id, request_id, database, operation, state, epoch, cancel_by, beside,
           started_at IS NOT NULL      AS begun,
           progress ->> 'waiting'       AS waiting,
           progress ->> 'waiting_since' AS waiting_since
      FROM runs
     WHERE id = :run_id
""")

# The request's row first, as every decision about it does: the order that cannot deadlock.
LOCK_REQUEST: Final = sa.text("""
    SELECT q.id
      FROM requests q
      JOIN runs r ON r.request_id = q.id
     WHERE r.id = :run_id
       FOR UPDATE OF q
""")

# The target lock is held here, so no two claims of one database meet. What is left is a
# run that was begun by a worker which died, or which stopped for a person: the database
# stays theirs, lock or no lock.
CLAIM: Final = sa.text("""
    UPDATE runs
       SET state = 'running', epoch = epoch + 1, worker = :worker,
           heartbeat_at = clock_timestamp(),
           started_at = COALESCE(started_at, :now),
           progress = progress - 'waiting' - 'waiting_since'
     WHERE id = :run_id
       AND state = 'queued'
       AND (database = '' OR beside OR NOT EXISTS (
               SELECT FROM runs other
                WHERE other.database = runs.database
                  AND other.id <> runs.id
                  AND NOT other.beside
                  AND (other.state IN ('running', 'needs_attention')
                       OR (other.state = 'queued' AND other.started_at IS NOT NULL))))
    RETURNING epoch, paused_by
""")

# The run itself first, then whichever run holds the database that it wants.
LOAD_WITH_HOLDER: Final = sa.text("""
    WITH looked AS (
        SELECT *, false AS holds FROM runs WHERE id = :run_id
        UNION ALL
        (SELECT *, true
           FROM runs
          WHERE database = (SELECT wanted.database FROM runs wanted
                             WHERE wanted.id = :run_id AND NOT wanted.beside)
            AND id <> :run_id
            AND NOT beside
            AND (state IN ('running', 'needs_attention')
                 OR (state = 'queued' AND started_at IS NOT NULL))
          ORDER BY id
          LIMIT 1)
    )
    SELECT id, request_id, database, operation, state, epoch, cancel_by, beside,
           started_at IS NOT NULL      AS begun,
           progress ->> 'waiting'       AS waiting,
           progress ->> 'waiting_since' AS waiting_since
      FROM looked
     ORDER BY holds, id
""")
LOOK_WITH_HOLDER: Final = Statement(LOAD_WITH_HOLDER)

END: Final = sa.text("""
    UPDATE runs
       SET state = :state, ended_at = :now, outcome = :outcome
     WHERE id = :run_id
       AND epoch = :epoch
       AND worker = :worker
       AND state = 'running'
    RETURNING id
""").bindparams(sa.bindparam("outcome", type_=JSONB))

# The refusal of a claim of this very transaction: nobody has seen the run as begun.
REFUSE: Final = sa.text("""
    UPDATE runs
       SET state = 'refused', started_at = NULL, heartbeat_at = NULL, ended_at = :now,
           outcome = :outcome
     WHERE id = :run_id
       AND epoch = :epoch
       AND worker = :worker
       AND state = 'running'
    RETURNING id
""").bindparams(sa.bindparam("outcome", type_=JSONB))

PUT_BACK: Final = sa.text("""
    UPDATE runs
       SET state = 'queued', epoch = epoch + 1, worker = ''
     WHERE id = :run_id
       AND epoch = :epoch
       AND worker = :worker
       AND state = 'running'
    RETURNING id
""")

WAITING: Final = sa.text("""
    UPDATE runs
       SET progress = progress || jsonb_build_object(
               'waiting', CAST(:text AS text), 'waiting_since', CAST(:since AS text))
     WHERE id = :run_id
       AND state = 'queued'
       AND progress ->> 'waiting' IS DISTINCT FROM CAST(:text AS text)
    RETURNING request_id
""")

# Without a claim: nobody owns it, and the epoch says that nobody has since it was read.
END_QUEUED: Final = sa.text("""
    UPDATE runs
       SET state = :state, epoch = epoch + 1, ended_at = :now, outcome = :outcome
     WHERE id = :run_id
       AND epoch = :epoch
       AND state = 'queued'
    RETURNING id
""").bindparams(sa.bindparam("outcome", type_=JSONB))

# Whoever was begun holds the database, so it comes before those that were not.
NEXT_OF: Final = sa.text("""
    SELECT id
      FROM runs
     WHERE database = :database
       AND state = 'queued'
     ORDER BY started_at IS NULL, queued_at, id
     LIMIT 1
""")

# The store's own clock: the clocks of two workers need not agree.
BEAT: Final = sa.text("""
    UPDATE runs
       SET heartbeat_at = clock_timestamp()
     WHERE id = ANY(:ids)
       AND worker = :worker
       AND state = 'running'
""")

LOOK: Final = sa.text("""
    SELECT id, epoch, cancel_by, paused_by
      FROM runs
     WHERE id = ANY(:ids)
       AND worker = :worker
       AND state = 'running'
""")

CANCEL: Final = sa.text("""
    UPDATE runs
       SET cancel_by = :by
     WHERE id = :run_id
       AND (state = 'running' OR (state = 'queued' AND started_at IS NOT NULL))
       AND cancel_by = ''
    RETURNING id
""")

COUNTS: Final = sa.text("""
    SELECT state, count(*) AS runs, min(queued_at) AS oldest
      FROM runs
     WHERE state IN ('queued', 'running', 'needs_attention')
     GROUP BY state
""")

LOG_LINE: Final = sa.text("INSERT INTO run_log (run_id, at, line) VALUES (:run_id, :now, :line)")
LINE_CHARS_MAX: Final = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a worker's pulse sees of a run; '' where nobody asked for it."""

    epoch: int
    cancel_by: str
    paused_by: str


async def load(conn: AsyncConnection, run_id: RunId) -> Run | None:
    """The run, or None."""
    row = (await conn.execute(LOAD, {"run_id": run_id})).mappings().one_or_none()
    return None if row is None else _run(row)


async def load_with_holder(conn: AsyncConnection, run_id: RunId) -> tuple[Run | None, Run | None]:
    """The run, and the run that holds the database which it wants."""
    rows = await conn.execute(LOAD_WITH_HOLDER, {"run_id": run_id})
    return _with_holder(run_id, rows.mappings().all())


async def look_with_holder(store: Store, run_id: RunId) -> tuple[Run | None, Run | None]:
    """The same outside a transaction."""
    return _with_holder(run_id, await store.rows(LOOK_WITH_HOLDER, {"run_id": run_id}))


def _with_holder(run_id: RunId, rows: Sequence[Mapping[Any, Any]]) -> tuple[Run | None, Run | None]:
    found = [_run(row) for row in rows]
    run = found[0] if found and found[0].id == run_id else None
    return run, found[1] if run is not None and len(found) > 1 else None


async def claim(
    conn: AsyncConnection, run_id: RunId, *, worker: str, now: datetime
) -> Claim | None:
    """Make a queued run ours; None when it is not queued, or its database is not free."""
    await conn.execute(LOCK_REQUEST, {"run_id": run_id})
    found = await conn.execute(CLAIM, {"run_id": run_id, "worker": worker, "now": now})
    row = found.one_or_none()
    if row is None:
        return None
    return Claim(run_id=run_id, epoch=row.epoch, worker=worker, paused_by=row.paused_by)


async def end(
    conn: AsyncConnection,
    mine: Claim,
    *,
    state: RunState,
    outcome: Mapping[str, JsonValue],
    now: datetime,
) -> None:
    """Store how a run ended.

    Raises:
        FencedError: it is not ours any more. Nothing was written.
    """
    await conn.execute(LOCK_REQUEST, {"run_id": mine.run_id})
    statement = REFUSE if state is RunState.REFUSED else END
    values = {**mine.params(), "outcome": redact_json(dict(outcome)), "now": now}
    if statement is END:
        values["state"] = str(state)
    if (await conn.execute(statement, values)).one_or_none() is None:
        raise FencedError(f"run {mine.run_id} is not ours at epoch {mine.epoch}")


async def put_back(conn: AsyncConnection, mine: Claim) -> bool:
    """Give up a run that can be resumed; False when it was not ours any more."""
    return (await conn.execute(PUT_BACK, mine.params())).one_or_none() is not None


async def end_queued(
    conn: AsyncConnection,
    run: Run,
    *,
    state: RunState,
    outcome: Mapping[str, JsonValue],
    now: datetime,
) -> bool:
    """Take a run that nobody owns out of the queue; False when it has changed since it was read."""
    await conn.execute(LOCK_REQUEST, {"run_id": run.id})
    values = {"run_id": run.id, "epoch": run.epoch, "state": str(state), "now": now}
    found = await conn.execute(END_QUEUED, {**values, "outcome": redact_json(dict(outcome))})
    return found.one_or_none() is not None


async def next_of(conn: AsyncConnection, database: str) -> RunId | None:
    """The queued run whose turn it is on a database, or None."""
    if not database:
        return None
    return (await conn.execute(NEXT_OF, {"database": database})).scalar_one_or_none()


async def tell_waiting(conn: AsyncConnection, run_id: RunId, text: str, *, now: datetime) -> bool:
    """Note why a queued run waits; False when that was noted before."""
    values = {"run_id": run_id, "text": redact(text), "since": now.isoformat()}
    return (await conn.execute(WAITING, values)).one_or_none() is not None


async def beat(conn: AsyncConnection, run_ids: Sequence[RunId], *, worker: str) -> None:
    """Say that these runs are alive."""
    await conn.execute(BEAT, {"ids": list(run_ids), "worker": worker})


async def look(
    conn: AsyncConnection, run_ids: Sequence[RunId], *, worker: str
) -> Mapping[RunId, Seen]:
    """Those of these runs that are still the worker's."""
    rows = await conn.execute(LOOK, {"ids": list(run_ids), "worker": worker})
    return {
        RunId(row.id): Seen(epoch=row.epoch, cancel_by=row.cancel_by, paused_by=row.paused_by)
        for row in rows
    }


async def request_cancel(conn: AsyncConnection, run_id: RunId, by: str) -> bool:
    """Ask for a begun run to be cancelled; its worker sees it within a second.

    False when the run has not begun (its request can be cancelled instead), has ended,
    waits for a person, or is being cancelled already.
    """
    return (await conn.execute(CANCEL, {"run_id": run_id, "by": by})).one_or_none() is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """How many runs are in a state, and for how long the oldest has been there or before."""

    state: RunState
    runs: int
    oldest: timedelta


async def counts(conn: AsyncConnection, *, now: datetime) -> Sequence[Count]:
    """What there is to do and to look at: for gauges and for `doctor`."""
    rows = await conn.execute(COUNTS)
    return [
        Count(state=RunState(row.state), runs=row.runs, oldest=now - row.oldest) for row in rows
    ]


async def write_line(conn: AsyncConnection, run_id: RunId, line: str, *, now: datetime) -> None:
    """Add a line to the log of a run."""
    kept = redact(line)[:LINE_CHARS_MAX]
    await conn.execute(LOG_LINE, {"run_id": run_id, "now": now, "line": kept})


def _run(row: Mapping[Any, Any]) -> Run:
    since = row["waiting_since"]
    return Run(
        id=RunId(row["id"]),
        request_id=RequestId(row["request_id"]),
        database=row["database"],
        operation=row["operation"],
        state=RunState(row["state"]),
        epoch=row["epoch"],
        begun=row["begun"],
        cancel_by=row["cancel_by"],
        waiting=row["waiting"] or "",
        waiting_since=datetime.fromisoformat(since) if since else None,
        is_beside=row["beside"],
    )
