"""Two looks at a server make rates. Pure, and reset-safe.

Counters begin anew after a restart, a crash, `pg_stat_reset()` and a failover, and each of them
shows elsewhere (tried): a crash leaves `stats_reset` of the databases and the start time alone
and moves `stats_reset` of the background writer. An interval in which any of this happened has
no rates at all: None and a note, never a negative or a giant number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from postgres.health.counters import Counters, DatabaseCounters

SECONDS_MIN: Final = 0.01  # a shorter interval says nothing
SECONDS_MAX: Final = 3600.0  # an average over more than this would be shown as of now
BLOCKS_MIN: Final = 1000  # below, one cold page would look like a bad cache
HOUR_SECONDS: Final = 3600.0
_EVENTS_MAX: Final = 200

_RATES: Final = ("tps", "rollback_pct", "cache_hit_pct", "temp_bytes_s", "wal_bytes_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What happened between two looks.

    `numbers` have the names of `postgres.health.metrics`. `events` are counts for `Hour`:
    deadlocks, bad_sessions, checkpoints, checkpoints_requested. `note` says why there are none.
    """

    numbers: Mapping[str, float | None]
    events: Mapping[str, int]
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hour:
    """Counts of the last hour: what happened, and when it was seen (seconds since the epoch).

    `since`: when looking began, so that nobody takes ten minutes for an hour.
    """

    since: float
    events: Mapping[str, tuple[tuple[float, int], ...]]

    def add(self, at: float, events: Mapping[str, int]) -> Hour:
        """With these events of `at`, without those of more than an hour ago."""
        merged = {
            name: _recent((*self.events.get(name, ()), (at, events.get(name, 0))), at)
            for name in {*self.events, *events}
        }
        return Hour(since=self.since, events=MappingProxyType(merged))

    def count(self, name: str) -> int | None:
        """How many there were; None while nobody has counted."""
        if name not in self.events:
            return None
        return sum(count for _, count in self.events[name])

    @classmethod
    def begin(cls, at: float) -> Hour:
        """Nothing seen yet."""
        return cls(since=at, events=MappingProxyType({}))

    def written(self) -> Mapping[str, Any]:
        """As JSON, for `read`."""
        events = {name: [list(e) for e in seen] for name, seen in self.events.items()}
        return {"since": self.since, "events": events}

    @classmethod
    def read(cls, written: Any) -> Hour | None:
        """What `written` made, or None of anything else."""
        match written:
            case {"since": float() | int() as since, "events": dict() as events}:
                pass
            case _:
                return None
        try:
            found = {str(k): tuple((float(a), int(c)) for a, c in v) for k, v in events.items()}
        except (TypeError, ValueError):
            return None
        return cls(since=float(since), events=MappingProxyType(found))


def hour_numbers(hour: Hour) -> Mapping[str, float | None]:
    """The metrics that count an hour."""
    deadlocks, bad = hour.count("deadlocks"), hour.count("bad_sessions")
    checkpoints, requested = hour.count("checkpoints"), hour.count("checkpoints_requested")
    return {
        "deadlocks": None if deadlocks is None else float(deadlocks),
        "bad_sessions": None if bad is None else float(bad),
        "checkpoints_requested_pct": 100.0 * (requested or 0) / checkpoints
        if checkpoints
        else None,
    }


def _recent(events: tuple[tuple[float, int], ...], at: float) -> tuple[tuple[float, int], ...]:
    kept = tuple(e for e in events if e[1] > 0 and at - HOUR_SECONDS < e[0] <= at)
    if len(kept) <= _EVENTS_MAX:
        return kept
    # The two oldest become one: nothing is lost, it only leaves the hour a little later.
    (_, first), (second_at, second), *rest = kept
    return ((second_at, first + second), *rest)


def rates(before: Counters | None, after: Counters) -> Rates:
    """What happened between two looks at one server."""
    if before is None:
        return _none("")
    if reset := reset_between(before, after):
        return _none(reset)
    seconds = after.at - before.at
    if not SECONDS_MIN <= seconds <= SECONDS_MAX:
        return _none(f"Two looks {seconds:.1f} seconds apart give no rates.")
    change = _change(before, after)
    blocks = change.blocks_hit + change.blocks_read
    transactions = change.commits + change.rollbacks
    numbers = {
        "tps": transactions / seconds,
        "rollback_pct": 100.0 * change.rollbacks / transactions if transactions else None,
        "cache_hit_pct": 100.0 * change.blocks_hit / blocks if blocks >= BLOCKS_MIN else None,
        "temp_bytes_s": change.temp_bytes / seconds,
        "wal_bytes_s": _wal(before, after, seconds),
    }
    return Rates(numbers=MappingProxyType(numbers), events=_events(before, after, change))


def reset_between(before: Counters, after: Counters) -> str:
    """Which reset lies between two looks, as a sentence, or ""."""
    if before.standby != after.standby:
        return f"This server has become a {'standby' if after.standby else 'primary'}."
    if before.started != after.started:
        return "The server was restarted, or another one answers under its name."
    if before.writer_reset != after.writer_reset:
        return "Statistics began anew: a process of the server crashed, or somebody reset them."
    shared = [(old, after.databases[oid]) for oid, old in before.databases.items()
              if oid in after.databases]  # fmt: skip
    if any(old.reset != new.reset for old, new in shared):
        return "Somebody reset the statistics of a database (pg_stat_reset)."
    if any(_went_down(old, new) for old, new in shared):
        return "Counters went back: statistics were lost."
    return ""


def _went_down(old: DatabaseCounters, new: DatabaseCounters) -> bool:
    return any(b is None or b < a for a, b in zip(old[:-1], new[:-1], strict=True) if a is not None)


def _change(before: Counters, after: Counters) -> DatabaseCounters:
    """Over all databases. A new one counts from zero; one that was dropped is left out."""
    zero = DatabaseCounters(0, 0, 0, 0, 0, 0, 0, None)
    pairs = [(before.databases.get(oid, zero), new) for oid, new in after.databases.items()]
    bad = [(old.bad_sessions or 0, new.bad_sessions) for old, new in pairs]
    return DatabaseCounters(
        commits=sum(new.commits - old.commits for old, new in pairs),
        rollbacks=sum(new.rollbacks - old.rollbacks for old, new in pairs),
        blocks_hit=sum(new.blocks_hit - old.blocks_hit for old, new in pairs),
        blocks_read=sum(new.blocks_read - old.blocks_read for old, new in pairs),
        deadlocks=sum(new.deadlocks - old.deadlocks for old, new in pairs),
        temp_bytes=sum(new.temp_bytes - old.temp_bytes for old, new in pairs),
        bad_sessions=None
        if any(new is None for _, new in bad)
        else sum((new or 0) - old for old, new in bad),
        reset=None,
    )


def _wal(before: Counters, after: Counters, seconds: float) -> float | None:
    if before.wal_bytes is None or after.wal_bytes is None or after.wal_bytes < before.wal_bytes:
        return None
    return (after.wal_bytes - before.wal_bytes) / seconds


def _events(before: Counters, after: Counters, change: DatabaseCounters) -> Mapping[str, int]:
    timed = after.checkpoints_timed - before.checkpoints_timed
    requested = after.checkpoints_requested - before.checkpoints_requested
    if before.checkpoints_reset != after.checkpoints_reset or timed < 0 or requested < 0:
        timed = requested = 0
    counted = {
        "deadlocks": change.deadlocks,
        "bad_sessions": change.bad_sessions,
        "checkpoints": timed + requested,
        "checkpoints_requested": requested,
    }
    return MappingProxyType({name: n for name, n in counted.items() if n is not None})


def _none(note: str) -> Rates:
    return Rates(numbers=MappingProxyType(dict.fromkeys(_RATES)), events={}, note=note)
