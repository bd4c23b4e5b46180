"""Statements that cannot be part of a transaction, so that they may be asked for again.

Before one is sent the ledger has a line about it, with what there was. Whoever comes after a
crash, a cancel or a failure finds out by the catalog what became of it: done, not done, or
half-built, which is dropped and built again. What cannot be told is not guessed.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, assert_never

import asyncpg

from postgres.dsn import Target
from postgres.errors import PostgresError
from postgres.migrate import ledger
from postgres.migrate.alone_catalog import Became, Found, clear, look, settle, taken
from postgres.migrate.alone_run import Sent, Stopped, calm, send
from postgres.migrate.alone_words import Alone, AloneKind, alone_of
from postgres.migrate.apply_errors import AGAIN, LOST, LostError, explained, place
from postgres.migrate.apply_guards import check_statements
from postgres.migrate.apply_session import Work, await_server, lost_is_lost, ms, working
from postgres.migrate.apply_transaction import NEARLY, pause_seconds
from postgres.migrate.apply_words import (
    Applied,
    ApplyLimits,
    BlockedError,
    ExceededError,
    Expected,
    Observer,
    Tell,
    UnknownOutcomeError,
    Wait,
)
from postgres.migrate.words import Lock, Observation, ReviewedStatement, StatementKind
from postgres.together import unbroken


async def apply_alone(
    target: Target,
    sql: str,
    *,
    limits: ApplyLimits,
    tell: Tell,
    key: str = "",
    expected: Expected | None = None,
) -> Applied:
    """Run one statement outside of transactions; asked again, it goes on with what there is.

    For CREATE, DROP and REINDEX INDEX CONCURRENTLY, VALIDATE CONSTRAINT, DETACH PARTITION
    CONCURRENTLY, ALTER TYPE ADD VALUE, VACUUM and the like. An index that is there already as it
    should be counts as made. `key` tells apart what is the same SQL and not the same wish.

    Raises:
        BlockedError: others held it up for too long; it names them.
        ExceededError: it took longer than `expected`.
        UnknownOutcomeError: nobody can tell whether an earlier attempt has done it.
        PostgresError: it failed; says what is left.
    """
    statement = ReviewedStatement(index=0, sql=sql, line=0, node="", kind=StatementKind.ONLINE)
    await asyncio.to_thread(check_statements, [statement])
    own_key = key or f"alone {ledger.sha_of(sql)}"
    for life in range(1, limits.lives + 1):
        try:
            async with working(target, limits, what=own_key, tell=tell) as work:
                with lost_is_lost(work):
                    await ledger.ensure_ledger(work.conn)
                    begun = await ledger.read_begun(work.conn, own_key)
                    if begun is None or begun.is_ended:
                        async with work.conn.transaction():
                            title = place(sql, 0)
                            await ledger.open_unit(work.conn, own_key, title=title, statements=1)
                    # Whatever it says: an index may have been dropped since it was made.
                    line = begun.lines.get(0) if begun and not begun.is_ended else None
                    task = AloneTask(
                        target=target, key=own_key, statement=statement, line=line,
                        limits=limits, tell=tell, expected=expected, takes=True,
                    )  # fmt: skip
                    done = await task.run(work)
                    # Asked for again another day, it is another wish.
                    await ledger.forget_unit(work.conn, own_key)
                    return done
        except LostError as lost:
            await tell(f"The connection was lost ({lost}); looking what stands", None)
            await await_server(target, limits, what=place(sql, 0))
            if life == limits.lives:
                raise lost_for_good(place(sql, 0), lost) from lost
    raise AssertionError("unreachable")


def lost_for_good(what: str, lost: LostError) -> PostgresError:
    """The connection was lost once more than we try."""
    return PostgresError(
        f"{what}: the connection was lost again and again ({lost}).",
        next_step="See whether the server is well, then ask again: it looks what stands first.",
    )


@dataclass(slots=True, kw_only=True)
class AloneTask:
    """One such statement of a file. `line`: what the ledger says of an earlier attempt.

    `takes`: what is there already as it should be counts as made. `left`: a sentence about
    the rest of the file.
    """

    target: Target
    key: str
    statement: ReviewedStatement
    line: ledger.Line | None
    limits: ApplyLimits
    tell: Tell
    expected: Expected | None = None
    observer: Observer | None = None
    takes: bool = False
    left: str = ""
    waits: list[Wait] = field(default_factory=list)
    evidence: Mapping[str, Any] = field(default_factory=dict)

    async def run(self, work: Work) -> Applied:
        """Do it, or find that it is done; the ledger says so then.

        Raises:
            LostError: the session is gone; the ledger's line is there.
            BlockedError, ExceededError, UnknownOutcomeError, PostgresError: see `apply_alone`.
        """
        began = time.monotonic()
        alone = await asyncio.to_thread(alone_of, self.statement.sql)
        await calm(work, self.limits)
        if self.line is None and await self._begin(work, alone):
            return Applied(was_done=True, notes=(f"{self._where} was there already.",))
        observation = None
        try:
            if self.line is None or not await self._resumed(work, alone):
                observation = await self._tries(work, alone)
        except asyncio.CancelledError:
            await unbroken(self._left_clean(work, alone))
            raise
        await ledger.mark_done(work.conn, self.key, self.statement.index)
        return Applied(
            seconds=time.monotonic() - began,
            observations=() if observation is None else (observation,),
            waits=tuple(self.waits),
            was_done=observation is None,
        )

    @property
    def _where(self) -> str:
        return place(self.statement.sql, self.statement.line)

    async def _begin(self, work: Work, alone: Alone) -> bool:
        """Write down what there is; whether it is there already."""
        self.evidence = await look(work.conn, alone)
        found = await taken(work.conn, alone, self.evidence)
        if found is not None and not (self.takes or alone.is_lenient):
            name = alone.name
            raise PostgresError(
                f"{self._where}: {name} is there already. {self.left}".strip(),
                next_step="See who made it; take the statement out, or drop the index first.",
            )
        await ledger.begin_line(work.conn, self.key, self.statement, self.evidence)
        if found is not None:
            await ledger.mark_done(work.conn, self.key, self.statement.index)
        return found is not None

    async def _resumed(self, work: Work, alone: Alone) -> bool:
        """Whether an earlier attempt has done it; what it left half-made is cleared."""
        assert self.line is not None  # noqa: S101 - for the type checkers
        self.evidence = self.line.evidence
        await self.tell(f"An earlier attempt at {self._where} was cut short; looking", None)
        return await self._settled(work, alone)

    async def _settled(self, work: Work, alone: Alone) -> bool:
        """Look until it is done or may be sent; clears what is half-made."""
        until = time.monotonic() + self.limits.alone.total_seconds()
        while True:
            found = await settle(work.conn, alone, self.evidence)
            match found.became:
                case Became.DONE:
                    return True
                case Became.NOT_DONE:
                    return False
                case Became.UNKNOWN:
                    raise self._unknown()
                case Became.HALF:
                    names = ", ".join(found.names)
                    await self.tell(f"Dropping what was left half-built: {names}", None)
                    await self._clear(work, found)
                case Became.FINALIZE:
                    await self._finalize(work, found)
                case Became.AT_WORK:
                    if time.monotonic() > until:
                        raise self._unknown()
                    await asyncio.sleep(self.limits.look.total_seconds())
                case never:
                    assert_never(never)

    async def _clear(self, work: Work, found: Found) -> None:
        for statement in found.clear:
            sent = Sent()
            try:
                await send(
                    work, statement, limits=self.limits, tell=self.tell, sent=sent,
                    short_waits=False,
                )  # fmt: skip
            except asyncpg.UndefinedObjectError:
                continue  # gone meanwhile
            except asyncpg.PostgresError as error:
                raise self._blocked_or(error, sent) from error

    async def _finalize(self, work: Work, found: Found) -> None:
        """The second half of DETACH CONCURRENTLY, under short waits."""
        for number in range(1, self.limits.tries + 1):
            sent = Sent()
            try:
                await send(
                    work, found.clear[0], limits=self.limits, tell=self.tell, sent=sent,
                    short_waits=True, longer=_has_autovacuum(sent),
                )  # fmt: skip
            except AGAIN as error:
                await self._wait_again(work, sent, error, number, self.limits.tries)
            except asyncpg.PostgresError as error:
                raise self._blocked_or(error, sent) from error
            else:
                return

    async def _tries(self, work: Work, alone: Alone) -> Observation | None:
        """Send it until it is done. None: an earlier one of these tries had done it."""
        short = alone.blocks or self.statement.lock >= Lock.SHARE
        most = self.limits.tries if short else self.limits.again
        bound = self.expected.seconds_max(self.statement.index) if self.expected else None
        longer, number = False, 0
        while True:
            number += 1
            sent = Sent()
            if self.observer is not None:
                await self.observer.before(work.conn, self.statement)
            try:
                await send(
                    work, self.statement.sql, limits=self.limits, tell=self.tell, sent=sent,
                    short_waits=short, longer=longer, seconds_max=bound,
                )  # fmt: skip
            except AGAIN as error:
                longer = longer or _has_autovacuum(sent)
                await self._wait_again(work, sent, error, number, most)
                if await self._settled(work, alone):
                    return None
            except asyncpg.PostgresError as error:
                raise await self._failed(work, alone, error, sent) from error
            else:
                await self._check(work, alone)
                return await self._observed(work, sent)

    async def _observed(self, work: Work, sent: Sent) -> Observation:
        if sent.block is not None:
            self.waits.append(sent.wait(self.statement.index, f"{self._where} waited"))
        if self.observer is not None:
            return await self.observer.after(work.conn, self.statement)
        return Observation(index=self.statement.index, seconds=round(sent.seconds, 6))

    async def _check(self, work: Work, alone: Alone) -> None:
        """See that it has done what it says: IF NOT EXISTS is content with an invalid index."""
        if alone.kind is not AloneKind.CREATE_INDEX:
            return
        found = await settle(work.conn, alone, self.evidence)
        if found.became is not Became.DONE:
            await ledger.unmark(work.conn, self.key, self.statement.index)
            raise PostgresError(
                f"{self._where} was answered as done, and there is no valid index such as it"
                f" says. {self.left}".strip(),
                next_step="See with /db indexes what has its name and whether it is half-built;"
                " drop that, then ask again.",
            )

    async def _wait_again(
        self, work: Work, sent: Sent, error: Exception, number: int, most: int
    ) -> None:
        """Let others go on for a moment; raises when that was often enough."""
        await calm(work, self.limits)
        deadlock = isinstance(error, asyncpg.DeadlockDetectedError)
        reason = f"{self._where}: {'a deadlock' if deadlock else 'no lock in time'}"
        self.waits.append(sent.wait(self.statement.index, reason))
        if number >= most:
            raise await self._failed(work, await self._alone(), error, sent)
        by = f": held up by {sent.block.text}" if sent.block else ""
        await self.tell(f"{reason}{by}; trying again ({number} of {most})", None)
        await asyncio.sleep(pause_seconds(number, self.limits, random.random()))  # noqa: S311

    async def _alone(self) -> Alone:
        return await asyncio.to_thread(alone_of, self.statement.sql)

    async def _failed(
        self, work: Work, alone: Alone, error: asyncpg.PostgresError | Exception, sent: Sent
    ) -> PostgresError:
        """What to say of a statement that the server has refused, once it is cleaned up."""
        explains = self._blocked_or(error, sent)
        try:
            await calm(work, self.limits)
            async with asyncio.timeout(self.limits.cleanup.total_seconds()):
                is_clean = await self._cleaned(work, alone)
        except (asyncpg.PostgresError, PostgresError, LostError, *LOST):
            is_clean = False
        if is_clean:
            return explains
        step = f"{explains.next_step} It may have left something half-built: asked again, that is"
        return type(explains)(explains.problem, next_step=f"{step} cleared first (/db indexes).")

    async def _cleaned(self, work: Work, alone: Alone) -> bool:
        """Whether nothing is left of it; then its line in the ledger is taken back."""
        found = await settle(work.conn, alone, self.evidence)
        if found.became is Became.HALF:
            seconds = self.limits.cleanup.total_seconds()
            await work.execute(
                f"SET statement_timeout = '{ms(self.limits.cleanup)}'", seconds_max=5
            )
            await work.execute("SET lock_timeout = 0", seconds_max=5)
            await clear(work.conn, found, seconds_max=seconds)
            await calm(work, self.limits)
            found = await settle(work.conn, alone, self.evidence)
        # The server said no: of a statement that cannot be looked up, too, nothing was done.
        if found.became in {Became.NOT_DONE, Became.UNKNOWN}:
            await ledger.unmark(work.conn, self.key, self.statement.index)
            return True
        return False

    async def _left_clean(self, work: Work, alone: Alone) -> None:
        """After a cancel: end the statement, and clear what is left over another session."""
        seconds = 2 * self.limits.cleanup.total_seconds()
        work.is_lost = True
        try:
            async with asyncio.timeout(seconds):
                await work.watch.terminate()
                async with working(self.target, self.limits, what=self.key, tell=_silent) as other:
                    if alone.kind is not AloneKind.OTHER:
                        await self._cleaned(other, alone)
        except (asyncpg.PostgresError, PostgresError, LostError, *LOST):
            return  # whoever comes next does it: the ledger has its line

    def _blocked_or(self, error: Exception, sent: Sent) -> PostgresError:
        """An error of a statement as ours."""
        is_cancel = isinstance(error, asyncpg.QueryCanceledError)
        whole = self.limits.alone.total_seconds()
        if is_cancel and sent.stopped is Stopped.TOO_LONG:
            return self._too_long(sent)
        if isinstance(error, AGAIN) or (
            is_cancel and (sent.stopped is Stopped.BLOCKED or sent.seconds > NEARLY * whole)
        ):
            return self._blocked(sent)
        return explained(error, self._where, left=self.left)

    def _blocked(self, sent: Sent) -> BlockedError:
        block = sent.block
        by = f"{block.wanted} is held up by {block.text}" if block else "others held it up"
        pid = next((b.key for b in block.backends if not b.is_prepared), None) if block else None
        end = f", end what must not go on with /db terminate-backend {pid}" if pid else ""
        return BlockedError(
            f"{self._where} was given up after {sent.seconds:.0f} s: {by}. {self.left}".strip(),
            next_step=f"See who it is with /db locks{end}; then ask again.",
            blockers=block.backends if block else (),
        )

    def _too_long(self, sent: Sent) -> ExceededError:
        index = self.statement.index
        expected = self.expected
        rehearsed = expected.seconds.get(index, 0.0) if expected else 0.0
        worked = sent.seconds - sent.waited_seconds
        return ExceededError(
            f"{self._where} was at work for {worked:.1f} s; the rehearsal took {rehearsed:.1f} s."
            f" It was cancelled. {self.left}".strip(),
            next_step="Rehearse it on a newer backup, or at a quieter time; then ask again.",
        )

    def _unknown(self) -> UnknownOutcomeError:
        return UnknownOutcomeError(
            f"{self._where} was begun and cut short, and nobody can tell whether it was done."
            f" {self.left}".strip(),
            next_step="Look what stands in the database. If it is done, say so with the tool"
            " itself; if not, take its line out of twokey_migrate.unit_statements and ask again.",
        )


def _has_autovacuum(sent: Sent) -> bool:
    return sent.block is not None and sent.block.has_autovacuum


async def _silent(text: str, fraction: float | None) -> None:
    """Nobody is left to be told."""
