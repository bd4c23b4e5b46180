"""`/db verify orders`: restore a backup into a scratch server, and look at it from every side."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from random import SystemRandom
from typing import Final

from pydantic import BaseModel, Field, JsonValue

from jobs.archive_mark import RECENT, WAIT_MAX, mark_archive, needs_mark
from jobs.engines import engine_of
from jobs.operation import (
    RTO,
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
    Tier,
)
from jobs.recoverable import what_is_kept
from jobs.restore_times import estimate, samples_of
from jobs.text import span_text
from jobs.verifying import choose_backup, random_target
from postgres.errors import PostgresError
from postgres.restore.report import FILES, Check, VerificationReport
from postgres.restore.target import END, RecoveryTarget, parse_target
from postgres.restore.verification import verify_backup
from postgres.restore.window import windows
from postgres.sizes import pretty_bytes
from store.backups import (
    BackupRecord,
    Verification,
    all_backups,
    find_backup,
    list_backups,
    newest_backup,
    record_verification,
)
from store.proofs import last_proof

RANDOM: Final = "random"
_THERE: Final = frozenset({"complete", "damaged"})
TIME_LIMIT: Final = timedelta(hours=24)
RECORD_LIMIT: Final = timedelta(minutes=1)
MARK_LIMIT: Final = 2 * WAIT_MAX


# From 0 to below 1; a test has its own. No secret depends on it, only that nobody chooses.
CHANCE: Callable[[], float] = SystemRandom().random


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What is to be proven: a backup, to its own end or to a later moment through so much WAL."""

    backup: BackupRecord
    target: RecoveryTarget
    wal_bytes: int = 0

    @property
    def to(self) -> str:
        """Such as " to 2026-11-20 14:30:00 UTC"; '' for the backup's own end."""
        return "" if self.target == END else f" to {self.target}"


class Params(BaseModel, extra="forbid"):
    """Which backup to restore, and to which moment."""

    database: str = Field(description="Database in the inventory", examples=["orders"])
    backup: str = Field(
        default="",
        max_length=200,
        description="A backup's id; left out, the newest, or whose turn it is with `at=random`",
        examples=[""],
    )
    at: str = Field(
        default="",
        max_length=200,
        description="To which moment: left out for the backup's own end, `random`, or as /db"
        " restore takes it",
        examples=[""],
    )


async def plan(context: Context, params: Params) -> Plan:
    """Choose the backup and the moment, and say what will be done to a copy of it."""
    proof = await _chosen(context, params)
    backup, queries = proof.backup, context.database.critical_queries
    expected = await _expected(context, proof)
    rto = RTO[context.database.tier]
    return Plan(
        title=f"Verify backup {backup.id}{proof.to}",
        steps=(
            "Check every file of the backup against the SHA-256 written when it was taken",
            f"Restore it into a scratch server of PostgreSQL {backup.major} that nobody can reach",
            *((f"Replay {pretty_bytes(proof.wal_bytes)} of WAL{proof.to}",) if proof.to else ()),
            "pg_verifybackup, amcheck, page checksums, row counts",
            f"Ask {len(queries)} critical queries" if queries else "No critical query is defined",
            "Remove the scratch server, whatever was found",
        ),
        facts=(
            ("Backup", f"{backup.id}, {span_text(context.now - backup.ended_at)} old"),
            ("To", "the backup's own end" if not proof.to else str(proof.target)),
            ("Size", pretty_bytes(backup.size_bytes)),
            ("Restored", pretty_bytes(backup.data_bytes + proof.wal_bytes)),
            ("Restore", _expectation(expected, rto, context.database.tier)),
        ),
        warnings=tuple(_warnings(expected, rto, has_queries=bool(queries))),
        estimate_seconds=await _estimate(context, params.database),
        undo="Production is not touched.",
        pins=_pins(backup, proof.target),
    )


async def pins(context: Context, params: Params, plan: Plan) -> Mapping[str, str]:
    """The backup that the plan names, with its manifest. A newer one changes nothing."""
    target = parse_target(plan.pins["target"], now=context.now)
    return _pins(await _backup(context, params.database, plan.pins["backup"]), target)


async def run(job: Job, params: Params, plan: Plan) -> Answer:
    """Prove the backup that the plan names, and store what was found."""
    backup = await _backup(job, params.database, plan.pins["backup"])
    target = parse_target(plan.pins["target"], now=job.now)
    if needs_mark(target, job.database.backups.archive.method, now=job.now):

        async def mark(attempt: Attempt) -> JsonValue:
            del attempt
            engine = engine_of(job.database)
            return await mark_archive(job.store, job.database, engine, say=job.report)

        await job.step("mark", mark, mode=Mode.RETRYABLE, time_limit=MARK_LIMIT)

    async def prove(attempt: Attempt) -> JsonValue:
        del attempt
        report = await _verify(job, backup, target)
        return report.model_dump(mode="json")

    # Retryable: what a dead attempt left stands in the run's folder and is removed first.
    found = await job.step("prove", prove, mode=Mode.RETRYABLE, time_limit=TIME_LIMIT)
    report = VerificationReport.model_validate(found)

    async def record(attempt: Attempt) -> JsonValue:
        del attempt
        async with job.store.begin() as conn:
            await record_verification(conn, _verification(job, report))
        return None

    await job.step("record", record, mode=Mode.RETRYABLE, time_limit=RECORD_LIMIT)
    if not report.ok:
        raise JobError(
            f"Backup {backup.id} is damaged. {' '.join(f'{text}.' for text in report.problems)}",
            next_step=f"Take a new backup at once (/db backup {params.database}), verify it, and"
            " find out what damaged this one before its older siblings are needed.",
        )
    return _answer(job, report)


async def _chosen(context: Context, params: Params) -> Proof:
    """What is to be proven.

    Raises:
        JobError: there is no such backup.
        PostgresError: the moment is not understood, or cannot be recovered.
    """
    words, now = params.at.strip(), context.now
    if words == RANDOM:
        return await _by_chance(context, params)
    target = parse_target(words, now=now) if words else END
    if target == END:
        return Proof(backup=await _backup(context, params.database, params.backup), target=END)
    kept = await what_is_kept(context, target)
    choice = kept.choose(target, backup_id=params.backup or None)
    backup = await _backup(context, params.database, choice.backup.id)
    return Proof(backup=backup, target=target, wal_bytes=choice.wal_bytes)


async def _by_chance(context: Context, params: Params) -> Proof:
    """A backup whose turn it is, at a moment that nobody chose; people see which."""
    async with context.store.begin() as conn:
        listed = await all_backups(conn, params.database)
        last = await last_proof(conn, params.database)
    turn = choose_backup(listed, last)
    backup = await _backup(context, params.database, params.backup or (turn.id if turn else ""))
    try:
        kept = await what_is_kept(context, END)
        found = windows(kept.backups, kept.archive, kept.marks)
        target = random_target(found, backup.id, draw=CHANCE(), before=context.now - RECENT)
        if target == END:
            return Proof(backup=backup, target=END)
        choice = kept.choose(target, backup_id=backup.id)
    except PostgresError:
        # What is kept shows only on the worker's host, or not at all now: the backup stands.
        return Proof(backup=backup, target=END)
    return Proof(backup=backup, target=target, wal_bytes=choice.wal_bytes)


async def _backup(context: Context, database: str, backup_id: str) -> BackupRecord:
    """The backup of this id; for '' the newest that nobody found damaged."""
    async with context.store.begin() as conn:
        if backup_id:
            backup = await find_backup(conn, database, backup_id)
        else:
            backup = await newest_backup(conn, database)
    if backup is None or backup.state not in _THERE:
        what = f"no backup {backup_id}" if backup_id else "no usable backup"
        raise JobError(
            f"There is {what} of {database}.",
            next_step=f"See /db backups {database}, or take one: /db backup {database}",
        )
    return backup


def _pins(backup: BackupRecord, target: RecoveryTarget) -> Mapping[str, str]:
    return {"backup": backup.id, "manifest": backup.manifest_sha256, "target": str(target)}


async def _expected(context: Context, proof: Proof) -> timedelta | None:
    """How long the restore should take, by those that were made; None: by nothing."""
    samples = await samples_of(context.store, context.database.name)
    found = estimate(samples, data_bytes=proof.backup.data_bytes, wal_bytes=proof.wal_bytes)
    return timedelta(seconds=found.seconds) if found else None


def _expectation(expected: timedelta | None, rto: timedelta, tier: Tier) -> str:
    known = f"expected {span_text(expected)}" if expected else "none was timed yet"
    return f"{known}, allowed {span_text(rto)} (tier {tier})"


def _warnings(expected: timedelta | None, rto: timedelta, *, has_queries: bool) -> Iterator[str]:
    if expected is not None and expected > rto:
        yield (
            f"By the last restores this one takes {span_text(expected)}, longer than the"
            f" {span_text(rto)} that the tier allows."
        )
    if not has_queries:
        yield "Without critical queries nobody asks the copy for its use."


async def _estimate(context: Context, database: str) -> int | None:
    """As long as the last verification of this database took."""
    async with context.store.begin() as conn:
        listed = await list_backups(conn, database)
    took = [item.verified.total_seconds for item in listed if item.verified]
    return max(1, round(took[0])) if took else None


async def _verify(job: Job, backup: BackupRecord, target: RecoveryTarget) -> VerificationReport:
    kept = await what_is_kept(job, target)
    listing = await kept.engine.backups()
    facts = next((facts for facts in listing.backups if facts.id == backup.id), None)
    if facts is None and backup.id in listing.unreadable:
        return _unreadable(backup, target)
    if facts is None:
        raise JobError(
            f"There is no backup {backup.id} where the catalogue says: {backup.folder}.",
            next_step="See whether its disk is mounted on the worker's host; then verify again.",
        )
    return await verify_backup(
        kept.engine,
        facts,
        job.folder,
        environ=os.environ,
        target=target,
        marks=kept.marks,
        critical_queries=[(q.name, q.sql, q.expect) for q in job.database.critical_queries],
        on_step=job.report,
    )


def _unreadable(backup: BackupRecord, target: RecoveryTarget) -> VerificationReport:
    detail = "its own description cannot be read, so nothing of it can be trusted"
    return VerificationReport(
        backup_id=backup.id,
        ok=False,
        restore_seconds=None,
        seconds=0.0,
        data_bytes=backup.data_bytes,
        checks=(Check(name=FILES, ok=False, detail=detail, seconds=0.0),),
        target=str(target),
    )


def _verification(job: Job, report: VerificationReport) -> Verification:
    return Verification(
        backup_id=report.backup_id,
        at=job.now,
        ok=report.ok,
        restore_seconds=report.restore_seconds or 0.0,
        total_seconds=report.seconds,
        checks=[(check.name, check.ok, check.detail) for check in report.checks],
        request_id=job.request_id,
        target="" if report.target == str(END) else report.target,
        data_bytes=report.data_bytes,
        wal_bytes=report.wal_bytes,
    )


def _answer(job: Job, report: VerificationReport) -> Answer:
    rto = RTO[job.database.tier]
    took = timedelta(seconds=report.restore_seconds or 0)
    within = took <= rto
    verdict = "within" if within else "LONGER than"
    allowed = f"the {span_text(rto)} of tier {job.database.tier}"
    to = "" if report.target == str(END) else f" to {report.target}"
    return Answer(
        title=f"Backup {report.backup_id} is proven{to}",
        lines=(
            f"Restored in {span_text(took)}, {verdict} {allowed}.",
            *(() if within else ("Restore onto faster disks, or agree on another tier.",)),
        ),
        facts=(
            ("Restored", pretty_bytes(report.data_bytes + report.wal_bytes)),
            ("All checks took", span_text(timedelta(seconds=report.seconds))),
        ),
        table=Table(
            columns=("Check", "Found", "Took"),
            rows=tuple(
                (check.name, check.detail, span_text(timedelta(seconds=check.seconds)))
                for check in report.checks
            ),
        ),
        numbers={
            "restore_seconds": report.restore_seconds or 0.0,
            "seconds": report.seconds,
            "data_bytes": report.data_bytes,
            "wal_bytes": report.wal_bytes,
            "backup": report.backup_id,
            "target": report.target,
            "within_rto": "yes" if within else "no",
        },
    )


OPERATION = Operation(
    name="verify",
    summary="Restore a backup into a scratch server and prove it",
    kind=Kind.CHANGE,
    risk=Risk.NONE,
    params=Params,
    example="/db verify orders",
    plan=plan,
    run=run,
    pinned=frozenset(),  # it works on a copy: what must hold is the backup
    pins=pins,
    time_limit=TIME_LIMIT,
)
