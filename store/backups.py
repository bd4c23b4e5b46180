"""The catalogue of backups and of what their verifications found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import sqlalchemy as sa
from pydantic import JsonValue
from sqlalchemy.dialects.postgresql import distinct_on, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from store.connect import Store
from store.quick import Statement
from store.tables import backups, verifications

LISTED_MAX: Final = 50
# Of more than these, the oldest are judged when some of the newer ones are gone.
JUDGED_MAX: Final = 10_000

LAST_PACE: Final = Statement(
    sa.text("""
        SELECT kind, ended_at, seconds, data_bytes
          FROM backups
         WHERE database = :database
           AND state = 'complete'
           AND (:kind = '' OR kind = :kind)
         ORDER BY started_at DESC
         LIMIT 1
    """)
)

ADD_TIER: Final = sa.text("""
    UPDATE backups
       SET tiers = array_append(tiers, :tier)
     WHERE id = :id
       AND state = 'complete'
       AND kind = 'full'
       AND NOT :tier = ANY (tiers)
 RETURNING id
""").bindparams(sa.bindparam("tier", type_=sa.Text()))


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupRecord:
    """A backup as the catalogue knows it. Sizes in bytes; `folder` is absolute.

    `row_counts` maps "database.schema.table" to the bounds that a restored copy must
    lie between. `tiers`: what it is kept for. `base`: the backup that an incremental builds on.
    """

    id: str
    database: str
    kind: str
    engine: str
    state: str
    folder: str
    started_at: datetime
    ended_at: datetime
    seconds: float
    size_bytes: int
    data_bytes: int
    start_lsn: str
    end_lsn: str
    timeline: int
    system_identifier: str
    major: int
    manifest_sha256: str
    row_counts: Mapping[str, JsonValue]
    request_id: int | None
    tiers: Sequence[str] = ()
    base: str | None = None
    label: str = ""
    encryption: str = "none"
    hold: Mapping[str, JsonValue] | None = None
    removed_at: datetime | None = None
    detail: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """One restore test: `checks` holds (name, ok, detail) in the order they ran.

    `target` is the moment that was recovered to, as people write it; '' for the backup's end.
    """

    backup_id: str
    at: datetime
    ok: bool
    restore_seconds: float
    total_seconds: float
    checks: Sequence[tuple[str, bool, str]]
    request_id: int | None
    target: str = ""
    data_bytes: int = 0
    wal_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedBackup:
    """A backup with its last verification, or None when it was never verified."""

    backup: BackupRecord
    verified: Verification | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """When the last backup ended, and how long it took for how much."""

    kind: str
    ended_at: datetime
    seconds: float
    data_bytes: int


async def record_backup(conn: AsyncConnection, backup: BackupRecord) -> None:
    """Store a backup that is complete on disk. Recording it again changes nothing."""
    values = {name: getattr(backup, name) for name in BackupRecord.__slots__}
    values |= {"row_counts": dict(backup.row_counts), "detail": dict(backup.detail)}
    values |= {
        "tiers": list(backup.tiers),
        "hold": sa.null() if backup.hold is None else backup.hold,
    }
    await conn.execute(insert(backups).values(values).on_conflict_do_nothing())


async def record_verification(conn: AsyncConnection, verification: Verification) -> None:
    """Store what a verification found, and mark its backup damaged when it failed."""
    await conn.execute(
        insert(verifications).values(
            backup_id=verification.backup_id,
            at=verification.at,
            ok=verification.ok,
            restore_seconds=verification.restore_seconds,
            total_seconds=verification.total_seconds,
            checks=[list(check) for check in verification.checks],
            request_id=verification.request_id,
            target=verification.target,
            data_bytes=verification.data_bytes,
            wal_bytes=verification.wal_bytes,
        )
    )
    await conn.execute(
        backups.update()
        .where(backups.c.id == verification.backup_id, backups.c.state.in_(("complete", "damaged")))
        .values(state="complete" if verification.ok else "damaged")
    )


async def find_backup(conn: AsyncConnection, database: str, backup_id: str) -> BackupRecord | None:
    """One backup of a database by its id, or None."""
    query = sa.select(backups).where(backups.c.database == database, backups.c.id == backup_id)
    row = (await conn.execute(query)).mappings().one_or_none()
    return BackupRecord(**row) if row else None


async def newest_backup(
    conn: AsyncConnection, database: str, *, verified: bool = False
) -> BackupRecord | None:
    """The newest backup that is not known to be damaged; with `verified`, a proven one."""
    query = sa.select(backups).where(backups.c.database == database, backups.c.state == "complete")
    if verified:
        proof = sa.select(verifications.c.id).where(
            verifications.c.backup_id == backups.c.id, verifications.c.ok
        )
        query = query.where(proof.exists())
    query = query.order_by(backups.c.started_at.desc()).limit(1)
    row = (await conn.execute(query)).mappings().one_or_none()
    return BackupRecord(**row) if row else None


async def is_proven(conn: AsyncConnection, backup_id: str) -> bool:
    """Whether a verification has found this backup good, and none since found it damaged."""
    proof = sa.select(verifications.c.id).where(
        verifications.c.backup_id == backups.c.id, verifications.c.ok
    )
    query = sa.select(backups.c.id).where(
        backups.c.id == backup_id, backups.c.state == "complete", proof.exists()
    )
    return (await conn.execute(query)).one_or_none() is not None


async def last_pace(store: Store, database: str, *, kind: str = "") -> Pace | None:
    """What a plan says of the newest backup that is not known to be damaged; '' is any kind."""
    rows = await store.rows(LAST_PACE, {"database": database, "kind": kind})
    return Pace(**rows[0]) if rows else None


async def list_backups(conn: AsyncConnection, database: str) -> Sequence[ListedBackup]:
    """The newest backups of a database that are still kept, at most `LISTED_MAX`."""
    query = (
        sa.select(backups)
        .where(backups.c.database == database, backups.c.state != "removed")
        .order_by(backups.c.started_at.desc())
        .limit(LISTED_MAX)
    )
    rows = (await conn.execute(query)).mappings().all()
    proofs = await _last_verifications(conn, [row["id"] for row in rows])
    return [
        ListedBackup(backup=BackupRecord(**row), verified=proofs.get(row["id"])) for row in rows
    ]


async def add_tier(conn: AsyncConnection, backup_id: str, tier: str) -> bool:
    """Let a full backup serve one more tier; whether it does so only now."""
    found = await conn.execute(ADD_TIER, {"id": backup_id, "tier": tier})
    return found.one_or_none() is not None


async def all_backups(conn: AsyncConnection, database: str) -> Sequence[ListedBackup]:
    """Every backup of a database that is not removed, newest first, without its row counts."""
    columns = [column for column in backups.c if column.name != "row_counts"]
    query = (
        sa.select(*columns)
        .where(backups.c.database == database, backups.c.state != "removed")
        .order_by(backups.c.started_at.desc())
        .limit(JUDGED_MAX)
    )
    rows = (await conn.execute(query)).mappings().all()
    proofs = await _last_verifications(conn, [row["id"] for row in rows])
    return [
        ListedBackup(
            backup=BackupRecord(**row, row_counts={}),
            verified=proofs.get(row["id"]),
        )
        for row in rows
    ]


async def _last_verifications(
    conn: AsyncConnection, ids: Sequence[str]
) -> Mapping[str, Verification]:
    query = (
        sa.select(verifications)
        .ext(distinct_on(verifications.c.backup_id))
        .where(verifications.c.backup_id.in_(ids))
        .order_by(verifications.c.backup_id, verifications.c.at.desc())
    )
    found = (await conn.execute(query)).mappings()
    return {
        row["backup_id"]: Verification(
            backup_id=row["backup_id"],
            at=row["at"],
            ok=row["ok"],
            restore_seconds=row["restore_seconds"],
            total_seconds=row["total_seconds"],
            checks=[(str(c[0]), bool(c[1]), str(c[2])) for c in row["checks"]],
            request_id=row["request_id"],
            target=row["target"],
            data_bytes=row["data_bytes"],
            wal_bytes=row["wal_bytes"],
        )
        for row in found
    }
