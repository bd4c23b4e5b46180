"""How the inventory says where migrations are and what they need, right and wrong."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from approvals.words import BadInputError
from bot.inventory import parse_inventory
from jobs.migration_settings import BackfillSettings, MigrationSettings
from jobs.operation import Database
from postgres.migrate.words import Tool

START = """
policy: policy.yml
databases:
  staging:
    dsn: postgresql://db2/orders
    environment: staging
    tier: standard
    channel: C0DBOPS
    backup_folder: backups/staging
  orders:
    dsn: postgresql://db1/orders
    environment: production
    tier: critical
    channel: C0DBOPS
    backup_folder: backups/orders
"""
ALL = """
    migrations:
      folder: ../shop/db/migrations
      tool: dbmate
      table: ops.schema_migrations
      python: /opt/shop/bin/python
      changes: ../shop/db/changes
      before: [staging]
      backup_age: 6h
      rehearsal_age: 2d
      lock_timeout: 250ms
      lock_tries: 10
      slower: 2.5
      watch: 30m
      keep_aside: 14d
      backfill:
        {rows: 5000, batch: 25ms, ranges: 4, lag: 500ms, lag_bytes: 16MB, wal: 40MB, dead: 0.2,
         slower: 1.5, waiters: 2, unwatched: [archive], retries: 5, time_limit: 2h}
"""


def parsed(text: str = "") -> Database:
    path = Path("/etc/twokey/twokey.yml")
    return parse_inventory(START + text, path=path, environ={}).databases["orders"]


def test_what_nobody_wrote_is_usual() -> None:
    assert parsed().migrations == MigrationSettings()
    # The guide's figures.
    assert BackfillSettings().rows == 10_000
    assert (BackfillSettings().retries, BackfillSettings().time_limit) == (3, timedelta(hours=1))


def test_all_of_it_is_read() -> None:
    assert parsed(ALL).migrations == MigrationSettings(
        folder=Path("/etc/twokey/../shop/db/migrations"),
        tool=Tool.DBMATE,
        table="ops.schema_migrations",
        python=Path("/opt/shop/bin/python"),
        changes=Path("/etc/twokey/../shop/db/changes"),
        before=("staging",),
        backup_age=timedelta(hours=6),
        rehearsal_age=timedelta(days=2),
        lock_timeout=timedelta(milliseconds=250),
        lock_tries=10,
        slower_max=2.5,
        watch=timedelta(minutes=30),
        keep_aside=timedelta(days=14),
        backfill=BackfillSettings(
            rows=5000,
            batch=timedelta(milliseconds=25),
            ranges=4,
            lag_max=timedelta(milliseconds=500),
            lag_bytes_max=16 * 2**20,
            wal_max=40 * 2**20,
            dead_max=0.2,
            slower_max=1.5,
            waiters_max=2,
            unwatched=("archive",),
            retries=5,
            time_limit=timedelta(hours=2),
        ),
    )


@pytest.mark.parametrize(
    ("entry", "key"),
    [
        ("migrations: {tool: liquibase}", "tool"),
        ("migrations: {fodler: x}", "fodler"),
        ("migrations: {table: a.b.c}", "table"),
        ("migrations: {before: [orders]}", "before"),
        ("migrations: {before: [nowhere]}", "before"),
        ("migrations: {lock_timeout: 1ms}", "lock_timeout"),
        ("migrations: {lock_timeout: 200}", "lock_timeout"),
        ("migrations: {lock_tries: 0}", "lock_tries"),
        ("migrations: {slower: 0.5}", "slower"),
        ("migrations: {watch: 2d}", "watch"),
        ("migrations: {backfill: {rows: 10}}", "rows"),
        ("migrations: {backfill: {ranges: 0}}", "ranges"),
        ("migrations: {backfill: {batch: 1m}}", "batch"),
    ],
)
def test_a_mistake_is_said_by_its_key(entry: str, key: str) -> None:
    with pytest.raises(BadInputError) as refusal:
        parsed(f"    {entry}\n")
    assert key in refusal.value.problem
