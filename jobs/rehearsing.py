"""A rehearsal: a backup restored beside production, migrations applied there, and taken back.

The copy stands in the run's own folder, listens on a private socket alone and is removed at the
end, whatever happened; what a dead worker left is removed with its folder. So two rehearsals
share nothing, and the target is not touched. The files run as the role that the bot uses on the
target: what that role may not do fails here first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import asyncpg

from jobs.operation import Job, JobError
from jobs.rehearsals import (
    Copy,
    Rehearsal,
    RehearsedStatement,
    RehearsedUnit,
    Return,
    WayBack,
    row_of,
    subject_of,
)
from jobs.rehearsing_back import Tried, WayBackOf, try_way_back, way_back_of
from jobs.rehearsing_choice import must_be_abreast, proven_backup, work_of
from jobs.rehearsing_copy import login_of, restored_copy
from postgres.connect import connection
from postgres.dsn import Target
from postgres.errors import PostgresError
from postgres.health.statement_text import shown
from postgres.migrate.apply import apply_unit
from postgres.migrate.apply_words import ApplyLimits, BlockedError, Unit, UnknownOutcomeError
from postgres.migrate.books.book import Book
from postgres.migrate.copies import Standstill, stand_still
from postgres.migrate.observe import CopyObserver
from postgres.migrate.own_schema import ASIDE_SCHEMA, ensure_schema
from postgres.migrate.words import Observation
from postgres.restore.recovery import Recovered
from store.rehearsals import record_rehearsal

_HOURS: Final = timedelta(hours=12)
# On the copy nobody waits, and how long it takes is what is asked.
LIMITS: Final = ApplyLimits(
    lock=timedelta(seconds=10), tries=3, additive=_HOURS, statement=_HOURS, whole=_HOURS,
    alone=_HOURS, idle=timedelta(hours=1), life=timedelta(seconds=10),
)  # fmt: skip
_STATEMENT_CHARS_MAX: Final = 60
# Of these the copy or its host is the reason, and not the file: resources, an operator or a
# crash, the system around it, a connection, an error within PostgreSQL.
_NOT_THE_FILE: Final = frozenset({"53", "57", "58", "08", "XX"})
_CANCELED: Final = "57014"  # by a limit that the file itself has set


@dataclass(frozen=True, slots=True, kw_only=True)
class _Subject:
    """What is rehearsed: files in their order, and the book that they are written down in.

    `way_back`: how each is taken back, asked right before it is applied.
    """

    units: tuple[Unit, ...]
    book: Book
    way_back: WayBackOf


async def rehearse(
    job: Job,
    units: Sequence[Unit],
    book: Book,
    *,
    backup_id: str = "",
    way_back: WayBackOf = way_back_of,
) -> Rehearsal:
    """Restore, apply, take back and apply again; store what was found.

    From the newest proven backup, or that of this id. A file that fails is a result, not an
    error. The body of a retryable step: whatever an earlier attempt left is removed.

    Raises:
        JobError, PostgresError: the copy could not be made, or broke down. Nothing is left.
    """
    backup = await proven_backup(job, backup_id)
    subject = _Subject(units=tuple(units), book=book, way_back=way_back)
    found = await _rehearsed(job, subject, backup.id)
    row = row_of(
        found,
        database=job.database.name,
        subject=subject_of(units),
        at=job.now,
        request_id=job.request_id,
    )
    async with job.store.begin() as conn:
        await record_rehearsal(conn, row)
    return found


async def _rehearsed(job: Job, subject: _Subject, backup_id: str) -> Rehearsal:
    reviews = [unit.review for unit in subject.units]
    async with restored_copy(job, backup_id, work_bytes=work_of(reviews)) as recovered:
        return await _on_copy(job, subject, recovered)


async def _on_copy(job: Job, subject: _Subject, recovered: Recovered) -> Rehearsal:
    """Everything that is tried on the running copy."""
    admin, login = recovered.dsn, await login_of(job, recovered)
    async with connection(login) as conn:
        await must_be_abreast(job, subject.book, recovered.facts.id, conn)
        await subject.book.ensure(conn)
        if any(each.original for u in subject.units for each in u.review.statements):
            await ensure_schema(conn, ASIDE_SCHEMA)
    await job.report("Taking stock of the copy")
    named = {t.table for u in subject.units for each in u.review.statements for t in each.touched}
    before = await stand_still(admin, first=named, besides=(subject.book.table,))
    copy = _copy(recovered, before, subject.book)
    attempt = _Attempt(job=job, subject=subject, login=login)
    units, ways = await attempt.apply_all()
    if units[-1].problem:
        nothing = Return(outcome=WayBack.NONE, problem="it could not be applied")
        return Rehearsal(copy=copy, units=units, way_back=nothing)
    tried = Tried(
        units=subject.units,
        ways=ways,
        seen=units,
        before=before,
        book=subject.book,
        major=recovered.facts.major,
        admin=admin,
        login=login,
        attempt=attempt.apply,
    )
    way_back = await try_way_back(tried, say=job.report)
    return Rehearsal(copy=copy, units=units, way_back=way_back)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attempt:
    """Files that are applied on a copy, and what is seen of them."""

    job: Job
    subject: _Subject
    login: Target

    async def apply_all(self) -> tuple[tuple[RehearsedUnit, ...], tuple[Unit | str, ...]]:
        """Each in its turn until one fails; and how each would be taken back, or why not."""
        seen: list[RehearsedUnit] = []
        ways: list[Unit | str] = []
        for number, unit in enumerate(self.subject.units, start=1):
            await self.job.report(
                f"Applying {unit.title} on the copy",
                fraction=number / (len(self.subject.units) + 1),
            )
            async with connection(self.login) as conn:
                ways.append(await self.subject.way_back(conn, unit))
            seen.append(await self.apply(unit))
            if seen[-1].problem:
                break
        return tuple(seen), tuple(ways)

    async def apply(self, unit: Unit) -> RehearsedUnit:
        """One file, one way.

        Raises:
            JobError: the copy broke down; that says nothing about the file.
        """
        observer = CopyObserver(self.login)
        problem, next_step, line = "", "", 0
        try:
            await apply_unit(
                self.login,
                unit,
                book=self.subject.book,
                expected=None,
                limits=LIMITS,
                tell=self._tell,
                observer=observer,
            )
        except PostgresError as error:
            if not is_of_the_file(error):
                raise JobError(
                    f"The copy broke down while {unit.title} ran on it: {error.problem}",
                    next_step="That says nothing about the file. See the worker's disk and memory,"
                    " then rehearse again.",
                ) from error
            problem, next_step = error.problem, error.next_step
            line = observer.at_work.line if observer.at_work else 0
        finally:
            await observer.close()
        return rehearsed_unit(unit, observer.seen, problem=problem, next_step=next_step, line=line)

    async def _tell(self, text: str, fraction: float | None) -> None:
        await self.job.report(text, fraction=fraction)


def rehearsed_unit(
    unit: Unit,
    seen: Sequence[Observation],
    *,
    problem: str = "",
    next_step: str = "",
    line: int = 0,
) -> RehearsedUnit:
    """What was seen of a file, by its statements. Pure. The last look at a statement counts."""
    by_index = {each.index: each for each in seen}
    statements = tuple(
        RehearsedStatement(
            line=each.line,
            what=shown(each.original or each.sql, chars_max=_STATEMENT_CHARS_MAX) or each.node,
            seen=by_index[each.index],
        )
        for each in unit.review.statements
        if each.index in by_index
    )
    return RehearsedUnit(
        key=unit.key,
        title=unit.migration.title,
        direction=unit.direction,
        is_transactional=unit.review.is_transactional,
        seconds=round(sum(each.seen.seconds for each in statements), 3),
        statements=statements,
        problem=problem,
        next_step=next_step,
        line=line,
    )


def is_of_the_file(error: PostgresError) -> bool:
    """Whether a failure says something about the file, and not about the copy. Pure.

    Nobody else uses the copy: a lock that is not to be had there, or an end that nobody knows,
    is the copy's.
    """
    if isinstance(error, BlockedError | UnknownOutcomeError):
        return False
    cause: BaseException | None = error.__cause__
    while cause is not None:
        if isinstance(cause, asyncpg.PostgresError):
            state = str(getattr(cause, "sqlstate", None) or "")
            return state == _CANCELED or state[:2] not in _NOT_THE_FILE
        if isinstance(cause, asyncpg.InterfaceError | OSError):
            return False
        cause = cause.__cause__
    return True


def _copy(recovered: Recovered, before: Standstill, book: Book) -> Copy:
    return Copy(
        backup_id=recovered.facts.id,
        to=str(recovered.target),
        data_bytes=recovered.facts.data_bytes,
        restore_seconds=recovered.seconds,
        reached_at=recovered.reached_at,
        tables=before.sizes,
        book=book.table,
    )
