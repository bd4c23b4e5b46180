"""A small production server with WAL archiving, a backup, and an accident after a good moment."""

from __future__ import annotations

import asyncio
import os
import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import asyncpg
import sqlalchemy as sa
from pydantic import SecretStr

from jobs.backup_settings import ArchiveMethod, ArchiveSettings, BackupSettings, ScratchSettings
from jobs.operation import Database, Tier
from postgres.account import server_account
from postgres.backup.engine import TakeOrder
from postgres.backup.facts import BackupFacts
from postgres.backup.native_engine import NativeEngine
from postgres.server import Server, create, find_binaries
from store.backups import BackupRecord
from store.connect import Store
from store.marks import WalMark
from tests.conftest import folder_of_its_own
from tests.jobs.support import ADD_REQUEST, eventually

PAYMENTS = """
    CREATE TABLE payments (id int PRIMARY KEY, cents int NOT NULL, note text);
    INSERT INTO payments SELECT n, n, repeat('x', n % 50) FROM generate_series(1, 4000) AS n;
"""
STOOD = """
    SELECT clock_timestamp() AS at, pg_current_wal_lsn()::text AS lsn,
           pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS next_xid
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Archived:
    """The server, its database `shop` in the inventory, and the last moment that was good.

    4,000 payments are in the backup, 500 came after it, and after `good` all are deleted.
    """

    server: Server
    home: Path
    facts: BackupFacts
    good: datetime
    mark: WalMark  # at `good`

    def database(self, *, open_max: int = 3) -> Database:
        """As the inventory has it."""
        return Database(
            name="shop",
            dsn=SecretStr(self.server.dsn("shop")),
            environment="production",
            tier=Tier.CRITICAL,
            channel="C0ORDERS",
            backup_folder=self.home / "backups",
            backups=BackupSettings(
                archive=ArchiveSettings(method=ArchiveMethod.COMMAND),
                scratch=ScratchSettings(open_max=open_max),
            ),
        )

    async def ask(self, query: str, *args: object) -> Any:
        """One value from production."""
        conn = await asyncpg.connect(self.server.dsn("shop"), timeout=30)
        try:
            return await conn.fetchval(query, *args)
        finally:
            await conn.close()


async def make_archived() -> Archived:
    """Start it; `remove_archived` ends it."""
    home = folder_of_its_own()
    wal = home / "backups" / "wal"
    wal.mkdir(parents=True)
    if account := server_account():
        os.chown(wal, account.uid, account.gid)
    settings = {
        "fsync": "off",
        "shared_buffers": "16MB",
        "wal_level": "replica",
        "archive_mode": "on",
        "archive_command": f"test ! -f {wal}/%f && cp %p {wal}/.%f && mv {wal}/.%f {wal}/%f",
    }
    server = await create(find_binaries(os.environ), home / "data", settings=settings, sync=False)
    await server.start()
    conn = await asyncpg.connect(server.dsn(), timeout=30)
    await conn.execute("CREATE DATABASE shop")
    await conn.close()
    conn = await asyncpg.connect(server.dsn("shop"), timeout=30)
    try:
        await conn.execute(PAYMENTS)
        engine = NativeEngine(dsn=SecretStr(server.dsn("shop")), folder=home / "backups")
        facts = await engine.take(TakeOrder(backup_id="shop-1"))
        await conn.execute(
            "INSERT INTO payments SELECT n, n, 'late' FROM generate_series(4001, 4500) AS n"
        )
        stood = await conn.fetchrow(STOOD)
        await conn.execute("DELETE FROM payments")
        last = await conn.fetchval("SELECT pg_walfile_name(pg_switch_wal())")
    finally:
        await conn.close()
    await _archived(wal / last)
    mark = WalMark(
        database="shop", system_identifier=facts.system_identifier, timeline=1, **dict(stood)
    )
    return Archived(server=server, home=home, facts=facts, good=mark.at, mark=mark)


async def remove_archived(made: Archived) -> None:
    """Leave nothing of it."""
    await made.server.stop("immediate")
    await asyncio.to_thread(shutil.rmtree, made.home, ignore_errors=True)


async def add_request(store: Store, *, database: str = "shop") -> int:
    """A request that runs may belong to; its number."""
    now = datetime.fromisoformat("2026-11-22T12:00:00+00:00")
    values = {"database": database, "params": "{}", "plan": "{}", "plan_hash": "h", "now": now}
    async with store.begin() as conn:
        return int((await conn.execute(ADD_REQUEST, values)).scalar_one())


def record_of(
    facts: BackupFacts, *, state: str = "complete", database: str = "shop"
) -> BackupRecord:
    """A backup as the catalogue has it."""
    return BackupRecord(
        id=facts.id, database=database, kind=facts.kind, engine=facts.engine, state=state,
        folder="/backups", started_at=facts.began_at, ended_at=facts.ended_at,
        seconds=facts.seconds, size_bytes=facts.size_bytes, data_bytes=facts.data_bytes,
        start_lsn=facts.start_lsn, end_lsn=facts.end_lsn, timeline=facts.timeline,
        system_identifier=facts.system_identifier, major=facts.major, manifest_sha256="m" * 64,
        row_counts={}, request_id=None,
    )  # fmt: skip


async def notes(store: Store) -> list[str]:
    """What was said in threads."""
    query = sa.text("SELECT payload ->> 'text' FROM outbox WHERE topic = 'note' ORDER BY id")
    async with store.begin() as conn:
        return [str(text) for text in (await conn.execute(query)).scalars()]


async def _archived(segment: Path) -> None:
    async def there() -> bool:
        return segment.exists()

    await eventually(there, seconds=30)
