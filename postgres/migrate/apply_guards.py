"""What must hold of statements before they are sent, and after each of them. Pure.

The review has refused such files already; whoever runs them checks once more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from postgres.errors import PostgresError
from postgres.migrate.apply_errors import place
from postgres.migrate.apply_session import lock_given_back
from postgres.migrate.apply_words import COUNTS_FROM, ExceededError, Expected, UnknownOutcomeError
from postgres.migrate.blockers import Held
from postgres.migrate.words import Lock, ReviewedStatement

_COMMENTS: Final = frozenset({"C_COMMENT", "SQL_COMMENT"})
_SEMICOLON: Final = "ASCII_59"
_ENDING: Final = frozenset({"BEGIN_P", "START", "COMMIT", "END_P", "ABORT_P", "ROLLBACK"})


def check_statements(statements: Sequence[ReviewedStatement]) -> None:
    """See that each is one statement, which leaves transactions and our session to us.

    Raises:
        PostgresError: it is not. Nothing has been sent.
    """
    for statement in statements:
        if (objection := _objection(statement.sql)) is not None:
            raise PostgresError(
                f"{place(statement.sql, statement.line)} {objection}. Nothing has run.",
                next_step="Take it out of the file: each file's transaction begins and ends here.",
            )


def _objection(sql: str) -> str | None:
    from pglast import scan  # noqa: PLC0415 - heavy

    tokens = [token for token in scan(sql) if token.name not in _COMMENTS]
    while tokens and tokens[-1].name == _SEMICOLON:
        tokens.pop()
    if not tokens:
        return "is empty"
    if any(token.name == _SEMICOLON for token in tokens) and _count(sql) != 1:
        return "is several statements in one"
    return _ends_transaction([token.name for token in tokens])


def _ends_transaction(names: Sequence[str]) -> str | None:
    match names:
        case ["ROLLBACK", *rest] if "TO" in rest[:2]:
            return None  # to a savepoint
        case [first, *_] if first in _ENDING:
            return "begins or ends a transaction itself"
        case ["PREPARE", "TRANSACTION", *_]:
            return "ends the transaction itself"
        case ["DISCARD", *_]:
            return "empties our session"
        case ["COPY", *rest] if "STDIN" in rest or "STDOUT" in rest:
            return "copies from or to a client, which there is none of"
        case _:
            return None


def _count(sql: str) -> int:
    """How many statements the grammar sees: the body of a function may have semicolons."""
    from pglast.parser import split  # noqa: PLC0415 - heavy

    found: Any = split(sql, only_slices=True)
    return len(found)


def check_session(base: Held, now: Held, *, is_in_transaction: bool, key: int, where: str) -> None:
    """See that a transaction is the one that was begun, and the session's lock still held.

    Raises:
        UnknownOutcomeError: a statement has ended the transaction: what it did stands.
        PostgresError: a statement has given our lock back.
    """
    if not is_in_transaction or now.transaction != base.transaction:
        raise UnknownOutcomeError(
            f"{where} has ended the transaction itself: what came before it is committed, and"
            " nothing after it has run.",
            next_step="Compare the file with what stands in the database, and take such commands"
            " out of what it calls.",
        )
    if key & 0xFFFFFFFF not in now.advisory:
        raise lock_given_back()


def check_locks(
    base: Held, now: Held, expected: Expected, *, first: int, last: int, where: str
) -> None:
    """See that no lock is stronger than what was rehearsed of the statements so far.

    Raises:
        ExceededError: one is; says which, on which table.
    """
    for table, lock in sorted(now.tables.items()):
        if lock < COUNTS_FROM or lock <= base.tables.get(table, Lock.NONE):
            continue
        rehearsed = expected.lock_on(table, first=first, last=last)
        if lock > rehearsed:
            held = f"{rehearsed.words} there" if rehearsed else "no lock there"
            raise ExceededError(
                f"{where} took {lock.words} on {table}, which blocks {lock.blocks}; the rehearsal"
                f" had {held}. It was rolled back, and nothing has changed.",
                next_step="See what differs from the copy (triggers, constraints, partitions),"
                " then rehearse it again.",
            )
