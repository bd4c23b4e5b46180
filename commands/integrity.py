"""`/db integrity orders`: can what is stored be believed? Indexes, tables, references."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, Literal

import asyncpg
from pydantic import BaseModel, Field, JsonValue, TypeAdapter

from jobs.operation import (
    TARGET_PINS,
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
    Table,
)
from jobs.text import count_text
from postgres.health.integrity import (
    ABILITIES,
    HEAP_CHECK_SINCE,
    Check,
    CheckKind,
    Outcome,
    Result,
    carry_out,
    index_checks,
    reference_checks,
    table_checks,
)
from postgres.sizes import pretty_bytes

LOOK_LIMIT: Final = timedelta(seconds=30)
CHECK_LIMIT: Final = timedelta(hours=1)
TIME_LIMIT: Final = timedelta(hours=24)
LOCK_MS: Final = "2000"
BYTES_PER_SECOND: Final = 200_000_000  # read and compared; the estimate says "about"
SAVE_EVERY: Final = 20
_FOUND_MAX: Final = 100
_SHOWN_MAX: Final = 40
_CUT: Final = (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, OSError)


class Params(BaseModel, extra="forbid"):
    """What to check, and how deep."""

    database: str = Field(description="Database in the inventory", examples=["orders"])
    depth: Literal["quick", "deep"] = Field(
        default="quick",
        description="quick: the structure of every B-tree. deep: also that each row is in its"
        " indexes, every page of the tables, and every reference",
    )
    table: str = Field(
        default="", description="Only this table, with its schema", examples=["public.orders"]
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Something that is broken, or that could not be checked."""

    kind: CheckKind
    name: str
    outcome: Outcome
    says: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a run is: the position among the checks, and what was found so far."""

    done: int = 0
    sound: dict[str, int] = field(default_factory=dict)
    found: list[Found] = field(default_factory=list)
    unlisted: int = 0


_PROGRESS: Final = TypeAdapter(Progress)


async def plan(context: Context, params: Params) -> Plan:
    """What will be read, and what cannot be checked here.

    Raises:
        JobError: there is no such table, or nothing can be checked.
    """
    async with context.reader.session(limit=LOOK_LIMIT) as session:
        await _known(session, params)
        able = (await session.fetch(ABILITIES))[0]
        checks = await _listed(session, able, params)
    if not checks:
        raise JobError(
            f"There is nothing to check: {_lacking(able) or 'no index, table or reference'}.",
            next_step=_remedy(able) or "Name another table, or none.",
        )
    total = sum(check.bytes for check in checks)
    counts = Counter(check.kind for check in checks)
    return Plan(
        title=f"Check the integrity of {params.table or params.database} ({params.depth})",
        steps=tuple(
            f"{count_text(counts[kind], _WORDS[kind][0], _WORDS[kind][1])}: {_WORDS[kind][2]}"
            for kind in CheckKind
            if counts[kind]
        ),
        facts=(
            ("Reads", f"about {pretty_bytes(total)}"),
            ("Blocks", "nobody: it takes the locks of a SELECT, and gives way to others"),
            ("Checksums", _checksums(able)),
            ("Invalid indexes", str(able["invalid_indexes"])),
        ),
        warnings=tuple(_warnings(able, params)),
        estimate_seconds=max(1, total // BYTES_PER_SECOND),
        undo="Nothing is changed.",
    )


async def run(job: Job, params: Params, plan: Plan) -> Answer:
    """One check after the other; a crash goes on behind the last that was saved."""
    del plan

    async def check_all(attempt: Attempt) -> JsonValue:
        settings = {"lock_timeout": LOCK_MS}
        async with job.reader.session(limit=LOOK_LIMIT) as session:
            able = (await session.fetch(ABILITIES))[0]
            checks = await _listed(session, able, params)
        progress = _PROGRESS.validate_python(attempt.checkpoint or {})
        async with job.reader.session(limit=CHECK_LIMIT, settings=settings) as session:
            for check in checks[progress.done :]:
                progress = _with(progress, check, await _checked(session, check))
                if progress.done % SAVE_EVERY == 0:
                    await attempt.save(_PROGRESS.dump_python(progress, mode="json"))
                await _report(job, progress, checks)
        return _PROGRESS.dump_python(progress, mode="json")  # type: ignore[no-any-return]

    done = await job.step(
        "check", check_all, mode=Mode.RESUMABLE, time_limit=TIME_LIMIT, attempts=3
    )
    able = (await job.reader.rows(ABILITIES))[0]
    return _answer(params, _PROGRESS.validate_python(done), able)


async def _known(session: Any, params: Params) -> None:
    if not params.table:
        return
    (row,) = await session.fetch(
        """
        SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                        WHERE format('%I.%I', n.nspname, c.relname) = $1
                          AND c.relkind IN ('r', 'm', 'p')) AS is_there
        """,
        params.table,
    )
    if not row["is_there"]:
        raise JobError(
            f"There is no table {params.table} in {params.database}.",
            next_step='Name it with its schema, quoted where psql quotes it: public."Users".',
        )


async def _listed(session: Any, able: Any, params: Params) -> list[Check]:
    """Every check in a fixed order: cheap ones first, so that much is known early."""
    is_deep, table = params.depth == "deep", params.table
    checks: list[Check] = []
    if able["amcheck"] and able["may_check"]:
        schema = able["amcheck"]
        checks += await index_checks(session, schema=schema, table=table, is_deep=is_deep)
        if is_deep and able["version"] >= HEAP_CHECK_SINCE:
            checks += await table_checks(session, schema=schema, table=table)
    if is_deep:
        checks += await reference_checks(session, table=table)
    return checks


async def _checked(session: Any, check: Check) -> Result:
    try:
        return await carry_out(session, check)
    except _CUT as error:
        raise JobError(
            f"The server went away while {check.name} was checked: {error}.",
            next_step="It goes on from the last check that was saved. If it happens there again,"
            " look at the server's log: a broken page can crash it.",
        ) from error


def _with(progress: Progress, check: Check, result: Result) -> Progress:
    """One check further; of what is found only so much is kept in words."""
    if result.outcome is Outcome.SOUND:
        sound = {**progress.sound, str(check.kind): progress.sound.get(str(check.kind), 0) + 1}
        return Progress(
            done=progress.done + 1, sound=sound, found=progress.found, unlisted=progress.unlisted
        )
    found = Found(kind=check.kind, name=check.name, outcome=result.outcome, says=result.says[:500])
    is_kept = len(progress.found) < _FOUND_MAX
    return Progress(
        done=progress.done + 1,
        sound=progress.sound,
        found=[*progress.found, found] if is_kept else progress.found,
        unlisted=progress.unlisted + (not is_kept),
    )


async def _report(job: Job, progress: Progress, checks: Sequence[Check]) -> None:
    total = sum(check.bytes for check in checks)
    read = sum(check.bytes for check in checks[: progress.done])
    await job.report(
        f"{progress.done} of {count_text(len(checks), 'check')}, {_broken_text(progress)}",
        fraction=read / total if total else progress.done / len(checks),
    )


def _broken_text(progress: Progress) -> str:
    broken = sum(each.outcome is Outcome.BROKEN for each in progress.found)
    return f"{count_text(broken, 'problem')} so far" if broken else "all sound so far"


def _answer(params: Params, progress: Progress, able: Any) -> Answer:
    broken = [each for each in progress.found if each.outcome is Outcome.BROKEN]
    skipped = len(progress.found) - len(broken) + progress.unlisted
    failures = able["checksum_failures"]
    count = len(broken) + (1 if failures else 0)
    sound = ", ".join(
        count_text(progress.sound[kind], _WORDS[kind][0], _WORDS[kind][1])
        for kind in CheckKind
        if progress.sound.get(kind)
    )
    lines = [f"Sound: {sound or 'nothing'}. Checksums: {_checksums(able)}."]
    if skipped:
        lines.append(f"{count_text(skipped, 'check')} could not be made; they are in the list.")
    return Answer(
        title=f"Integrity of {params.table or params.database}:"
        f" {count_text(count, 'problem') if count else 'sound'}",
        lines=(*lines, *_next_steps(params, broken, is_failing=failures > 0)),
        table=Table(
            columns=("What", "Name", "Outcome", "Says"),
            rows=tuple(
                (str(each.kind), each.name, str(each.outcome), each.says)
                for each in sorted(progress.found, key=lambda one: one.outcome is Outcome.SKIPPED)
            )[:_SHOWN_MAX],
        )
        if progress.found
        else None,
        numbers={"checks": progress.done, "problems": count, "skipped": skipped},
    )


def _next_steps(params: Params, broken: Sequence[Found], *, is_failing: bool) -> list[str]:
    kinds = {each.kind for each in broken} | ({CheckKind.TABLE} if is_failing else set())
    return [_REMEDIES[kind].format(name=params.database) for kind in CheckKind if kind in kinds]


def _checksums(able: Any) -> str:
    failures = able["checksum_failures"]
    if not able["has_checksums"]:
        return "off: a page that the disk has damaged is not noticed"
    return f"on, {count_text(failures, 'failure')} since the statistics began"


def _warnings(able: Any, params: Params) -> list[str]:
    said = [f"{_lacking(able)}. {_remedy(able)}"] if _lacking(able) else []
    if params.depth == "deep" and able["version"] < HEAP_CHECK_SINCE:
        said.append("PostgreSQL 13 cannot check tables, only indexes and references.")
    if params.depth == "deep":
        said.append("It reads everything once: at busy hours that competes with other readers.")
    return said


def _lacking(able: Any) -> str:
    if not able["amcheck"]:
        return "The extension amcheck is not there, so neither indexes nor tables are checked"
    if not able["may_check"]:
        return "Our user may not run amcheck, so neither indexes nor tables are checked"
    return ""


def _remedy(able: Any) -> str:
    if not able["amcheck"]:
        return "As a superuser in that database: CREATE EXTENSION amcheck."
    if not able["may_check"]:
        return (
            "As a superuser: GRANT EXECUTE ON FUNCTION bt_index_check(regclass, boolean) TO …, and"
            " verify_heapam likewise."
        )
    return ""


_WORDS: Final = {
    CheckKind.INDEX: ("B-tree", "B-trees", "order, links and, when deep, that no row is missing"),
    CheckKind.TABLE: ("table", "tables", "every page and every row's visibility"),
    CheckKind.REFERENCE: ("reference", "references", "no row refers to one that is not there"),
}
_REMEDIES: Final = {
    CheckKind.INDEX: "A broken index answers wrongly: REINDEX INDEX CONCURRENTLY builds it anew."
    " Was the system's collation changed by an upgrade?",
    CheckKind.TABLE: "A broken page: do not write to that table. Keep the newest good backup"
    " (/db backups {name}, /db hold), find the disk or memory that fails, and bring the table back"
    " from a copy: /db restore {name} --into scratch.",
    CheckKind.REFERENCE: "Rows that refer to nothing: decide whether they go or their parents come"
    " back, then validate the constraint: /db constraints {name}.",
}

OPERATION = Operation(
    name="integrity",
    summary="Check that indexes, tables and references can be believed",
    kind=Kind.CHANGE,
    risk=Risk.NONE,
    params=Params,
    example="/db integrity orders deep",
    plan=plan,
    run=run,
    pinned=TARGET_PINS,
    time_limit=TIME_LIMIT,
)
