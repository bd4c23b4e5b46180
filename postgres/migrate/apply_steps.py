"""A file that cannot be one transaction: statement by statement, with a ledger of what is done.

Whoever comes next goes on with the first statement that is not in the ledger. The tool's book is
written at the end, together with the ledger's last line.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from postgres.dsn import Target
from postgres.errors import PostgresError
from postgres.migrate import ledger
from postgres.migrate.apply_alone import AloneTask
from postgres.migrate.apply_session import Work
from postgres.migrate.apply_transaction import Task, run_task
from postgres.migrate.apply_words import (
    Applied,
    ApplyLimits,
    Expected,
    InTransaction,
    Observer,
    Tell,
    Unit,
    Wait,
)
from postgres.migrate.words import Observation, ReviewedStatement

# They change the session and nothing else: whoever goes on needs them again.
_SESSION_NODES: Final = frozenset({"VariableSetStmt"})


@dataclass(slots=True, kw_only=True)
class Steps:
    """One life's work on such a file.

    `begin`: within a transaction, keep others from the book and say that it begins. `guard`:
    keep others from it. `record`: write the file down; all three raise what stops us.
    """

    target: Target
    unit: Unit
    expected: Expected | None
    limits: ApplyLimits
    tell: Tell
    observer: Observer | None
    begin: InTransaction
    guard: InTransaction
    record: Callable[[Any, float], Awaitable[None]]
    observations: list[Observation] = field(default_factory=list)
    waits: list[Wait] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    async def run(self, work: Work, begun: ledger.Begun | None) -> Applied:
        """Do what is left of it. `begun`: what an earlier life has done.

        Raises:
            LostError: the session is gone; the ledger says how far it came.
            PostgresError: a statement failed; says what stays.
        """
        unit, began = self.unit, time.monotonic()
        statements = unit.review.statements
        if begun is None:
            await self._open(work)
        else:
            ledger.check_same(begun, statements)
            self.notes.append(f"{begun.done} of {len(statements)} statements were done before.")
        lines = begun.lines if begun is not None else {}
        for statement in statements:
            line = lines.get(statement.index)
            if line is None or not line.is_done:
                await self._statement(work, statement, line)
        seconds = time.monotonic() - began
        await self._end(work, seconds)
        return Applied(
            seconds=seconds,
            observations=tuple(self.observations),
            waits=tuple(self.waits),
            notes=tuple(self.notes),
        )

    async def _open(self, work: Work) -> None:
        unit = self.unit

        async def opening(conn: Any) -> None:
            await self.begin(conn)
            count = len(unit.review.statements)
            await ledger.open_unit(conn, unit.key, title=unit.title, statements=count)

        await self._in_transaction(work, Task(what=unit.title, statements=(), before=opening))

    async def _statement(
        self, work: Work, statement: ReviewedStatement, line: ledger.Line | None
    ) -> None:
        left = self._left(statement.index)
        if statement.must_be_alone:
            task = AloneTask(
                target=self.target, key=self.unit.key, statement=statement, line=line,
                limits=self.limits, tell=self.tell, expected=self.expected,
                observer=self.observer, left=left,
            )  # fmt: skip
            self._add(await task.run(work))
            return
        if line is not None:
            # Its line commits with it, so there is no such thing as half of it.
            raise PostgresError(
                f"The ledger says that statement {statement.index + 1} of {self.unit.title} was"
                " begun alone, and now it is part of a transaction.",
                next_step="Put back the statements that have run, and change only what follows.",
            )

        async def after(conn: Any) -> None:
            if statement.node not in _SESSION_NODES:
                await ledger.add_done(conn, self.unit.key, statement)

        await self._in_transaction(
            work,
            Task(
                what=self.unit.title, statements=(statement,), after=after,
                expected=self.expected, observer=self.observer, first=statement.index, left=left,
            ),
        )  # fmt: skip

    async def _end(self, work: Work, seconds: float) -> None:
        async def ending(conn: Any) -> None:
            await self.record(conn, seconds)
            await ledger.end_unit(conn, self.unit.key)

        left = self._left(len(self.unit.review.statements))
        await self._in_transaction(
            work,
            Task(
                what=self.unit.title, statements=(), before=self.guard, after=ending, left=left
            ),
        )  # fmt: skip

    async def _in_transaction(self, work: Work, task: Task) -> None:
        self._add(await run_task(work, task, limits=self.limits, tell=self.tell))

    def _add(self, done: Applied) -> None:
        self.observations += done.observations
        self.waits += done.waits
        self.notes += done.notes

    def _left(self, index: int) -> str:
        """What stands when the statement with this index fails."""
        total = len(self.unit.review.statements)
        if index == 0:
            return f"None of its {total} statements is done."
        return (
            f"The first {index} of its {total} statements are done and stay; asked again, it goes"
            " on after them."
        )
