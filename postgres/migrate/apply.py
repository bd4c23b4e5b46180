"""A file of migrations, applied or taken back, and written down in its tool's own book.

A file that may be one transaction is one, together with the book's record: after any crash the
book says whether it was done, and it is never done twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from postgres.dsn import Target
from postgres.errors import PostgresError
from postgres.migrate import ledger
from postgres.migrate.apply_alone import apply_alone, lost_for_good
from postgres.migrate.apply_errors import LostError
from postgres.migrate.apply_guards import check_statements
from postgres.migrate.apply_session import Work, await_server, lost_is_lost, working
from postgres.migrate.apply_short import apply_short
from postgres.migrate.apply_steps import Steps
from postgres.migrate.apply_transaction import Task, run_task
from postgres.migrate.apply_words import (
    Applied,
    ApplyLimits,
    BlockedError,
    ExceededError,
    Expected,
    Observer,
    Tell,
    Unit,
    UnknownOutcomeError,
    Wait,
)
from postgres.migrate.book_state import BookState, book_state, is_done, objection
from postgres.migrate.books.book import Book
from postgres.migrate.words import BookEntry, Direction

__all__ = (
    "Applied",
    "ApplyLimits",
    "BlockedError",
    "ExceededError",
    "Expected",
    "Observer",
    "Tell",
    "Unit",
    "UnknownOutcomeError",
    "Wait",
    "apply_alone",
    "apply_short",
    "apply_unit",
)

_POLL_SECONDS: Final = 0.5


async def apply_unit(
    target: Target,
    unit: Unit,
    *,
    book: Book,
    expected: Expected | None,
    limits: ApplyLimits,
    tell: Tell,
    observer: Observer | None = None,
) -> Applied:
    """Run a file that way and write it down; asked again, it goes on where it stands.

    Raises:
        BlockedError: a lock was not to be had; it names who held it.
        ExceededError: it would have done more than `expected`; that was rolled back.
        UnknownOutcomeError: the server was lost, and does not come back to say how it ended.
        PostgresError: it failed; says what stands.
    """
    await asyncio.to_thread(_check, unit)
    life = _Life(
        target=target, unit=unit, book=book, expected=expected, limits=limits, tell=tell,
        observer=observer,
    )  # fmt: skip
    for number in range(1, limits.lives + 1):
        try:
            async with working(target, limits, what=unit.key, tell=tell) as work:
                return await life.live(work)
        except LostError as lost:
            await tell(f"The connection was lost ({lost}); looking what stands", None)
            await await_server(target, limits, what=unit.title)
            if number == limits.lives:
                raise lost_for_good(unit.title, lost) from lost
    raise AssertionError("unreachable")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Life:
    """What one connection does with a file."""

    target: Target
    unit: Unit
    book: Book
    expected: Expected | None
    limits: ApplyLimits
    tell: Tell
    observer: Observer | None

    async def live(self, work: Work) -> Applied:
        """Look where the file stands, and do what is left of it."""
        with lost_is_lost(work):
            await self.book.ensure(work.conn)
            if not self.unit.review.is_transactional:
                await ledger.ensure_ledger(work.conn)
            await self._lock(work)
            try:
                done = await self._apply(work)
            except PostgresError:
                await self._unlock(work)
                raise
            await self._unlock(work)
            return done

    async def _unlock(self, work: Work) -> None:
        """Give the tool's lock back, if the session still can; it ends with the session anyway."""
        if not (work.is_lost or work.is_closed or work.conn.is_in_transaction()):
            await self.book.unlock(work.conn)

    async def _apply(self, work: Work) -> Applied:
        unit = self.unit
        entries = await self._entries(work.conn)
        state = book_state(unit.migration, entries)
        if is_done(unit.direction, state):
            return Applied(was_done=True)
        begun = await ledger.read_begun(work.conn, unit.key)
        if begun is not None and begun.is_ended:
            begun = None  # it was taken back since
        refusal = objection(unit.migration, unit.direction, state)
        # What we have begun ourselves, and not ended, is ours to go on with.
        if refusal is not None and (begun is None or state is BookState.ELSEWHERE):
            raise refusal
        if unit.review.is_transactional:
            return await self._transaction(work, entries)
        return await self._steps(work, entries, begun)

    async def _steps(
        self, work: Work, entries: Sequence[BookEntry], begun: ledger.Begun | None
    ) -> Applied:
        """Statement by statement, where it cannot be one transaction."""
        unit = self.unit
        stands = [entries]

        async def begin(conn: Any) -> None:
            await self.guard(conn, entries)
            await self.book.begin(conn, unit.migration, unit.direction)
            stands[0] = await self._entries(conn)

        async def guard(conn: Any) -> None:
            await self.guard(conn, stands[0])

        steps = Steps(
            target=self.target, unit=unit, expected=self.expected, limits=self.limits,
            tell=self.tell, observer=self.observer, begin=begin, guard=guard, record=self.record,
        )  # fmt: skip
        return await steps.run(work, begun)

    async def _transaction(self, work: Work, entries: Sequence[BookEntry]) -> Applied:
        """All of it, and its record, in one transaction."""
        unit = self.unit
        began = 0.0

        async def before(conn: Any) -> None:
            nonlocal began
            began = time.monotonic()
            await self.guard(conn, entries)

        async def after(conn: Any) -> None:
            await self.record(conn, time.monotonic() - began)

        task = Task(
            what=unit.title, statements=unit.review.statements, before=before, after=after,
            expected=self.expected, observer=self.observer,
        )  # fmt: skip
        return await run_task(work, task, limits=self.limits, tell=self.tell)

    async def guard(self, conn: Any, entries: Sequence[BookEntry]) -> None:
        """Keep others from the book, and see that it is as it was.

        Raises:
            PostgresError: it has changed meanwhile.
        """
        await self.book.guard(conn)
        if await self._entries(conn) != entries:
            raise PostgresError(
                f"Somebody else has changed {self.book.table} meanwhile. Nothing of"
                f" {self.unit.title} has run.",
                next_step="See who else applies migrations here, then ask for a new plan.",
            )

    async def record(self, conn: Any, seconds: float) -> None:
        """Write the file down as done that way."""
        if self.unit.direction is Direction.UP:
            await self.book.record(conn, self.unit.migration, seconds=seconds)
        else:
            await self.book.unrecord(conn, self.unit.migration)

    async def _entries(self, conn: Any) -> tuple[BookEntry, ...]:
        found = await self.book.read(conn)
        return tuple(sorted(found or (), key=lambda each: (each.version, each.checksum)))

    async def _lock(self, work: Work) -> None:
        """Have the tool's own lock, asking for it again and again, never waiting inside."""
        until = time.monotonic() + self.limits.tool.total_seconds()
        has_told = False
        while not await self.book.try_lock(work.conn):
            if time.monotonic() > until:
                raise BlockedError(
                    f"The {self.unit.migration.tool} itself is at work on this database: its lock"
                    f" was not free within {self.limits.tool.total_seconds():g} s. Nothing has"
                    " changed.",
                    next_step="Wait until it has ended, then ask for a new plan.",
                )
            if not has_told:
                has_told = True
                await self.tell(f"Waiting for the lock of {self.unit.migration.tool}", None)
            await asyncio.sleep(min(_POLL_SECONDS, self.limits.tool.total_seconds()))


def _check(unit: Unit) -> None:
    """Refuse what cannot be run, before anything is touched."""
    migration = unit.migration
    if migration.problem:
        raise PostgresError(f"{migration.title} cannot be run.", next_step=migration.problem)
    text, at = unit.sql, 0
    for statement in unit.review.statements:
        # What was agreed to is what runs: no review of another text.
        said = statement.original or statement.sql
        at = text.find(said, at)
        if at < 0:
            raise PostgresError(
                f"The review of {migration.title} is not of its present text.",
                next_step="Ask for a new plan.",
            )
        at += len(said)
    check_statements(unit.review.statements)
