"""How long a backfill should take: from the catalog alone, or from a trial on a copy.

The constants were measured on a server with 4 cores (PostgreSQL 15, rows of 270 bytes): a row that
stays on its page (HOT) costs 3.5 µs, one that does not 6 µs with one index and 16 µs with three.
Servers differ by factors, so the catalog gives a wide range; a copy of the data gives a narrow one.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from postgres.migrate.backfill.key import Table, read_table
from postgres.migrate.backfill.parts import assigned_columns
from postgres.migrate.backfill.prepare import estimated_rows
from postgres.migrate.backfill.spec import BackfillSpec
from postgres.migrate.backfill.trial import Trial

_SECONDS_PER_ROW: Final = 2.0e-6
_SECONDS_PER_INDEX: Final = 4.5e-6
_SECONDS_PER_BYTE: Final = 6e-9
_SECONDS_PER_LOOK: Final = 0.4e-6  # a row that the condition leaves out
_SPEEDUP_POWER: Final = 0.6  # two ranges 1.5 times as fast, four 2.3 times
_GUESS_LOW, _GUESS_HIGH = 0.4, 3.0
# Of eight pairs on a machine that others used as well, the backfill took 0.75 to 1.15 of what a
# trial of 3 or 5 s had said (it took 11 to 19 s); whole runs differed as much among themselves.
MEASURED_LOW, MEASURED_HIGH = 0.7, 1.3
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
    likely_seconds: float
    high_seconds: float
    is_hot: bool
    fillfactor: int
    indexes: tuple[str, ...]
    triggers: tuple[str, ...]
    is_measured: bool = False


async def estimate(conn: Any, spec: BackfillSpec, trial: Trial | None = None) -> Estimate:
    """Look at the table; `trial` is of a copy of it. Only reads.

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
    likely = _seconds(
        rows=rows, matching=matching, row_bytes=size / max(rows, 1), ranges=spec.ranges,
        indexes=0 if is_hot and fillfactor <= 50 else len(indexes), trial=trial,  # noqa: PLR2004
    )  # fmt: skip
    low, high = (MEASURED_LOW, MEASURED_HIGH) if is_measured(trial) else (_GUESS_LOW, _GUESS_HIGH)
    return Estimate(
        rows=rows,
        matching=matching,
        size_bytes=size,
        low_seconds=likely * low,
        likely_seconds=likely,
        high_seconds=likely * high,
        is_hot=is_hot,
        fillfactor=fillfactor,
        indexes=tuple(each["name"] for each in indexes),
        triggers=tuple(each["name"] for each in triggers),
        is_measured=is_measured(trial),
    )


def is_measured(trial: Trial | None) -> bool:
    """Whether a trial says anything: one of an empty table does not. Pure."""
    return trial is not None and trial.late_per_second > 0


def _seconds(
    *, rows: int, matching: int, row_bytes: float, ranges: int, indexes: int, trial: Trial | None
) -> float:
    if trial is not None and is_measured(trial):
        return trial.seconds_for(rows)
    per_row = _SECONDS_PER_ROW + indexes * _SECONDS_PER_INDEX + row_bytes * _SECONDS_PER_BYTE
    speedup: float = ranges**_SPEEDUP_POWER
    work = (rows * _SECONDS_PER_LOOK + matching * per_row) / speedup
    return work + START_SECONDS


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
