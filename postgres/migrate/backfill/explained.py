"""What went wrong in a backfill, in two sentences. Pure: never a value of a row but its key."""

from __future__ import annotations

from typing import Final

import asyncpg

from postgres.errors import PostgresError
from postgres.migrate.backfill.batch import Reach
from postgres.migrate.backfill.key import Table, interval_text
from postgres.migrate.backfill.signals import LOST
from postgres.migrate.backfill.spec import BackfillLimits

# A batch that ended so has changed nothing, and may go well the next time: held up by a lock,
# in a deadlock, overtaken by another transaction, cancelled or out of time, planned for a table
# that was altered since.
AGAIN: Final = (
    asyncpg.LockNotAvailableError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.QueryCanceledError,
    asyncpg.InvalidCachedStatementError,
)
# Some rows of the batch cannot take their new value.
ROWS_AT_FAULT: Final = (asyncpg.IntegrityConstraintViolationError, asyncpg.DataError)

_GOES_ON: Final = "what is done stays done, and it goes on from there"


def explained(  # noqa: PLR0911 - one for each kind of error
    error: Exception, *, table: Table, reach: Reach, limits: BackfillLimits, blocker: str
) -> PostgresError:
    """The error for people. Its batch has changed nothing."""
    where = f"{table.quoted}, {interval_text(table.key.names, reach.after, reach.upto)}"
    said = str(error.args[0] if error.args else type(error).__name__).rstrip(".")
    match error:
        case asyncpg.IntegrityConstraintViolationError():
            given = error.as_dict()
            constraint = given.get("constraint_name") or given.get("column_name") or "a rule"
            return PostgresError(
                f"Rows cannot take their new values: {constraint} forbids it in {where}.",
                next_step=f"Mend those rows or the expression, then ask again: {_GOES_ON}.",
            )
        case asyncpg.DataError():
            return PostgresError(
                f"The new value of a row cannot be computed ({type(error).__name__}) in {where}.",
                next_step=f"Mend that row or the expression, then ask again: {_GOES_ON}.",
            )
        case asyncpg.LockNotAvailableError():
            by = f" by {blocker}" if blocker else ""
            return PostgresError(
                f"Rows were held{by} for more than {limits.lock.total_seconds():g} s, and again"
                f" {limits.retries} times, in {where}.",
                next_step=f"See with /db locks who holds them; then ask again: {_GOES_ON}.",
            )
        case asyncpg.QueryCanceledError():
            return PostgresError(
                f"Batches were cancelled or took more than"
                f" {limits.statement.total_seconds():g} s, in {where}.",
                next_step="See whether the condition or a trigger is slow, then ask again:"
                f" {_GOES_ON}.",
            )
        case asyncpg.DiskFullError():
            return PostgresError(
                f"The server's disk is full: {said}.",
                next_step=f"Make room there, then ask again: {_GOES_ON}.",
            )
        case _ if isinstance(error, LOST):
            return PostgresError(
                f"The connection to the server was lost: {said}.",
                next_step=f"See whether it runs, then ask again: {_GOES_ON}.",
            )
        case _:
            return PostgresError(
                f"A batch failed: {said}.",
                next_step=f"Mend what it names, then ask again: {_GOES_ON}.",
            )
