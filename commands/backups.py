"""`/db backups orders`: what could be restored, how old it is, and whether it was proven."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from pydantic import BaseModel, Field

from jobs.alerts import findings as alarms
from jobs.backup_settings import ArchiveMethod
from jobs.backup_state import DatabaseState, states
from jobs.engines import engine_of
from jobs.keeping import judgement_of
from jobs.operation import RTO, Answer, Context, Database, JobError, Kind, Operation, Risk, Table
from jobs.reconcile import at_hand, findings, look
from jobs.recoverable import what_is_kept
from jobs.retention import Judged, Judgement
from jobs.text import count_text, span_text
from postgres.errors import PostgresError
from postgres.restore.reach import UTC_TEXT, spans, windows
from postgres.restore.target import parse_target
from postgres.sizes import pretty_bytes
from store.backups import BackupRecord, ListedBackup, Verification

# Taken daily and verified weekly; the rest is time to notice.
BACKUP_AGE_MAX: Final = timedelta(hours=26)
PROOF_AGE_MAX: Final = timedelta(days=8)
# What is due to go for longer than this, nobody prunes.
PRUNE_LATE: Final = timedelta(days=2)
COLUMNS: Final = (
    "Backup", "Age", "Kind", "Tiers", "Size", "Kept until", "Verified", "Restored in",
)  # fmt: skip
LISTED_MAX: Final = 50
LINES_MAX: Final = 15
# The ack waits: what the disk says comes with it if it comes soon.
DISK_SECONDS_MAX: Final = 1.0
_NAMED_MAX: Final = 3


class Params(BaseModel, extra="forbid"):
    """Which database."""

    database: str = Field(description="Database in the inventory", examples=["orders"])


@dataclass(frozen=True, slots=True, kw_only=True)
class OnDisk:
    """What the place of the backups says itself: what is wrong there, and what is recoverable."""

    lines: tuple[str, ...] = ()
    recoverable: str = "not seen from the bot's host: /db readiness says how the archive is"


async def answer(context: Context, params: Params) -> Answer:
    """The backups that are kept, newest first, and what is missing."""
    async with context.store.begin() as conn:
        judgement = await judgement_of(conn, context.database, context.now)
        [state] = await states(conn, [context.database], context.now)
    disk = await _disk(context)
    rto = RTO[context.database.tier]
    listed = [each.listed for each in judgement.judged]
    lines = [
        *_wrong(params.database, listed, state, context.now),
        *disk.lines,
        *_overdue(context.database, judgement, context.now),
    ]
    rows = tuple(_row(each, context.now) for each in judgement.judged[:LISTED_MAX])
    return Answer(
        title=f"Backups of {params.database}",
        lines=tuple(_bounded(lines)),
        facts=(
            ("Tier", f"{context.database.tier}: back within {span_text(rto)}"),
            ("Kept", _sum(judgement.judged)),
            ("Recoverable", disk.recoverable),
            *_archive(state),
            *_more_facts(params.database, judgement),
        ),
        table=Table(columns=COLUMNS, rows=rows) if rows else None,
    )


def _row(each: Judged, now: datetime) -> tuple[str, ...]:
    backup, proof = each.backup, each.listed.verified
    return (
        backup.id,
        span_text(now - backup.ended_at),
        backup.kind,
        ", ".join(backup.tiers) or "by hand",
        pretty_bytes(backup.size_bytes),
        _until(each),
        _proof(each.listed, now),
        span_text(timedelta(seconds=proof.restore_seconds)) if proof and proof.ok else "-",
    )


def _until(each: Judged) -> str:
    if each.backup.hold is not None:
        return "on hold"
    if not each.kept:
        return "may go"
    return f"{each.until.astimezone(UTC):%Y-%m-%d}" if each.until else "while needed"


def _proof(item: ListedBackup, now: datetime) -> str:
    if item.backup.state in ("lost", "removing"):
        return "LOST" if item.backup.state == "lost" else "being removed"
    if item.verified is None:
        return "never" if item.backup.state == "complete" else "DAMAGED"
    ago = span_text(now - item.verified.at)
    return f"{ago} ago" if item.verified.ok else f"DAMAGED, found {ago} ago"


def _sum(judged: Iterable[Judged]) -> str:
    sizes = [each.backup.size_bytes for each in judged]
    return f"{len(sizes)}, {pretty_bytes(sum(sizes))}"


def _more_facts(name: str, judgement: Judgement) -> Iterator[tuple[str, str]]:
    if len(judgement.judged) > LISTED_MAX:
        rest = len(judgement.judged) - LISTED_MAX
        yield "Not listed", f"{count_text(rest, 'older backup')}"
    if held := [each.backup for each in judgement.judged if each.backup.hold is not None]:
        shown = "; ".join(
            f"{backup.id} by {(backup.hold or {}).get('by')}: {(backup.hold or {}).get('reason')}"
            for backup in held[:_NAMED_MAX]
        )
        rest_text = f"; and {len(held) - _NAMED_MAX} more" if len(held) > _NAMED_MAX else ""
        yield "On hold", f"{shown}{rest_text}"
    if judgement.doomed:
        yield "May go", f"{_sum(judgement.doomed)}: /db prune {name}"


def _archive(state: DatabaseState) -> Iterator[tuple[str, str]]:
    archive = state.archive
    if archive is None or state.database.backups.archive.method is ArchiveMethod.NONE:
        return
    behind = f", {pretty_bytes(archive.lag_bytes)} behind" if archive.lag_bytes else ""
    gaps = f", {count_text(len(archive.gaps), 'gap')}" if archive.gaps else ""
    yield "WAL", f"{archive.state}{behind}{gaps}, up to {archive.last_segment or 'nothing yet'}"


async def _disk(context: Context) -> OnDisk:
    """What shows only where the backups are, if that is here and answers soon."""
    database = context.database
    if not await at_hand(database):
        return OnDisk()
    try:
        async with asyncio.timeout(DISK_SECONDS_MAX):
            seen = await look(context.store, database, engine_of(database), context.now)
            recoverable = await _recoverable(context)
    except TimeoutError:  # before OSError, which it is one of
        return OnDisk(recoverable="the place of the backups does not answer in time")
    except (PostgresError, JobError, OSError) as error:
        return OnDisk(lines=(f"What is on disk could not be looked at: {error}",))
    found = findings(database, seen)
    return OnDisk(
        lines=tuple(f"{each.problem} {each.next_step}" for each in found), recoverable=recoverable
    )


async def _recoverable(context: Context) -> str:
    kept = await what_is_kept(context, parse_target("latest", now=context.now))
    found = spans(windows(kept.backups, kept.archive, kept.marks))
    if not found:
        return "nothing yet"
    shown = [
        f"any moment from {begin:{UTC_TEXT}} to {end:{UTC_TEXT}}"
        if begin < end
        else f"the end of a backup, {begin:{UTC_TEXT}}"
        for begin, end in found[-_NAMED_MAX:]
    ]
    rest = len(found) - len(shown)
    return "; ".join([*shown, *([f"and {rest} older stretches"] if rest > 0 else [])])


def _wrong(
    name: str, listed: Sequence[ListedBackup], state: DatabaseState, now: datetime
) -> Iterator[str]:
    """What is not as it should be, each with the next step.

    With `backups:` in the inventory, also what alerts are told of: one judgement for both.
    """
    usable = [item for item in listed if item.backup.state == "complete"]
    if not usable:
        yield f"There is no usable backup of {name}. Take one: /db backup {name}"
    by_clock = bool(state.database.backups.tiers)
    found = alarms(state, now) if by_clock else ()
    if usable and not by_clock:
        yield from _aged(name, usable[0].backup, now)
    if usable and not any(alarm.name == "BackupUnverified" for alarm in found):
        yield from _unproven(name, usable, now)
    if usable and not by_clock:
        yield from _slow(usable, RTO[state.database.tier])
    for alarm in found:
        yield f"{alarm.problem} {alarm.next_step}"


def _aged(name: str, newest: BackupRecord, now: datetime) -> Iterator[str]:
    if now - newest.ended_at > BACKUP_AGE_MAX:
        age = span_text(now - newest.ended_at)
        yield f"The newest usable backup is {age} old. Take one: /db backup {name}"


def _unproven(name: str, usable: Sequence[ListedBackup], now: datetime) -> Iterator[str]:
    newest = _newest_proof(usable)
    if newest is None:
        yield f"No backup was ever restored as a test. Do it now: /db verify {name}"
    elif now - newest.at > PROOF_AGE_MAX:
        age = span_text(now - newest.at)
        yield f"The last verification was {age} ago. Verify again: /db verify {name}"


def _slow(usable: Sequence[ListedBackup], rto: timedelta) -> Iterator[str]:
    newest = _newest_proof(usable)
    if newest is not None and newest.restore_seconds > rto.total_seconds():
        took = span_text(timedelta(seconds=newest.restore_seconds))
        yield (
            f"The last restore took {took}, longer than the tier allows ({span_text(rto)})."
            " Restore onto faster disks, or agree on another tier."
        )


def _newest_proof(usable: Sequence[ListedBackup]) -> Verification | None:
    proofs = [item.verified for item in usable if item.verified]
    return max(proofs, key=lambda proof: proof.at, default=None)


def _overdue(database: Database, judgement: Judgement, now: datetime) -> Iterator[str]:
    begun = [each.backup.id for each in judgement.doomed if each.backup.state == "removing"]
    if begun:
        yield (
            f"The removal of {', '.join(begun[:_NAMED_MAX])} was begun and has not ended."
            f" Let another prune end it: /db prune {database.name}"
        )
    late = [
        each
        for each in judgement.doomed
        if each.until is not None and now - each.until > PRUNE_LATE
    ]
    if late and database.backups.prune_cron:
        yield (
            f"{count_text(len(late), 'backup')} should be gone for days. See why the schedule"
            f" prunes nothing (/db requests {database.name}), or: /db prune {database.name}"
        )


def _bounded(lines: Sequence[str]) -> Iterator[str]:
    yield from lines[:LINES_MAX]
    if len(lines) > LINES_MAX:
        yield f"…and {len(lines) - LINES_MAX} more. Look after these first."


OPERATION = Operation(
    name="backups",
    summary="List the backups of a database, their age and their proof",
    kind=Kind.QUERY,
    risk=Risk.NONE,
    params=Params,
    example="/db backups orders",
    answer=answer,
)
