"""How long a backfill should take: from the catalog alone, or from batches tried on a copy.

The constants were measured on a server with 4 cores (PostgreSQL 15, rows of 270 bytes): a row that
stays on its page (HOT) costs 3.5 µs, one that does not 6 µs with one index and 16 µs with three.
Servers differ by factors, so the catalog gives a wide range; a copy of the data gives a narrow one.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

import asyncpg

from postgres.dsn import Target
from postgres.errors import PostgresError
from postgres.migrate.backfill.batch import Statements, batch_session, statements_of
from postgres.migrate.backfill.key import Table, read_table
from postgres.migrate.backfill.pace import first_rows, next_rows
from postgres.migrate.backfill.parts import assigned_columns
from postgres.migrate.backfill.prepare import estimated_rows, quiet_session
from postgres.migrate.backfill.ranges import cuts_of
from postgres.migrate.backfill.signals import LOST
from postgres.migrate.backfill.spec import BackfillLimits, BackfillSpec

SAMPLES: Final = 20
_SECONDS_PER_ROW: Final = 2.0e-6
_SECONDS_PER_INDEX: Final = 4.5e-6
_SECONDS_PER_BYTE: Final = 6e-9
_SECONDS_PER_LOOK: Final = 0.4e-6  # a row that the condition leaves out
_SPEEDUP_POWER: Final = 0.6  # two ranges 1.5 times as fast, four 2.3 times
_GUESS_LOW, _GUESS_HIGH = 0.4, 3.0
_MEASURED_LOW, _MEASURED_HIGH = 0.8, 1.4
# VACUUM beside it, and looks at the server: what single batches do not show.
_BESIDES: Final = 1.1
START_SECONDS: Final = 1.2  # how others fare is looked at first

# An index that has an assigned column, in its columns, expressions or condition, makes each update
# write to all indexes. BRIN summaries do not, but are few.
_INDEXES: Final = """
    SELECT i.indexrelid::regclass::text AS name,
           EXISTS (SELECT FROM pg_attribute a
                    WHERE a.attrelid = i.indrelid AND a.attname = ANY ($2::text[])
                      AND (a.attnum = ANY (i.indkey)
                           OR EXISTS (SELECT FROM pg_depend d
                                       WHERE d.classid = 'pg_class'::regclass
                                         AND d.objid = i.indexrelid
                                         AND d.refobjid = a.attrelid
                                         AND d.refobjsubid = a.attnum))) AS is_changed
      FROM pg_index i WHERE i.indrelid = $1 ORDER BY 1
"""
_TRIGGERS: Final = """
    SELECT tgname::text AS name FROM pg_trigger
     WHERE tgrelid = $1 AND NOT tgisinternal AND tgenabled <> 'D' AND tgtype & 16 = 16
     ORDER BY 1 LIMIT 20
"""
_SIZE: Final = """
    SELECT coalesce((SELECT sum(pg_table_size(relid)) FROM pg_partition_tree($1::oid::regclass)
                      WHERE isleaf), pg_table_size($1::oid))::bigint
"""
_FILLFACTOR: Final = """
    SELECT coalesce((SELECT option_value::int FROM pg_options_to_table(reloptions)
                      WHERE option_name = 'fillfactor'), 100) FROM pg_class WHERE oid = $1
"""
_COMMIT: Final = "SELECT pg_logical_emit_message(true, 'twokey', 'how long a commit takes')"


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """How much a backfill has to do and how long it should take, unless it is held up.

    `rows` the table has, `matching` of them the condition should take. `is_hot`: no index has an
    assigned column, so a row may stay on its page where there is room (`fillfactor` percent are
    filled by inserts). `indexes` are written to for each row otherwise. `triggers` fire for each.
    """

    rows: int
    matching: int
    size_bytes: int
    low_seconds: float
    high_seconds: float
    is_hot: bool
    fillfactor: int
    indexes: tuple[str, ...]
    triggers: tuple[str, ...]
    is_measured: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What batches on a copy, each rolled back, came to: rows a second with all its ranges."""

    rows_per_second: float
    batch_rows: int
    commit_seconds: float
    samples: int
    rows: int


async def estimate(conn: Any, spec: BackfillSpec, pace: Pace | None = None) -> Estimate:
    """Look at the table; `pace` is from a copy of it. Only reads.

    Raises:
        PostgresError: there is no such table, or it cannot be walked through.
    """
    assigned = assigned_columns(spec)
    matching = None
    async with _without_path(conn):
        table = await read_table(conn, spec.schema, spec.table)
        rows = await estimated_rows(conn, table)
        size = int(await conn.fetchval(_SIZE, table.oid))
        fillfactor = int(await conn.fetchval(_FILLFACTOR, table.oid))
        indexes = await conn.fetch(_INDEXES, table.oid, list(assigned))
        triggers = await conn.fetch(_TRIGGERS, table.oid)
    if spec.where_sql:
        matching = await _matching(conn, spec, table)
    matching = rows if matching is None else min(matching, rows)
    is_hot = not any(each["is_changed"] for each in indexes)
    low, high = _seconds(
        rows=rows, matching=matching, row_bytes=size / max(rows, 1), ranges=spec.ranges,
        indexes=0 if is_hot and fillfactor <= 50 else len(indexes), pace=pace,  # noqa: PLR2004
    )  # fmt: skip
    return Estimate(
        rows=rows,
        matching=matching,
        size_bytes=size,
        low_seconds=low,
        high_seconds=high,
        is_hot=is_hot,
        fillfactor=fillfactor,
        indexes=tuple(each["name"] for each in indexes),
        triggers=tuple(each["name"] for each in triggers),
        is_measured=pace is not None,
    )


async def measure(target: Target, spec: BackfillSpec, limits: BackfillLimits | None = None) -> Pace:
    """Try batches all over a copy of the table, and roll each back. Never on the original.

    What is rolled back leaves dead rows and locks rows for a moment.

    Raises:
        PostgresError: a batch cannot be done there.
    """
    limits = limits or BackfillLimits()
    assigned_columns(spec)
    try:
        async with quiet_session(target) as conn:
            table = await read_table(conn, spec.schema, spec.table)
            rows = await estimated_rows(conn, table)
            samples = max(spec.ranges, min(SAMPLES, rows // (2 * limits.rows)))
            starts = [None, *(await cuts_of(conn, table, samples))]
            commit = await _commit_seconds(conn)
        tried = await asyncio.gather(
            *(
                _try_batches(target, spec, table, limits, starts[worker :: spec.ranges])
                for worker in range(min(spec.ranges, len(starts)))
            )
        )
    except (asyncpg.PostgresError, *LOST) as error:
        raise PostgresError(
            f"A batch could not be tried on the copy: {error.args[0] if error.args else error}.",
            next_step="Mend what it names: on the original it would fail as well.",
        ) from error
    done = [batch for batches in tried for batch in batches]
    per_second = sum(_rate(batches, commit) for batches in tried)
    return Pace(
        rows_per_second=per_second,
        batch_rows=done[-1][0] if done else limits.rows,
        commit_seconds=commit,
        samples=len(done),
        rows=sum(passed for passed, _ in done),
    )


def _rate(batches: Sequence[tuple[int, float]], commit: float) -> float:
    seconds = sum(each + commit for _, each in batches)
    return sum(passed for passed, _ in batches) / seconds if seconds else 0.0


def _seconds(
    *, rows: int, matching: int, row_bytes: float, ranges: int, indexes: int, pace: Pace | None
) -> tuple[float, float]:
    if pace is not None and pace.rows_per_second:
        likely = rows / pace.rows_per_second * _BESIDES + START_SECONDS
        return likely * _MEASURED_LOW, likely * _MEASURED_HIGH
    per_row = _SECONDS_PER_ROW + indexes * _SECONDS_PER_INDEX + row_bytes * _SECONDS_PER_BYTE
    work = (rows * _SECONDS_PER_LOOK + matching * per_row) / ranges**_SPEEDUP_POWER
    likely = work + START_SECONDS
    return likely * _GUESS_LOW, likely * _GUESS_HIGH


async def _matching(conn: Any, spec: BackfillSpec, table: Table) -> int:
    query = f"SELECT FROM {table.quoted} WHERE ({spec.where_sql}\n)"
    plan = await conn.fetchval(f"EXPLAIN (FORMAT JSON) {query}")
    return int(json.loads(plan)[0]["Plan"]["Plan Rows"])


@asynccontextmanager
async def _without_path(conn: Any) -> AsyncIterator[None]:
    """Names come with their schemas meanwhile; the session is somebody else's."""
    path = await conn.fetchval("SELECT current_setting('search_path')")
    await conn.fetchval("SELECT set_config('search_path', '', false)")
    try:
        yield
    finally:
        await conn.fetchval("SELECT set_config('search_path', $1, false)", path)


async def _commit_seconds(conn: Any) -> float:
    took = []
    for _ in range(5):
        began = time.perf_counter()
        await conn.fetchval(_COMMIT)
        took.append(time.perf_counter() - began)
    return median(took)


async def _try_batches(
    target: Target,
    spec: BackfillSpec,
    table: Table,
    limits: BackfillLimits,
    starts: Sequence[tuple[str, ...] | None],
) -> list[tuple[int, float]]:
    """(rows, seconds) of a batch from each start on."""
    statements = statements_of(spec, table)
    rows, done = first_rows(limits, None), list[tuple[int, float]]()
    async with batch_session(target, spec, table.key, limits) as conn:
        for start in starts:
            passed, seconds = await _try_batch(conn, statements, table, start, rows, limits)
            done.append((passed, seconds))
            rows = next_rows(rows, seconds, limits) if passed == rows else rows
    return done


async def _try_batch(
    conn: Any,
    statements: Statements,
    table: Table,
    start: tuple[str, ...] | None,
    rows: int,
    limits: BackfillLimits,
) -> tuple[int, float]:
    after, has_start = start or (), start is not None
    most = limits.statement.total_seconds()
    began = time.perf_counter()
    transaction = conn.transaction()
    await transaction.start()
    try:
        last = await conn.fetchrow(
            f"SELECT {table.key.texts} FROM {table.quoted} AS twokey_rows"  # noqa: S608
            f" ORDER BY {table.key.order(' DESC')} LIMIT 1"
        )
        if last is None:
            return 0, 0.0
        end = await conn.fetchrow(
            statements.of("end", has_start=has_start), *after, *last, rows, timeout=most
        )
        passed = rows
        if end is None:
            passed = await conn.fetchval(
                statements.of("count", has_start=has_start), *after, *last, timeout=most
            )
        await conn.execute(
            statements.of("update", has_start=has_start), *after, *(end or last), timeout=most
        )
        return passed, time.perf_counter() - began
    finally:
        await transaction.rollback()
