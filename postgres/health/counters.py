"""What only ever counts up, as one look at a server found it. Pure values.

They mean something only as the difference of two looks: see `postgres.health.deltas`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple


# A tuple, not a dataclass: a server has thousands of these, and each look makes all anew.
class DatabaseCounters(NamedTuple):
    """Of one database, or of what all databases share. `bad_sessions`: from PostgreSQL 14 on."""

    commits: int
    rollbacks: int
    blocks_hit: int
    blocks_read: int
    deadlocks: int
    temp_bytes: int
    bad_sessions: int | None
    reset: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """All of a server's. Times are seconds since the epoch, by the server's own clock.

    `started`, `standby`, `writer_reset` and each database's `reset` tell whether two looks can
    be compared. `wal_bytes` is None on a standby, which writes none.
    """

    at: float
    started: float
    standby: bool
    writer_reset: float | None
    databases: Mapping[int, DatabaseCounters]
    wal_bytes: int | None
    checkpoints_timed: int
    checkpoints_requested: int
    checkpoints_reset: float | None


class StatementKey(NamedTuple):
    """What pg_stat_statements tells apart."""

    user: int
    database: int
    queryid: int
    is_top: bool


class StatementCounters(NamedTuple):
    """Of one statement. `square_ms`: the sum of the squares of its times, in ms².

    `since`: when the entry was made (PostgreSQL 17), else None. `max_ms` is of all its life.
    """

    calls: int
    total_ms: float
    square_ms: float
    max_ms: float
    rows: int
    blocks_hit: int
    blocks_read: int
    temp_blocks: int
    wal_bytes: int
    since: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementSample:
    """All statements of a server at a moment. `reset`: of all of them (PostgreSQL 14)."""

    at: float
    reset: float | None
    sees_all: bool
    rows: Mapping[StatementKey, StatementCounters]
