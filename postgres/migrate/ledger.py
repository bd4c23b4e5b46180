"""Which statements of a file are done, where the file cannot be one transaction.

Two tables in `twokey_migrate`. A statement that may be in a transaction commits together with its
line here. One that must be alone has a line before it is sent, with what there was then: whoever
comes after a crash finds out by the catalog what became of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from postgres.errors import PostgresError
from postgres.migrate.own_schema import ensure_schema
from postgres.migrate.words import ReviewedStatement

ENDED_DAYS_KEPT: Final = 90

# Two at once would both create them.
_LOCK: Final = "SELECT pg_advisory_xact_lock(hashtextextended('twokey_migrate.units', 7203))"
_TABLES: Final = """
    CREATE TABLE IF NOT EXISTS twokey_migrate.units (
        key        text PRIMARY KEY,
        title      text NOT NULL,
        statements integer NOT NULL,
        begun_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
        ended_at   timestamptz
    );
    CREATE TABLE IF NOT EXISTS twokey_migrate.unit_statements (
        key      text NOT NULL REFERENCES twokey_migrate.units ON DELETE CASCADE,
        index    integer NOT NULL,
        sha256   text NOT NULL,
        evidence jsonb NOT NULL DEFAULT '{}',
        begun_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        done_at  timestamptz,
        PRIMARY KEY (key, index)
    );
"""
_FORGET_OLD: Final = f"""
    DELETE FROM twokey_migrate.units WHERE ended_at < now() - interval '{ENDED_DAYS_KEPT} days'
"""  # noqa: S608 - a number of ours
_THERE: Final = "SELECT pg_catalog.to_regclass('twokey_migrate.unit_statements') IS NOT NULL"
_FIND: Final = """
    SELECT key, title, statements, begun_at, ended_at FROM twokey_migrate.units WHERE key = $1
"""
_UNFINISHED: Final = """
    SELECT key, title, statements, begun_at, ended_at FROM twokey_migrate.units
     WHERE ended_at IS NULL ORDER BY begun_at LIMIT 100
"""
_LINES: Final = """
    SELECT index, sha256, evidence::text AS evidence, done_at IS NOT NULL AS is_done
      FROM twokey_migrate.unit_statements WHERE key = $1 ORDER BY index
"""
_OPEN: Final = """
    INSERT INTO twokey_migrate.units (key, title, statements) VALUES ($1, $2, $3)
"""
_CLOSE: Final = "DELETE FROM twokey_migrate.units WHERE key = $1"
_END: Final = """
    UPDATE twokey_migrate.units SET ended_at = clock_timestamp() WHERE key = $1
"""
_BEGIN_LINE: Final = """
    INSERT INTO twokey_migrate.unit_statements (key, index, sha256, evidence)
    VALUES ($1, $2, $3, $4::text::jsonb)
"""
_DONE: Final = """
    INSERT INTO twokey_migrate.unit_statements (key, index, sha256, done_at)
    VALUES ($1, $2, $3, clock_timestamp())
"""
_MARK_DONE: Final = """
    UPDATE twokey_migrate.unit_statements SET done_at = clock_timestamp()
     WHERE key = $1 AND index = $2
"""
_UNMARK: Final = """
    DELETE FROM twokey_migrate.unit_statements
     WHERE key = $1 AND index = $2 AND done_at IS NULL
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A statement that was begun. `evidence`: what there was before it."""

    index: int
    sha256: str
    is_done: bool
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A file that was begun. `statements`: how many it has."""

    key: str
    title: str
    statements: int
    begun_at: datetime
    is_ended: bool
    lines: Mapping[int, Line]

    @property
    def done(self) -> int:
        """How many of its statements are done."""
        return sum(line.is_done for line in self.lines.values())


async def ensure_ledger(conn: Any) -> None:
    """Have the tables, and forget what ended long ago. Not inside a transaction.

    Raises:
        PostgresError: the schema belongs to somebody else.
    """
    await ensure_schema(conn)
    async with conn.transaction():
        await conn.execute(_LOCK)
        await conn.execute(_TABLES)
        await conn.execute(_FORGET_OLD)


async def read_begun(conn: Any, key: str) -> Begun | None:
    """What the ledger knows of a file; None: nothing."""
    if not await conn.fetchval(_THERE):
        return None
    row = await conn.fetchrow(_FIND, key)
    return None if row is None else await _begun(conn, row)


async def unfinished(conn: Any) -> tuple[Begun, ...]:
    """Files that were begun by us and not ended, the oldest first: asked again, they go on."""
    if not await conn.fetchval(_THERE):
        return ()
    return tuple([await _begun(conn, row) for row in await conn.fetch(_UNFINISHED)])


async def open_unit(conn: Any, key: str, *, title: str, statements: int) -> None:
    """Write down that a file begins, in the caller's transaction; an earlier time is forgotten."""
    await conn.execute(_CLOSE, key)
    await conn.execute(_OPEN, key, title, statements)


async def end_unit(conn: Any, key: str) -> None:
    """Write down that a file has ended, in the caller's transaction."""
    await conn.execute(_END, key)


async def forget_unit(conn: Any, key: str) -> None:
    """Forget a file and its statements."""
    await conn.execute(_CLOSE, key)


async def begin_line(
    conn: Any, key: str, statement: ReviewedStatement, evidence: Mapping[str, Any]
) -> None:
    """Write down that a statement is about to be sent, and what there is before it."""
    await conn.execute(
        _BEGIN_LINE,
        key,
        statement.index,
        sha_of(statement.original or statement.sql),
        json.dumps(evidence),
    )


async def add_done(conn: Any, key: str, statement: ReviewedStatement) -> None:
    """Write down that a statement is done, in its own transaction."""
    await conn.execute(_DONE, key, statement.index, sha_of(statement.original or statement.sql))


async def mark_done(conn: Any, key: str, index: int) -> None:
    """Write down that a statement that was begun is done."""
    await conn.execute(_MARK_DONE, key, index)


async def unmark(conn: Any, key: str, index: int) -> None:
    """Take a beginning back: nothing of that statement is there."""
    await conn.execute(_UNMARK, key, index)


def sha_of(sql: str) -> str:
    """By which a statement is known."""
    return hashlib.sha256(sql.encode()).hexdigest()


def check_same(begun: Begun, statements: Sequence[ReviewedStatement]) -> None:
    """See that what was begun is what the file says; what comes after may have been mended.

    Raises:
        PostgresError: a statement that was begun is another one now.
    """
    known = {each.index: each for each in statements}
    for line in begun.lines.values():
        statement = known.get(line.index)
        if statement is None or sha_of(statement.original or statement.sql) != line.sha256:
            raise PostgresError(
                f"{begun.title} was begun with another text: its statement {line.index + 1} was"
                " changed since.",
                next_step="Put back the statements that have run, and change only what follows.",
            )


async def _begun(conn: Any, row: Any) -> Begun:
    lines = [
        Line(
            index=each["index"], sha256=each["sha256"], is_done=each["is_done"],
            evidence=json.loads(each["evidence"]),
        )
        for each in await conn.fetch(_LINES, row["key"])
    ]  # fmt: skip
    return Begun(
        key=row["key"],
        title=row["title"],
        statements=row["statements"],
        begun_at=row["begun_at"],
        is_ended=row["ended_at"] is not None,
        lines={line.index: line for line in lines},
    )
