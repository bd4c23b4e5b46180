"""A table's rows changed in batches, several ranges side by side, while the application runs.

What holds, whatever is killed and whenever: every row that existed at the start, and whose key
nobody changes, is passed exactly once. A batch and its checkpoint are one transaction, which first
locks its range's row in the ledger. Rows inserted meanwhile are done once if they come to
stand before the batches, or behind the end before the last sweep begins; others are for a trigger.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

import asyncpg

from postgres.dsn import Target
from postgres.errors import PostgresError
from postgres.migrate.backfill.batch import Reach, Statements, batch_session, run_batch
from postgres.migrate.backfill.course import BLIND, Course, pretty_seconds
from postgres.migrate.backfill.explained import AGAIN, ROWS_AT_FAULT, explained
from postgres.migrate.backfill.ledger import Claim, Left, add_sweep, finish
from postgres.migrate.backfill.pace import Speed, fewer_rows, first_rows, next_rows, retry_seconds
from postgres.migrate.backfill.parts import assigned_columns
from postgres.migrate.backfill.prepare import claim_backfill, quiet_session
from postgres.migrate.backfill.ranges import Piece, last_key
from postgres.migrate.backfill.signals import LOST, Watcher
from postgres.migrate.backfill.spec import (
    BackfillLimits,
    BackfillOutcome,
    BackfillSpec,
    BatchDone,
    Control,
    FreeBytes,
    Tell,
)
from postgres.migrate.backfill.throttle import Signals, decide, settled
from postgres.migrate.backfill.vacuum import keep_clean
from postgres.together import together

_LEFT_COUNTED_MAX: Final = 10_000
_LEFT: Final = """
    SELECT count(*) FROM (SELECT FROM {table} WHERE ({where}
    ) LIMIT {most}) AS found
"""


async def run_backfill(
    target: Target,
    spec: BackfillSpec,
    *,
    control: Control,
    tell: Tell,
    limits: BackfillLimits,
    replicas: Sequence[Target] = (),
    free_bytes: FreeBytes | None = None,
    on_batch: Callable[[BatchDone], None] | None = None,
) -> BackfillOutcome:
    """Do a backfill to its end, or go on with it where an earlier life left it.

    `replicas`: standbys that can be asked themselves. `free_bytes`: what is free on the server's
    disk, where somebody can tell. A cancel ends the batches at work on the server too.

    Raises:
        PostgresError: it could not be done, or not all of it. Whole batches are done, and asked
            again with the same key it goes on from there.
    """
    assigned = assigned_columns(spec)
    try:
        claim, statements = await claim_backfill(target, spec, limits, assigned)
    except (asyncpg.PostgresError, *LOST) as error:
        raise _unseen(error) from error
    if claim.finished:
        return BackfillOutcome(
            rows=claim.rows, passed=claim.passed, batches=claim.batches,
            notes=("It was done already.",),
        )  # fmt: skip
    course = Course(
        control=control,
        limits=limits,
        total=claim.total,
        rows=claim.rows,
        passed=claim.passed,
        speed=Speed(rows=claim.passed),
    )
    watcher = Watcher(
        target=target, table=claim.table, limits=limits, pids=course.pids, free_bytes=free_bytes
    )
    watcher.ask_too(replicas)
    run = _Run(
        target=target, spec=spec, limits=limits, claim=claim, statements=statements,
        course=course, watcher=watcher, tell=tell, on_batch=on_batch,
    )  # fmt: skip
    try:
        return await run.whole()
    except (asyncpg.PostgresError, *LOST) as error:
        raise _unseen(error) from error
    finally:
        await watcher.close()


@dataclass(slots=True, kw_only=True)
class _Run:
    """One life of a backfill."""

    target: Target
    spec: BackfillSpec
    limits: BackfillLimits
    claim: Claim
    statements: Statements
    course: Course
    watcher: Watcher
    tell: Tell
    on_batch: Callable[[BatchDone], None] | None
    queue: deque[Left] = field(default_factory=deque)
    failures: dict[int, int] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)

    async def whole(self) -> BackfillOutcome:
        began = time.monotonic()
        self.queue.extend(self.claim.left)
        async with together() as group:
            helpers = (
                group.create_task(self._watch()),
                group.create_task(
                    keep_clean(self.target, self.claim.table, self.course, self.watcher)
                ),
            )
            await self._work_off(self.spec.ranges)
            if await self._find_sweep():
                await self._work_off(1)
            for helper in helpers:
                helper.cancel()
        async with quiet_session(self.target) as conn:
            rows, passed, batches = await finish(conn, self.claim)
        left = await self._count_left()
        course = self.course
        return BackfillOutcome(
            rows=rows,
            passed=passed,
            batches=batches,
            seconds=time.monotonic() - began,
            throttled_seconds=course.throttled,
            paused_seconds=course.paused,
            spared_seconds=course.spared / self.spec.ranges,
            waited=MappingProxyType(dict(course.waited)),
            retries=course.retries,
            vacuums=course.vacuums,
            rows_left=left,
            left_is_more=left is not None and left >= _LEFT_COUNTED_MAX,
            notes=tuple(course.notes),
        )

    async def _work_off(self, workers: int) -> None:
        async with together() as group:
            for worker in range(min(workers, len(self.queue))):
                group.create_task(self._work(worker))

    async def _find_sweep(self) -> bool:
        """Whether rows stand behind the end that was the end at the start."""
        if self.claim.is_swept or not self.spec.sweep:
            return False
        async with quiet_session(self.target) as conn:
            last = await last_key(conn, self.claim.table)
            piece = None
            if last is not None and last != self.claim.last:
                piece = Piece(after=self.claim.last, upto=last)
            left = await add_sweep(conn, self.claim, piece)
        if left is not None:
            self.queue.append(left)
        return left is not None

    async def _work(self, worker: int) -> None:
        """Take ranges until there are none; over a new connection after a pause."""
        mine: Left | None = None
        rows: int | None = None
        while mine is not None or self.queue:
            await self.course.until_resumed()
            key = self.claim.table.key
            async with batch_session(self.target, self.spec, key, self.limits) as conn:
                with self.course.session(conn):
                    while await self.course.until_free():
                        if mine is None and not self.queue:
                            return
                        mine = mine or self.queue.popleft()
                        rows = rows or first_rows(self.limits, mine.batch_rows)
                        is_done, rows = await self._batch(conn, worker, mine.number, rows)
                        mine = None if is_done else mine

    async def _batch(self, conn: Any, worker: int, number: int, rows: int) -> tuple[bool, int]:
        """One try of a batch: whether its range is done, and how many rows the next has."""
        reach = Reach()
        try:
            done = await run_batch(
                conn, self.statements, self.claim, number,
                rows=rows, limits=self.limits, reach=reach,
            )  # fmt: skip
        except AGAIN as error:
            self.failures[worker] = self.failures.get(worker, 0) + 1
            if self.failures[worker] > self.limits.retries:
                raise self._explained(error, reach) from error
            await self._back_off(worker, error)
            return False, fewer_rows(rows, self.limits)
        except ROWS_AT_FAULT as error:
            # Smaller batches get nearer to the rows, and do all that stand before them.
            if rows <= self.limits.rows_min:
                raise self._explained(error, reach) from error
            return False, fewer_rows(rows // 2, self.limits)
        except (asyncpg.PostgresError, *LOST) as error:
            raise self._explained(error, reach) from error
        self.failures[worker] = 0
        if done is None:
            return True, rows
        told = BatchDone(
            worker=worker, passed=done.passed, updated=done.updated, seconds=done.seconds
        )
        self.course.did(told)
        if self.on_batch:
            self.on_batch(told)
        await self.course.breathe(done.seconds)
        is_whole = done.passed == rows
        return done.is_last, next_rows(rows, done.seconds, self.limits) if is_whole else rows

    async def _back_off(self, worker: int, error: Exception) -> None:
        self.course.retries += 1
        attempt = self.failures[worker]
        by = f" by {self.watcher.blocker}" if self.watcher.blocker else ""
        why = {
            asyncpg.LockNotAvailableError: f"rows were held{by}",
            asyncpg.DeadlockDetectedError: "there was a deadlock with another transaction",
            asyncpg.QueryCanceledError: "it was cancelled or took too long",
        }.get(type(error), "another transaction came in between")
        await self.tell(
            f"A batch is tried again ({attempt} of {self.limits.retries}): {why}",
            self.course.fraction,
        )
        await asyncio.sleep(retry_seconds(attempt, worker))

    def _explained(self, error: Exception, reach: Reach) -> PostgresError:
        return explained(
            error, table=self.claim.table, reach=reach, limits=self.limits,
            blocker=self.watcher.blocker,
        )  # fmt: skip

    async def _watch(self) -> None:
        """Look, decide, tell; nothing is done while nobody can see."""
        course, look = self.course, self.limits.look.total_seconds()
        course.throttle = settled(await self._before())
        last, told_at = time.monotonic(), 0.0
        while True:
            seen = await self._see()
            if seen is None:
                course.reason = BLIND
            else:
                course.throttle = decide(course.throttle, seen, self.limits)
                course.reason = course.throttle.reason
            now = time.monotonic()
            course.passes(now - last)
            last = now
            self._check_time()
            if now - told_at >= self.limits.tell_every.total_seconds():
                told_at = now
                await self._tell_all()
            await asyncio.sleep(look)

    async def _before(self) -> list[Signals]:
        """How others fare without us."""
        wanted = max(1, round(self.limits.before / self.limits.look))
        looks = []
        for _ in range(wanted):
            if (seen := await self._see()) is not None:
                looks.append(seen)
            await asyncio.sleep(self.limits.look.total_seconds() if wanted > 1 else 0)
        return looks

    async def _see(self) -> Signals | None:
        """A look, or None: it failed, though not yet too often in a row."""
        try:
            seen = await self.watcher.look()
        except (asyncpg.PostgresError, *LOST) as error:
            self.failures[-1] = self.failures.get(-1, 0) + 1
            if self.failures[-1] > self.limits.retries:
                raise _unseen(error) from error
            return None
        self.failures[-1] = 0
        return seen

    def _check_time(self) -> None:
        most = self.limits.time_limit.total_seconds()
        if self.course.worked > most:
            raise PostgresError(
                f"The backfill of {self.spec.name} was stopped after {pretty_seconds(most)}, at"
                f" {self.course.passed:,} of about {self.course.total:,} rows.",
                next_step="Ask for it again: it goes on from there. What it waited for is told in"
                " its thread.",
            )

    async def _tell_all(self) -> None:
        for note in (*self.watcher.notes, *self.course.throttle.notes):
            self.course.note(note)
        for note in self.course.notes:
            if note not in self.told:
                self.told.add(note)
                await self.tell(note, self.course.fraction)
        await self.tell(self.course.text, self.course.fraction)

    async def _count_left(self) -> int | None:
        """How many rows match the condition now; None: there is none, or it takes too long."""
        if not self.spec.where_sql:
            return None
        query = _LEFT.format(
            table=self.claim.table.quoted, where=self.spec.where_sql, most=_LEFT_COUNTED_MAX
        )
        seconds = self.limits.statement.total_seconds()
        key = self.claim.table.key
        async with batch_session(self.target, self.spec, key, self.limits) as conn:
            try:
                await conn.execute("RESET enable_seqscan")  # all of the table: not by its index
                return int(await conn.fetchval(query, timeout=seconds))
            except (asyncpg.PostgresError, *LOST):
                self.course.note("Nobody counted what is left: it would have taken too long.")
                return None


def _unseen(error: Exception) -> PostgresError:
    said = str(error.args[0] if error.args else type(error).__name__).rstrip(".")
    return PostgresError(
        f"The backfill was stopped, as the server does not answer as it should: {said}.",
        next_step="See whether the server is well, then ask again: it goes on from there.",
    )
