"""`/db backfill orders public.users "first_name = split_part(name, ' ', 1)"`: rows, in batches.

Nothing that a person wrote gets into a statement as it was typed:
`postgres.migrate.backfill_terms` reads it with PostgreSQL's grammar and writes it anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Final

from pydantic import Field, JsonValue, field_validator

from approvals.times import duration
from jobs.backfill_keeping import (
    TIMES_AS_LONG,
    Keeping,
    agreed,
    enter,
    keeping_of,
    measured,
    measured_if_it_answers,
    sent,
    way_back,
    with_kept,
)
from jobs.backfill_params import BackfillParams
from jobs.backfill_words import (
    answer_of,
    facts_of,
    loses_nothing,
    short_text,
    warnings_of,
    with_watch,
)
from jobs.backfilling import (
    Ask,
    Earlier,
    Pace,
    Wanted,
    earlier,
    key_of,
    look,
    look_ahead,
    with_own_names,
)
from jobs.index_run import explained, free_bytes, telling
from jobs.migration_settings import BackfillSettings
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
    UndoCall,
)
from jobs.text import span_text
from jobs.watch_after import ATTEMPTS, LIMIT, picture_of, watch_after
from postgres.dsn import parse_dsn
from postgres.errors import PostgresError
from postgres.migrate.backfill.engine import run_backfill
from postgres.migrate.backfill.spec import BackfillLimits
from postgres.sizes import pretty_bytes

TIME_LIMIT_MAX: Final = timedelta(days=7)
# The engine's limit counts the work alone, without its pauses. Together they end here: what is
# done by then stays done, and another request goes on with it.
RUN_LIMIT: Final = timedelta(days=14)
_LEDGER: Final = "ledger"  # the pin that tells backfills of one request number apart
_KEPT: Final = "kept"  # the pin of where old values are kept
KEEP_MAX: Final = timedelta(days=366)
# The grammar, the catalog and the planner are asked: on a busy server more than a glance.
PATIENCE: Final = timedelta(seconds=20)


class Params(BackfillParams):
    """Which rows get what, and how fast."""

    rows: int | None = Field(
        default=None, ge=100, le=1_000_000, description="Rows of the first batch"
    )
    batch_ms: int | None = Field(
        default=None,
        ge=5,
        le=10_000,
        description="Milliseconds that a batch should take: nobody waits longer for a row",
    )
    time_limit: str = Field(
        default="",
        max_length=20,
        description="How long it may work, without its pauses",
        examples=["1h", "90m"],
    )
    lag_max: str = Field(
        default="",
        max_length=20,
        description="It waits while a replica is further behind than this",
        examples=["5s"],
    )
    keep: str = Field(
        default="",
        max_length=20,
        description="Keep the old values so long, so that they can be put back; empty: not at all",
        examples=["7d"],
    )
    resume: int | None = Field(
        default=None,
        ge=1,
        le=10**15,
        description="Number of an earlier request of the same backfill, to go on with it",
    )

    @field_validator("time_limit", "lag_max")
    @classmethod
    def _a_span(cls, value: str) -> str:
        if value and not timedelta() < duration(value) <= TIME_LIMIT_MAX:
            raise ValueError(
                f"write a time of more than nothing and at most {TIME_LIMIT_MAX.days}d"
            )
        return value

    @field_validator("keep")
    @classmethod
    def _a_long_span(cls, value: str) -> str:
        if value and not timedelta() < duration(value) <= KEEP_MAX:
            raise ValueError(f"write a time of more than nothing and at most {KEEP_MAX.days}d")
        return value

    @property
    def keep_span(self) -> timedelta | None:
        """How long old values are to be kept; None: nobody has asked for it."""
        return duration(self.keep) if self.keep else None


async def plan(context: Context, params: Params) -> Plan:
    """Read what was typed, look at the table, and say what it takes and what cannot be undone.

    Raises:
        JobError: it cannot be understood, or cannot be done.
    """
    settings = context.database.migrations.backfill
    limits = limits_of(settings, params)
    with explained():
        wanted, expected = await look_ahead(context, _asked(params, settings))
        before = None if params.resume is None else await earlier(context, wanted, params.resume)
    keeping = await keeping_of(context, wanted, span=params.keep_span, before=before)
    share = before.share_left if before else 1.0
    expected = expected.of(share * TIMES_AS_LONG if keeping else share)
    free = await free_bytes(context)
    grows = wanted.bloat_bytes + (keeping.bytes if keeping else 0)
    if free is not None and grows > free:
        raise JobError(
            f"The table{' and what is kept' if keeping else ''} may grow by about"
            f" {pretty_bytes(grows)}, and {pretty_bytes(free)} are free.",
            next_step="Make room first, or take parts of the table, one where after the other.",
        )
    return Plan(
        title=f"Backfill {', '.join(wanted.terms.assigned)} of {wanted.text}",
        steps=_steps(wanted, limits, before, keeping),
        statements=(f"{sent(wanted, keeping)};",),
        facts=tuple(facts_of(wanted, limits, expected, before, free, keeping)),
        warnings=tuple(warnings_of(wanted, before, free, keeping)),
        estimate_seconds=round(expected.high_seconds),
        undo=f"/db restore-aside {params.database} {keeping.name}, for"
        f" {span_text(keeping.span)}: where a row still holds what this wrote" if keeping else None,
        pins={
            **wanted.pins,
            _LEDGER: before.key if before else f"{context.now:%Y%m%dT%H%M%S}",
            **({_KEPT: keeping.name} if keeping else {}),
        },
        attributes={
            "kind": "opaque" if wanted.resolved.opaque else "data",
            "rows": wanted.rows_to_change,
            "rehearsed": "yes" if expected.is_measured else "no",
            "seconds": max(round(expected.likely_seconds), 1),
        },
        risk=Risk.RECOVERABLE if loses_nothing(wanted, keeping) else Risk.DESTRUCTIVE,
    )  # fmt: skip


async def pins(context: Context, params: Params, plan: Plan) -> Mapping[str, str]:
    """The table, its key and the columns as they are now."""
    with explained():
        wanted = await look(context, _asked(params, context.database.migrations.backfill))
    ours = {name: plan.pins[name] for name in (_LEDGER, _KEPT) if name in plan.pins}
    return {**wanted.pins, **ours}


async def run(job: Job, params: Params, plan: Plan) -> Answer:
    """Change the rows; what a failed or stopped run has done stays done, and can go on."""
    with explained():
        wanted = await look(job, _asked(params, job.database.migrations.backfill))
    keeping = agreed(job, plan.pins.get(_KEPT), span=params.keep_span)
    if sent(wanted, keeping) != plan.statements[0].removesuffix(";"):
        raise JobError(
            f"{wanted.text} is not as it was when this was agreed to.",
            next_step="Ask for it again, and look at what has changed.",
        )
    ledger = plan.pins[_LEDGER]
    key = ledger if params.resume else f"{key_of(job.request_id)}-{ledger}"

    async def begin(_: Attempt) -> JsonValue:
        # Known before the first batch: whatever becomes of the run, it can be put back.
        if keeping is not None:
            await enter(job, wanted, keeping, key)
        return dict(await picture_of(job))

    async def change(_: Attempt) -> JsonValue:
        return await _changed(job, params, wanted, keeping, key)

    picture = await job.step(
        "look", begin, mode=Mode.RETRYABLE, time_limit=LIMIT, attempts=ATTEMPTS
    )
    # Where it stands is in the target's ledger, which commits with each batch.
    done = await job.step("change", change, mode=Mode.RESUMABLE, time_limit=RUN_LIMIT)
    answer = answer_of(wanted, done if isinstance(done, dict) else {}, plan)
    if keeping is not None:
        answer = with_kept(answer, keeping, await measured(job, wanted, keeping, key, answer))
    back = way_back(params.database, keeping.name) if keeping else {}
    watched = await watch_after(job, f"backfill of {wanted.text}", before=picture, undo=back)
    return with_watch(answer, job.database.migrations.watch, is_watched=watched)


async def _changed(
    job: Job, params: Params, wanted: Wanted, keeping: Keeping | None, key: str
) -> JsonValue:
    """What came of the batches, for the answer."""
    target = with_own_names(parse_dsn(job.database.dsn.get_secret_value()))
    spec = keeping.of(wanted.spec(key)) if keeping else wanted.spec(key)
    limits = limits_of(job.database.migrations.backfill, params)
    pace = Pace()
    try:
        done = await run_backfill(
            target, spec, control=job, tell=telling(job), limits=limits,
            replicas=[parse_dsn(each.dsn.get_secret_value()) for each in job.database.replicas],
            on_batch=pace.did,
        )  # fmt: skip
    except PostgresError as error:
        if keeping is not None:
            await measured_if_it_answers(job, wanted, keeping, key)
        kept = (
            f" Until then /db restore-aside {params.database} {keeping.name} puts back what it"
            " has overwritten." if keeping else ""
        )  # fmt: skip
        raise JobError(
            error.problem,
            next_step=f"{error.next_step} Add resume={params.resume or job.request_id} then.{kept}",
        ) from error
    return {
        "rows": done.rows,
        "passed": done.passed,
        "passed_here": pace.passed,
        "batches": done.batches,
        "seconds": round(done.seconds, 3),
        "throttled_seconds": round(done.throttled_seconds, 3),
        "spared_seconds": round(done.spared_seconds, 3),
        "paused_seconds": round(done.paused_seconds, 3),
        "waited": {str(cause): round(seconds, 3) for cause, seconds in done.waited.items()},
        "retries": done.retries,
        "vacuums": done.vacuums,
        "rows_left": done.rows_left,
        "left_is_more": done.left_is_more,
        "notes": list(done.notes),
    }


def undo(params: Params, numbers: Mapping[str, JsonValue]) -> UndoCall | None:
    """Put the old values back, where they were kept and there are any."""
    name, seconds = numbers.get("kept"), numbers.get("kept_seconds")
    if not (isinstance(name, str) and isinstance(seconds, int | float) and numbers.get("rows")):
        return None
    call: Mapping[str, JsonValue] = way_back(params.database, name)["params"]
    return UndoCall(operation="restore-aside", params=call, within=timedelta(seconds=seconds))


def limits_of(settings: BackfillSettings, params: Params) -> BackfillLimits:
    """How fast, and what makes it wait: what was asked for, else what the inventory says."""
    return BackfillLimits(
        rows=params.rows or settings.rows,
        batch=timedelta(milliseconds=params.batch_ms) if params.batch_ms else settings.batch,
        retries=settings.retries,
        time_limit=duration(params.time_limit) if params.time_limit else settings.time_limit,
        lag_max=duration(params.lag_max) if params.lag_max else settings.lag_max,
        lag_bytes_max=settings.lag_bytes_max,
        wal_max=settings.wal_max,
        dead_max=settings.dead_max,
        slower_max=settings.slower_max,
        waiters_max=settings.waiters_max,
        unwatched=frozenset(settings.unwatched),
    )


def _asked(params: Params, settings: BackfillSettings) -> Ask:
    return Ask(
        table=params.table,
        set_text=params.set,
        where_text=params.where,
        ranges=params.ranges or settings.ranges,
    )


def _steps(
    wanted: Wanted, limits: BackfillLimits, before: Earlier | None, keeping: Keeping | None
) -> tuple[str, ...]:
    key = ", ".join(wanted.table.key.names)
    begin = (
        f"Go on where request {before.request_id} stopped, by twokey_migrate.backfills"
        if before
        else f"Cut the table into parts by {key}, and write them into twokey_migrate.backfills"
    )
    return (
        begin,
        (
            f"Change the rows batch by batch along {key}, {wanted.ranges} side by side; each"
            " commits with its place in the ledger: a crash leaves no row out and does none twice"
        ),
        *_kept_steps(keeping),
        (
            f"Begin with {limits.rows:,} rows, then batches of {short_text(limits.batch)}; stop"
            f" after {span_text(limits.time_limit)} of work, and leave what is done"
        ),
        "Do the rows that were inserted behind the end meanwhile, and count what still matches",
    )


def _kept_steps(keeping: Keeping | None) -> Iterator[str]:
    if keeping is not None:
        yield (
            f"Keep the old values with their key in {keeping.place}, in the very statement that"
            " overwrites them"
        )


OPERATION = Operation(
    name="backfill",
    summary="Change rows in small batches while the table stays in use",
    kind=Kind.CHANGE,
    risk=Risk.DESTRUCTIVE,
    params=Params,
    example=(
        "/db backfill orders public.users \"first_name = split_part(name, ' ', 1)\""
        ' where="first_name IS NULL"'
    ),
    plan=plan,
    run=run,
    pins=pins,
    time_limit=RUN_LIMIT,
    lesser_risks=frozenset({Risk.RECOVERABLE}),
    is_pausable=True,
    undo=undo,
    patience=PATIENCE,
)
