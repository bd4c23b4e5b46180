"""What the checklist before a migration is judged by: from the store and other databases."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final

from jobs.migrating import Outlook
from jobs.migration_checks import Elsewhere, Evidence, Rehearsed
from jobs.operation import Context, Database, JobError
from jobs.reader import LiveReader
from jobs.rehearsals import WRITES, blocked, from_json, is_fresh
from jobs.routes import Routes
from postgres.errors import PostgresError
from postgres.migrate.books.opening import book_of
from postgres.migrate.folders.folder import Folder
from postgres.migrate.words import BookEntry, Lock, Migration, Review, Tool
from store.applied import AppliedRow, applied_rows
from store.backups import newest_backup
from store.rehearsals import RehearsalRow, newest_rehearsal

# Another database must not keep the one that is asked about from being planned.
ELSEWHERE_LIMIT: Final = timedelta(seconds=1.5)
# A statement that touches the catalog alone: what its lock costs others, at most.
_CATALOG_SECONDS: Final = 0.1


async def evidence_of(
    context: Context, outlook: Outlook, rehearsal: RehearsalRow | None, *, way_back: str
) -> Evidence:
    """Everything that the checklist looks at. `way_back` is in words, '' for none.

    Raises:
        JobError: never for what another database says: that it cannot be asked is evidence.
    """
    database, settings = context.database, outlook.stood.settings
    async with context.store.begin() as conn:
        backup = await newest_backup(conn, database.name, verified=True)
    there = await asyncio.gather(*(_elsewhere(context, name, outlook) for name in settings.before))
    rehearsed = rehearsed_of(rehearsal, context, settings.rehearsal_age)
    low, high = seconds_of(outlook.reviews)
    return Evidence(
        database=database.name,
        environment=database.environment,
        backup=(backup.id, backup.started_at) if backup else None,
        backup_age=settings.backup_age,
        elsewhere=there,
        rehearsed=rehearsed,
        low_seconds=low,
        high_seconds=high,
        lock=max((review.lock for review in outlook.reviews), default=Lock.NONE),
        blocking_seconds=blocking_of(
            outlook.reviews, rehearsal if rehearsed and rehearsed.is_fresh else None
        ),
        way_back=way_back,
        channel=database.channel,
        watch=settings.watch,
        is_monitored=database.monitoring.is_on,
        rehearse=f"/db rehearse {database.name}",
        now=context.now,
    )


def rehearsed_of(row: RehearsalRow | None, context: Context, age: timedelta) -> Rehearsed | None:
    """The newest rehearsal as the checklist sees it."""
    if row is None:
        return None
    return Rehearsed(
        ok=row.ok,
        at=row.at,
        is_fresh=is_fresh(row, now=context.now, age=age),
        seconds=row.seconds,
        backup_id=row.backup_id,
        problem=row.problem,
    )


async def rehearsal_of(context: Context, outlook: Outlook) -> RehearsalRow | None:
    """The newest rehearsal of just these migrations, in this order and from these bytes."""
    async with context.store.begin() as conn:
        return await newest_rehearsal(conn, context.database.name, outlook.subject)


def seconds_of(reviews: Sequence[Review]) -> tuple[float | None, float | None]:
    """How long all of it should take by the tables' sizes; None where nobody can tell."""
    statements = [each for review in reviews for each in review.statements]
    lows = [each.low_seconds for each in statements]
    highs = [each.high_seconds for each in statements]
    if any(high is None for high in highs):
        return None, None
    return sum(low or 0.0 for low in lows), sum(high or 0.0 for high in highs)


def blocking_of(reviews: Sequence[Review], rehearsal: RehearsalRow | None) -> float | None:
    """For how long others would wait at worst; None: nobody knows.

    As rehearsed; else by the tables' sizes. A lock is held from its statement to the end of the
    transaction.
    """
    if rehearsal is not None and rehearsal.ok:
        return blocked(from_json(rehearsal.detail), WRITES).seconds
    worst = 0.0
    for review in reviews:
        held, is_held = 0.0, False
        for each in review.statements:
            is_blocking = each.lock >= Lock.SHARE
            is_held = is_blocking or (is_held and review.is_transactional)
            if not is_held:
                continue
            if each.high_seconds is None:
                return None
            alone = each.high_seconds if each.high_seconds > 0 else _CATALOG_SECONDS
            held = held + alone if review.is_transactional else max(held, alone)
        worst = max(worst, held)
    return worst


async def _elsewhere(context: Context, name: str, outlook: Outlook) -> Elsewhere:
    """Whether another database has the same, from the same bytes."""
    other = context.databases.get(name)
    if other is None:
        return Elsewhere(database=name, environment="", problem="it is not in the inventory")
    versions = [each.version for each in outlook.migrations]
    async with context.store.begin() as conn:
        rows = await applied_rows(conn, [name], versions)
    ours = {version: row for (_, version), row in rows.items()}
    problem = ""
    entries: Mapping[str, BookEntry] = {}
    try:
        entries = await _book_of(other, outlook.stood.folder)
    except (JobError, PostgresError) as error:
        problem = error.problem
    missing = [
        each.version
        for each in outlook.migrations
        if not is_same(each, entries.get(each.version), ours.get(each.version))
    ]
    return Elsewhere(database=name, environment=other.environment, missing=missing, problem=problem)


def is_same(migration: Migration, entry: BookEntry | None, row: AppliedRow | None) -> bool:
    """Whether the very same stands there: by the tool's checksum, or by our own run's.

    A tool that keeps the newest version alone has no line for those before it: our run is asked.
    """
    is_ours = row is not None and row.rolled_back_at is None and row.sha256 == migration.sha256
    if entry is None:
        return is_ours and migration.tool in {Tool.ALEMBIC, Tool.GOLANG_MIGRATE}
    if not entry.is_complete:
        return False
    if entry.checksum and migration.checksum:
        return entry.checksum in (migration.checksum, *migration.same_checksums)
    return is_ours


async def _book_of(database: Database, folder: Folder) -> Mapping[str, BookEntry]:
    """What another database's book says, soon or not at all."""
    there = await Routes().of(database, limit=ELSEWHERE_LIMIT / 2)
    reader = LiveReader(there, statement_timeout=ELSEWHERE_LIMIT)
    try:
        async with asyncio.timeout(ELSEWHERE_LIMIT.total_seconds()):
            async with reader.session(limit=ELSEWHERE_LIMIT) as session:
                table = database.migrations.table or folder.table
                entries = await book_of(folder.tool, table=table).read(session)
    except TimeoutError:
        raise JobError(
            f"{database.name} did not answer in time.", next_step="Look whether it is up."
        ) from None
    finally:
        await reader.close()
    return {entry.version: entry for entry in entries or ()}
