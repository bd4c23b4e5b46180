"""How a database's schema is changed, as the inventory says it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from postgres.migrate.words import Tool


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillSettings:
    """How rows are changed in batches. The guide's first batch has 10,000 rows.

    `batch` is the time that a batch should take: nobody waits longer for a row. Above `lag_max`,
    `wal_max` (bytes a second), `dead_max` (dead rows per live row) or `slower_max` (p95 of other
    load against before) it waits. 0 turns a limit off. `unwatched`: application names of standbys
    that are late on purpose. `keep_max`: bytes of old values that one backfill may keep.
    """

    rows: int = 10_000
    batch: timedelta = timedelta(milliseconds=50)
    ranges: int = 2
    lag_max: timedelta = timedelta(seconds=5)
    lag_bytes_max: int = 64 * 2**20
    wal_max: int = 0
    dead_max: float = 0.5
    slower_max: float = 2.0
    waiters_max: int = 5
    unwatched: tuple[str, ...] = ()
    retries: int = 3
    time_limit: timedelta = timedelta(hours=1)
    keep_max: int = 10 * 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationSettings:
    """Where a database's migrations are, and what must be so before they run.

    `folder` None: nobody has said where they are. `tool` None: the folder tells. `before`: the
    inventory's databases where a migration must have been applied first. `changes`: the folder
    of declared changes (YAML); None: `changes` under `folder`. For Alembic `folder` is where
    alembic.ini stands, and `python` has the application's packages; None: our own.
    """

    folder: Path | None = None
    tool: Tool | None = None
    table: str = ""  # the tool's bookkeeping table, where it is not the usual one
    python: Path | None = None
    changes: Path | None = None
    before: tuple[str, ...] = ()
    backup_age: timedelta = timedelta(hours=24)
    rehearsal_age: timedelta = timedelta(days=7)
    lock_timeout: timedelta = timedelta(milliseconds=200)
    lock_tries: int = 30
    slower_max: float = 3.0  # against the rehearsal
    watch: timedelta = timedelta(minutes=15)
    keep_aside: timedelta = timedelta(days=7)
    backfill: BackfillSettings = field(default_factory=BackfillSettings)
