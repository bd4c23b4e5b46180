"""What a backfill is to do, within which limits, and what came of it. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from types import MappingProxyType
from typing import Final, Protocol

Tell = Callable[[str, float | None], Awaitable[None]]
FreeBytes = Callable[[], Awaitable[int | None]]

RANGES_MAX: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """Where overwritten values are kept: a table `name` in `twokey_aside`, of our own making.

    `bytes_max`: it stops when they take more, with its index.
    """

    name: str
    bytes_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillSpec:
    """Which rows get which values: `UPDATE schema.table SET assignments_sql WHERE where_sql`.

    `key` names the backfill in the target's ledger: who asks again with it goes on where the
    last one stopped. `ranges` are worked on side by side. Both SQL parts were read and agreed to
    by people; each value must follow from its own row alone, and a `where_sql` whose answer
    changes by itself (`now()`, `random()`) leaves rows out. `sweep`: rows inserted behind the end
    meanwhile are done too, as far as they are there when it comes to them. `keep`: the values that
    are overwritten are kept, each in its batch's own transaction.
    """

    key: str
    schema: str
    table: str
    assignments_sql: str
    where_sql: str = ""
    ranges: int = 2
    sweep: bool = True
    keep: Keep | None = None

    @property
    def name(self) -> str:
        """The table, for people."""
        return f"{self.schema}.{self.table}"

    def fingerprint(self, key_columns: tuple[str, ...]) -> str:
        """What must not change between two runs of the same key. How many ranges may."""
        parts = (self.schema, self.table, self.assignments_sql, self.where_sql, *key_columns)
        text = "".join(f"{len(part)}:{part}" for part in parts)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillLimits:
    """How fast, and what makes it wait. 0 turns one of the `…_max` off.

    `rows`: of the first batch (the guide's 10,000); then batches are sized to last `batch`. `lock`
    and `statement` bound one batch. `time_limit` bounds a run without its pauses; what is done by
    then stays done. `wal_max` is bytes a second of the whole server; `dead_max` dead rows per live
    row; `slower_max` how many times slower others' statements may become than before the first
    batch; `vacuum_share` the share of the table after which it is vacuumed, `free_min` bytes that
    must be free where somebody can tell. A standby among `unwatched` (by its application_name),
    such as one that is late on purpose, holds nothing up.
    """

    rows: int = 10_000
    rows_min: int = 100
    rows_max: int = 50_000
    batch: timedelta = timedelta(milliseconds=50)
    lock: timedelta = timedelta(seconds=1.5)
    statement: timedelta = timedelta(seconds=30)
    retries: int = 3
    time_limit: timedelta = timedelta(hours=1)
    lag_max: timedelta = timedelta(seconds=5)
    lag_bytes_max: int = 64 * 2**20
    wal_max: int = 0
    dead_max: float = 0.5
    slower_max: float = 2.0
    waiters_max: int = 5
    vacuum_share: float = 0.1
    free_min: int = 2**30
    unwatched: frozenset[str] = frozenset()
    look: timedelta = timedelta(milliseconds=250)
    before: timedelta = timedelta(seconds=1)  # others are looked at so long before the first batch
    tell_every: timedelta = timedelta(seconds=1)


class Control(Protocol):
    """Who may ask a running backfill to wait."""

    @property
    def is_paused(self) -> bool:
        """Whether it is to wait: within one batch it holds no transaction and no lock."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchDone:
    """One committed batch. `passed`: rows looked at; `updated`: rows that were changed."""

    worker: int
    passed: int
    updated: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillOutcome:
    """What a finished backfill did, over all its lives; times and retries are of the last.

    `rows` were changed, `passed` were looked at. `spared_seconds`: what was left to others between
    batches after they had been slowed down, by the mean of its ranges. `waited`: seconds by what
    was waited for. `rows_left`: how many match the condition now (None: no condition, or counting
    took too long); `left_is_more`: there are more of them than were counted.
    """

    rows: int
    passed: int
    batches: int
    seconds: float = 0.0
    throttled_seconds: float = 0.0
    paused_seconds: float = 0.0
    spared_seconds: float = 0.0
    waited: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    retries: int = 0
    vacuums: int = 0
    rows_left: int | None = None
    left_is_more: bool = False
    notes: tuple[str, ...] = ()
