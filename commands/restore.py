"""`/db restore orders --to '2026-11-20 14:30:00 UTC' --into scratch`: a chosen moment, again.

Into a scratch server it is a copy to look at and to take tables from. Into place it replaces
the server itself, and what was committed after that moment is lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal

from pydantic import BaseModel, Field, JsonValue, field_validator

from approvals.times import duration
from jobs.archive_mark import needs_mark
from jobs.engines import engine_of
from jobs.losses import Losses, losses
from jobs.operation import (
    Answer,
    Context,
    Job,
    JobError,
    Kind,
    Operation,
    Plan,
    Risk,
    UndoCall,
)
from jobs.placing import PlaceOrder, place_pins, plan_place, run_place, undo_of_place
from jobs.recoverable import Kept, backup_pins, stand_of, what_is_kept
from jobs.recovery_steps import choose_way
from jobs.restore_times import Estimate, estimate, samples_of
from jobs.scratch_run import check_room_for_one, run_scratch
from jobs.text import count_text, span_text
from postgres.errors import PostgresError
from postgres.restore.lasting import MAJOR_MIN
from postgres.restore.reach import is_on
from postgres.restore.target import END, LATEST, RecoveryTarget, parse_target
from postgres.restore.window import Choice
from postgres.sizes import pretty_bytes
from store.backups import ListedBackup, list_backups

TIME_LIMIT: Final = timedelta(hours=48)
UNDO_WITHIN: Final = timedelta(days=2)
TARGET_CHARS_MAX: Final = 200


class Params(BaseModel, extra="forbid"):
    """Which moment, and where to."""

    database: str = Field(description="Database in the inventory", examples=["orders"])
    to: str = Field(
        default="",
        max_length=TARGET_CHARS_MAX,
        description="A moment with its time zone, `5 minutes ago`, `latest`, an LSN, a"
        " transaction or a restore point; the end of the backup when left out",
        examples=["2026-11-20 14:30:00 UTC"],
    )
    into: Literal["scratch", "place"] = Field(
        default="scratch",
        description="A scratch server beside production, or the place of production itself",
    )
    backup: str = Field(
        default="", description="A backup's id; the one that fits best when left out"
    )
    lifetime: str = Field(
        default="", description="How long a scratch server lives, such as 4h", examples=["4h"]
    )

    @field_validator("lifetime")
    @classmethod
    def _is_length(cls, text: str) -> str:
        if text:
            duration(text)
        return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What a plan knows about a restore, wherever it goes. `notes` are for people."""

    target: RecoveryTarget
    choice: Choice
    gone: Losses
    took: Estimate | None
    proof: ListedBackup | None
    notes: tuple[str, ...]


async def plan(context: Context, params: Params) -> Plan:
    """Choose the backup and the way, say what it takes, and what is lost or left out."""
    outlook = await _outlook(context, params)
    pins = {
        **await backup_pins(context, outlook.choice.backup),
        "target": str(outlook.target),
    }
    match params.into:
        case "scratch":
            return await _scratch_plan(context, params, outlook, pins)
        case "place":
            return await _place_plan(context, params, outlook, pins)


async def pins(context: Context, params: Params, plan: Plan) -> Mapping[str, str]:
    """The backup that the plan names, as it is now; and what the place pins."""
    listing = await engine_of(context.database).backups()
    found = next((facts for facts in listing.backups if facts.id == plan.pins["backup"]), None)
    if found is None:
        return {}
    own = {**await backup_pins(context, found), "target": plan.pins["target"]}
    return own if params.into == "scratch" else {**own, **await place_pins(context)}


async def run(job: Job, params: Params, plan: Plan) -> Answer:
    """Restore what the plan names, to the moment that it names."""
    target = parse_target(plan.pins["target"], now=job.now)
    choice = await choose_way(job, target, backup_id=plan.pins["backup"])
    match params.into:
        case "scratch":
            return await run_scratch(job, choice, _lifetime(job, params))
        case "place":
            return await run_place(job, PlaceOrder(choice=choice))


def undo(params: Params, numbers: Mapping[str, JsonValue]) -> UndoCall | None:
    """Drop the scratch server, or put the old server back into its place."""
    if numbers.get("into") == "scratch":
        told = {"scratch": numbers["scratch"]}
        return UndoCall(operation="drop-scratch", params=told, within=UNDO_WITHIN)
    return undo_of_place(params.database, numbers)


async def _outlook(context: Context, params: Params) -> Outlook:
    target = parse_target(params.to, now=context.now) if params.to else END
    kept = await what_is_kept(context, target)
    choice, notes = _choice(context, kept, target, params.backup)
    stand = await stand_of(context, choice.backup.system_identifier)
    timeline = stand.timeline if stand else choice.timeline
    on_way = [mark for mark in kept.marks if is_on(kept.archive, timeline, mark)]
    async with context.store.begin() as conn:
        listed = await list_backups(conn, params.database)
    return Outlook(
        target=target,
        choice=choice,
        gone=losses(target, choice.backup, on_way, stand=stand, now=context.now),
        took=estimate(
            await samples_of(context.store, params.database),
            data_bytes=choice.backup.data_bytes,
            wal_bytes=choice.wal_bytes,
        ),
        proof=next((one for one in listed if one.backup.id == choice.backup.id), None),
        notes=notes,
    )


def _choice(
    context: Context, kept: Kept, target: RecoveryTarget, backup_id: str
) -> tuple[Choice, tuple[str, ...]]:
    """The way to the target, or to what there is of it so far, with what to say about it."""
    try:
        choice = kept.choose(target, backup_id=backup_id)
    except PostgresError:
        method = context.database.backups.archive.method
        if target.at is None or not needs_mark(target, method, now=context.now):
            raise
        # The archive is a little behind. The run writes a mark, waits for it, and chooses again.
        choice = kept.choose(LATEST, backup_id=backup_id)
        if choice.note or target.at < choice.backup.ended_at:  # waiting would not help
            raise
        return choice, ("The archive does not reach that moment yet; the run waits until it does.",)
    return choice, (choice.note,) if choice.note else ()


async def _scratch_plan(
    context: Context, params: Params, outlook: Outlook, pins: Mapping[str, str]
) -> Plan:
    choice, scratch = outlook.choice, context.database.backups.scratch
    lifetime = _lifetime(context, params)
    await check_room_for_one(context)
    if choice.backup.major < MAJOR_MIN:
        raise JobError(
            f"A scratch server of PostgreSQL {choice.backup.major} would have to let people in as"
            " superusers.",
            next_step=f"That takes PostgreSQL {MAJOR_MIN} or newer; restore into place, or verify.",
        )
    return Plan(
        title=f"Restore {params.database} as of {outlook.target} into a scratch server",
        steps=(
            *_recovery_steps(context, outlook),
            f"Open it on {scratch.host} of the worker's host to one login with a password",
            f"Remove it with all its data after {span_text(lifetime)}, or with /db drop-scratch",
        ),
        facts=(
            *_facts(context, outlook),
            ("Not in the copy", outlook.gone.words()),
            ("Lives for", span_text(lifetime)),
        ),
        warnings=(*outlook.notes, *_doubts(outlook)),
        estimate_seconds=_seconds(outlook.took),
        undo="Production is not touched. The copy goes with /db drop-scratch.",
        pins=pins,
        attributes={"into": "scratch"},
        risk=Risk.NONE,
    )


async def _place_plan(
    context: Context, params: Params, outlook: Outlook, pins: Mapping[str, str]
) -> Plan:
    place = await plan_place(context, PlaceOrder(choice=outlook.choice))
    return Plan(
        title=f"Put {params.database} back to {outlook.target}, in its place",
        steps=(*_recovery_steps(context, outlook), *place.steps),
        facts=(*_facts(context, outlook), *place.facts),
        warnings=(_loss(outlook), *outlook.notes, *_doubts(outlook), *place.warnings),
        estimate_seconds=_seconds(outlook.took),
        undo=place.undo,
        pins={**pins, **place.pins},
        attributes=dict(place.attributes),
        risk=place.risk,
    )


def _recovery_steps(context: Context, outlook: Outlook) -> Iterator[str]:
    choice, method = outlook.choice, context.database.backups.archive.method
    if needs_mark(outlook.target, method, now=context.now):
        yield "Commit a mark on the server, and wait until the archive has it"
    data = pretty_bytes(choice.backup.data_bytes)
    yield f"Lay out {choice.backup.id} ({data}) and the WAL that belongs to it"
    wal = f"{pretty_bytes(choice.wal_bytes)} of WAL" if choice.wal else "the backup's own WAL"
    yield f"Replay {wal} up to {outlook.target}, on timeline {choice.timeline}, in isolation"


def _facts(context: Context, outlook: Outlook) -> Iterator[tuple[str, str]]:
    facts, choice = outlook.choice.backup, outlook.choice
    age = span_text(context.now - facts.ended_at)
    yield "Backup", f"{facts.id} ({facts.kind}, {facts.engine}), {age} old"
    yield "Recovered to", _moment(context, outlook)
    yield "WAL to replay", pretty_bytes(choice.wal_bytes) if choice.wal else "the backup's own"
    yield "Size", pretty_bytes(facts.data_bytes)
    yield "Restores so far", _restores(outlook.took)
    yield "Backup verified", _proof(context, outlook.proof)


def _moment(context: Context, outlook: Outlook) -> str:
    moment = outlook.choice.backup.ended_at if outlook.target.kind == "end" else outlook.target.at
    if moment is None:
        return str(outlook.target)
    ago = span_text(max(context.now - moment, timedelta(0)))
    if outlook.target.kind == "end":
        return f"the end of the backup, {moment:%Y-%m-%d %H:%M:%S UTC}, {ago} ago"
    return f"{outlook.target}, {ago} ago"


def _restores(took: Estimate | None) -> str:
    if took is None:
        return "none is known, so nobody knows how long it takes"
    return f"{count_text(took.samples, 'restore')} of this database are behind the estimate"


def _proof(context: Context, listed: ListedBackup | None) -> str:
    if listed is None or listed.verified is None:
        return "never"
    return f"{span_text(context.now - listed.verified.at)} ago"


def _doubts(outlook: Outlook) -> Iterator[str]:
    if outlook.proof is None or outlook.proof.verified is None:
        yield "This backup was never restored as a test, so nobody knows whether it is good."


def _loss(outlook: Outlook) -> str:
    if outlook.gone.is_nothing:
        return (
            "What was committed and has not reached the archive is lost; nothing that was archived."
        )
    return f"Everything committed after {outlook.target} is lost: {outlook.gone.words()}."


def _seconds(took: Estimate | None) -> int | None:
    return max(1, round(took.seconds)) if took else None


def _lifetime(context: Context, params: Params) -> timedelta:
    """How long a scratch server lives.

    Raises:
        JobError: longer than the inventory allows.
    """
    limits = context.database.backups.scratch
    length = duration(params.lifetime) if params.lifetime else limits.lifetime
    if not timedelta(0) < length <= limits.lifetime_max:
        raise JobError(
            f"A scratch server of {context.database.name} may live for"
            f" {span_text(limits.lifetime_max)} at most, not for {params.lifetime}.",
            next_step=f"Say less, or leave it out for {span_text(limits.lifetime)}.",
        )
    return length


OPERATION = Operation(
    name="restore",
    summary="Restore a chosen moment, beside production or in its place",
    kind=Kind.CHANGE,
    risk=Risk.DESTRUCTIVE,
    lesser_risks=frozenset({Risk.NONE}),
    params=Params,
    example="/db restore orders --to '2026-11-20 14:30:00 UTC' --into scratch",
    plan=plan,
    run=run,
    pinned=frozenset(),  # the server may be gone; what it replaces is pinned by the place
    pins=pins,
    time_limit=TIME_LIMIT,
    undo=undo,
)
