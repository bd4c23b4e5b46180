"""Finds what dead workers left: runs without a pulse, runs without a delivery, folders.

Every worker looks; a lock of the transaction lets one of them act at a time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, assert_never

import sqlalchemy as sa

from approvals import audit
from approvals.words import RunId
from jobs import runs
from jobs.away import is_away
from jobs.folders import folder_of, leftovers, remove
from jobs.pulse import Pulse
from jobs.runs import RunState
from jobs.surroundings import Surroundings
from store import outbox

log: Final = logging.getLogger("twokey.jobs")

BATCH: Final = 100
QUEUE_LOG_DAYS: Final = 7

ALONE: Final = sa.text("SELECT pg_try_advisory_xact_lock(hashtext('twokey reaper'), 0)")

# The new epoch fences the old owner, should it only have been paused.
REAP: Final = sa.text("""
    WITH dead AS (
        SELECT id, worker
          FROM runs
         WHERE state = 'running'
           AND heartbeat_at < clock_timestamp() - make_interval(secs => :stale_seconds)
         ORDER BY id
         LIMIT :batch
           FOR UPDATE SKIP LOCKED
    )
    UPDATE runs r
       SET state = 'queued', epoch = r.epoch + 1, worker = ''
      FROM dead
     WHERE r.id = dead.id
    RETURNING r.id, dead.worker
""")

# PgQueuer has lost its row, or never got it back from a restored copy of the store.
UNDELIVERED: Final = sa.text("""
    SELECT r.id
      FROM runs r
     WHERE r.state = 'queued'
       AND NOT EXISTS (
               SELECT FROM pgqueuer q
                WHERE q.dedupe_key = 'run-' || r.id
                  AND q.status IN ('queued', 'picked'))
     ORDER BY r.id
     LIMIT :batch
""")

TRIM_QUEUE_LOG: Final = sa.text("""
    DELETE FROM pgqueuer_log
     WHERE id IN (SELECT id FROM pgqueuer_log
                   WHERE created < now() - make_interval(days => :days)
                   ORDER BY created
                   LIMIT 1000)
""")

ALIVE: Final = sa.text("""
    SELECT id, epoch FROM runs WHERE id = ANY(:ids) AND state = 'running'
""")

LOOK_AT_STEPS: Final = sa.text("""
    UPDATE run_steps
       SET state = :state, ended_at = :now, error = ''
     WHERE run_id = :run_id AND mode = 'once' AND state = 'started'
""")

# Whoever looked goes on with a run that was stopped amid a step. One that ends in order goes on
# to that end: to say what became of a step is not to want the rest of it.
TAKE_UP: Final = sa.text("""
    UPDATE runs
       SET state = 'queued', epoch = epoch + 1, worker = '', ended_at = NULL, outcome = '{}',
           cancel_by = CASE WHEN operation = ANY(:orderly) THEN cancel_by ELSE '' END
     WHERE id = :run_id AND state = 'needs_attention'
    RETURNING request_id
""")

ABORT: Final = sa.text("""
    UPDATE runs
       SET state = 'failed', epoch = epoch + 1, worker = '', ended_at = :now
     WHERE id = :run_id AND state = 'needs_attention'
    RETURNING request_id
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What one look has put right."""

    dead: Sequence[RunId] = ()
    undelivered: Sequence[RunId] = ()


async def look(given: Surroundings) -> Found:
    """Put back dead runs and deliver lost ones; does nothing while another worker does."""
    async with given.store.begin() as conn:
        if not (await conn.execute(ALONE)).scalar_one():
            return Found()
        stale_seconds = given.limits.stale.total_seconds()
        reaped = (await conn.execute(REAP, {"stale_seconds": stale_seconds, "batch": BATCH})).all()
        for row in reaped:
            line = f"recovered: worker {row.worker} has had no pulse for {stale_seconds:g} s"
            await runs.write_line(conn, row.id, line, now=given.clock())
        dead = [RunId(row.id) for row in reaped]
        lost = (await conn.execute(UNDELIVERED, {"batch": BATCH})).scalars().all()
        undelivered = [RunId(run_id) for run_id in lost if run_id not in dead]
        await given.queue.redeliver(conn, [*dead, *undelivered])
        await conn.execute(TRIM_QUEUE_LOG, {"days": QUEUE_LOG_DAYS})
    return Found(dead=dead, undelivered=undelivered)


async def sweep_folders(given: Surroundings, pulse: Pulse) -> int:
    """Remove the folders of lives that have ended; how many."""
    there = await asyncio.to_thread(leftovers, given.home)
    if not there:
        return 0
    async with given.store.begin() as conn:
        rows = await conn.execute(ALIVE, {"ids": [run_id for run_id, _ in there]})
        alive = {(row.id, row.epoch) for row in rows}
    ended = there - alive - pulse.held()
    for run_id, epoch in ended:
        await remove(folder_of(given.home, run_id, epoch))
    return len(ended)


async def keep_looking(given: Surroundings, pulse: Pulse) -> None:
    """Look now and again; never returns."""
    while True:
        try:
            found = await look(given)
            if found.dead or found.undelivered:
                log.warning("Recovered %s, redelivered %s.", found.dead, found.undelivered)
            await sweep_folders(given, pulse)
        except Exception as error:
            if not is_away(error):
                raise
        await asyncio.sleep(given.limits.reap.total_seconds())


class Finding(StrEnum):
    """What a person found out about a step whose outcome nobody knew."""

    HAPPENED = "happened"  # the run goes on after it
    DID_NOT_HAPPEN = "did_not_happen"  # the run begins it again
    ABORT = "abort"  # the run ends here, and its request has failed


async def resolve(given: Surroundings, run_id: RunId, finding: Finding, *, by: str) -> bool:
    """Go on with a run that waits for a person, or end it; False when it does not wait."""
    now = given.clock()
    async with given.store.begin() as conn:
        await conn.execute(runs.LOCK_REQUEST, {"run_id": run_id})
        match finding:
            case Finding.HAPPENED | Finding.DID_NOT_HAPPEN:
                state = "done" if finding is Finding.HAPPENED else "failed"
                orderly = [name for name, each in given.operations.items() if each.ends_in_order]
                found = await conn.execute(TAKE_UP, {"run_id": run_id, "orderly": orderly})
                request_id = found.scalar_one_or_none()
                if request_id is None:
                    return False
                await conn.execute(LOOK_AT_STEPS, {"run_id": run_id, "state": state, "now": now})
                await given.queue.redeliver(conn, [run_id])
            case Finding.ABORT:
                found = await conn.execute(ABORT, {"run_id": run_id, "now": now})
                request_id = found.scalar_one_or_none()
                if request_id is None:
                    return False
                summary = f"Ended by {by}: nobody knows whether its last step happened."
                await given.approvals.finish(
                    conn, request_id, ok=False, summary=summary, numbers={}
                )
            case _:
                assert_never(finding)
        await runs.write_line(conn, run_id, f"resolved by {by}: {finding}", now=now)
        run = await runs.load(conn, run_id)
        await audit.append(
            conn,
            chain="" if run is None else run.database,
            at=now,
            actor=by,
            action="resolve_run",
            request_id=request_id,
            detail={"run_id": run_id, "finding": str(finding)},
        )
    await _tell(given, run_id, finding, by)
    return True


async def _tell(given: Surroundings, run_id: RunId, finding: Finding, by: str) -> None:
    async with given.store.begin() as conn:
        run = await runs.load(conn, run_id)
    grant = None if run is None else await given.approvals.load(run.request_id)
    if run is None or grant is None:
        return
    text = f"{by} looked: {finding.replace('_', ' ')}. The run is {RunState(run.state)} now."
    async with given.store.begin() as conn:
        await outbox.post(
            conn,
            topic="note",
            request_id=run.request_id,
            channel=grant.channel,
            payload={"text": text, "kind": "resolved"},
            now=given.clock(),
        )
