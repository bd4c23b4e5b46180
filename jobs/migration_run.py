"""The run of migrations: rehearsed, each file applied once, entered, and watched afterwards.

What is true stands in the target: the tool's book says which files are applied, and our ledger
which statements of a file that is not one transaction. So every step here may be repeated.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from pydantic import JsonValue, TypeAdapter

from jobs.drift_words import DriftLook, drift_change, drift_now
from jobs.index_run import explained
from jobs.kept_aside import enter_kept, prepare_aside
from jobs.migrating import REVERSE, Outlook, units_again
from jobs.migration_evidence import rehearsal_of
from jobs.migration_forms import forms_of, kept_of, with_forms
from jobs.operation import Answer, Attempt, Job, JobError, Mode, Plan, Table
from jobs.rehearsals import expected_of, is_fresh
from jobs.rehearsing import rehearse
from jobs.steps import AttentionError
from jobs.text import count_text, span_text
from jobs.watch_after import picture_of, watch_after
from postgres.connect import connection
from postgres.dsn import parse_dsn
from postgres.migrate.apply import apply_unit
from postgres.migrate.apply_words import (
    Applied,
    ApplyLimits,
    Expected,
    Unit,
    UnknownOutcomeError,
)
from postgres.migrate.restore_point import mark
from postgres.migrate.reverse import read_reverse_facts, reverse
from postgres.migrate.words import Direction, Lock, Observation
from store.applied import AppliedRow, record_applied, record_taken_back
from store.backups import newest_backup
from store.rehearsals import RehearsalRow

RUN_LIMIT: Final = timedelta(hours=24)
LOOK_LIMIT: Final = timedelta(minutes=2)
FILE_LIMIT: Final = timedelta(hours=12)
REHEARSAL_LIMIT: Final = timedelta(hours=12)
ATTEMPTS: Final = 3
_DRIFT: Final = TypeAdapter(DriftLook)
_SQL_CHARS_MAX: Final = 60
_ROWS_MAX: Final = 60

Look = Callable[[], Awaitable[Outlook]]


async def run_migrations(job: Job, direction: Direction, plan: Plan, *, again: Look) -> Answer:
    """Apply what the plan says, or take it back.

    Raises:
        JobError: something is not as it was planned, or a file fails. Files before it stay
            applied, which the error says.
    """
    begun = await _begin(job, plan, again)
    versions = [str(each) for each in begun["versions"]]
    outlook = await units_again(job, versions, direction)
    if outlook.subject != plan.pins["files"]:
        raise JobError(
            "The files are no longer those that were agreed to. Nothing more was changed.",
            next_step="Put them back as they were, or ask for a new plan.",
        )
    rehearsal = await _rehearsed(job, outlook)
    done: list[Mapping[str, Any]] = []
    for place, unit in enumerate(outlook.units):
        try:
            done.append(await _one(job, outlook, place, rehearsal))
        except Exception as error:
            raise _with_what_stands(error, unit, done) from error
    watched = await watch_after(
        job, outlook.title, before=begun.get("before"), undo=_undo(job, outlook)
    )
    drift = drift_change(
        _DRIFT.validate_python(begun["drift"]), await drift_now(job, may_take_long=True)
    )
    return _answer(job, outlook, done, is_watched=watched, drift=drift)


async def _begin(job: Job, plan: Plan, again: Look) -> Mapping[str, Any]:
    """Which files, and how the database did before: looked up once, whatever happens later."""

    async def look(_: Attempt) -> JsonValue:
        outlook = await again()
        if outlook.subject != plan.pins["files"]:
            raise JobError(
                "What would run is no longer what was agreed to. Nothing was changed.",
                next_step="Ask for a new plan.",
            )
        before = await picture_of(job)
        drift = await drift_now(job, may_take_long=True)
        return {
            "versions": [each.version for each in outlook.migrations],
            "before": dict(before),
            "drift": _DRIFT.dump_python(drift, mode="json"),
        }

    found = await job.step(
        "look", look, mode=Mode.RETRYABLE, time_limit=LOOK_LIMIT, attempts=ATTEMPTS
    )
    return found if isinstance(found, dict) else {}


async def _rehearsed(job: Job, outlook: Outlook) -> RehearsalRow | None:
    """The rehearsal to go by; made now where there is none, and a proven backup is.

    Raises:
        JobError: it fails on the copy.
    """
    if outlook.direction is Direction.DOWN:
        return None
    known = await rehearsal_of(job, outlook)
    age = outlook.stood.settings.rehearsal_age
    if known is None or not is_fresh(known, now=job.now, age=age):
        async with job.store.begin() as conn:
            backup = await newest_backup(conn, job.database.name, verified=True)
        if backup is None:
            return None
        known = await _rehearsed_now(job, outlook, backup.id)
    if not known.ok:
        raise JobError(
            f"It fails on a copy of {job.database.name}: {known.problem}",
            next_step="Mend the file. Nothing was changed here.",
        )
    return known


async def _rehearsed_now(job: Job, outlook: Outlook, backup_id: str) -> RehearsalRow:
    """A rehearsal as a step of this run; its result is stored, good or bad."""

    async def body(_: Attempt) -> JsonValue:
        with explained():
            found = await rehearse(job, outlook.units, outlook.stood.book, backup_id=backup_id)
        return found.ok

    await job.step("rehearse", body, mode=Mode.RETRYABLE, time_limit=REHEARSAL_LIMIT)
    known = await rehearsal_of(job, outlook)
    if known is None:
        raise TypeError("a rehearsal is stored by its step")
    return known


async def _one(
    job: Job, outlook: Outlook, place: int, rehearsal: RehearsalRow | None
) -> Mapping[str, Any]:
    """One file: what would take it back is read first, then it is applied and entered."""
    before = await _look_before(job, outlook, place)
    unit = with_forms(outlook.units[place], before)
    kept = kept_of(before)
    if any(each.destroys for each in unit.review.statements):
        await _restore_point(job, unit)
    settings = outlook.stood.settings
    expected = (
        expected_of(rehearsal, unit.key, settings.slower_max, sizes_of(outlook))
        if rehearsal
        else None
    )

    async def body(_: Attempt) -> JsonValue:
        with explained():
            if kept:
                await prepare_aside(job.database)
            applied = await _applied(job, outlook, unit, expected)
            rows = await enter_kept(job, kept)
        await _entered(job, unit, applied, before.get(REVERSE))
        return _told(unit, applied, [row.kept for row in rows])

    # Retryable: an attempt looks first whether the book has it already. It is tried again in its
    # own way, where that helps; what fails there would fail again.
    done = await job.step(unit.key, body, mode=Mode.RETRYABLE, time_limit=FILE_LIMIT)
    return done if isinstance(done, dict) else {}


def sizes_of(outlook: Outlook) -> Mapping[str, int]:
    """Bytes of the tables that are touched, as they are now: what has grown may take longer."""
    return {
        touched.table: touched.size_bytes
        for review in outlook.reviews
        for each in review.statements
        for touched in each.touched
        if touched.size_bytes is not None
    }


async def _look_before(job: Job, outlook: Outlook, place: int) -> Mapping[str, Any]:
    """What only the catalog of before can tell: the way back, and what is kept under which name.

    Stored before anything is changed, for whoever goes on after a crash.
    """
    unit, aside = outlook.units[place], outlook.asides[place]
    wants_way = unit.direction is Direction.UP and unit.migration.down is None and not aside.kept

    async def body(_: Attempt) -> JsonValue:
        made: Sequence[str] = ()
        if wants_way:
            with explained():
                async with connection(parse_dsn(job.database.dsn.get_secret_value())) as conn:
                    facts = await read_reverse_facts(conn, unit.migration.up)
                made = reverse(unit.migration.up, facts).statements
        stored: dict[str, JsonValue] = {REVERSE: list(made)}
        return stored | forms_of(unit, aside.kept)

    found = await job.step(
        f"{unit.key} before", body, mode=Mode.RETRYABLE, time_limit=LOOK_LIMIT, attempts=ATTEMPTS
    )
    return found if isinstance(found, dict) else {}


async def _applied(job: Job, outlook: Outlook, unit: Unit, expected: Expected | None) -> Applied:
    settings = outlook.stood.settings
    limits = ApplyLimits(lock=settings.lock_timeout, tries=settings.lock_tries)

    async def tell(text: str, fraction: float | None = None) -> None:
        await job.report(f"{unit.migration.title}: {text}", fraction=fraction)

    try:
        return await apply_unit(
            parse_dsn(job.database.dsn.get_secret_value()),
            unit,
            book=outlook.stood.book,
            expected=expected,
            limits=limits,
            tell=tell,
        )
    except UnknownOutcomeError as error:
        raise AttentionError(error.problem, next_step=error.next_step) from error


async def _restore_point(job: Job, unit: Unit) -> None:
    """A name for the moment before, where our login may give one; its time is told anyway."""

    async def body(_: Attempt) -> JsonValue:
        with explained():
            async with connection(parse_dsn(job.database.dsn.get_secret_value())) as conn:
                made = await mark(conn, f"twokey-{job.request_id}")
        await job.report(
            f"Before {unit.migration.title}: {made.at:%Y-%m-%d %H:%M:%S.%f UTC}, LSN {made.lsn}."
            f" Back to it: /db restore {job.database.name} --to '{made.at:%Y-%m-%dT%H:%M:%S.%fZ}'"
        )
        return made.lsn

    await job.step(
        f"{unit.key} restore point", body, mode=Mode.RETRYABLE, time_limit=LOOK_LIMIT,
        attempts=ATTEMPTS,
    )  # fmt: skip


async def _entered(job: Job, unit: Unit, applied: Applied, way: JsonValue) -> None:
    """What the store keeps of it; entering it again changes nothing."""
    migration, name = unit.migration, job.database.name
    async with job.store.begin() as conn:
        if unit.direction is Direction.DOWN:
            await record_taken_back(
                conn, name, migration.version, request_id=job.request_id, at=job.now
            )
            return
        await record_applied(
            conn,
            AppliedRow(
                database=name,
                tool=str(migration.tool),
                version=migration.version,
                name=migration.name,
                sha256=migration.sha256,
                down_sha256=migration.down_sha256,
                request_id=job.request_id,
                applied_at=job.now,
                seconds=applied.seconds,
                detail={REVERSE: way if isinstance(way, list) else []},
            ),
        )


def _told(unit: Unit, applied: Applied, kept: Sequence[str]) -> dict[str, JsonValue]:
    """What the answer is made of, also after a crash."""
    statements = {each.index: each for each in unit.review.statements}
    return {
        "title": unit.migration.title,
        "seconds": applied.seconds,
        "kept": list(kept),
        "rows": [
            _row(statements[seen.index].sql, seen)
            for seen in applied.observations
            if seen.index in statements
        ],
    }


def _row(sql: str, seen: Observation) -> list[JsonValue]:
    text = " ".join(sql.split())
    lock = max(seen.locks.values(), default=Lock.NONE)
    return [
        text if len(text) <= _SQL_CHARS_MAX else f"{text[: _SQL_CHARS_MAX - 1]}…",
        lock.words.title() if lock else "-",
        span_text(timedelta(seconds=seen.seconds)),
    ]


def _undo(job: Job, outlook: Outlook) -> Mapping[str, Any]:
    """What takes it back; a way back itself is not taken back by a button."""
    if outlook.direction is Direction.DOWN:
        return {}
    first = outlook.migrations[0].version
    params = {"database": job.database.name, "action": "rollback", "version": first}
    return {"operation": "migrate", "params": params}


def _answer(
    job: Job,
    outlook: Outlook,
    done: Sequence[Mapping[str, Any]],
    *,
    is_watched: bool,
    drift: Sequence[str],
) -> Answer:
    seconds = sum(float(each.get("seconds", 0.0)) for each in done)
    verb = "applied" if outlook.direction is Direction.UP else "taken back"
    count = count_text(len(outlook.units), "migration")
    rows = [
        (str(each.get("title", "")), *(str(cell) for cell in row))
        for each in done
        for row in each.get("rows", ())
    ]
    kept = [str(name) for each in done for name in each.get("kept", ())]
    watch = span_text(outlook.stood.settings.watch)
    first = outlook.migrations[0].version if outlook.direction is Direction.UP else ""
    return Answer(
        title=f"{count} {verb} on {job.database.name}: {outlook.title}",
        lines=(
            f"Errors, slow statements, locks and lag are compared with before for {watch}."
            if is_watched
            else "Nobody watches what follows: there are no samples of this database.",
            *([_kept_text(job, kept)] if kept else []),
            *drift,
        ),
        facts=(
            ("Took", span_text(timedelta(seconds=seconds))),
            ("Book", f"{outlook.stood.book.table} says so, as {outlook.stood.folder.tool} does"),
        ),
        table=Table(
            columns=("Migration", "Statement", "Lock", "Took"), rows=tuple(rows[:_ROWS_MAX])
        )
        if rows
        else None,
        numbers={"first": first, "files": len(outlook.units), "seconds": round(seconds, 3)},
    )


def _kept_text(job: Job, kept: Sequence[str]) -> str:
    name, span = job.database.name, span_text(job.database.migrations.keep_aside)
    return f"Kept aside for {span}: {', '.join(kept)}. Back with /db restore-aside {name}"


def _with_what_stands(error: Exception, unit: Unit, done: Sequence[Mapping[str, Any]]) -> Exception:
    """The error of a file, with what of the others stands; others' errors stay as they are."""
    if not isinstance(error, JobError):
        return error
    before = ", ".join(str(each.get("title", "")) for each in done)
    stands = f" {before} stands." if before else ""
    return JobError(
        f"{unit.migration.title} ({unit.migration.path.name}): {error.problem}{stands}",
        next_step=error.next_step,
    )
