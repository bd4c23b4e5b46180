"""`/db hold orders <backup> "<reason>"`: keep a backup, however old it gets."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from pydantic import BaseModel, Field, JsonValue

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
from postgres.sizes import pretty_bytes
from store.backups import BackupRecord, find_backup
from store.keeping import hold_backup

LIMIT: Final = timedelta(minutes=1)
UNDO_WITHIN: Final = timedelta(days=1)
_HOLDABLE: Final = frozenset({"complete", "damaged", "lost"})


class Params(BaseModel, extra="forbid"):
    """Which backup, and why."""

    database: str = Field(description="Database in the inventory", examples=["orders"])
    backup: str = Field(
        description="A backup's id, as /db backups lists it",
        examples=["orders-20261122T020000Z-17"],
        max_length=200,
    )
    reason: str = Field(
        description="Why it must stay",
        examples=["the auditors look at November"],
        min_length=3,
        max_length=500,
    )


async def plan(context: Context, params: Params) -> Plan:
    """The backup, and that nothing removes it from then on.

    Raises:
        JobError: there is no such backup, it is going, or it is on hold already.
    """
    backup = await _found(context, params)
    if backup.hold is not None:
        raise JobError(
            f"{backup.id} is on hold already, by {backup.hold.get('by')}:"
            f" {backup.hold.get('reason')}",
            next_step=f"End that hold first: /db release {params.database} {backup.id}",
        )
    return Plan(
        title=f"Keep backup {backup.id} until somebody releases it",
        steps=("Enter the hold into the catalogue: no prune removes the backup, whatever its age",),
        facts=(
            ("Backup", f"{backup.id}, {span_text(context.now - backup.ended_at)} old"),
            ("Kind", backup.kind),
            ("Size", pretty_bytes(backup.size_bytes)),
            ("Why", params.reason),
        ),
        warnings=tuple(_warnings(backup)),
        estimate_seconds=1,
        undo=f"/db release {params.database} {backup.id}",
        pins={"backup": backup.id},
    )


async def pins(context: Context, params: Params, plan: Plan) -> Mapping[str, str]:
    """The backup, if it is still there."""
    del plan
    return {"backup": (await _found(context, params)).id}


async def run(job: Job, params: Params, plan: Plan) -> Answer:
    """Set the hold, unless the backup is going by now."""
    del plan

    async def hold(attempt: Attempt) -> JsonValue:
        del attempt
        async with job.store.begin() as conn:
            held = await hold_backup(
                conn,
                database=params.database,
                backup_id=params.backup,
                reason=params.reason,
                at=job.now,
                request_id=job.request_id,
            )
        return None if held is None else dict(held)

    held = await job.step("hold", hold, mode=Mode.RETRYABLE, time_limit=LIMIT)
    if not isinstance(held, dict):
        raise JobError(
            f"{params.backup} could not be put on hold: it is being removed, is gone, or somebody"
            " else put it on hold.",
            next_step=f"See what is there: /db backups {params.database}",
        )
    ends = f"/db release {params.database} {params.backup}"
    return Answer(
        title=f"{params.backup} is on hold",
        lines=(f"No prune removes it, nor what it builds on. Release it when it may go: {ends}",),
        facts=(("By", str(held.get("by"))), ("Why", params.reason)),
        numbers={"backup": params.backup},
    )


async def _found(context: Context, params: Params) -> BackupRecord:
    async with context.store.begin() as conn:
        backup = await find_backup(conn, params.database, params.backup)
    if backup is None or backup.state not in _HOLDABLE:
        what = "is being removed" if backup and backup.state == "removing" else "is not there"
        raise JobError(
            f"The backup {params.backup} of {params.database} {what}.",
            next_step=f"Choose another one: /db backups {params.database}",
        )
    return backup


def _warnings(backup: BackupRecord) -> list[str]:
    match backup.state:
        case "damaged":
            return ["It was found damaged: hold one that can be restored."]
        case "lost":
            return ["Its files are not where they should be: a hold does not bring them back."]
        case _:
            return []


def _undo(params: Params, numbers: Mapping[str, JsonValue]) -> UndoCall:
    del numbers
    call = {"database": params.database, "backup": params.backup}
    return UndoCall(operation="release", params=dict(call), within=UNDO_WITHIN)


OPERATION = Operation(
    name="hold",
    summary="Keep a backup, however old it gets",
    kind=Kind.CHANGE,
    risk=Risk.NONE,
    params=Params,
    example='/db hold orders orders-20261122T020000Z-17 "the auditors look at November"',
    plan=plan,
    run=run,
    pinned=frozenset(),  # only our catalogue changes
    pins=pins,
    undo=_undo,
    is_routed=False,  # our store says it
)
