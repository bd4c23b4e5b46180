"""What one sees of a database's WAL archive: on the server, in the folder, in the store."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import sqlalchemy as sa

from jobs.archive_health import Held, LastBackup, SlotState, Stand, Trouble, held
from jobs.operation import JobError, Reader
from postgres.backup.engine import Engine
from postgres.errors import PostgresError
from store.connect import Store
from store.quick import Statement

LISTING_SECONDS_MAX: Final = 120.0

# The clock comes first: all that was committed by then has a smaller LSN. On a standby there is
# no timeline to write on, and so no mark.
STAND: Final = """
    WITH moment AS MATERIALIZED (SELECT clock_timestamp() AS at),
         place AS MATERIALIZED (
           SELECT at, pg_is_in_recovery() AS is_standby,
                  CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                       ELSE pg_current_wal_lsn() END AS lsn
             FROM moment)
    SELECT place.at,
           (SELECT system_identifier::text FROM pg_control_system())         AS system_identifier,
           CASE WHEN NOT is_standby
                THEN ('x' || left(pg_walfile_name(lsn), 8))::bit(32)::int END AS timeline,
           lsn::text                                                         AS lsn,
           pg_snapshot_xmax(pg_current_snapshot())::text::bigint             AS next_xid,
           pg_size_bytes(current_setting('wal_segment_size'))                AS segment_bytes,
           current_setting('server_version_num')::int / 10000                AS major,
           s.slot_name IS NOT NULL                                           AS slot_there,
           coalesce(s.active, false)                                         AS slot_active,
           coalesce(s.wal_status = 'lost', false)                            AS slot_lost,
           pg_wal_lsn_diff(lsn, s.restart_lsn)::bigint                       AS slot_bytes,
           (SELECT setting::int FROM pg_settings
             WHERE name = 'max_slot_wal_keep_size')                          AS keep_size_mb,
           (SELECT max(flush_lsn)::text FROM pg_stat_replication
             WHERE application_name = $2)                                    AS received_lsn,
           current_setting('archive_mode')                                   AS archive_mode,
           a.last_archived_time                                              AS archived_at,
           a.last_failed_time                                                AS failed_at,
           coalesce(a.last_failed_wal, '')                                   AS failed_wal
      FROM place
     CROSS JOIN pg_stat_archiver AS a
      LEFT JOIN pg_replication_slots AS s ON s.slot_name = $1
"""

LAST_BACKUP: Final = Statement(
    sa.text("""
        SELECT id, timeline, end_lsn
          FROM backups
         WHERE database = :database
           AND state = 'complete'
           AND kind <> 'logical'
         ORDER BY started_at DESC
         LIMIT 1
    """)
)


async def look_at_server(reader: Reader, *, slot: str, receiver: str) -> Stand | Trouble:
    """Where the server stands. `slot`: ours, '' for none; `receiver`: how ours is called there."""
    try:
        [row] = await reader.rows(STAND, slot, receiver)
    except JobError as error:
        return Trouble(problem=error.problem, next_step=error.next_step)
    return Stand(
        at=row["at"],
        system_identifier=row["system_identifier"],
        timeline=row["timeline"],
        lsn=row["lsn"],
        next_xid=row["next_xid"],
        segment_bytes=row["segment_bytes"],
        major=row["major"],
        slot=_slot(row) if slot else SlotState.NONE,
        slot_bytes=row["slot_bytes"],
        keep_size_mb=row["keep_size_mb"],
        received_lsn=row["received_lsn"],
        archive_mode=row["archive_mode"],
        archived_at=row["archived_at"],
        failed_at=row["failed_at"],
        failed_wal=row["failed_wal"],
    )


async def look_at_archive(
    engine: Engine, segment_bytes: int, last: LastBackup | None
) -> Held | Trouble:
    """What the archive holds, and whether it leads on from the last backup."""
    try:
        async with asyncio.timeout(LISTING_SECONDS_MAX):
            archive = await engine.archive()
        return await asyncio.to_thread(held, archive, segment_bytes, last)
    except PostgresError as error:
        return Trouble(problem=error.problem, next_step=error.next_step)
    except OSError as error:  # TimeoutError is one
        return Trouble(
            problem=f"The WAL archive cannot be listed: {error.strerror or 'no answer'}.",
            next_step="See whether the backup folder is mounted, and can be read by the worker.",
        )


async def last_backup(store: Store, database: str) -> LastBackup | None:
    """The newest backup that WAL can be replayed on."""
    rows = await store.rows(LAST_BACKUP, {"database": database})
    return LastBackup(**rows[0]) if rows else None


def _slot(row: Any) -> SlotState:
    if not row["slot_there"]:
        return SlotState.MISSING
    if row["slot_lost"]:
        return SlotState.LOST
    return SlotState.ACTIVE if row["slot_active"] else SlotState.INACTIVE
