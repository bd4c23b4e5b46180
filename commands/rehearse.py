"""`/db rehearse orders`: the pending migrations on a copy from a proven backup, and back again.

The target is only read. What is found is stored: the checklist of /db migrate goes by it, and its
run stops where it would do more than was rehearsed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Final

from pydantic import BaseModel, Field, JsonValue

from jobs.migrating import Outlook, look, refuse_errors
from jobs.operation import (
    Answer,
    Attempt,
    Context,
    Job,
    JobError,
    Kind,
    Mode,
    Operation,
    Plan,
    Risk,
    Suggestion,
    Table,
)
from jobs.rehearsals import (
    COLUMNS,
    READS,
    WRITES,
    Rehearsal,
    blocked,
    facts_for_people,
    from_json,
    rows_for_people,
    to_json,
)
from jobs.rehearsing import rehearse
from jobs.rehearsing_choice import proven_backup, work_of
from jobs.rehearsing_source import source_of
from jobs.text import count_text, span_text
from postgres.errors import PostgresError
from postgres.migrate.words import Direction, StatementKind
from store.backups import BackupRecord

TIME_LIMIT: Final = timedelta(hours=24)
_ROWS_MAX: Final = 60


class Params(BaseModel, extra="forbid"):
    """Which database, and how far."""

    database: str = Field(description="Database in the inventory", examples=["orders"])
    version: str = Field(
        default="",
        max_length=200,
        description="Up to this one; left out, all that are pending",
        examples=["0042"],
    )


async def plan(context: Context, params: Params) -> Plan:
    """Which backup, how old and how proven, what it takes, and what will be tried on it.

    Raises:
        JobError: there is nothing to rehearse, no proven backup, or a file that no run may run.
    """
    outlook = await _look(context, params)
    refuse_errors(outlook)
    source = await source_of(context)
    units = count_text(len(outlook.units), "migration")
    return Plan(
        title=f"Rehearse {units} of {params.database}: {outlook.title}",
        steps=(
            source.step,
            "Cut it off: foreign servers and subscriptions of the copy lead nowhere",
            *(f"Apply {unit.title}, and see its locks and its work" for unit in outlook.units),
            "Take everything back, compare definitions and contents with before, apply it again",
            "Remove the copy, whatever was found",
        ),
        facts=tuple(source.facts(context.now, work_of(outlook.reviews))),
        warnings=tuple(_warnings(outlook)),
        estimate_seconds=_estimate(outlook, source.seconds),
        undo="Production is not touched.",
        pins=_pins(source.backup, outlook),
        attributes={"kind": str(_kind(outlook)), "files": len(outlook.units)},
    )


async def pins(context: Context, params: Params, plan: Plan) -> Mapping[str, str]:
    """The backup that the plan names, and the bytes of the files."""
    backup = await proven_backup(context, plan.pins["backup"])
    return _pins(backup, await _look(context, params))


async def run(job: Job, params: Params, plan: Plan) -> Answer:
    """Rehearse what the plan names; a file that fails is an answer too.

    Raises:
        JobError: the copy could not be made, or the files are not those of the plan.
    """

    async def body(_: Attempt) -> JsonValue:
        outlook = await _look(job, params)
        if outlook.subject != plan.pins["files"]:
            raise JobError(
                "The migrations are no longer those of the plan. Nothing was tried.",
                next_step=f"Ask again: /db rehearse {params.database}",
            )
        try:
            found = await rehearse(
                job, outlook.units, outlook.stood.book, backup_id=plan.pins["backup"]
            )
        except PostgresError as error:
            raise JobError(error.problem, next_step=error.next_step) from error
        sizes: dict[str, JsonValue] = {
            name: table.size_bytes for name, table in outlook.facts.tables.items()
        }
        return {"found": to_json(found), "sizes": sizes}

    # Retryable: what a dead attempt left stands in the run's folder and is removed first.
    done = await job.step("rehearse", body, mode=Mode.RETRYABLE, time_limit=TIME_LIMIT)
    return _answer(params, done if isinstance(done, dict) else {})


async def _look(context: Context, params: Params) -> Outlook:
    return await look(context, version=params.version, direction=Direction.UP)


def _kind(outlook: Outlook) -> StatementKind:
    kinds = [review.kind for review in outlook.reviews]
    return max(kinds, key=lambda kind: kind.rank, default=StatementKind.ADDITIVE)


def _warnings(outlook: Outlook) -> Iterator[str]:
    if _kind(outlook) is StatementKind.OPAQUE:
        yield (
            "Some statements run code that nobody can read beforehand: on the copy they may do"
            " whatever the bot's login may do on the database, files and programs of the worker's"
            " host included if it is a superuser."
        )


def _estimate(outlook: Outlook, restore: float | None) -> int | None:
    highs = [each.high_seconds for review in outlook.reviews for each in review.statements]
    if restore is None or any(high is None for high in highs):
        return None
    # Up, back, and up again.
    return max(1, round(restore + 3 * sum(high or 0.0 for high in highs)))


def _pins(backup: BackupRecord, outlook: Outlook) -> Mapping[str, str]:
    return {"backup": backup.id, "manifest": backup.manifest_sha256, "files": outlook.subject}


def _answer(params: Params, done: Mapping[str, JsonValue]) -> Answer:
    detail, told = done.get("found"), done.get("sizes")
    if not isinstance(detail, dict) or not isinstance(told, dict):
        raise JobError(
            "What the rehearsal found cannot be read.",
            next_step=f"Rehearse again: /db rehearse {params.database}",
        )
    found = from_json(detail)
    sizes = {name: int(str(size)) for name, size in told.items()}
    rows = rows_for_people(found)
    more = len(rows) - _ROWS_MAX
    return Answer(
        title=_title(params, found),
        lines=tuple(_lines(params, found, more)),
        facts=facts_for_people(found, sizes),
        table=Table(columns=COLUMNS, rows=rows[:_ROWS_MAX]) if rows else None,
        suggestions=_suggestions(params) if found.ok else (),
        numbers={
            "ok": "yes" if found.ok else "no",
            "backup": found.copy.backup_id,
            "seconds": found.seconds,
            "wal_bytes": found.wal_bytes,
            "reads_blocked_seconds": round(blocked(found, READS).seconds, 3),
            "writes_blocked_seconds": round(blocked(found, WRITES).seconds, 3),
            "way_back": str(found.way_back.outcome),
            "restore_seconds": found.copy.restore_seconds,
        },
    )


def _title(params: Params, found: Rehearsal) -> str:
    if failed := found.failed:
        return f"{failed.title} FAILS on a copy of {params.database}"
    count = count_text(len(found.units), "migration")
    return f"{count} of {params.database} rehearsed: applied in {_seconds(found)}"


def _seconds(found: Rehearsal) -> str:
    return span_text(timedelta(seconds=found.seconds))


def _lines(params: Params, found: Rehearsal, more: int) -> Iterator[str]:
    if failed := found.failed:
        where = f"Line {failed.line}" if failed.line else "It"
        yield f"{where} of {failed.title} fails: {failed.problem}"
        yield failed.next_step
        yield (
            f"/db migrate {params.database} refuses these very files until they are mended and"
            " rehearsed again."
        )
    if more > 0:
        yield f"{count_text(more, 'statement')} more are not shown."


def _suggestions(params: Params) -> tuple[Suggestion, ...]:
    wanted: Mapping[str, JsonValue] = {
        "database": params.database,
        "action": "apply",
        "version": params.version,
    }
    return (Suggestion(text="Ask for it", operation="migrate", params=wanted),)


OPERATION = Operation(
    name="rehearse",
    summary="Try the pending migrations on a copy from a proven backup",
    kind=Kind.CHANGE,
    risk=Risk.NONE,
    params=Params,
    example="/db rehearse orders",
    plan=plan,
    run=run,
    pinned=frozenset(),  # it works on a copy: what must hold are the backup and the files
    pins=pins,
    time_limit=TIME_LIMIT,
    is_beside=True,
)
