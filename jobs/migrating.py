"""What would run on a database: its folder of migrations against its book, read and reviewed.

Looks only. What a run then does with it is in `jobs.migration_run`.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final

from jobs.index_run import explained
from jobs.migration_settings import MigrationSettings
from jobs.operation import Context, Database, JobError
from jobs.rehearsals import subject_of
from postgres.migrate.apply_words import Unit
from postgres.migrate.aside import with_aside
from postgres.migrate.aside_words import AsideBounds, AsidePlan
from postgres.migrate.book_state import as_before
from postgres.migrate.books.book import Book
from postgres.migrate.books.opening import book_of
from postgres.migrate.folders.folder import Folder
from postgres.migrate.folders.reading import find_tool, read_folder
from postgres.migrate.ledger import unfinished
from postgres.migrate.reverse import read_reverse_facts
from postgres.migrate.review.facts import Facts
from postgres.migrate.review.reading import read_facts
from postgres.migrate.review.reviewer import review
from postgres.migrate.standing import Standing, down_to, find, standing, up_to
from postgres.migrate.words import BookEntry, Direction, Level, Migration, Review, Tool
from store.applied import AppliedRow, applied_rows

# Planning must leave time for the ack; a catalog answers in milliseconds.
LOOK_LIMIT: Final = timedelta(seconds=2)
# More at once is no change that anybody reads.
FILES_MAX: Final = 20
BASE: Final = "base"
REVERSE: Final = "reverse"  # in AppliedRow.detail: statements that take it back
_MAJOR: Final = "SELECT current_setting('server_version_num')::int / 10000 AS major"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stood:
    """A database's folder and book, as they are now."""

    settings: MigrationSettings
    folder: Folder
    book: Book
    standing: Standing
    rows: Mapping[str, AppliedRow]  # what our runs know of its versions


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What would run, in order, each reviewed against the target as it is."""

    stood: Stood
    direction: Direction
    units: tuple[Unit, ...]
    facts: Facts
    subject: str
    asides: tuple[AsidePlan, ...]  # of each unit: what it keeps instead of dropping it

    @property
    def migrations(self) -> tuple[Migration, ...]:
        """The migrations in the order in which they would run."""
        return tuple(unit.migration for unit in self.units)

    @property
    def reviews(self) -> tuple[Review, ...]:
        """Their reviews, in the same order."""
        return tuple(unit.review for unit in self.units)

    @property
    def title(self) -> str:
        """Which ones, for people."""
        return ", ".join(each.title for each in self.migrations)


def settings_of(database: Database) -> MigrationSettings:
    """How the database's schema is changed.

    Raises:
        JobError: nobody has said where its migrations are.
    """
    if database.migrations.folder is None:
        raise JobError(
            f"Nobody has said where the migrations of {database.name} are.",
            next_step=f"Write `migrations: {{folder: ...}}` under {database.name} in the"
            " inventory, as in twokey.example.yml.",
        )
    return database.migrations


async def stand(context: Context) -> Stood:
    """The folder against the book; nothing is rendered or reviewed.

    Raises:
        JobError: the folder or the database cannot be read.
    """
    async with context.reader.session(limit=LOOK_LIMIT) as session:
        return await _stand(context, session)


async def look(context: Context, *, version: str, direction: Direction) -> Outlook:
    """What would run: up to `version` ('' for all), or back until `version` is taken back too.

    Raises:
        JobError: the folder, the database or the file cannot be read, something is wrong with
            what is applied, or there is nothing to do.
    """
    async with context.reader.session(limit=LOOK_LIMIT) as session:
        stood = await _stand(context, session)
        _refuse_problems(stood)
        chosen = await _chosen(stood, version, direction)
        return await _outlook(stood, direction, chosen, session)


async def units_again(context: Context, versions: Sequence[str], direction: Direction) -> Outlook:
    """The same migrations once more, whatever of them stands by now: for a run's next life.

    Raises:
        JobError: the folder or the database cannot be read, or a file is gone.
    """
    async with context.reader.session(limit=LOOK_LIMIT) as session:
        stood = await _stand(context, session)
        known = {each.version: each for each in stood.folder.migrations}
        if missing := [version for version in versions if version not in known]:
            raise JobError(
                f"The file of {', '.join(missing)} is gone from {stood.folder.path.name}.",
                next_step="Put the folder back as it was when this was agreed to, and ask again.",
            )
        chosen = await _prepared(stood, [known[version] for version in versions], direction)
        return await _outlook(stood, direction, chosen, session)


def refuse_errors(outlook: Outlook) -> None:
    """Stop where a file does what no run of ours may do, or drops what cannot be kept.

    A way back drops what it must: it would be of no use later.

    Raises:
        JobError: names the file, the line and what is wrong.
    """
    for unit, aside in zip(outlook.units, outlook.asides, strict=True):
        if aside.problems and outlook.direction is Direction.UP:
            problem = aside.problems[0]
            line = unit.review.statements[problem.statement].line
            raise JobError(
                f"{unit.migration.path.name}, line {line}: {problem.text}",
                next_step=problem.next_step,
            )
        for found in unit.review.all_findings:
            if found.level is Level.ERROR:
                raise JobError(
                    f"{unit.migration.path.name}, line {found.line}: {found.text}",
                    next_step=found.help or "Correct the file; /db migrate plan shows the rest.",
                )


async def _stand(context: Context, session: Any) -> Stood:
    settings = settings_of(context.database)
    folder = settings.folder
    if folder is None:
        raise TypeError("settings_of has looked")
    with explained():
        tool = settings.tool
        if tool is None:
            tool = await asyncio.to_thread(find_tool, folder)
        # Alembic's SQL is rendered by the application's code: only what will be looked at.
        found = await read_folder(folder, tool=tool, python=settings.python, versions=())
        # env.py may name another table than the usual one.
        book = book_of(tool, table=settings.table or found.table, folder=folder)
        stands = standing(found, await _entries(book, found, session))
    versions = [each.version for each in found.migrations]
    async with context.store.begin() as conn:
        rows = await applied_rows(conn, [context.database.name], versions)
    return Stood(
        settings=settings,
        folder=found,
        book=book,
        standing=stands,
        rows={version: row for (_, version), row in rows.items()},
    )


async def _entries(book: Book, folder: Folder, session: Any) -> Sequence[BookEntry] | None:
    """What the book says; what a run of ours has begun and not ended is still to be done."""
    ways = (each.key.rpartition(":") for each in await unfinished(session))
    begun = {version: Direction(way) for version, _, way in ways if way in set(Direction)}
    return as_before(await book.read(session), folder.migrations, begun)


def _refuse_problems(stood: Stood) -> None:
    if stood.standing.problems:
        problem = stood.standing.problems[0]
        more = len(stood.standing.problems) - 1
        raise JobError(
            problem if not more else f"{problem} There are {more} more.",
            next_step="All of it is said by /db migrate with `status`. Nothing was changed.",
        )


async def _chosen(stood: Stood, version: str, direction: Direction) -> Sequence[Migration]:
    with explained():
        if direction is Direction.UP:
            wanted = up_to(stood.standing, version or None)
        else:
            wanted = down_to(stood.standing, _kept(stood.standing, version))
    if not wanted:
        raise JobError(
            "Everything in the folder is applied: there is nothing to do.",
            next_step="Write a migration first, or bring the folder here up to date.",
        )
    if len(wanted) > FILES_MAX:
        raise JobError(
            f"{len(wanted)} migrations at once are more than anybody reads.",
            next_step=f"Name the version to stop at: the first {FILES_MAX} end with"
            f" {wanted[FILES_MAX - 1].version}.",
        )
    return await _prepared(stood, wanted, direction)


async def _prepared(
    stood: Stood, wanted: Sequence[Migration], direction: Direction
) -> Sequence[Migration]:
    """With the SQL that will run."""
    if stood.folder.tool is Tool.ALEMBIC:
        wanted = await _rendered(stood, wanted)
    if direction is Direction.UP:
        if problem := next((each.problem for each in wanted if each.problem), ""):
            raise JobError(problem, next_step="Nothing was changed. Ask again afterwards.")
        return wanted
    return [_with_way_back(each, stood.rows.get(each.version)) for each in wanted]


async def _rendered(stood: Stood, wanted: Sequence[Migration]) -> tuple[Migration, ...]:
    """The same with their SQL, which the application's code renders."""
    settings = stood.settings
    if settings.folder is None:
        raise TypeError("it was read before")
    versions = [each.version for each in wanted]
    with explained():
        folder = await read_folder(
            settings.folder, tool=Tool.ALEMBIC, python=settings.python, versions=versions
        )
    known = {each.version: each for each in folder.migrations}
    return tuple(known[version] for version in versions)


def _kept(stood: Standing, version: str) -> str | None:
    """What stays applied when `version` is taken back as the last: the one before it."""
    if not version:
        return None
    applied = [each for each in stood.applied if not each.is_repeatable]
    found = find(applied, version)
    if found is None:
        return version  # down_to says what there is
    place = applied.index(found)
    return applied[place - 1].version if place else BASE


def _with_way_back(migration: Migration, row: AppliedRow | None) -> Migration:
    """With its own down SQL, or what was worked out before it was applied.

    Raises:
        JobError: there is neither.
    """
    if migration.down is not None:
        return migration
    made = row.detail.get(REVERSE) if row is not None and row.rolled_back_at is None else None
    statements = [str(each) for each in made] if isinstance(made, list) else []
    if not statements:
        raise JobError(
            f"{migration.title} has no way back: no down migration, and none could be worked out.",
            next_step="Write its down migration, or a new one that undoes it. What it dropped is"
            " kept for a time: /db aside; older data is in the backup: /db restore.",
        )
    down = ";\n".join(statements) + ";\n"
    return replace(migration, down=down, down_sha256=hashlib.sha256(down.encode()).hexdigest())


def _sql(migration: Migration, direction: Direction) -> str:
    return migration.up if direction is Direction.UP else migration.down or ""


async def _outlook(
    stood: Stood, direction: Direction, chosen: Sequence[Migration], session: Any
) -> Outlook:
    sqls = [_sql(each, direction) for each in chosen]
    with explained():
        facts = await read_facts(session, sqls)
        (row,) = await session.fetch(_MAJOR)
        major = int(row["major"])
        reviews = await asyncio.gather(
            *(_reviewed(each, direction, facts, major) for each in chosen)
        )
        plans = [
            await _aside(stood, session, sql, found)
            for sql, found in zip(sqls, reviews, strict=True)
        ]
    units = tuple(
        Unit(
            key=f"{each.version}:{direction}", migration=each, direction=direction,
            review=plan.review,
        )
        for each, plan in zip(chosen, plans, strict=True)
    )  # fmt: skip
    return Outlook(
        stood=stood, direction=direction, units=units, facts=facts, subject=subject_of(units),
        asides=tuple(plans),
    )  # fmt: skip


async def _reviewed(migration: Migration, direction: Direction, facts: Facts, major: int) -> Review:
    is_up = direction is Direction.UP
    return await review(
        _sql(migration, direction),
        facts=facts,
        major=major,
        name=migration.path.name,
        is_transactional=migration.is_transactional if is_up else migration.down_is_transactional,
    )


async def _aside(stood: Stood, session: Any, sql: str, found: Review) -> AsidePlan:
    """The review in the form that keeps what the file would drop, where anything is to be kept."""
    is_lossy = any(each.destroys for each in found.statements)
    if not (is_lossy and stood.settings.keep_aside):
        return AsidePlan(review=found)
    return with_aside(found, await read_reverse_facts(session, sql), AsideBounds())
