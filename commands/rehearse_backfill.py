"""`/db rehearse-backfill orders public.users "…"`: how fast a backfill is, found out on a copy.

The target is only read. What is found is stored: the plan of the same /db backfill goes by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Final

from pydantic import JsonValue

from jobs.backfill_params import BackfillParams
from jobs.backfill_trials import try_on_copy, work_bytes_of
from jobs.backfilling import Ask, Wanted, look
from jobs.index_run import explained
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
)
from jobs.rehearsing_choice import proven_backup
from jobs.rehearsing_source import source_of
from jobs.text import count_text, span_text
from postgres.migrate.backfill.trial import TRIAL_LIMIT

TIME_LIMIT: Final = timedelta(hours=24)


class Params(BackfillParams):
    """Which backfill: the same words as for the real one."""


async def plan(context: Context, params: Params) -> Plan:
    """Which backup, how proven, what it takes, and what will be tried on it.

    Raises:
        JobError: the backfill cannot be understood or done, or there is no proven backup.
    """
    wanted = await _look(context, params)
    source = await source_of(context)
    opaque = bool(wanted.resolved.opaque)
    limit = TRIAL_LIMIT.total_seconds()
    return Plan(
        title=f"Rehearse the backfill of {', '.join(wanted.terms.assigned)} of {wanted.text}",
        steps=(
            source.step,
            "Cut it off: foreign servers and subscriptions of the copy lead nowhere",
            (
                f"Do the backfill there, {wanted.ranges} side by side, in slices from all over the"
                f" table, for {span_text(TRIAL_LIMIT)} at most"
            ),
            "Remove the copy, whatever was found",
        ),
        statements=(f"{wanted.statement};",),
        facts=tuple(source.facts(context.now, work_bytes_of(wanted))),
        warnings=tuple(_warnings(wanted)),
        estimate_seconds=None if source.seconds is None else round(source.seconds + limit),
        undo="Production is not touched.",
        pins=_pins(source.backup.id, source.backup.manifest_sha256, wanted),
        attributes={"kind": "opaque" if opaque else "data", "rows": wanted.rows_to_change},
    )


async def pins(context: Context, params: Params, plan: Plan) -> Mapping[str, str]:
    """The backup that the plan names, and the statement."""
    backup = await proven_backup(context, plan.pins["backup"])
    return _pins(backup.id, backup.manifest_sha256, await _look(context, params))


async def run(job: Job, params: Params, plan: Plan) -> Answer:
    """Restore what the plan names, and try it there.

    Raises:
        JobError: the copy could not be made, the backfill cannot be done there, or it is not that
            of the plan.
    """

    async def body(_: Attempt) -> JsonValue:
        wanted = await _look(job, params)
        if wanted.subject != plan.pins["subject"]:
            raise JobError(
                f"{wanted.text} is not as it was when this was agreed to. Nothing was tried.",
                next_step="Ask for it again.",
            )
        with explained():
            tried = await try_on_copy(job, wanted, plan.pins["backup"])
        return {
            "rows": tried.trial.rows,
            "passed": tried.trial.passed,
            "updated": tried.trial.updated,
            "whole": "yes" if tried.trial.is_whole else "no",
            "seconds": round(tried.trial.seconds, 3),
            "per_second": round(tried.trial.per_second),
            "likely": round(tried.trial.seconds_for(wanted.around.rows), 3),
            "rows_now": wanted.around.rows,
            "source": tried.source,
            "backup": tried.backup_id,
        }

    # Retryable: what a dead attempt left stands in the run's folder and is removed first.
    done = await job.step("try", body, mode=Mode.RETRYABLE, time_limit=TIME_LIMIT)
    return _answer(params, done if isinstance(done, dict) else {})


async def _look(context: Context, params: Params) -> Wanted:
    ask = Ask(
        table=params.table,
        set_text=params.set,
        where_text=params.where,
        ranges=params.ranges or context.database.migrations.backfill.ranges,
    )
    with explained():
        return await look(context, ask)


def _pins(backup_id: str, manifest: str, wanted: Wanted) -> Mapping[str, str]:
    return {"backup": backup_id, "manifest": manifest, "subject": wanted.subject}


def _warnings(wanted: Wanted) -> Iterator[str]:
    if wanted.resolved.opaque or wanted.around.triggers:
        yield (
            "It runs code of the database's own, which may do on the copy whatever the bot's login"
            " may do on the database, files and programs of the worker's host included if it is a"
            " superuser."
        )


def _answer(params: Params, done: Mapping[str, JsonValue]) -> Answer:
    numbers = {name: value for name, value in done.items() if isinstance(value, int | float | str)}
    passed, rows = int(str(done["passed"])), int(str(done["rows"]))
    share = "all of them" if done["whole"] == "yes" else f"of about {rows:,}"
    seconds = timedelta(seconds=float(str(done["seconds"])))
    likely = timedelta(seconds=float(str(done["likely"])))
    facts = (
        ("Tried", f"{count_text(passed, 'row')}, {share}, in {span_text(seconds)}"),
        ("Pace", f"{done['per_second']:,} rows a second, as fast as the worker's machine is"),
        ("Expected", f"about {span_text(likely)} for the {done['rows_now']:,} rows of now"),
        ("Goes by", f"{done['source']} ({done['backup']})"),
    )
    if not passed:
        return Answer(
            title=f"{params.table} has no rows on the copy",
            lines=("That says nothing about how long the backfill takes.",),
            facts=(("Goes by", f"{done['source']} ({done['backup']})"),),
            numbers=numbers,
        )
    return Answer(
        title=f"The backfill of {params.table} should take about {span_text(likely)}",
        lines=("Without what it waits for: on the copy there is nobody else.",),
        facts=facts,
        suggestions=(_suggestion(params),),
        numbers=numbers,
    )


def _suggestion(params: Params) -> Suggestion:
    wanted = params.model_dump(mode="json", exclude_none=True)
    return Suggestion(text="Ask for it", operation="backfill", params=wanted)


OPERATION = Operation(
    name="rehearse-backfill",
    summary="Find out on a copy from a proven backup how long a backfill takes",
    kind=Kind.CHANGE,
    risk=Risk.NONE,
    params=Params,
    example=(
        "/db rehearse-backfill orders public.users \"first_name = split_part(name, ' ', 1)\""
        ' where="first_name IS NULL"'
    ),
    plan=plan,
    run=run,
    pinned=frozenset(),  # it works on a copy: what must hold are the backup and the statement
    pins=pins,
    time_limit=TIME_LIMIT,
    is_beside=True,
)
