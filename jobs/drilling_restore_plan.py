"""From what a restore would be drilled, for those who agree to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from jobs.backup_settings import ArchiveMethod
from jobs.drill_restore_words import is_proven, newer_unproven, source_of_disaster
from jobs.operation import Context, JobError
from jobs.recoverable import backup_pins, what_is_kept
from jobs.rehearsing_choice import room_needed, way_to
from jobs.restore_times import estimate, samples_of
from jobs.text import count_text, span_text
from postgres.errors import PostgresError
from postgres.restore.target import END, LATEST
from postgres.restore.window import Choice
from postgres.sizes import pretty_bytes
from store.backups import BackupRecord, ListedBackup, all_backups


@dataclass(frozen=True, slots=True, kw_only=True)
class RestorePlan:
    """The backup that would be restored, and the way from there as the archive is now.

    `seconds`: how long restoring it should take; None: none was timed yet. `pins`: the backup
    and its manifest. `newer`: a later backup that nobody has proven, which is not used.
    """

    backup: BackupRecord
    choice: Choice
    is_proven: bool
    proof: str
    newer: str
    seconds: float | None
    method: ArchiveMethod
    pins: Mapping[str, str]

    @property
    def steps(self) -> tuple[str, ...]:
        """What is done, in order."""
        return (
            "Write rows into the live primary and declare one moment the disaster: no harm is done",
            f"Restore {self.backup.id} elsewhere, with what had reached the archive by then",
            "Write a row there, read it back, and ask the critical queries",
            "Count which acknowledged rows are missing there",
            "Remove the copy and the rows, whatever was found",
        )

    def facts(self, now: datetime) -> Iterator[tuple[str, str]]:
        """For the card."""
        choice = self.choice
        yield "Backup", f"{self.backup.id}, {span_text(now - self.backup.ended_at)} old"
        yield "Proven", self.proof
        wal = f", {pretty_bytes(choice.wal_bytes)} of it WAL" if choice.wal else ""
        yield "Restored", f"{pretty_bytes(choice.backup.data_bytes + choice.wal_bytes)}{wal}"
        yield "Needs on the worker's disk", f"{pretty_bytes(room_needed(choice, 0))}; the run looks"
        yield (
            "Restore",
            f"expected {span_text(timedelta(seconds=self.seconds))}"
            if self.seconds
            else "none was timed yet",
        )

    def warnings(self, *, rto: timedelta, has_queries: bool) -> Iterator[str]:
        """What people should know before they agree. `rto`: what is allowed."""
        if not self.is_proven:
            yield f"Nobody has proven {self.backup.id}: no proven backup is there."
        if self.newer:
            yield f"{self.newer} is newer, and is not used: nobody has proven it."
        if self.method is ArchiveMethod.NONE:
            yield "WAL is not archived: all that was written since the backup counts as lost."
        elif self.choice.target == END:
            yield "No WAL leads on from this backup: all that was written since counts as lost."
        if self.seconds is not None and self.seconds > rto.total_seconds():
            expected = span_text(timedelta(seconds=self.seconds))
            yield f"It should take {expected}, longer than the {span_text(rto)} that are allowed."
        if not has_queries:
            yield "Without critical queries nobody asks the copy for its use."


async def plan_restore(context: Context) -> RestorePlan:
    """The newest proven backup, else the newest good one.

    Raises:
        JobError: there is none, or it is not where the catalogue says.
    """
    name = context.database.name
    async with context.store.begin() as conn:
        listed = await all_backups(conn, name)
    found = source_of_disaster(listed)
    if found is None:
        raise JobError(
            f"There is no backup of {name} that it could be rebuilt from.",
            next_step=f"Take one, and prove it: /db backup {name}, then /db verify {name}.",
        )
    try:
        choice = way_to(await what_is_kept(context, LATEST), found.backup.id)
    except PostgresError as error:
        raise JobError(error.problem, next_step=error.next_step) from error
    newer = newer_unproven(listed, found)
    samples = await samples_of(context.store, name)
    pace = estimate(samples, data_bytes=choice.backup.data_bytes, wal_bytes=choice.wal_bytes)
    return RestorePlan(
        backup=found.backup,
        choice=choice,
        is_proven=is_proven(found),
        proof=_proof(found, context.now),
        newer=newer.backup.id if newer else "",
        seconds=pace.seconds if pace else None,
        method=context.database.backups.archive.method,
        pins=await backup_pins(context, choice.backup),
    )


async def pins_of(context: Context, backup_id: str) -> Mapping[str, str]:
    """The pins of a plan as they are now: the backup that it names, and its manifest.

    Raises:
        JobError: the backup is gone, or was found damaged since.
    """
    try:
        choice = (await what_is_kept(context, END)).choose(END, backup_id=backup_id)
    except PostgresError as error:
        raise JobError(error.problem, next_step=error.next_step) from error
    return await backup_pins(context, choice.backup)


def _proof(found: ListedBackup, now: datetime) -> str:
    if found.verified is None or not found.verified.ok:
        return "never"
    checks = count_text(len(found.verified.checks), "check")
    to = f" to {found.verified.target}" if found.verified.target else ""
    return f"{span_text(now - found.verified.at)} ago, {checks}{to}"
