"""`/db prune orders`: remove backups whose time is over, and WAL that serves nothing any more."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from pydantic import BaseModel, Field, JsonValue

from jobs.engines import engine_of
from jobs.keeping import Trimming, judgement_of, trimming
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
    Table,
)
from jobs.pruning import reconcile_first, remove_backups, trim_wal
from jobs.reconcile import at_hand
from jobs.retention import Judged, Judgement, NothingDueError, Trim
from jobs.text import count_text, span_text
from postgres.errors import PostgresError
from postgres.sizes import pretty_bytes

# So many go at once; the next prune takes the next ones.
REMOVED_MAX: Final = 500
KEPT_SHOWN_MAX: Final = 1000
# A plan waits for somebody's ack: without the archive's listing it says less.
LISTING_SECONDS_MAX: Final = 1.0
TIME_LIMIT: Final = timedelta(hours=12)
LOOK_LIMIT: Final = timedelta(minutes=10)
ATTEMPTS: Final = 3
STALE: Final = timedelta(days=8)
REMOVAL_PIN: Final = "removal"
WAL_PIN: Final = "WAL"
WAL_STAYS: Final = "all of it stays"
_REMOVE: Final = re.compile(r"remove  (\S+) .*")
_WAL: Final = re.compile(r"before (\S+), from (\S+)")


class Params(BaseModel, extra="forbid"):
    """Which database."""

    database: str = Field(description="Database in the inventory", examples=["orders"])


async def plan(context: Context, params: Params) -> Plan:
    """Judge all backups: each that would go and each that stays, with its reason.

    Raises:
        NothingDueError: nothing may go now.
    """
    async with context.store.begin() as conn:
        judgement = await judgement_of(conn, context.database, context.now)
    doomed = judgement.doomed[:REMOVED_MAX]
    wal = await _wal(context, judgement)
    if not doomed and not _has_wal(wal, judgement):
        raise _nothing(params.database, judgement)
    size = sum(each.backup.size_bytes for each in doomed)
    return Plan(
        title=f"Prune the backups of {params.database}: {count_text(len(doomed), 'backup')}"
        f" of {pretty_bytes(size)}",
        steps=tuple(_steps(doomed, judgement.trim)),
        statements=tuple(_lines(doomed, judgement)),
        facts=tuple(_facts(doomed, judgement, wal)),
        warnings=tuple(_warnings(params.database, judgement, context.now)),
        estimate_seconds=max(1, len(doomed)),
        undo=None,
        pins=_pins([each.backup.id for each in doomed], judgement.trim),
    )


async def pins(context: Context, params: Params, plan: Plan) -> Mapping[str, str]:
    """What the plan names, as long as anything of it may still go.

    Not whether all of it may: the run judges each backup again, and leaves what must stay.
    """
    del params
    named, trim = _named(plan), _trim_of(plan)
    async with context.store.begin() as conn:
        judgement = await judgement_of(conn, context.database, context.now)
    due = {each.backup.id for each in judgement.doomed} & set(named)
    if not due and trim is None:
        return {REMOVAL_PIN: "nothing of it may go any more", WAL_PIN: WAL_STAYS}
    return _pins(named, trim)


async def run(job: Job, params: Params, plan: Plan) -> Answer:
    """Judge again, and remove what the plan names and what may still go."""
    engine = engine_of(job.database, os.environ)
    named, trim = _named(plan), _trim_of(plan)
    if plan.pins[REMOVAL_PIN] != _digest(named, trim):
        raise JobError(
            "The plan's list of removals is not the one that was agreed to.",
            next_step=f"Ask for a new one: /db prune {params.database}",
        )

    async def reconcile(attempt: Attempt) -> JsonValue:
        del attempt
        await reconcile_first(job, engine)
        return None

    async def remove(attempt: Attempt) -> JsonValue:
        return await remove_backups(job, engine, named, attempt)

    async def cut(attempt: Attempt) -> JsonValue:
        del attempt
        return await trim_wal(job, engine, trim)

    await job.step("compare with the disk", reconcile, mode=Mode.RETRYABLE, time_limit=LOOK_LIMIT,
                   attempts=ATTEMPTS)  # fmt: skip
    # Resumable: what was marked as going goes on; what is gone is not looked for again.
    removed = await job.step("remove backups", remove, mode=Mode.RESUMABLE, time_limit=TIME_LIMIT,
                             attempts=ATTEMPTS)  # fmt: skip
    wal = await job.step("trim WAL", cut, mode=Mode.RETRYABLE, time_limit=LOOK_LIMIT,
                         attempts=ATTEMPTS)  # fmt: skip
    return _answer(params.database, _as_dict(removed), _as_dict(wal))


async def _wal(context: Context, judgement: Judgement) -> Trimming | str | None:
    """Which WAL may go, why none may, or None: from here nobody sees how much it is."""
    if judgement.trim is None:
        return judgement.untrimmed
    if not await at_hand(context.database):
        return None
    engine = engine_of(context.database, os.environ)
    try:
        async with asyncio.timeout(LISTING_SECONDS_MAX):
            listing, archive = await asyncio.gather(engine.backups(), engine.archive())
    except (TimeoutError, PostgresError, OSError):
        return None
    return trimming(archive, judgement.trim, listing.backups)


def _has_wal(wal: Trimming | str | None, judgement: Judgement) -> bool:
    if wal is None:
        return judgement.trim is not None
    return isinstance(wal, Trimming) and wal.files > 0


def _nothing(database: str, judgement: Judgement) -> NothingDueError:
    if not judgement.kept:
        return NothingDueError(
            f"There is no backup of {database}, so there is nothing to remove.",
            next_step=f"Take one: /db backup {database}",
        )
    ends = [each.until for each in judgement.kept if each.until is not None]
    first = f" The first may go on {min(ends).astimezone(UTC):%Y-%m-%d}." if ends else ""
    return NothingDueError(
        f"Nothing of {database} may be removed now:"
        f" {count_text(len(judgement.kept), 'backup')} and their WAL are all kept.{first}",
        next_step=f"See why and until when: /db backups {database}",
    )


def _steps(doomed: Sequence[Judged], trim: Trim | None) -> list[str]:
    again = f"Judge each of {count_text(len(doomed), 'backup')} again: what is on hold or needed"
    return [
        "Compare the catalogue with what is there; what has lost its files counts no more",
        f"{again} by then stays. Mark it as going, remove its files, enter that it is gone",
        *([f"Remove WAL from before the start of {trim.backup_id} ({trim.lsn})"] if trim else []),
    ]


def _lines(doomed: Sequence[Judged], judgement: Judgement) -> list[str]:
    """Every removal and every backup that stays, one a line."""
    kept = judgement.kept[:KEPT_SHOWN_MAX]
    width = max((len(each.backup.id) for each in (*doomed, *kept)), default=0)
    lines = [f"remove  {_line(each, width)}" for each in doomed]
    lines += [f"keep    {_line(each, width)}" for each in kept]
    if later := len(judgement.doomed) - len(doomed):
        lines.append(f"later   {count_text(later, 'more backup')}: prune again")
    if rest := len(judgement.kept) - len(kept):
        lines.append(f"keep    {count_text(rest, 'more backup')}")
    return lines


def _line(each: Judged, width: int) -> str:
    backup = each.backup
    tiers = ",".join(backup.tiers) or "by hand"
    size = pretty_bytes(backup.size_bytes)
    why = " ".join(each.why.split())
    return f"{backup.id:<{width}}  {backup.kind:<11}  {tiers:<13}  {size:>8}  {why}"


def _facts(
    doomed: Sequence[Judged], judgement: Judgement, wal: Trimming | str | None
) -> list[tuple[str, str]]:
    return [
        ("Removes", _sum(doomed)),
        ("Stays", _sum(judgement.kept)),
        ("WAL", _wal_text(wal, judgement.trim)),
        *([("Oldest that stays", judgement.kept[-1].backup.id)] if judgement.kept else []),
    ]


def _sum(judged: Sequence[Judged]) -> str:
    size = sum(each.backup.size_bytes for each in judged)
    return f"{count_text(len(judged), 'backup')}, {pretty_bytes(size)}"


def _wal_text(wal: Trimming | str | None, trim: Trim | None) -> str:
    if isinstance(wal, Trimming):
        return (
            f"{count_text(wal.files, 'file')} of {pretty_bytes(wal.size_bytes)} before {wal.before}"
        )
    if wal is None and trim is not None:
        return f"all from before {trim.lsn}; how much that is, is known where the worker runs"
    return wal or WAL_STAYS


def _warnings(database: str, judgement: Judgement, now: datetime) -> list[str]:
    found: list[str] = []
    complete = [each.listed for each in judgement.kept if each.backup.state == "complete"]
    if complete and now - complete[0].backup.ended_at > STALE:
        age = span_text(now - complete[0].backup.ended_at)
        found.append(
            f"The newest backup is {age} old. Find out why none was taken since, before older"
            f" ones go: /db backup {database}"
        )
    if not any(listed.verified and listed.verified.ok for listed in complete):
        found.append(
            f"None of the backups that stay was proven by a restore. Do that first: /db verify"
            f" {database}"
        )
    return found


def _pins(named: Sequence[str], trim: Trim | None) -> Mapping[str, str]:
    wal = f"before {trim.backup_id}, from {trim.lsn}" if trim else WAL_STAYS
    return {REMOVAL_PIN: _digest(named, trim), WAL_PIN: wal}


def _digest(named: Sequence[str], trim: Trim | None) -> str:
    text = "\n".join([*sorted(named), f"{trim.backup_id} {trim.lsn}" if trim else ""])
    return hashlib.sha256(text.encode()).hexdigest()


def _named(plan: Plan) -> list[str]:
    """The backups that a plan names for removal, in its order. The pin says whether it is all."""
    return [found[1] for line in plan.statements if (found := _REMOVE.fullmatch(line))]


def _trim_of(plan: Plan) -> Trim | None:
    found = _WAL.fullmatch(plan.pins[WAL_PIN])
    return Trim(backup_id=found[1], lsn=found[2]) if found else None


def _answer(
    database: str, outcomes: Mapping[str, JsonValue], wal: Mapping[str, JsonValue]
) -> Answer:
    removed = {name: freed for name, freed in outcomes.items() if isinstance(freed, int)}
    stayed = {name: str(why) for name, why in outcomes.items() if name not in removed}
    freed, wal_freed = sum(removed.values()), _number(wal, "freed")
    files = _number(wal, "files")
    return Answer(
        title=f"Removed {count_text(len(removed), 'backup')} of {database}:"
        f" {pretty_bytes(freed + wal_freed)} are free again",
        lines=tuple(f"{name} stays. {why}" for name, why in stayed.items()),
        facts=(
            ("Backups", pretty_bytes(freed)),
            (
                "WAL",
                f"{count_text(files, 'file')} before {wal['before']}, {pretty_bytes(wal_freed)}"
                if "before" in wal
                else str(wal.get("why", WAL_STAYS)),
            ),
        ),
        table=Table(
            columns=("Removed", "Freed"),
            rows=tuple((name, pretty_bytes(size)) for name, size in removed.items()),
        )
        if removed
        else None,
        numbers={
            "removed": len(removed),
            "kept_after_all": len(stayed),
            "freed_bytes": freed,
            "wal_files": files,
            "wal_bytes": wal_freed,
        },
    )


def _as_dict(value: JsonValue) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(values: Mapping[str, JsonValue], name: str) -> int:
    value = values.get(name, 0)
    return value if isinstance(value, int) else 0


OPERATION = Operation(
    name="prune",
    summary="Remove backups whose time is over, and WAL that serves nothing any more",
    kind=Kind.CHANGE,
    risk=Risk.DESTRUCTIVE,
    params=Params,
    example="/db prune orders",
    plan=plan,
    run=run,
    pinned=frozenset(),  # it does not touch the target: what must hold is judged again
    pins=pins,
    time_limit=TIME_LIMIT,
)
