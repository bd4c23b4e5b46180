"""The checks of a running scratch server, one function each."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final

import asyncpg

from postgres.backup.counts import Table, count_all, databases
from postgres.backup.facts import BackupFacts, TableCount
from postgres.connect import connection
from postgres.errors import PostgresError
from postgres.programs import Finished, run_program
from postgres.restore.report import INTEGRITY, PAGES, QUERIES, ROWS, Record
from postgres.restore.scratch import ScratchServer

AMCHECK_LIMIT: Final = timedelta(hours=12)
PAGES_LIMIT: Final = timedelta(hours=6)
COUNTING_LIMIT: Final = timedelta(hours=1)
_QUERY_SECONDS_MAX: Final = 60.0
_JOBS_MAX: Final = 4

# A name, a query, and the text of its first value; None: any row will do.
Query = tuple[str, str, str | None]


async def check_integrity(scratch: ScratchServer, record: Record) -> None:
    """Tables and indexes, with PostgreSQL's own checker, in all databases."""
    began = await record.step("Checking tables and indexes (amcheck)")
    binaries, server = scratch.server.binaries, scratch.server
    done = await run_program(
        [
            binaries.program("pg_amcheck"),
            *("--host", server.sockets, "--port", str(server.port)),
            *("--username", scratch.facts.superuser, "--no-password"),
            *("--maintenance-db", scratch.facts.database, "--all"),
            *("--install-missing", "--heapallindexed"),
            f"--jobs={min(_JOBS_MAX, os.cpu_count() or 1)}",
        ],
        time_limit=AMCHECK_LIMIT,
    )
    record.add(INTEGRITY, began, complaints(done, "pg_amcheck"), "tables and indexes are sound")


async def check_rows(scratch: ScratchServer, record: Record, counted: BackupFacts | None) -> None:
    """Rows, against the counts of the backup at whose end the copy stands; None: at none's."""
    began = await record.step("Counting rows")
    if counted is not None and counted.counting_problem:
        record.add(ROWS, began, [], f"nothing to compare with: {counted.counting_problem}")
        return
    tables = counted.tables if counted else ()
    try:
        names = await databases(scratch.target)
        wanted = {table.database for table in tables} if counted else set(names)
        sides = await count_all(
            scratch.target,
            sorted(wanted & set(names)),
            seconds_max=COUNTING_LIMIT.total_seconds(),
        )
    except PostgresError as error:
        record.add(ROWS, began, [error.problem], "")
        return
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
        record.add(ROWS, began, [f"the copy gave up while it was counted: {error}"], "")
        return
    found = {(side.database, table.name): table for side in sides for table in side.tables.values()}
    findings = [text for table in tables if (text := _row_finding(table, found))]
    findings += [] if counted else _uncounted(found)
    record.add(ROWS, began, findings, _rows_text(found, counted))


def _uncounted(found: Mapping[tuple[str, str], Table]) -> list[str]:
    return [
        f"{database} {name} was {table.note}"
        for (database, name), table in found.items()
        if table.rows is None
    ]


def _rows_text(found: Mapping[tuple[str, str], Table], counted: BackupFacts | None) -> str:
    rows = sum(table.rows or 0 for table in found.values())
    what = f"{rows:,} rows in {len(found)} tables"
    if counted is None:
        return f"{what} were read; nobody counted them at that moment"
    skipped = sum(table.bounds() is None for table in counted.tables)
    more = f"; {skipped} of them could not be compared" if skipped else ""
    return f"{what} agree with the counts of the backup{more}"


def _row_finding(table: TableCount, found: Mapping[tuple[str, str], Table]) -> str | None:
    """What is wrong with the rows of one table, or None."""
    name = f"{table.database} {table.table}"
    copy = found.get((table.database, table.table))
    if copy is None:
        both = table.before is not None and table.after is not None
        return f"{name} is missing" if both else None
    if copy.rows is None:
        return f"{name} was {copy.note}"
    bounds = table.bounds()
    if bounds is None or bounds[0] <= copy.rows <= bounds[1]:
        return None
    low, high = bounds
    wanted = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    return f"{name} has {copy.rows:,} rows instead of {wanted}"


async def check_queries(scratch: ScratchServer, queries: Sequence[Query], record: Record) -> None:
    """The queries whose answers say that the copy is usable."""
    began = await record.step("Asking the critical queries")
    if not queries:
        record.add(QUERIES, began, [], "none are defined for this database")
        return
    try:
        async with connection(scratch.target) as conn:
            answers = [await _ask(conn, query) for query in queries]
    except PostgresError as error:
        answers = [error.problem]
    findings = [text for text in answers if text]
    record.add(QUERIES, began, findings, f"{len(queries)} answered as expected")


async def _ask(conn: asyncpg.Connection, query: Query) -> str | None:
    """What is wrong with the answer, or None."""
    name, sql, expect = query
    try:
        async with conn.transaction(readonly=True):
            row = await conn.fetchrow(sql, timeout=_QUERY_SECONDS_MAX)
    except TimeoutError:
        return f"{name} took longer than {_QUERY_SECONDS_MAX:.0f} seconds"
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        return f"{name} failed: {error}"
    if row is None:
        return f"{name} found no row"
    answer = _text(row[0]) if len(row) else ""
    if expect is None or answer == _text_of_bool(expect):
        return None
    return f"{name} says {answer!r} instead of {expect!r}"


def _text(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case _:
            return str(value)


def _text_of_bool(text: str) -> str:
    """Psql shows `t`, SQL says `true`."""
    return {"t": "true", "f": "false"}.get(text, text)


async def check_pages(scratch: ScratchServer, record: Record) -> None:
    """The checksum of every page; this stops the server."""
    began = await record.step("Checking page checksums")
    if not scratch.facts.page_checksums:
        record.add(PAGES, began, [], "the original has none (initdb --data-checksums)")
        return
    await scratch.server.stop()
    done = await run_program(
        [
            scratch.server.binaries.program("pg_checksums"),
            *("--check", "--pgdata", scratch.server.data),
        ],
        time_limit=PAGES_LIMIT,
    )
    record.add(PAGES, began, complaints(done, "pg_checksums"), "all pages carry the right one")


def complaints(done: Finished, program: str) -> list[str]:
    """What a checking program complained about; nothing if it was content."""
    if not done.code:
        return []
    text = done.stdout + "\n" + done.stderr if program == "pg_amcheck" else done.stderr
    # pg_amcheck indents the second half of a complaint.
    joined = text.replace("\n    ", " ")
    lines = [
        line.removeprefix(f"{program}: ").removeprefix("error: ").strip()
        for line in joined.splitlines()
        if line.strip() and "hint:" not in line
    ]
    return lines or [f"{program} ended with code {done.code}"]
