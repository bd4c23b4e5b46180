"""Rows compared one by one with what they should be, by checksums, in batches along the key.

Each batch is one statement, so that old and new columns of a row are of the same moment however
many write meanwhile. What is kept between batches is the last key and two sums. A row that
differs is named by its key, never by its values.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final

import asyncpg

from postgres.connect import connection
from postgres.dsn import Target
from postgres.errors import PostgresError
from postgres.migrate.backfill.key import Key, Table, read_table
from postgres.migrate.changes.steps import Check, Compare

KEYS_MAX: Final = 5
_KEY_CHARS_MAX: Final = 100
Tell = Callable[[str, float | None], Awaitable[None]]
Save = Callable[[Any], Awaitable[None]]
_SETTINGS: Final = (
    "SET search_path = pg_catalog; SET default_transaction_read_only = on; SET lock_timeout = 0;"
    " SET idle_in_transaction_session_timeout = 0; SET application_name = 'twokey compare'"
)
# The limit stands before the checksums, so that no more rows are computed than are counted. The
# sums wrap nowhere: numeric holds them.
_BATCH: Final = """
    WITH batch AS MATERIALIZED (
        SELECT {columns} FROM {table} WHERE {after} ORDER BY {key} LIMIT {limit}
    ), looked AS MATERIALIZED (
        SELECT {key}, hashtextextended(ROW({expected})::text, 0) AS twokey_expected,
               hashtextextended(ROW({actual})::text, 0) AS twokey_actual
          FROM batch WHERE {where}
    )
    SELECT (SELECT count(*) FROM batch)                                    AS passed,
           (SELECT ARRAY[{texts}] FROM batch ORDER BY {descending} LIMIT 1) AS last,
           (SELECT count(*) FROM looked)                                   AS compared,
           (SELECT coalesce(sum(twokey_expected), 0)::text FROM looked)    AS expected,
           (SELECT coalesce(sum(twokey_actual), 0)::text FROM looked)      AS actual,
           (SELECT count(*) FROM looked
             WHERE twokey_expected <> twokey_actual)                       AS differing,
           ARRAY(SELECT concat_ws(', ', {texts}) FROM looked
                  WHERE twokey_expected <> twokey_actual
                  ORDER BY {key} LIMIT {keys_max})                         AS keys
"""


class DifferentError(PostgresError):
    """Rows are not what they should be, or that cannot be told of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareLimits:
    """How much at a time, and for how long. `statement` bounds one batch."""

    rows: int = 10_000
    statement: timedelta = timedelta(seconds=60)
    pause: timedelta = timedelta(milliseconds=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """How far a comparison is. `expected` and `actual`: sums of the rows' checksums.

    `last`: the key of the last row that was passed, as text; empty before the first.
    """

    last: tuple[str, ...] = ()
    passed: int = 0
    compared: int = 0
    differing: int = 0
    keys: tuple[str, ...] = ()
    expected: int = 0
    actual: int = 0

    @property
    def checkpoint(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "last": list(self.last),
            "passed": self.passed,
            "compared": self.compared,
            "differing": self.differing,
            "keys": list(self.keys),
            "expected": str(self.expected),
            "actual": str(self.actual),
        }


def compared_of(checkpoint: Any) -> Compared:
    """From a checkpoint; the beginning for None."""
    if not isinstance(checkpoint, dict):
        return Compared()
    return Compared(
        last=tuple(checkpoint["last"]),
        passed=checkpoint["passed"],
        compared=checkpoint["compared"],
        differing=checkpoint["differing"],
        keys=tuple(checkpoint["keys"]),
        expected=int(checkpoint["expected"]),
        actual=int(checkpoint["actual"]),
    )


async def compare(
    target: Target,
    schema: str,
    table: str,
    step: Compare,
    *,
    limits: CompareLimits,
    tell: Tell,
    save: Save,
    begin: Compared | None = None,
) -> Compared:
    """Compare every row, or go on after `begin`.

    Raises:
        DifferentError: rows differ; the error names the first of them by their keys.
        PostgresError: it could not be looked at to the end.
    """
    async with connection(target) as conn:
        try:
            await conn.execute(_SETTINGS)
            await conn.execute(f"SET statement_timeout = {_milliseconds(limits.statement)}")
            found = await read_table(conn, schema, table)
            done = await _walk(conn, found, step, limits, tell, save, begin or Compared())
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            raise _explained(step, error) from error
    if done.differing:
        raise DifferentError(
            f"{done.differing:,} of {done.compared:,} rows of {schema}.{table} differ:"
            f" {step.meaning}. The first by key ({', '.join(found.key.names)}):"
            f" {'; '.join(done.keys)}.",
            next_step=step.next_step,
        )
    return done


async def check(target: Target, step: Check, *, limit: timedelta) -> None:
    """Ask a question of the file, in a transaction that only reads.

    Raises:
        DifferentError: the answer is not true.
        PostgresError: it could not be asked.
    """
    async with connection(target) as conn:
        try:
            await conn.execute("SET default_transaction_read_only = on")
            await conn.execute(f"SET statement_timeout = {_milliseconds(limit)}")
            row = await conn.fetchrow(step.query, timeout=limit.total_seconds() + 5)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            raise _explained(step, error) from error
    if row is None or row[0] is not True:
        raise DifferentError(
            f"{step.name} does not hold: {step.query}",
            next_step="Find the rows that it is about, correct them, and ask again.",
        )


async def _walk(
    conn: Any,
    table: Table,
    step: Compare,
    limits: CompareLimits,
    tell: Tell,
    save: Save,
    begin: Compared,
) -> Compared:
    """All batches. A batch in which a value cannot be computed is halved down to its row."""
    done, rows = begin, limits.rows
    while True:
        try:
            row = await _batch(conn, table, step, done.last, rows, limits)
        except asyncpg.DataError as error:
            if rows > 1:
                rows = max(1, rows // 2)
                continue
            raise await _uncomputable(conn, table, done.last, error, step) from error
        done = _added(done, row)
        if row["passed"] < rows:
            return done
        rows = min(limits.rows, rows * 2)
        await save(done.checkpoint)
        share = min(done.passed / table.rows, 1.0) if table.rows else None
        await tell(f"{done.passed:,} rows compared, {done.differing:,} differ", share)
        await asyncio.sleep(limits.pause.total_seconds())


async def _batch(
    conn: Any, table: Table, step: Compare, last: Sequence[str], rows: int, limits: CompareLimits
) -> Any:
    key = table.key
    query = _BATCH.format(
        columns="*",
        table=table.quoted,
        after=key.compare(">", 1) if last else "true",
        key=key.columns,
        limit=rows,
        expected=", ".join(step.expected),
        actual=", ".join(step.actual),
        where=step.where or "true",
        texts=key.texts,
        descending=", ".join(f"{name} DESC" for name in key.quoted),
        keys_max=KEYS_MAX,
    )
    return await conn.fetchrow(query, *last, timeout=limits.statement.total_seconds() + 5)


def _added(done: Compared, row: Any) -> Compared:
    keys = (*done.keys, *(key[:_KEY_CHARS_MAX] for key in row["keys"]))[:KEYS_MAX]
    return replace(
        done,
        last=tuple(row["last"]) if row["last"] else done.last,
        passed=done.passed + row["passed"],
        compared=done.compared + row["compared"],
        differing=done.differing + row["differing"],
        keys=keys,
        expected=done.expected + int(row["expected"]),
        actual=done.actual + int(row["actual"]),
    )


async def _uncomputable(
    conn: Any, table: Table, last: Sequence[str], error: Exception, step: Compare
) -> DifferentError:
    """The row by its key; PostgreSQL's words may hold a value of it and are left out."""
    key: Key = table.key
    after = key.compare(">", 1) if last else "true"
    found = await conn.fetchval(
        f"SELECT concat_ws(', ', {key.texts}) FROM {table.quoted} WHERE {after}"  # noqa: S608
        f" ORDER BY {key.columns} LIMIT 1",
        *last,
    )
    return DifferentError(
        f"What the row {', '.join(key.names)} = {str(found)[:_KEY_CHARS_MAX]} should hold cannot"
        f" be computed ({type(error).__name__}).",
        next_step=step.next_step,
    )


def _explained(step: Compare | Check, error: Exception) -> PostgresError:
    """An error in two sentences; what PostgreSQL says of data may hold values of rows."""
    is_data = isinstance(error, asyncpg.DataError)
    first = str(error.args[0] if error.args else "").rstrip(".")
    said = type(error).__name__ if is_data or not first else first
    return PostgresError(
        f"It was not possible to {step.name}: {said}.",
        next_step="Nothing has changed by that. Mend what it names, then ask again.",
    )


def _milliseconds(span: timedelta) -> int:
    return max(1, int(span.total_seconds() * 1000))
