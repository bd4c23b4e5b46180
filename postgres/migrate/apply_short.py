"""One short transaction over a connection of its own: all of its statements, or none."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import asyncpg

from postgres.dsn import Target
from postgres.errors import PostgresError
from postgres.migrate.apply_errors import LostError
from postgres.migrate.apply_guards import check_statements
from postgres.migrate.apply_session import Work, await_server, lost_is_lost, working
from postgres.migrate.apply_transaction import NOTHING, Mark, Task, run_task
from postgres.migrate.apply_words import (
    Applied,
    ApplyLimits,
    Expected,
    InTransaction,
    Tell,
    UnknownOutcomeError,
)
from postgres.migrate.words import ReviewedStatement, StatementKind

# After a commit that nobody answered: the server knows of its own transactions.
_STATUS: Final = """
    SELECT CASE WHEN left(pg_walfile_name(pg_current_wal_lsn()), 8) = $2 THEN txid_status($1) END
"""


async def apply_short(
    target: Target,
    statements: Sequence[str],
    *,
    limits: ApplyLimits,
    tell: Tell,
    before: InTransaction | None = None,
    after: InTransaction | None = None,
    what: str = "the change",
    expected: Expected | None = None,
) -> Applied:
    """Run these statements in one transaction: all of them, or none.

    `before` and `after` run inside the transaction, with each try of it; there they may look or
    write what must stand together with it. Each statement may take `limits.additive`.

    Raises:
        BlockedError: a lock was not to be had; it names who held it. Nothing has changed.
        ExceededError: it would have done more than `expected`. Nothing has changed.
        UnknownOutcomeError: the server was lost while it committed, and does not say.
        PostgresError: it failed, and nothing has changed.
    """
    wanted = tuple(
        ReviewedStatement(index=index, sql=sql, line=0, node="", kind=StatementKind.ADDITIVE)
        for index, sql in enumerate(statements)
    )
    await asyncio.to_thread(check_statements, wanted)
    task = Task(what=what, statements=wanted, before=before, after=after, expected=expected)
    mark = Mark()
    for life in range(1, limits.lives + 1):
        try:
            async with working(target, limits, what=what, tell=tell) as work:
                if mark.xid and await _has_committed(work, mark, what):
                    return Applied(was_done=True)
                mark.xid = 0
                return await run_task(work, task, limits=limits, tell=tell, mark=mark)
        except LostError as lost:
            if not lost.at_commit:
                mark.xid = 0  # rolled back, whatever became of the server
            await tell(f"The connection was lost ({lost}); looking what has become of it", None)
            if life == limits.lives:
                raise _given_up(what, lost) from lost
            await await_server(target, limits, what=what)
    raise AssertionError("unreachable")


async def _has_committed(work: Work, mark: Mark, what: str) -> bool:
    """Whether the transaction whose commit was not answered is committed.

    Raises:
        UnknownOutcomeError: the server does not know either.
    """
    with lost_is_lost(work):
        try:
            status = await work.watch.conn.fetchval(_STATUS, mark.xid, mark.timeline)
        except asyncpg.InvalidParameterValueError:
            status = None
    match status:
        case "committed":
            return True
        case "aborted":
            return False
        case _:
            raise _unknown(what)


def _given_up(what: str, lost: LostError) -> PostgresError:
    """What to say after the last try to be heard."""
    if lost.at_commit:
        return _unknown(what)
    return PostgresError(
        f"{what}: the connection was lost ({lost}). {NOTHING}",
        next_step="See whether the server is well, then ask again.",
    )


def _unknown(what: str) -> UnknownOutcomeError:
    return UnknownOutcomeError(
        f"{what}: the connection was lost while the server was committing, and it does not say"
        " whether it did.",
        next_step="Compare what stands in the database with what was asked for; then ask again"
        " only for what is missing.",
    )
