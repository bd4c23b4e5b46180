"""Two looks at pg_stat_statements make what happened between them. Pure.

PostgreSQL keeps sums, never single executions: count, sum and sum of squares of the times of a
statement give its mean and spread, and a lognormal with these says how many of its executions
took more than a second and where 95 of 100 lie. That is an estimate, so it comes with a bound
that no distribution can exceed (Markov: time spent, divided by a second).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final, NamedTuple

from postgres.health.counters import StatementCounters, StatementKey, StatementSample
from postgres.health.deltas import SECONDS_MAX, SECONDS_MIN

SLOW_MS: Final = 1000.0
KEPT_MAX: Final = 150  # statements that one interval hands to the store
_BUSY_MAX: Final = 50  # of them chosen for their calls: N+1 patterns are cheap one by one
_PARTS_MAX: Final = 120  # of the mixture; the rest is one part more
_HALVINGS: Final = 30
_MINUTE: Final = 60.0
_TINY_MS: Final = 1e-6

NAMES: Final = ("query_ms_avg", "query_ms_p95", "slow_queries", "slow_queries_max", "qps")
_NOTHING: Final = StatementCounters(0, 0.0, 0.0, 0.0, 0, 0, 0, 0, 0, None)


class Kind(Enum):
    """What a statement is, as its text says."""

    ORDINARY = "ordinary"
    UTILITY = "utility"  # BEGIN, COMMIT, SET, DDL: they would dilute averages
    OURS = "ours"  # of this monitoring


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementDelta:
    """What one statement of the node's own database did in an interval, over all users.

    `square_ms`: the sum of squares of its times, in ms². `max_ms`: the slowest execution that is
    known to lie in the interval: exact when it set a record, else the mean. `text` without
    literals, when it was read now; None: told before, or not known. `is_utility` None: not known.
    """

    queryid: int
    calls: int
    total_ms: float
    square_ms: float
    max_ms: float
    rows: int
    blocks_hit: int
    blocks_read: int
    temp_blocks: int
    wal_bytes: int
    is_utility: bool | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementRates:
    """`numbers` are of all databases of the server; `deltas` of one. `note`: why there are none."""

    numbers: Mapping[str, float | None]
    deltas: tuple[StatementDelta, ...] = ()
    note: str = ""


class _Change(NamedTuple):
    """What one entry did. `most_ms`: the slowest that it ever was; `max_ms`: see StatementDelta."""

    calls: int
    total_ms: float
    square_ms: float
    max_ms: float
    most_ms: float
    rows: int
    blocks_hit: int
    blocks_read: int
    temp_blocks: int
    wal_bytes: int


def statement_rates(
    before: StatementSample | None,
    after: StatementSample,
    *,
    database: int,
    kind: Callable[[int], Kind | None],
) -> StatementRates:
    """What happened between two looks; `kind` says what is known about a queryid."""
    if before is None:
        return _none("")
    if before.reset != after.reset:
        return _none("pg_stat_statements was reset, or lost in a crash.")
    if before.sees_all != after.sees_all:
        return _none("The login's privileges have changed.")
    seconds = after.at - before.at
    if not SECONDS_MIN <= seconds <= SECONDS_MAX:
        return _none(f"Two looks {seconds:.1f} seconds apart give no rates.")
    changes = dict(_changes(before, after))
    measured = [
        c for key, c in changes.items() if key.is_top and kind(key.queryid) in (None, Kind.ORDINARY)
    ]
    return StatementRates(
        numbers=MappingProxyType(_numbers(measured, seconds)),
        deltas=heaviest(_deltas(changes, database, kind)),
    )


def heaviest(deltas: Iterable[StatementDelta]) -> tuple[StatementDelta, ...]:
    """The statements worth keeping: most time first, and the busiest."""
    by_time = sorted(deltas, key=lambda d: (-d.total_ms, d.queryid))
    kept = by_time[: KEPT_MAX - _BUSY_MAX]
    rest = sorted(by_time[KEPT_MAX - _BUSY_MAX :], key=lambda d: (-d.calls, d.queryid))
    return (*kept, *rest[:_BUSY_MAX])


def _changes(
    before: StatementSample, after: StatementSample
) -> Iterable[tuple[StatementKey, _Change]]:
    for key, new in after.rows.items():
        old = before.rows.get(key)
        if old is not None and old.calls == new.calls and old.since == new.since:
            continue
        if old is None and new.since is not None and new.since < before.at:
            continue  # it was there, and we could not see it: its past is not of this interval
        if old is None or old.since != new.since or _went_down(old, new):
            old = _NOTHING  # new, or evicted or reset and come back: it counts from zero
        if new.calls > old.calls:
            yield key, _difference(old, new)


def _went_down(old: StatementCounters, new: StatementCounters) -> bool:
    return new.calls < old.calls or new.total_ms < old.total_ms or new.rows < old.rows


def _difference(old: StatementCounters, new: StatementCounters) -> _Change:
    calls = new.calls - old.calls
    total = max(new.total_ms - old.total_ms, 0.0)
    mean = total / calls
    most = max(new.max_ms, mean)
    # No less than if all took the mean, no more than if all time went into the slowest kind.
    square = min(max(new.square_ms - old.square_ms, total * mean), total * most)
    record = new.max_ms if new.max_ms > old.max_ms else 0.0
    return _Change(
        calls=calls,
        total_ms=total,
        square_ms=square,
        max_ms=total if calls == 1 else max(record, mean),
        most_ms=most,
        rows=max(new.rows - old.rows, 0),
        blocks_hit=max(new.blocks_hit - old.blocks_hit, 0),
        blocks_read=max(new.blocks_read - old.blocks_read, 0),
        temp_blocks=max(new.temp_blocks - old.temp_blocks, 0),
        wal_bytes=max(new.wal_bytes - old.wal_bytes, 0),
    )


def _deltas(
    changes: Mapping[StatementKey, _Change], database: int, kind: Callable[[int], Kind | None]
) -> Iterable[StatementDelta]:
    """Of one database, over all users and levels, without what monitoring itself did."""
    groups: dict[int, list[_Change]] = {}
    for key, change in changes.items():
        if key.database == database and kind(key.queryid) is not Kind.OURS:
            groups.setdefault(key.queryid, []).append(change)
    for queryid, group in groups.items():
        known = kind(queryid)
        yield StatementDelta(
            queryid=queryid,
            calls=sum(c.calls for c in group),
            total_ms=sum(c.total_ms for c in group),
            square_ms=sum(c.square_ms for c in group),
            max_ms=max(c.max_ms for c in group),
            rows=sum(c.rows for c in group),
            blocks_hit=sum(c.blocks_hit for c in group),
            blocks_read=sum(c.blocks_read for c in group),
            temp_blocks=sum(c.temp_blocks for c in group),
            wal_bytes=sum(c.wal_bytes for c in group),
            is_utility=None if known is None else known is Kind.UTILITY,
        )


def _numbers(changes: Sequence[_Change], seconds: float) -> dict[str, float | None]:
    calls = sum(c.calls for c in changes)
    per_minute = _MINUTE / seconds
    slow = [_slow(change) for change in changes if change.most_ms > SLOW_MS]
    return {
        "qps": calls / seconds,
        "query_ms_avg": sum(c.total_ms for c in changes) / calls if calls else None,
        "query_ms_p95": quantile_ms(changes, 0.95),
        "slow_queries": sum(about for about, _ in slow) * per_minute,
        "slow_queries_max": sum(at_most for _, at_most in slow) * per_minute,
    }


def _slow(change: _Change) -> tuple[float, float]:
    """About how many of these executions took longer than `SLOW_MS`, and how many at most."""
    at_most = min(float(change.calls), change.total_ms / SLOW_MS)
    if change.calls == 1:
        exactly = float(change.total_ms > SLOW_MS)
        return exactly, exactly
    at_least = float(change.max_ms > SLOW_MS)  # the record that was set is one of them
    about = max(change.calls * _above(change, SLOW_MS), at_least)
    return min(about, at_most), at_most


def quantile_ms(changes: Sequence[_Change], share: float) -> float | None:
    """Below this time lie `share` of all executions, as a mixture of lognormals has it."""
    parts = _parts(changes)
    calls = sum(part.calls for part in parts)
    if not calls:
        return None
    low, high = _TINY_MS, max(part.most_ms for part in parts)
    for _ in range(_HALVINGS):
        middle = math.sqrt(low * high)  # times spread over orders of magnitude
        above = sum(part.calls * _above(part, middle) for part in parts)
        low, high = (middle, high) if above > (1 - share) * calls else (low, middle)
    return high


def _parts(changes: Sequence[_Change]) -> Sequence[_Change]:
    """The busiest, and all others as one with their mean and variance: a bound on the work."""
    ordered = sorted(changes, key=lambda c: -c.calls)
    rest = ordered[_PARTS_MAX:]
    if not rest:
        return ordered
    lumped = _Change(
        calls=sum(c.calls for c in rest),
        total_ms=sum(c.total_ms for c in rest),
        square_ms=sum(c.square_ms for c in rest),
        max_ms=0.0, most_ms=max(c.most_ms for c in rest),
        rows=0, blocks_hit=0, blocks_read=0, temp_blocks=0, wal_bytes=0,
    )  # fmt: skip
    return [*ordered[:_PARTS_MAX], lumped]


def _above(change: _Change, limit_ms: float) -> float:
    """Which share of the executions takes longer than this, if their times are lognormal."""
    mean = max(change.total_ms / change.calls, _TINY_MS)
    variance = max(change.square_ms / change.calls - mean * mean, 0.0)
    spread = math.log1p(variance / (mean * mean))
    if spread < _TINY_MS:
        return float(mean > limit_ms)
    distance = math.log(limit_ms) - (math.log(mean) - spread / 2)
    return 0.5 * math.erfc(distance / math.sqrt(2 * spread))


def _none(note: str) -> StatementRates:
    return StatementRates(numbers=MappingProxyType(dict.fromkeys(NAMES)), note=note)
