"""What a rehearsal found: as a value, as JSON, as words, and as what a real run may do. Pure.

Locks of a statement are all that its transaction holds when it has run: what an earlier
statement took is held meanwhile, and others wait for it meanwhile.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from pydantic import JsonValue, TypeAdapter

from jobs.text import count_text, span_text
from postgres.migrate.apply_words import Expected, Unit
from postgres.migrate.words import Direction, Lock, Observation
from postgres.sizes import pretty_bytes
from store.rehearsals import RehearsalRow

# Measured against production under load (index builds, scans, rewrites 0.75 to 1.12; foreign
# keys up to 2.3): a range that holds for nearly all.
LOW_FACTOR: Final = 0.8
HIGH_FACTOR: Final = 2.0
WRITES: Final = Lock.SHARE  # from here on writes wait
READS: Final = Lock.ACCESS_EXCLUSIVE
_NAMED_MAX: Final = 4


class WayBack(StrEnum):
    """How a rehearsed rollback ended, from the best."""

    EXACT = "exact"  # definitions and contents are as they were
    SCHEMA_ONLY = "schema only"  # definitions are; contents were too much to compare
    LOSSY = "lossy"  # definitions are, contents are not
    DIFFERENT = "different"  # not even the definitions
    FAILED = "failed"
    NONE = "none"  # there is no way back to try


@dataclass(frozen=True, slots=True, kw_only=True)
class RehearsedStatement:
    """A statement of a file and what it did. `what`: in words, without anything that it says."""

    line: int
    what: str
    seen: Observation


@dataclass(frozen=True, slots=True, kw_only=True)
class RehearsedUnit:
    """A file, one way. `problem`: why it failed, '' when it did not; `line`: where."""

    key: str
    title: str
    direction: Direction
    is_transactional: bool
    seconds: float
    statements: tuple[RehearsedStatement, ...] = ()
    problem: str = ""
    next_step: str = ""
    line: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Return:
    """The way back. `differences`: definitions that are not as they were; `lost`: contents."""

    outcome: WayBack
    seconds: float = 0.0
    is_written: bool = True  # by people, in a down file; else worked out
    units: tuple[RehearsedUnit, ...] = ()
    differences: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """The copy that was rehearsed on. `tables`: their bytes, before; `book`: the tool's own."""

    backup_id: str
    to: str
    data_bytes: int
    restore_seconds: float
    reached_at: datetime | None = None
    tables: Mapping[str, int] = field(default_factory=dict)
    book: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """All of it."""

    copy: Copy
    units: tuple[RehearsedUnit, ...]
    way_back: Return

    @property
    def failed(self) -> RehearsedUnit | None:
        """The file that could not be applied."""
        return next((unit for unit in self.units if unit.problem), None)

    @property
    def ok(self) -> bool:
        """Whether all could be applied."""
        return self.failed is None

    @property
    def seconds(self) -> float:
        """Applying took so long on the copy."""
        return round(sum(unit.seconds for unit in self.units), 3)

    @property
    def wal_bytes(self) -> int:
        """Applying wrote so much WAL."""
        return sum(each.seen.wal_bytes for unit in self.units for each in unit.statements)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """For how long a table could not be used. `table` '': nobody had to wait."""

    table: str = ""
    seconds: float = 0.0
    lock: Lock = Lock.NONE


_DETAIL: Final = TypeAdapter(Rehearsal)


def subject_of(units: Sequence[Unit]) -> str:
    """What is rehearsed, as a hash: which files, which way, their bytes, in this order."""
    parts = [
        [unit.key, str(unit.direction), unit.migration.sha256, unit.migration.down_sha256]
        if unit.direction is Direction.DOWN
        else [unit.key, str(unit.direction), unit.migration.sha256]
        for unit in units
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def to_json(rehearsal: Rehearsal) -> dict[str, JsonValue]:
    """As `RehearsalRow.detail` holds it."""
    made: dict[str, JsonValue] = _DETAIL.dump_python(rehearsal, mode="json")
    return made


def from_json(detail: Mapping[str, JsonValue]) -> Rehearsal:
    """What `to_json` made.

    Raises:
        ValueError: it is something else.
    """
    return _DETAIL.validate_python(dict(detail))


def row_of(
    rehearsal: Rehearsal, *, database: str, subject: str, at: datetime, request_id: int | None
) -> RehearsalRow:
    """As the store keeps it."""
    failed = rehearsal.failed
    return RehearsalRow(
        database=database,
        subject=subject,
        at=at,
        ok=rehearsal.ok,
        backup_id=rehearsal.copy.backup_id,
        seconds=rehearsal.seconds,
        data_bytes=rehearsal.copy.data_bytes,
        request_id=request_id,
        problem=f"{failed.title}, line {failed.line}: {failed.problem}" if failed else "",
        detail=to_json(rehearsal),
    )


def is_fresh(row: RehearsalRow, *, now: datetime, age: timedelta) -> bool:
    """Whether it is young enough to go by."""
    return now - row.at <= age


def scale_of(
    statement: RehearsedStatement, copied: Mapping[str, int], sizes: Mapping[str, int]
) -> float:
    """How much longer it takes on tables that have grown since: by the one that grew the most.

    1 where nothing is known, or where it worked on no rows. `sizes`: bytes of the target now.
    """
    seen = statement.seen
    worked = {*seen.rewritten, *seen.scanned, *seen.written}
    if seen.is_sampled:
        worked |= set(seen.locks)
    grown = [
        sizes[table] / copied[table]
        for table in worked
        if table in sizes and copied.get(table, 0) > 0
    ]
    return max(grown, default=1.0)


def expected_of(
    row: RehearsalRow, unit_key: str, factor: float, sizes: Mapping[str, int] | None = None
) -> Expected | None:
    """What the real run of a file may do: locks no stronger, and at most `factor` times as long.

    None: that file was not rehearsed, or failed. Tables that have grown since have more time,
    shrunken ones no less.
    """
    if not row.ok:
        return None
    rehearsal = from_json(row.detail)
    unit = next((each for each in rehearsal.units if each.key == unit_key), None)
    if unit is None:
        return None
    now = sizes or {}
    return Expected(
        locks={each.seen.index: dict(each.seen.locks) for each in unit.statements},
        seconds={
            each.seen.index: each.seen.seconds
            * max(1.0, scale_of(each, rehearsal.copy.tables, now))
            for each in unit.statements
        },
        factor=factor,
    )


def estimate_of(
    rehearsal: Rehearsal, sizes: Mapping[str, int] | None = None
) -> tuple[float, float]:
    """How long the real run should take, seconds from and to; see `LOW_FACTOR`."""
    now = sizes or {}
    seconds = sum(
        each.seen.seconds * scale_of(each, rehearsal.copy.tables, now)
        for unit in rehearsal.units
        for each in unit.statements
    )
    return seconds * LOW_FACTOR, seconds * HIGH_FACTOR


def blocked(rehearsal: Rehearsal, least: Lock) -> Held:
    """The longest that a table was held with a lock of `least` or stronger.

    In a transaction from the statement that took it to the end, else each statement alone.
    """
    worst = Held()
    for unit in rehearsal.units:
        held: dict[str, float] = {}
        for each in unit.statements:
            for table, lock in each.seen.locks.items():
                if lock < least or is_book(table, rehearsal.copy.book):
                    continue
                before = held.get(table, 0.0) if unit.is_transactional else 0.0
                held[table] = before + each.seen.seconds
                if not worst.table or held[table] > worst.seconds:
                    worst = Held(table=table, seconds=held[table], lock=lock)
    return worst


def rows_for_people(rehearsal: Rehearsal) -> tuple[tuple[str, ...], ...]:
    """A line of a table for each statement: file and line, what, locks, work, seconds, WAL."""
    return tuple(
        (
            f"{unit.title}:{each.line}",
            each.what,
            locks_text(each.seen, book=rehearsal.copy.book),
            work_text(each.seen),
            seconds_text(each.seen.seconds),
            pretty_bytes(each.seen.wal_bytes),
        )
        for unit in rehearsal.units
        for each in unit.statements
    )


COLUMNS: Final = ("File", "Statement", "Locks", "Works on", "Took", "WAL")


def facts_for_people(
    rehearsal: Rehearsal, sizes: Mapping[str, int] | None = None
) -> tuple[tuple[str, str], ...]:
    """What people must know before they agree."""
    low, high = estimate_of(rehearsal, sizes)
    copy = rehearsal.copy
    at = f", {copy.reached_at:%Y-%m-%d %H:%M UTC}" if copy.reached_at else ""
    return (
        ("Rehearsed on", f"{copy.backup_id} to {copy.to}{at}, {pretty_bytes(copy.data_bytes)}"),
        ("Reads wait", _held_text(blocked(rehearsal, READS))),
        ("Writes wait", _held_text(blocked(rehearsal, WRITES))),
        ("Rewritten", _named(sorted(set(_rewritten(rehearsal)))) or "nothing"),
        ("Rows changed", _named(list(_written(rehearsal))) or "none"),
        ("WAL", pretty_bytes(rehearsal.wal_bytes)),
        ("Took on the copy", seconds_text(rehearsal.seconds)),
        ("Expected", f"{seconds_text(low)} to {seconds_text(high)}"),
        ("Way back", way_back_text(rehearsal.way_back)),
    )


def way_back_text(way: Return) -> str:
    """How the rollback went, in a sentence."""
    whose = "by its down file" if way.is_written else "by statements worked out"
    took = f"{whose}, in {seconds_text(way.seconds)}"
    match way.outcome:
        case WayBack.EXACT:
            return f"exact: definitions and contents are as before, {took}"
        case WayBack.SCHEMA_ONLY:
            return f"schema only: contents were not compared, {took}"
        case WayBack.LOSSY:
            return f"lossy, {took}: {_named(way.lost)}"
        case WayBack.DIFFERENT:
            return f"not the schema of before, {took}: {_named(way.differences)}"
        case WayBack.FAILED:
            return f"failed: {way.problem}"
        case WayBack.NONE:
            return f"none: {way.problem}" if way.problem else "none"


def is_book(table: str, book: str) -> bool:
    """Whether it is the tool's own table, which nobody but the tool waits for."""
    return bool(book) and book in {table, table.partition(".")[2]}


def locks_text(seen: Observation, *, book: str = "") -> str:
    """The strongest first, with what they keep others from."""
    strongest = sorted(seen.locks.items(), key=lambda item: (-item[1], item[0]))
    notable = [
        (table, lock)
        for table, lock in strongest
        if lock > Lock.ROW_EXCLUSIVE and not is_book(table, book)
    ]
    said = [f"{lock.words} on {table}, blocks {lock.blocks}" for table, lock in notable]
    return _named(said, separator="; ") or "none that others notice"


def work_text(seen: Observation) -> str:
    """Rewrites, scans and rows, by table."""
    parts = [
        *(f"rewrites {table}" for table in seen.rewritten),
        *(f"reads {count_text(rows, 'row')} of {t}" for t, rows in _of(seen.scanned, seen)),
        *(f"writes {count_text(rows, 'row')} of {t}" for t, rows in seen.written.items()),
    ]
    return _named(parts, separator="; ") or "the catalog"


def seconds_text(seconds: float) -> str:
    """Such as "12 ms" or "1 min 30 s"."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return span_text(timedelta(seconds=seconds))


def _of(counts: Mapping[str, int], seen: Observation) -> Iterator[tuple[str, int]]:
    """A table that is written anew is read for it: that goes without saying."""
    return ((table, rows) for table, rows in counts.items() if table not in seen.rewritten)


def _held_text(held: Held) -> str:
    if not held.table:
        return "never"
    return f"{seconds_text(held.seconds)} on {held.table} ({held.lock.words})"


def _rewritten(rehearsal: Rehearsal) -> Iterator[str]:
    for unit in rehearsal.units:
        for each in unit.statements:
            yield from each.seen.rewritten


def _written(rehearsal: Rehearsal) -> Iterator[str]:
    rows: dict[str, int] = {}
    for unit in rehearsal.units:
        for each in unit.statements:
            for table, count in each.seen.written.items():
                rows[table] = rows.get(table, 0) + count
    return (f"{count:,} of {table}" for table, count in sorted(rows.items(), key=_by_count))


def _by_count(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]


def _named(names: Sequence[str], *, separator: str = ", ") -> str:
    shown = separator.join(names[:_NAMED_MAX])
    more = len(names) - _NAMED_MAX
    return f"{shown}{separator}and {more} more" if more > 0 else shown
