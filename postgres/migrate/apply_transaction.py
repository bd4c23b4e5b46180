"""A transaction of a session, under a short lock_timeout, as often as it takes.

Who waits for an ACCESS EXCLUSIVE lock makes everybody wait who comes after: so no wait is longer
than `ApplyLimits.lock`, and after each the whole transaction is rolled back and tried
again after a pause. Who was in the way is named each time.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Final

import asyncpg

from postgres.errors import PostgresError
from postgres.migrate.apply_errors import AGAIN, LOST, LostError, explained, place
from postgres.migrate.apply_guards import check_locks, check_session
from postgres.migrate.apply_session import Work, lost_is_lost, ms
from postgres.migrate.apply_words import (
    Applied,
    ApplyLimits,
    BlockedError,
    ExceededError,
    Expected,
    InTransaction,
    Observer,
    Tell,
    Wait,
)
from postgres.migrate.blockers import Block, Held
from postgres.migrate.words import Lock, Observation, ReviewedStatement

NOTHING: Final = "Nothing has changed."
# Of a limit, what must have passed for a cancel to be the limit's and not a person's.
NEARLY: Final = 0.9

# A server that took over counts its transactions anew, on another timeline.
_MARK: Final = """
    SELECT pg_catalog.txid_current() AS xid,
           pg_catalog.left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 8) AS line
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One transaction. `what`: it, for people. `before` and `after` run inside of it.

    `first`: the statement with which the rehearsal's transaction began. `left`: what holds when
    it fails, as a sentence.
    """

    what: str
    statements: Sequence[ReviewedStatement]
    before: InTransaction | None = None
    after: InTransaction | None = None
    expected: Expected | None = None
    observer: Observer | None = None
    first: int = 0
    left: str = NOTHING


@dataclass(slots=True)
class Mark:
    """Which transaction of the server the last try was."""

    xid: int = 0
    timeline: str = ""


async def run_task(
    work: Work, task: Task, *, limits: ApplyLimits, tell: Tell, mark: Mark | None = None
) -> Applied:
    """Run a transaction of a session until it is committed.

    Raises:
        LostError: the session is gone, and `mark` says which transaction it was.
        BlockedError, ExceededError, UnknownOutcomeError, PostgresError: as `apply_short`.
    """
    waits: list[Wait] = []
    began, longer = time.monotonic(), False
    block: Block | None = None
    while True:
        try:
            done = await _Try(work, task, limits, longer=longer, mark=mark or Mark()).run()
        except _AgainError as again:
            waits.append(again.wait)
            # A look may have come too late: then it is who was seen before.
            block = again.block = again.block or block
            longer = longer or (block is not None and block.has_autovacuum)
            spent = time.monotonic() - began
            if len(waits) >= limits.tries or spent > limits.whole.total_seconds():
                raise _blocked(task, again, len(waits), spent) from again
            told = f"{again.text}; trying again ({len(waits)} of {limits.tries})"
            await tell(told, None)
            await asyncio.sleep(pause_seconds(len(waits), limits, random.random()))  # noqa: S311
        else:
            return replace(done, waits=tuple(waits))


def pause_seconds(tries: int, limits: ApplyLimits, chance: float) -> float:
    """How long to let others go on after so many tries; `chance` from 0 to 1 spreads it. Pure.

    research/migrations.md, measured with 400 transactions a second beside it.
    """
    doubled = limits.pause_seconds * 2.0 ** min(tries - 1, 30)
    return min(limits.pause_seconds_max, doubled) * (0.5 + chance)


class _AgainError(Exception):
    """A try was rolled back, and the same may succeed later."""

    def __init__(self, wait: Wait, block: Block | None) -> None:
        super().__init__(wait.reason)
        self.wait = wait
        self.block = block

    @property
    def text(self) -> str:
        if self.block is None:
            return self.wait.reason
        return f"{self.wait.reason}: {self.block.wanted} is held up by {self.block.text}"


@dataclass(slots=True)
class _Try:
    """One try of a transaction."""

    work: Work
    task: Task
    limits: ApplyLimits
    longer: bool = field(kw_only=True)
    mark: Mark = field(kw_only=True)
    base: Held | None = None
    observations: list[Observation] = field(default_factory=list)

    async def run(self) -> Applied:
        began = time.monotonic()
        conn = self.work.conn
        # A default of the role's must not make it another kind of transaction.
        transaction = conn.transaction(isolation="read_committed")
        with self._lost():
            await transaction.start()
        try:
            await self._body()
        except (asyncpg.PostgresError, PostgresError, _AgainError):
            with self._lost():
                await transaction.rollback()
            raise
        try:
            await transaction.commit()
        except LOST as error:
            self.work.is_lost = True
            raise LostError(error, at_commit=True) from error
        except asyncpg.PostgresError as error:
            raise explained(error, self.task.what, left=self.task.left) from error
        return Applied(seconds=time.monotonic() - began, observations=tuple(self.observations))

    async def _body(self) -> None:
        task, conn = self.task, self.work.conn
        last = task.statements[-1] if task.statements else None
        async with self._named(-1, task.what, self.limits.additive.total_seconds()):
            with self._lost():
                row = await conn.fetchrow(_MARK)
            self.mark.xid, self.mark.timeline = row["xid"], row["line"]
            if task.before is not None:
                await task.before(conn)
        self.base = await self._held()
        for statement in task.statements:
            await self._statement(statement)
        if last is not None:
            # What was deferred to the commit would take its locks and its time there.
            seconds_max = self.limits.seconds_max(last, task.expected)
            async with self._named(last.index, task.what, seconds_max):
                await self.work.execute("SET CONSTRAINTS ALL IMMEDIATE", seconds_max=seconds_max)
            self._check(await self._held(), last)
        if task.after is not None:
            async with self._named(-1, task.what, self.limits.additive.total_seconds()):
                await task.after(conn)

    async def _statement(self, statement: ReviewedStatement) -> None:
        task, conn = self.task, self.work.conn
        where = place(statement.sql, statement.line)
        if task.observer is not None:
            await task.observer.before(conn, statement)
        seconds_max = self.limits.seconds_max(statement, task.expected)
        began = time.monotonic()
        async with self._named(statement.index, where, seconds_max):
            await self.work.execute(statement.sql, seconds_max=seconds_max)
        seconds = time.monotonic() - began
        held = await self._held()
        self._check(held, statement)
        if task.observer is not None:
            self.observations.append(await task.observer.after(conn, statement))
        else:
            self.observations.append(self._observed(statement, held, seconds))

    def _check(self, held: Held, statement: ReviewedStatement) -> None:
        assert self.base is not None  # noqa: S101 - for the type checkers
        where = place(statement.sql, statement.line)
        in_transaction = self.work.conn.is_in_transaction()
        check_session(
            self.base, held, is_in_transaction=in_transaction, key=self.work.key, where=where
        )
        if self.task.expected is not None:
            check_locks(
                self.base, held, self.task.expected,
                first=self.task.first, last=statement.index, where=where,
            )  # fmt: skip

    def _observed(self, statement: ReviewedStatement, held: Held, seconds: float) -> Observation:
        assert self.base is not None  # noqa: S101 - for the type checkers
        base = self.base.tables
        return Observation(
            index=statement.index,
            seconds=round(seconds, 6),
            locks={t: lock for t, lock in held.tables.items() if lock > base.get(t, Lock.NONE)},
        )

    async def _held(self) -> Held:
        with self._lost():
            return await self.work.watch.held()

    @asynccontextmanager
    async def _named(self, index: int, where: str, seconds_max: float) -> AsyncIterator[None]:
        """Limits for what follows; its errors as ours, with who was in the way."""
        lock = self.work.lock_wait(self.limits, longer=self.longer)
        began = time.monotonic()
        async with self.work.watch.naming(lock.total_seconds()) as seen:
            try:
                # Anew each time: a statement of the file may have set them otherwise.
                with self._lost():
                    await self.work.conn.execute(
                        f"SET LOCAL lock_timeout = '{ms(lock)}';"
                        f" SET LOCAL statement_timeout = '{round(seconds_max * 1000)}ms';"
                        f" SET LOCAL idle_in_transaction_session_timeout = '{ms(self.limits.idle)}'"
                    )
                    yield
            except AGAIN as error:
                raise self._again(index, where, error, began, seen.block) from error
            except asyncpg.QueryCanceledError as error:
                spent = time.monotonic() - began
                raise self._too_long(index, where, error, spent, seconds_max) from error
            except asyncpg.PostgresError as error:
                raise explained(error, where, left=self.task.left) from error

    def _again(
        self, index: int, where: str, error: Exception, began: float, block: Block | None
    ) -> _AgainError:
        match error:
            case asyncpg.LockNotAvailableError():
                lock = self.work.lock_wait(self.limits, longer=self.longer)
                reason = f"{where}: no lock within {lock.total_seconds() * 1000:.0f} ms"
            case asyncpg.DeadlockDetectedError():
                reason = f"{where}: a deadlock with others"
            case _:
                reason = f"{where}: others changed the same rows"
        blockers = (block.text,) if block else ()
        spent = time.monotonic() - began
        return _AgainError(
            Wait(index=index, reason=reason, seconds=round(spent, 3), blockers=blockers), block
        )

    def _too_long(
        self, index: int, where: str, error: Exception, spent: float, seconds_max: float
    ) -> PostgresError:
        if spent < NEARLY * seconds_max:
            return explained(error, where, left=self.task.left)
        rehearsed = self.task.expected.seconds.get(index) if self.task.expected else None
        was = f"; the rehearsal took {rehearsed:.1f} s" if rehearsed is not None else ""
        return ExceededError(
            f"{where} took more than {seconds_max:g} s{was}. It was cancelled and rolled back."
            f" {self.task.left}",
            next_step="See what it waited for or worked on (/db locks, /db slow); then rehearse"
            " it on a newer backup, or do it in batches.",
        )

    def _lost(self) -> lost_is_lost:
        return lost_is_lost(self.work)


def _blocked(task: Task, again: _AgainError, tries: int, spent: float) -> BlockedError:
    block = again.block
    pid = (
        next((each.key for each in block.backends if not each.is_prepared), None) if block else None
    )
    end = f", end what must not go on with /db terminate-backend {pid}" if pid else ""
    return BlockedError(
        f"{task.what} was given up after {tries} tries in {spent:.0f} s. {again.text}. {task.left}",
        next_step=f"See who it is with /db locks{end}; then ask again.",
        blockers=block.backends if block else (),
    )
