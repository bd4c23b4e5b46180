"""What goes wrong while something is applied, in two sentences for people. Pure.

The details of PostgreSQL's errors may hold values of rows: only their first line is told, and
of those that say a row's values not even that.
"""

from __future__ import annotations

import re
from typing import Final

import asyncpg

from postgres.errors import PostgresError
from postgres.health.statement_text import shown

# The session is gone, or nobody can talk to it any more: what it did last is not known here.
LOST: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.IdleSessionTimeoutError,
    OSError,
    TimeoutError,
)
# Rolled back by the server for others' sake: the same again may succeed.
AGAIN: Final = (
    asyncpg.LockNotAvailableError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
)
_SQL_CHARS_MAX: Final = 60
_QUOTED: Final = re.compile(r'"[^"]*"?')
_SAID_CHARS_MAX: Final = 300


class LostError(Exception):
    """The connection was lost; `at_commit`: while the server was committing."""

    def __init__(self, cause: BaseException, *, at_commit: bool = False) -> None:
        super().__init__(said(cause))
        self.at_commit = at_commit


def said(error: BaseException) -> str:
    """The first line of an error, without its full stop."""
    text = str(error.args[0]) if error.args else ""
    line = (text.strip().splitlines() or [type(error).__name__])[0]
    return line[:_SAID_CHARS_MAX].rstrip(". ") or type(error).__name__


def place(sql: str, line: int) -> str:
    """A statement for people: `line 3 (ALTER TABLE)`; `line` 0: it has none."""
    words = shown(sql, chars_max=_SQL_CHARS_MAX)
    return f"line {line} ({words})" if line else words or "the statement"


def explained(error: Exception, where: str, *, left: str) -> PostgresError:
    """An error of a statement. `left` says in a sentence what holds now."""
    match error:
        case asyncpg.DiskFullError():
            problem, step = "the server's disk is full", "Make room there, then ask again."
        case asyncpg.UniqueViolationError():
            problem = "some rows have the same values"
            step = "Find and mend the duplicates (GROUP BY … HAVING count(*) > 1), then ask again."
        case asyncpg.IntegrityConstraintViolationError():
            problem = f"rows break a constraint{_named(error)}"
            step = "Find and mend those rows, then ask again."
        case asyncpg.DataError():
            # Such as `invalid input syntax for type integer: "Ada"`.
            problem = _QUOTED.sub("…", said(error))
            step = "Find and mend the rows that it is about, then ask again."
        case asyncpg.InsufficientPrivilegeError():
            problem = said(error)
            step = "Give our user that right, or the object to one of its roles; then ask again."
        case asyncpg.ReadOnlySQLTransactionError():
            problem = said(error)
            step = "See which server is the primary, and correct the connection string."
        case asyncpg.ActiveSQLTransactionError():
            problem = said(error)
            step = "Put that statement into a file of its own, without a transaction."
        case asyncpg.OutOfMemoryError() | asyncpg.ConfigurationLimitExceededError():
            problem = said(error)
            step = "Give the server what it lacks, or split the file; then ask again."
        case _:
            problem, step = said(error), "Mend what it names, then ask again."
    return PostgresError(f"{where}: {problem}. {left}".strip(), next_step=step)


def _named(error: asyncpg.IntegrityConstraintViolationError) -> str:
    """The name of the constraint, which says no value."""
    name = getattr(error, "constraint_name", None)
    return f" ({name})" if name else ""
