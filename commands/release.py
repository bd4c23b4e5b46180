"""`/db release orders <backup>`: end a hold, so that the backup may go when its time is over."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, timedelta
from typing import Final

from pydantic import BaseModel, Field, JsonValue

from jobs.keeping import judgement_of
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
)
from jobs.retention import Judged
from jobs.text import span_text
from postgres.sizes import pretty_bytes
from store.backups import BackupRecord, find_backup
from store.keeping import release_backup

LIMIT: Final = timedelta(minutes=1)
HELD_PIN: Final = "held since"


class Params(BaseModel, extra="forbid"):
    """Which backup."""

    database: str = Field(description="Database in the inventory", examples=["orders"])
    backup: str = Field(
        description="A backup's id, as /db backups lists it",
        examples=["orders-20261122T020000Z-17"],
        max_length=200,
    )


async def plan(context: Context, params: Params) -> Plan:
    """Who holds it, since when and why, and what becomes of it without the hold.

    Raises:
        JobError: there is no such backup, or nobody holds it.
    """
    backup, hold = await _held(context, params)
    then = await _without(context, backup)
    return Plan(
        title=f"Release backup {backup.id}",
        steps=("End the hold in the catalogue: the backup is kept as its tiers say, no longer",),
        facts=(
            ("Backup", f"{backup.id}, {span_text(context.now - backup.ended_at)} old"),
            ("Size", pretty_bytes(backup.size_bytes)),
            ("Held by", f"{hold.get('by')}: {hold.get('reason')}"),
            ("Then", _then(then)),
        ),
        warnings=() if then.kept else ("The next prune removes it.",),
        estimate_seconds=1,
        undo=f"/db hold {params.database} {backup.id} <reason>, until a prune has removed it",
        pins={"backup": backup.id, HELD_PIN: str(hold.get("at"))},
    )


async def pins(context: Context, params: Params, plan: Plan) -> Mapping[str, str]:
    """The very hold: another one of the same backup was not looked at."""
    del plan
    backup, hold = await _held(context, params)
    return {"backup": backup.id, HELD_PIN: str(hold.get("at"))}


async def run(job: Job, params: Params, plan: Plan) -> Answer:
    """End the hold that the plan names."""

    async def release(attempt: Attempt) -> JsonValue:
        del attempt
        async with job.store.begin() as conn:
            return await release_backup(
                conn,
                database=params.database,
                backup_id=params.backup,
                held_at=plan.pins[HELD_PIN],
                request_id=job.request_id,
            )

    done = await job.step("release", release, mode=Mode.RETRYABLE, time_limit=LIMIT)
    return Answer(
        title=f"{params.backup} is released" if done else f"{params.backup} was released already",
        lines=(f"It stays as long as its tiers say: /db backups {params.database}",),
        numbers={"backup": params.backup},
    )


async def _held(context: Context, params: Params) -> tuple[BackupRecord, Mapping[str, JsonValue]]:
    async with context.store.begin() as conn:
        backup = await find_backup(conn, params.database, params.backup)
    if backup is None or backup.hold is None:
        what = f"There is no backup {params.backup} of {params.database}."
        raise JobError(
            f"{backup.id} is not on hold." if backup else what,
            next_step=f"See which are: /db backups {params.database}",
        )
    return backup, backup.hold


async def _without(context: Context, backup: BackupRecord) -> Judged:
    """What the judgement would be without the hold."""
    async with context.store.begin() as conn:
        judgement = await judgement_of(conn, context.database, context.now, without=backup.id)
    return next(each for each in judgement.judged if each.backup.id == backup.id)


def _then(judged: Judged) -> str:
    until = f", until {judged.until.astimezone(UTC):%Y-%m-%d}" if judged.until else ""
    return f"{judged.why.rstrip('.')}{until}." if judged.kept else judged.why


OPERATION = Operation(
    name="release",
    summary="End the hold of a backup, so that it may go when its time is over",
    kind=Kind.CHANGE,
    risk=Risk.RECOVERABLE,
    params=Params,
    example="/db release orders orders-20261122T020000Z-17",
    plan=plan,
    run=run,
    pinned=frozenset(),  # only our catalogue changes
    pins=pins,
    is_routed=False,  # our store says it
)
