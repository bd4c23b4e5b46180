"""The run that puts back what was kept aside: a short transaction, values in parts, the rest alone.

A part is done again after a crash without harm: values fill what is empty or still holds what a
backfill wrote, rows come where they are missing, and what stands already is left as it is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import asyncpg
from pydantic import JsonValue

from jobs.operation import Attempt, Job, JobError, Mode
from postgres.connect import connection
from postgres.dsn import Target, parse_dsn
from postgres.errors import PostgresError
from postgres.migrate.apply_alone import apply_alone
from postgres.migrate.apply_short import apply_short
from postgres.migrate.apply_words import ApplyLimits
from postgres.migrate.aside_back import BLOCKS, PutBack, drop_statement, put_back
from postgres.migrate.aside_words import COPIED, Kept, What
from postgres.migrate.backfill.ledger import forget
from postgres.migrate.own_schema import ASIDE_SCHEMA
from postgres.schema.catalog import Catalog
from postgres.schema.reading import Names, Reads, read_named

LIMIT: Final = timedelta(hours=2)
LOOK_LIMIT: Final = timedelta(minutes=2)
_BATCH_SECONDS_MAX: Final = 120
_ALONE: Final = (" CONCURRENTLY ", " VALIDATE CONSTRAINT ")
_BLOCKS_OF: Final = "SELECT pg_relation_size($1::text::regclass) / 8192 AS blocks"
# Each part finds its rows by their key, whatever the statistics of a fresh copy say.
_LIMITS: Final = (
    "SET lock_timeout = '5s'; SET statement_timeout = '120s'; SET enable_seqscan = off;"
    " SET plan_cache_mode = force_custom_plan; SET jit = off"
)
_COMPARE_LIMIT: Final = timedelta(minutes=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Came:
    """What came of it. `conflicts`: today's values that stay; `gone`: kept, and without a place.

    `notes`: what could not be made again, and why.
    """

    rows: int
    conflicts: int
    gone: int
    notes: tuple[str, ...]

    @property
    def is_whole(self) -> bool:
        """Whether everything that was kept is back, so that the copy is not needed."""
        return not self.conflicts and not self.gone and not self.notes


async def now_of(session: Reads, kept: Kept) -> Catalog:
    """What stands where it was, and where it is kept."""
    names = {(kept.before.schema, kept.before.name), (ASIDE_SCHEMA, kept.name)}
    return await read_named(session, Names(relations=frozenset(names)))


async def run_put_back(job: Job, kept: Kept, *, overwrite: bool = False) -> Came:
    """Put it back, step by step. `overwrite`: values that somebody else has written since, too.

    Raises:
        JobError: something stands in its way; what was done stays, and can be gone on with.
    """
    target = parse_dsn(job.database.dsn.get_secret_value())
    way = await _way(job, target, kept, overwrite=overwrite)
    if kept.ledger:
        await _forget(job, target, kept.ledger)
    await _first(job, target, kept, way)
    rows, conflicts, gone = 0, 0, 0
    if way["batch"]:
        rows = await _fill(job, target, kept, way)
        conflicts, gone = await _compare(job, target, str(way["conflicts"]))
    notes = await _finish(job, target, [str(each) for each in way["last"]])
    came = Came(rows=rows, conflicts=conflicts, gone=gone, notes=notes)
    if kept.what in COPIED and came.is_whole:
        await _short(job, target, "drop the copy", (drop_statement(kept),))
    return came


def stays(kept: Kept, came: Came) -> bool:
    """Whether the copy is still there, and the only place of something."""
    return kept.what is What.VIEW or (kept.what in COPIED and not came.is_whole)


async def _way(job: Job, target: Target, kept: Kept, *, overwrite: bool) -> Mapping[str, Any]:
    """What will run: looked up once, as the catalog changes with it."""

    async def body(_: Attempt) -> JsonValue:
        async with connection(target) as conn:
            found = put_back(kept, await now_of(conn, kept), overwrite=overwrite)
        if found.problems:
            raise JobError(
                f"{kept.original} cannot be put back: {found.problems[0]}.",
                next_step="Clear the way, then ask again. Nothing was changed.",
            )
        return _as_json(found)

    way = await job.step("look", body, mode=Mode.RETRYABLE, time_limit=LOOK_LIMIT, attempts=3)
    return way if isinstance(way, dict) else {}


def _as_json(found: PutBack) -> dict[str, JsonValue]:
    fill = found.fill
    return {
        "first": list(found.first),
        "last": list(found.last),
        "batch": fill.batch if fill else "",
        "conflicts": fill.conflicts if fill else "",
        "is_whole": bool(fill and fill.is_whole),
        "blocks": fill.blocks if fill else 0,
    }


async def _forget(job: Job, target: Target, ledger: str) -> None:
    """A backfill whose values are put back must not go on from where it stopped."""

    async def body(_: Attempt) -> JsonValue:
        async with connection(target) as conn:
            return await forget(conn, ledger)

    await job.step("forget", body, mode=Mode.RETRYABLE, time_limit=LOOK_LIMIT, attempts=3)


async def _first(job: Job, target: Target, kept: Kept, way: Mapping[str, Any]) -> None:
    wanted = [str(each) for each in way["first"]]

    async def body(_: Attempt) -> JsonValue:
        async with connection(target) as conn:
            now = await now_of(conn, kept)
        if wanted and not _is_back(kept, now):
            await _applied(job, target, wanted, what=f"putting {kept.original} back")
        return None

    await job.step("put back", body, mode=Mode.RETRYABLE, time_limit=LIMIT, attempts=3)


def _is_back(kept: Kept, now: Catalog) -> bool:
    """Whether the short transaction has been committed, by a life before this one."""
    there = now.relation(kept.before.schema, kept.before.name)
    if there is None:
        return False
    if kept.what is What.COLUMN:
        return all(there.column(name) is not None for name in kept.columns)
    return kept.what in (What.VIEW, What.ROWS) or kept.name not in now.aside


async def _fill(job: Job, target: Target, kept: Kept, way: Mapping[str, Any]) -> int:
    batch, is_whole = str(way["batch"]), bool(way["is_whole"])
    size = int(str(way.get("blocks", BLOCKS)))

    async def body(attempt: Attempt) -> JsonValue:
        saved = attempt.checkpoint if isinstance(attempt.checkpoint, dict) else {}
        block, rows = int(str(saved.get("block", 0))), int(str(saved.get("rows", 0)))
        try:
            async with connection(target) as conn:
                await conn.execute(_LIMITS)
                if is_whole:
                    return _count(await conn.execute(batch, timeout=_BATCH_SECONDS_MAX))
                blocks = (await conn.fetchrow(_BLOCKS_OF, kept.sql))["blocks"]
                while block < blocks:
                    began = time.monotonic()
                    parts = ((block, 0), (block + size, 0))
                    rows += _count(await conn.execute(batch, *parts, timeout=_BATCH_SECONDS_MAX))
                    block += size
                    await attempt.save({"block": block, "rows": rows})
                    await job.report(f"{rows:,} rows are back", fraction=min(1.0, block / blocks))
                    # As long as it took others get their turn.
                    await asyncio.sleep(min(1.0, time.monotonic() - began))
        except asyncpg.PostgresError as error:
            raise _stopped(kept, rows, error) from error
        return rows

    done = await job.step("fill", body, mode=Mode.RESUMABLE, time_limit=LIMIT, attempts=3)
    return int(str(done or 0))


def _stopped(kept: Kept, rows: int, error: Exception) -> JobError:
    return JobError(
        f"Filling {kept.original} in stopped after {rows:,} rows: {error}.",
        next_step="Mend what it says, then ask again: it goes on with what is missing.",
    )


async def _compare(job: Job, target: Target, query: str) -> tuple[int, int]:
    async def body(_: Attempt) -> JsonValue:
        async with connection(target) as conn:
            row = await conn.fetchrow(query, timeout=_COMPARE_LIMIT.total_seconds())
        return [row["conflicts"], row["gone"]]

    found = await job.step("compare", body, mode=Mode.RETRYABLE, time_limit=LIMIT, attempts=3)
    conflicts, gone = found if isinstance(found, list) else (0, 0)
    return int(str(conflicts)), int(str(gone))


async def _finish(job: Job, target: Target, statements: Sequence[str]) -> tuple[str, ...]:
    """Constraints and indexes; one that rows of today do not fit is told, and left out."""
    notes: list[str] = []
    for number, sql in enumerate(statements, start=1):

        async def body(_: Attempt, sql: str = sql) -> JsonValue:
            try:
                await _one(job, target, sql)
            except JobError as error:
                cause = error.__cause__.__cause__ if error.__cause__ else None
                if isinstance(cause, asyncpg.DuplicateObjectError | asyncpg.DuplicateTableError):
                    return ""  # by a life before this one
                if isinstance(cause, asyncpg.IntegrityConstraintViolationError):
                    return f"Rows of today do not fit: {sql}"
                raise
            return ""

        said = await job.step(
            f"finish {number}", body, mode=Mode.RETRYABLE, time_limit=LIMIT, attempts=2
        )
        if said:
            notes.append(str(said))
    return tuple(notes)


async def _one(job: Job, target: Target, sql: str) -> None:
    if not any(word in sql for word in _ALONE):
        await _applied(job, target, (sql,), what="the change")
        return
    try:
        await apply_alone(target, sql, limits=_limits(job), tell=_telling(job))
    except PostgresError as error:
        raise JobError(error.problem, next_step=error.next_step) from error


async def _short(job: Job, target: Target, name: str, statements: Sequence[str]) -> None:
    async def body(_: Attempt) -> JsonValue:
        await _applied(job, target, [s.replace("DROP TABLE ", "DROP TABLE IF EXISTS ", 1)
                                     for s in statements], what=name)  # fmt: skip
        return None

    await job.step(name, body, mode=Mode.RETRYABLE, time_limit=LIMIT, attempts=3)


async def _applied(job: Job, target: Target, statements: Sequence[str], *, what: str) -> None:
    try:
        await apply_short(target, statements, limits=_limits(job), tell=_telling(job), what=what)
    except PostgresError as error:
        raise JobError(error.problem, next_step=error.next_step) from error


def _limits(job: Job) -> ApplyLimits:
    settings = job.database.migrations
    return ApplyLimits(lock=settings.lock_timeout, tries=settings.lock_tries)


def _telling(job: Job) -> Any:
    async def tell(text: str, fraction: float | None = None) -> None:
        await job.report(text, fraction=fraction)

    return tell


def _count(tag: str) -> int:
    """From "UPDATE 5" and the like."""
    return int(tag.rpartition(" ")[2] or 0)
