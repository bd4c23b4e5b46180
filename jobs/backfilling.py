"""What a backfill is asked to do, held against the table as it is: for its plan and its run."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from types import MappingProxyType
from typing import Any, Final

from jobs.backfill_paces import Expected, expected_of, subject_of, usable
from jobs.operation import Context, JobError
from postgres.dsn import Target
from postgres.migrate.backfill.batch import plain_statements_of, statements_of
from postgres.migrate.backfill.estimate import estimate
from postgres.migrate.backfill.key import Table, read_table
from postgres.migrate.backfill.spec import BackfillSpec, BatchDone
from postgres.migrate.backfill_catalog import (
    COLUMNS,
    FIND_TABLE,
    FOREIGN_KEYS,
    INDEXES,
    REPLICAS,
    SETTINGS,
    SIZES,
    TRIGGERS,
    Resolved,
    columns_objection,
    resolve,
    table_objection,
)
from postgres.migrate.backfill_terms import (
    Terms,
    Written,
    load_grammar,
    read_terms,
    written,
)
from store.rehearsals import newest_rehearsal

LOOK_LIMIT: Final = timedelta(seconds=10)
# A page that is written for the first time after a checkpoint goes into the WAL whole; this is
# what a row cost in all where it was measured (docs/migrations.md).
_WAL_PER_ROW: Final = 1.3
_WAL_PER_INDEX_ENTRY: Final = 220

# The last life of a backfill of one request whose values are the same.
_EARLIER: Final = """
    SELECT b.key, b.total, b.finished_at IS NOT NULL AS is_finished, b.started_at,
           CASE WHEN b.finished_at IS NULL THEN coalesce(r.passed, 0) ELSE b.passed END AS passed
      FROM twokey_migrate.backfills b
      LEFT JOIN LATERAL (SELECT sum(passed)::bigint AS passed
                           FROM twokey_migrate.backfill_ranges r WHERE r.key = b.key) r ON true
     WHERE starts_with(b.key, $1) AND b.fingerprint = $2 AND b.table_oid = $3
     ORDER BY b.started_at DESC
     LIMIT 1
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What somebody typed: which rows of which table get what."""

    table: str
    set_text: str
    where_text: str
    ranges: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What else an update of these columns sets in motion."""

    heap_bytes: int
    whole_bytes: int
    rows: int
    triggers: tuple[Mapping[str, Any], ...]
    indexes: tuple[Mapping[str, Any], ...]
    foreign_keys: tuple[Mapping[str, Any], ...]
    standbys: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A backfill that can be understood, and the table as it is now.

    `rows_planned`: how many rows PostgreSQL's planner expects to match; None: nobody may ask it,
    as that would run code of the database's own.
    """

    schema: str
    name: str
    table: Table
    columns: Mapping[str, Mapping[str, Any]]
    terms: Terms
    resolved: Resolved
    written: Written
    around: Around
    ranges: int
    rows_planned: int | None

    @property
    def text(self) -> str:
        """The table, for people."""
        return f"{self.schema}.{self.name}"

    @property
    def rows_to_change(self) -> int:
        """How many rows match, about; at most all of them."""
        rows = self.around.rows
        return rows if self.rows_planned is None else min(self.rows_planned, rows)

    @property
    def row_bytes(self) -> float:
        """The size of a row, about."""
        return self.around.heap_bytes / max(self.around.rows, 1)

    @property
    def bloat_bytes(self) -> int:
        """How much larger the table and its indexes may become: each row is written anew."""
        share = self.rows_to_change / max(self.around.rows, 1)
        return round(self.around.whole_bytes * min(share, 1.0))

    @property
    def wal_bytes(self) -> int:
        """How much WAL it writes, about."""
        entries = len(self.around.indexes) * _WAL_PER_INDEX_ENTRY
        return round(self.rows_to_change * (self.row_bytes * _WAL_PER_ROW + entries))

    @property
    def pins(self) -> Mapping[str, str]:
        """The very table, its key, what its columns are, and whose functions are called."""
        named = sorted(self.terms.columns | set(self.terms.assigned))
        types = ", ".join(f"{name} {self.columns[name]['type']}" for name in named)
        return {
            "table": str(self.table.oid),
            "key": f"{', '.join(self.table.key.names)} ({self.table.key.index})",
            "columns": types,
            # Another function of the same name, or another key, makes it another statement.
            "statement": hashlib.sha256(self.statement.encode()).hexdigest()[:16],
        }

    @property
    def statement(self) -> str:
        """One batch, as it is sent."""
        return statements_of(self.spec("plan"), self.table).of("update", has_start=True)

    @property
    def subject(self) -> str:
        """Under which a trial of it is stored: where old values are kept has another name then."""
        spec = self.spec("trial")
        plain = plain_statements_of(spec, self.table).of("update", has_start=True)
        return subject_of(plain, self.ranges, keeps=spec.keep is not None)

    def spec(self, key: str) -> BackfillSpec:
        """For the engine. `key`: under which its ledger knows it."""
        return BackfillSpec(
            key=key,
            schema=self.schema,
            table=self.name,
            assignments_sql=self.written.assignments,
            where_sql=self.written.where,
            ranges=self.ranges,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """An unfinished backfill of the same rows to the same values: `passed` of `total` rows."""

    request_id: int
    key: str
    passed: int
    total: int

    @property
    def share_left(self) -> float:
        """Of all its rows, about."""
        return max(self.total - self.passed, 0) / self.total if self.total else 0.0


@dataclass(slots=True)
class Pace:
    """How many rows this life of a run has passed: the ledger counts those of all lives."""

    passed: int = 0

    def did(self, done: BatchDone) -> None:
        """Another batch has committed."""
        self.passed += done.passed


async def look(context: Context, ask: Ask) -> Wanted:
    """What is asked for, if it can be understood, the table is there, and it may be done.

    Raises:
        JobError: it cannot be made, and why.
        PostgresError: the same, by what reads the terms.
    """
    async with _looking(context, ask) as (conn, row):
        return await _wanted(conn, row, ask)


async def look_ahead(context: Context, ask: Ask) -> tuple[Wanted, Expected]:
    """What is asked for, and how long it should take without what it waits for.

    By the newest trial of the same statement on a restored copy, for as many rows as there are
    now; without one that is young enough by the catalog. Where nobody may ask the planner which
    rows match, the catalog's time is that of all of them.

    Raises:
        JobError, PostgresError: as `look`.
    """
    async with _looking(context, ask) as (conn, row):
        wanted = await _wanted(conn, row, ask)
        spec = wanted.spec("plan")
        if wanted.rows_planned is None:
            spec = replace(spec, where_sql="")
        async with context.store.begin() as store:
            newest = await newest_rehearsal(store, context.database.name, wanted.subject)
        age = context.database.migrations.rehearsal_age
        tried, note = usable(newest, now=context.now, age=age)
        found = await estimate(conn, spec, tried.trial if tried else None)
        return wanted, expected_of(found, tried, note)


@asynccontextmanager
async def _looking(context: Context, ask: Ask) -> AsyncIterator[tuple[Any, Mapping[str, Any]]]:
    """A session that finds no name without its schema, and the table's row of `FIND_TABLE`."""
    # Half a second the first time: beside the look, and not in the way of others.
    grammar = asyncio.create_task(asyncio.to_thread(load_grammar))
    try:
        found = await context.reader.rows(FIND_TABLE, ask.table)
        if not found:
            raise JobError(
                f"There is no table {ask.table}.",
                next_step="Name it with its schema: public.users.",
            )
        if objection := table_objection(found[0]):
            raise objection
        async with context.reader.session(limit=LOOK_LIMIT, settings=SETTINGS) as conn:
            await grammar
            yield conn, found[0]
    finally:
        await asyncio.wait({grammar})


async def _wanted(conn: Any, row: Mapping[str, Any], ask: Ask) -> Wanted:
    terms = read_terms(ask.set_text, ask.where_text, table=frozenset({row["name"]}))
    table = await read_table(conn, row["schema"], row["name"])
    columns = {each["name"]: dict(each) for each in await conn.fetch(COLUMNS, table.oid)}
    if objection := columns_objection(terms, columns, table.key.names):
        raise objection
    resolved = await resolve(conn, terms, columns)
    made = written(terms, functions=resolved.functions, types=resolved.types)
    around = await _around(conn, table, [columns[name]["number"] for name in terms.assigned])
    await _check(conn, table, made)
    planned = await _planned(conn, table, terms, columns, resolved, made, around.rows)
    return Wanted(
        schema=row["schema"], name=row["name"], table=table,
        columns=MappingProxyType(columns), terms=terms, resolved=resolved, written=made,
        around=around, ranges=ask.ranges, rows_planned=planned,
    )  # fmt: skip


async def earlier(context: Context, wanted: Wanted, request_id: int) -> Earlier:
    """Where the backfill of an earlier request stands.

    Raises:
        JobError: there is none of this request that does the same, or nothing is left of it.
    """
    spec = wanted.spec("plan")
    there = await context.reader.rows(
        "SELECT to_regclass('twokey_migrate.backfills') IS NOT NULL AS there"
    )
    rows: Sequence[Mapping[str, Any]] = ()
    if there[0]["there"]:
        rows = await context.reader.rows(
            _EARLIER, f"{key_of(request_id)}-", spec.fingerprint(wanted.table.key.names),
            wanted.table.oid,
        )  # fmt: skip
    if not rows:
        raise JobError(
            f"Request {request_id} has no backfill of {wanted.text} with these values and this"
            " condition that could go on.",
            next_step="Write set and where as they were, or leave resume out to begin anew.",
        )
    found = rows[0]
    if found["is_finished"]:
        raise JobError(
            f"The backfill of request {request_id} is finished.",
            next_step="Leave resume out to do it once more.",
        )
    return Earlier(
        request_id=request_id, key=found["key"], passed=found["passed"], total=found["total"]
    )


def key_of(request_id: int) -> str:
    """Under what a request's backfill begins in the ledger."""
    return f"backfill-{request_id}"


def with_own_names(target: Target) -> Target:
    """The same server, where a name without a schema can only be PostgreSQL's own.

    Who may create something in a schema could else have it called in the place of what was
    agreed to.
    """
    settings = "".join(f" -c {name}={value}" for name, value in SETTINGS.items())
    options = f"{target.words.get('options', '')}{settings}".strip()
    return Target(words=MappingProxyType({**target.words, "options": options}))


async def _around(conn: Any, table: Table, numbers: list[int]) -> Around:
    (sizes,) = await conn.fetch(SIZES, table.oid)
    found = [
        await conn.fetch(query, table.oid, numbers) for query in (TRIGGERS, INDEXES, FOREIGN_KEYS)
    ]
    triggers, indexes, foreign_keys = (tuple(dict(row) for row in rows) for rows in found)
    return Around(
        heap_bytes=sizes["heap_bytes"],
        whole_bytes=sizes["whole_bytes"],
        rows=sizes["rows"],
        triggers=triggers,
        indexes=indexes,
        foreign_keys=foreign_keys,
        standbys=tuple(row["name"] for row in await conn.fetch(REPLICAS)),
    )


async def _check(conn: Any, table: Table, made: Written) -> None:
    """Have PostgreSQL read the statement, and no more: its types, and that they fit.

    Preparing plans nothing, so it runs no function of the database's own.
    """
    statement = made.update(table.quoted)
    try:
        await conn.execute(f"PREPARE twokey_backfill AS {statement}")
    except Exception as error:
        if getattr(error, "sqlstate", None) is None:
            raise
        raise JobError(
            f"PostgreSQL does not take it: {error}.",
            next_step="Mend what it names; a CAST helps where types differ.",
        ) from error
    await conn.execute("DEALLOCATE twokey_backfill")


async def _planned(
    conn: Any,
    table: Table,
    terms: Terms,
    columns: Mapping[str, Mapping[str, Any]],
    resolved: Resolved,
    made: Written,
    rows: int,
) -> int | None:
    """How many rows the planner expects; None where planning might run somebody's code."""
    if not made.where:
        return rows
    plain = all(columns[name]["is_plain"] for name in terms.columns)
    own_operators = any(len(path) > 1 for path in terms.operators)
    if not (plain and resolved.is_ours_to_try) or own_operators:
        return None
    found = await conn.fetch(
        f"EXPLAIN (FORMAT JSON) SELECT 1 FROM {table.quoted} WHERE {made.where}"  # noqa: S608
    )
    return _plan_rows(found[0][0])


def _plan_rows(text: str) -> int:
    return int(json.loads(text)[0]["Plan"]["Plan Rows"])
