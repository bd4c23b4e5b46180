"""What a rehearsal is restored from, for those who agree to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from jobs.operation import Context, JobError
from jobs.recoverable import what_is_kept
from jobs.rehearsing_choice import proven_backup, room_needed, way_to
from jobs.restore_times import estimate, samples_of
from jobs.text import count_text, span_text
from postgres.errors import PostgresError
from postgres.restore.target import LATEST
from postgres.restore.window import Choice
from postgres.sizes import pretty_bytes
from store.backups import BackupRecord, list_backups


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A proven backup and the way from there.

    `proof`: when and how it was proven, for people. `seconds`: how long restoring it should
    take; None: none was timed yet.
    """

    backup: BackupRecord
    choice: Choice
    proof: str
    seconds: float | None

    @property
    def step(self) -> str:
        """The first step of a plan."""
        return f"Restore {self.backup.id} {self._to} into a server that nobody can reach"

    @property
    def _to(self) -> str:
        if not self.choice.wal:
            return "to its own end"
        return f"to the end of its archive ({pretty_bytes(self.choice.wal_bytes)} of WAL)"

    def facts(self, now: datetime, work_bytes: int) -> Iterator[tuple[str, str]]:
        """For the card; `work_bytes` will be written there besides."""
        choice = self.choice
        yield "Backup", f"{self.backup.id}, {span_text(now - self.backup.ended_at)} old"
        yield "Proven", self.proof
        yield "Restored", pretty_bytes(choice.backup.data_bytes + choice.wal_bytes)
        room = pretty_bytes(room_needed(choice, work_bytes))
        yield "Needs on the worker's disk", f"{room}; the run looks first"
        yield (
            "Restore",
            f"expected {span_text(timedelta(seconds=self.seconds))}"
            if self.seconds
            else "none was timed yet",
        )


async def source_of(context: Context) -> Source:
    """The newest proven backup.

    Raises:
        JobError: there is none, or nothing leads from it.
    """
    backup = await proven_backup(context)
    try:
        choice = way_to(await what_is_kept(context, LATEST), backup.id)
    except PostgresError as error:
        raise JobError(error.problem, next_step=error.next_step) from error
    samples = await samples_of(context.store, context.database.name)
    found = estimate(samples, data_bytes=choice.backup.data_bytes, wal_bytes=choice.wal_bytes)
    return Source(
        backup=backup,
        choice=choice,
        proof=await _proof(context, backup),
        seconds=found.seconds if found else None,
    )


async def _proof(context: Context, backup: BackupRecord) -> str:
    async with context.store.begin() as conn:
        listed = await list_backups(conn, context.database.name)
    verified = next((one.verified for one in listed if one.backup.id == backup.id), None)
    if verified is None:
        return "yes"
    age = span_text(context.now - verified.at)
    checks = count_text(len(verified.checks), "check")
    return f"{age} ago, {checks}{f' to {verified.target}' if verified.target else ''}"
