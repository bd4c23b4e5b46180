"""What of a database can be recovered right now: backups, WAL, and where the server stood when."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from jobs.engines import engine_of
from jobs.operation import Context, JobError
from postgres.backup.engine import Archive, Engine
from postgres.backup.facts import BackupFacts
from postgres.restore.target import RecoveryTarget
from postgres.restore.window import Choice, Mark, choose
from postgres.together import together
from store.backups import BackupRecord, find_backup
from store.tables import backups, wal_marks

# A look at a server that may be gone leaves time for the rest of the plan.
STAND_SECONDS_MAX: Final = 0.8
NEAR: Final = timedelta(minutes=10)
BIN: Final = timedelta(minutes=5)

# A primary's own word on where it is. No row from a standby.
STAND: Final = """
    SELECT pg_current_wal_lsn()::text                                                AS lsn,
           ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int      AS timeline,
           pg_snapshot_xmax(pg_current_snapshot())::text::bigint                      AS next_xid,
           (SELECT s.system_identifier::text FROM pg_control_system() AS s)           AS system
     WHERE NOT pg_is_in_recovery()
"""

# All marks near a moment, and one for every few minutes elsewhere: a week has 20,000.
MARKS: Final = sa.text("""
    SELECT at, timeline, lsn, next_xid
      FROM (SELECT *, row_number() OVER (
                       PARTITION BY date_bin(make_interval(secs => :bin_seconds), at,
                                             CAST('2026-01-01T00:00Z' AS timestamptz))
                           ORDER BY at) AS position
              FROM wal_marks
             WHERE database = :database AND system_identifier = :system AND at >= :since) AS m
     WHERE position = 1
        OR at BETWEEN CAST(:moment AS timestamptz) - make_interval(secs => :near_seconds)
                  AND CAST(:moment AS timestamptz) + make_interval(secs => :near_seconds)
        OR at > CAST(:now AS timestamptz) - make_interval(secs => :near_seconds)
     ORDER BY at
""").columns(wal_marks.c.at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What is kept of a database. Backups that were found damaged are left out of `backups`."""

    engine: Engine
    backups: tuple[BackupFacts, ...]
    archive: Archive
    marks: tuple[Mark, ...]
    damaged: frozenset[str]

    def choose(self, target: RecoveryTarget, *, backup_id: str | None = None) -> Choice:
        """The way to a target.

        Raises:
            PostgresError: there is none; it says what can be recovered.
            JobError: the backup that was asked for is known to be damaged.
        """
        if backup_id in self.damaged:
            raise JobError(
                f"The backup {backup_id} was found damaged, so nothing is restored from it.",
                next_step="Leave the backup out, so that a good one is chosen.",
            )
        return choose(
            self.backups, self.archive, target, marks=self.marks, backup_id=backup_id or None
        )


async def what_is_kept(context: Context, target: RecoveryTarget) -> Kept:
    """Everything that a recovery to `target` may need to know. The server is not asked.

    Raises:
        JobError: this release does not have the database's engine.
        PostgresError: the engine cannot say what it keeps.
    """
    name, engine = context.database.name, engine_of(context.database)
    async with together() as group:
        listing = group.create_task(engine.backups())
        archive = group.create_task(engine.archive())
    found = listing.result().backups
    async with context.store.begin() as conn:
        damaged = await _damaged(conn, name)
        good = tuple(facts for facts in found if facts.id not in damaged)
        marks = await _marks(conn, name, good, target, now=context.now)
    return Kept(engine=engine, backups=good, archive=archive.result(), marks=marks, damaged=damaged)


async def stand_of(context: Context, system: str) -> Mark | None:
    """Where the server stands now; None: it cannot be asked, is a standby or another cluster."""
    try:
        async with asyncio.timeout(STAND_SECONDS_MAX):
            rows = await context.reader.rows(STAND)
    except (JobError, TimeoutError):
        return None
    if not rows or rows[0]["system"] != system:
        return None
    row = rows[0]
    return Mark(at=context.now, timeline=row["timeline"], lsn=row["lsn"], next_xid=row["next_xid"])


async def backup_pins(context: Context, facts: BackupFacts) -> dict[str, str]:
    """A backup by its name and by what it holds, as a plan pins it."""
    async with context.store.begin() as conn:
        record: BackupRecord | None = await find_backup(conn, context.database.name, facts.id)
    if record is not None and record.manifest_sha256:
        return {"backup": facts.id, "manifest": record.manifest_sha256}
    digest = hashlib.sha256(facts.model_dump_json().encode()).hexdigest()
    return {"backup": facts.id, "manifest": digest}


async def _damaged(conn: AsyncConnection, database: str) -> frozenset[str]:
    query = sa.select(backups.c.id).where(
        backups.c.database == database, backups.c.state == "damaged"
    )
    return frozenset((await conn.execute(query)).scalars())


async def _marks(
    conn: AsyncConnection,
    database: str,
    kept: Sequence[BackupFacts],
    target: RecoveryTarget,
    *,
    now: datetime,
) -> tuple[Mark, ...]:
    """Marks of the newest backup's cluster, in the order of time.

    Where the target is no moment, all of them: any may be the nearest.
    """
    if not kept:
        return ()
    newest = max(kept, key=lambda facts: facts.ended_at)
    by_place = target.kind in ("lsn", "xid")
    values = {
        "database": database,
        "system": newest.system_identifier,
        "since": min(facts.began_at for facts in kept) - NEAR,
        "moment": target.at or newest.ended_at,
        "now": now,
        "near_seconds": NEAR.total_seconds(),
        "bin_seconds": 1.0 if by_place else BIN.total_seconds(),
    }
    rows = (await conn.execute(MARKS, values)).mappings()
    return tuple(Mark(**row) for row in rows)
