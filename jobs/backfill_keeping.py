"""The old values that a backfill is asked to keep: where, how large, until when, and the way back.

They are entered in the store before the first batch, so that whatever becomes of the run they
are known: listed, put back, dropped and told of like anything that is kept aside.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final

import asyncpg
from pydantic import JsonValue

from jobs.backfilling import Earlier, Wanted
from jobs.index_run import explained
from jobs.operation import Answer, Attempt, Context, Job, JobError, Mode
from jobs.text import span_text
from jobs.watch_after import ATTEMPTS, LIMIT
from postgres.connect import connection
from postgres.dsn import parse_dsn
from postgres.errors import PostgresError
from postgres.migrate.aside_words import Kept, What
from postgres.migrate.backfill.batch import statements_of
from postgres.migrate.backfill.spec import BackfillSpec, Keep
from postgres.migrate.own_schema import ASIDE_SCHEMA
from postgres.schema.catalog import Column, Relation, full
from postgres.sizes import pretty_bytes
from store.kept_aside import KeptRow, end_unmade, measure_kept, record_kept

# Measured (300,000 rows of 190 bytes, PostgreSQL 15 and 17): 1.9 to 2.0 times as long, as each row
# is locked, written and kept in one go.
TIMES_AS_LONG: Final = 2.0
USUAL_SPAN: Final = timedelta(days=7)
_NAME_BYTES_MAX: Final = 40  # of 63: the moment follows
_TEXT_BYTES: Final = 32  # of a value that nobody has seen yet
# A row's header, its pointer and what alignment takes; an index entry, on pages that are split
# where ranges meet.
_ROW_BYTES: Final = 36
_ENTRY_BYTES: Final = 16
_SPLIT: Final = 1.5
_WIDTHS: Final = """
    SELECT a.attname::text AS name, t.typlen::int AS fixed,
           coalesce(max(s.avg_width), 0)::int AS width,
           coalesce(min(s.null_frac), 0)::float AS nulls
      FROM pg_attribute a
      JOIN pg_class c ON c.oid = a.attrelid
      JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_type t ON t.oid = a.atttypid
      LEFT JOIN pg_stats s ON (s.schemaname, s.tablename, s.attname)
                            = (n.nspname, c.relname, a.attname)
     WHERE a.attrelid = $1 AND a.attname = ANY($2::text[])
     GROUP BY a.attname, t.typlen
"""
_EARLIER: Final = """
    SELECT name, oid = coalesce(to_regclass(format('%I.%I', $2::text, name))::oid, 0) AS is_there
      FROM twokey_migrate.backfill_kept WHERE key = $1
"""
_LEDGER: Final = "SELECT to_regclass('twokey_migrate.backfill_kept') IS NOT NULL AS there"
_SIZE: Final = "SELECT pg_total_relation_size(to_regclass($1)) AS bytes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """Old values are kept in `name` for `span` after the end; `bytes`: how much, about."""

    name: str
    span: timedelta
    bytes_max: int
    bytes: int = 0

    @property
    def place(self) -> str:
        """The table, for people."""
        return f"{ASIDE_SCHEMA}.{self.name}"

    def of(self, spec: BackfillSpec) -> BackfillSpec:
        """The same backfill, which keeps."""
        return replace(spec, keep=Keep(name=self.name, bytes_max=self.bytes_max))


def sent(wanted: Wanted, keeping: Keeping | None) -> str:
    """A batch's statement as it is sent. Pure."""
    if keeping is None:
        return wanted.statement
    return statements_of(keeping.of(wanted.spec("plan")), wanted.table).of("update", has_start=True)


async def keeping_of(
    context: Context, wanted: Wanted, *, span: timedelta | None, before: Earlier | None
) -> Keeping | None:
    """What is to be kept and where; None: nothing is. What goes on keeps as it began.

    Raises:
        JobError: it began otherwise, what it has kept is gone, or it would be more than may be.
    """
    settings = context.database.migrations
    name = f"{_short(wanted.name)}_{context.now:%Y%m%dt%H%M%S}"
    if before is not None:
        earlier = await _name_of(context, before)
        if earlier is None and span is not None:
            raise JobError(
                f"The backfill of request {before.request_id} keeps nothing: half of the old"
                " values would be missing.",
                next_step="Leave keep out, or leave resume out to begin anew.",
            )
        if earlier is None:
            return None
        name, span = earlier, span or settings.keep_aside or USUAL_SPAN
    if span is None:
        return None
    found = Keeping(
        name=name, span=span, bytes_max=settings.backfill.keep_max,
        bytes=await _bytes_of(context, wanted),
    )  # fmt: skip
    if found.bytes > found.bytes_max:
        raise JobError(
            f"The old values take about {pretty_bytes(found.bytes)}, and"
            f" {pretty_bytes(found.bytes_max)} may be kept.",
            next_step="Take parts of the table, one where after the other, or raise keep_max of"
            " the inventory's migrations.backfill.",
        )
    return found


async def enter(job: Job, wanted: Wanted, keeping: Keeping, ledger: str) -> None:
    """Have it known before anything is kept. May be repeated."""
    async with job.store.begin() as conn:
        await record_kept(conn, _row(job, wanted, keeping, ledger))


def agreed(job: Job, name: str | None, *, span: timedelta | None) -> Keeping | None:
    """What was agreed to: `name` as the plan has it, `span` as it was asked for. Pure."""
    if name is None:
        return None
    settings = job.database.migrations
    span = span or settings.keep_aside or USUAL_SPAN
    return Keeping(name=name, span=span, bytes_max=settings.backfill.keep_max)


async def measured(job: Job, wanted: Wanted, keeping: Keeping, ledger: str, answer: Answer) -> int:
    """A step that stores how large it has become, in bytes. Its time counts from now.

    Raises:
        JobError: the server cannot be asked.
    """
    rows = int(answer.numbers["rows"])

    async def body(_: Attempt) -> JsonValue:
        with explained():
            return await _measure(job, wanted, keeping, ledger, rows=rows)

    found = await job.step(
        "measure", body, mode=Mode.RETRYABLE, time_limit=LIMIT, attempts=ATTEMPTS
    )
    return int(str(found))


async def measured_if_it_answers(job: Job, wanted: Wanted, keeping: Keeping, ledger: str) -> None:
    """The same for a run that has failed, which the server may be the reason of."""
    with suppress(PostgresError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        await _measure(job, wanted, keeping, ledger, rows=None)


async def _measure(
    job: Job, wanted: Wanted, keeping: Keeping, ledger: str, *, rows: int | None
) -> int:
    place = full(ASIDE_SCHEMA, keeping.name)
    async with connection(parse_dsn(job.database.dsn.get_secret_value())) as conn:
        found = (await conn.fetchrow(_SIZE, place))["bytes"]
        if found is not None:
            await conn.execute(f"ANALYZE {place}")
    row, until = _row(job, wanted, keeping, ledger), job.now + keeping.span
    async with job.store.begin() as conn:
        if found is None:
            await end_unmade(conn, row, at=job.now)
        else:
            await measure_kept(conn, row, bytes_=found, rows=rows, until=until)
    return int(found or 0)


def with_kept(answer: Answer, keeping: Keeping, found: int) -> Answer:
    """The answer with where the old values are. Pure."""
    said = f"{keeping.place}, {pretty_bytes(found)}, for {span_text(keeping.span)}"
    numbers = {
        **answer.numbers,
        "kept": keeping.name,
        "kept_bytes": found,
        "kept_seconds": round(keeping.span.total_seconds()),
    }
    return replace(answer, facts=(*answer.facts, ("Old values", said)), numbers=numbers)


def way_back(database: str, name: str) -> Mapping[str, Any]:
    """The operation and its parameters that put the old values back. Pure."""
    return {"operation": "restore-aside", "params": {"database": database, "kept": name}}


def _row(job: Job, wanted: Wanted, keeping: Keeping, ledger: str) -> KeptRow:
    key = wanted.table.key.names
    kept = Kept(
        what=What.VALUES,
        name=keeping.name,
        before=Relation(
            oid=wanted.table.oid,
            schema=wanted.schema,
            name=wanted.name,
            kind="p" if wanted.table.is_partitioned else "r",
            owner="",
            columns=tuple(
                Column(name=name, type=str(wanted.columns[name]["type"]))
                for name in (*key, *wanted.terms.assigned)
            ),
        ),
        columns=wanted.terms.assigned,
        key=key,
        ledger=ledger,
    )
    return KeptRow(
        database=job.database.name,
        what=str(kept.what),
        original=kept.original,
        kept=kept.kept,
        bytes=0,
        rows=None,
        request_id=job.request_id,
        at=job.now,
        until=job.now + keeping.span,
        detail=kept.to_json(),
    )


async def _name_of(context: Context, before: Earlier) -> str | None:
    there = await context.reader.rows(_LEDGER)
    rows = (
        await context.reader.rows(_EARLIER, before.key, ASIDE_SCHEMA) if there[0]["there"] else ()
    )
    if not rows:
        return None
    if not rows[0]["is_there"]:
        raise JobError(
            f"What the backfill of request {before.request_id} has kept is not there any more: it"
            " was put back or dropped.",
            next_step="Leave resume out to begin anew.",
        )
    return str(rows[0]["name"])


async def _bytes_of(context: Context, wanted: Wanted) -> int:
    """How much the old values take, about: with their keys, what is written, and an index."""
    key, assigned = wanted.table.key.names, wanted.terms.assigned
    rows = await context.reader.rows(_WIDTHS, wanted.table.oid, [*key, *assigned])
    columns = {row["name"]: row for row in rows}
    keys = sum(_width(columns[name]) for name in key)
    values = sum(_width(columns[name]) * (2 - float(columns[name]["nulls"])) for name in assigned)
    entry = (_ENTRY_BYTES + keys) * _SPLIT
    return round(wanted.rows_to_change * (_ROW_BYTES + keys + values + entry))


def _width(column: Mapping[str, Any]) -> int:
    """Of a value that is not NULL."""
    return int(column["width"] or (column["fixed"] if column["fixed"] > 0 else _TEXT_BYTES))


def _short(name: str) -> str:
    return name.encode()[:_NAME_BYTES_MAX].decode(errors="ignore")
