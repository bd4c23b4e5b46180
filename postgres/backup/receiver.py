"""A `pg_receivewal` that is looked after: it streams WAL into an archive, whatever happens.

It ends with our process, and is started again when it ends before. What is wrong is told by
`Receiver.report`; it goes on trying, because a primary comes back and a full disk is emptied.
Its slot is made with SQL, not with --create-slot: that reserves no WAL until the first use.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import asyncpg

from postgres.backup.wal_archive import WalArchive
from postgres.backup.wal_names import lsn_number, segment_name
from postgres.binaries import Binaries
from postgres.connect import connection
from postgres.dsn import Target
from postgres.errors import DamagedError, PostgresError
from postgres.programs import Finished, run_program
from postgres.together import together

SETTLE_EVERY: Final = timedelta(seconds=1)
PAUSE_MAX: Final = timedelta(seconds=30)
_FIRST_PAUSE_SECONDS: Final = 0.25
# Streaming for so long, it counts as mended: the next failure is a first one again.
_MENDED_SECONDS: Final = 30.0
# pg_receivewal ends by itself only when something is wrong; this bounds what cannot be seen.
_RUN_LIMIT: Final = timedelta(days=7)
_STATUS_SECONDS: Final = 5
_REMOVED: Final = "has already been removed"
_NOT_OURS: Final = "is not in this server's history"
_FORKED: Final = re.compile(r"forked from timeline (\d+) at ([0-9A-F]+/[0-9A-F]+)")
_ACTIVE: Final = "is active for PID"
_LAST_CHARS: Final = 4_000
# A server that has gone without a word is noticed; libpq has no variables for these.
_KEEPALIVE: Final = (
    "keepalives_idle=10 keepalives_interval=5 keepalives_count=3 tcp_user_timeout=30000"
)
_CONNECT_SECONDS: Final = "10"
_SPACE: Final = ("No space left on device", "Disk quota exceeded")

SLOT: Final = """
    SELECT (SELECT system_identifier::text FROM pg_control_system()) AS system_identifier,
           pg_size_bytes(current_setting('wal_segment_size'))        AS segment_bytes,
           s.slot_name IS NOT NULL                                   AS there,
           coalesce(s.slot_type, 'physical')                         AS type,
           coalesce(s.wal_status = 'lost', false)                    AS lost,
           coalesce(s.active, false)                                 AS active
      FROM (VALUES ($1::name)) AS wanted (name)
      LEFT JOIN pg_replication_slots s ON s.slot_name = wanted.name
"""
# WAL is reserved from the last checkpoint on, so that a backup that begins now is followed.
CREATE_SLOT: Final = "SELECT pg_create_physical_replication_slot($1, true)"
# Of an active one PostgreSQL says no.
DROP_SLOT: Final = """
    SELECT pg_drop_replication_slot(slot_name)
      FROM pg_replication_slots
     WHERE slot_name = $1
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How the receiver does. `since`: when it got into this state; `ends`: how often it ended.

    `note` tells what it had to do about its slot or its starting point; it stays until the
    next such thing.
    """

    streaming: bool
    since: datetime
    problem: str = ""
    next_step: str = ""
    note: str = ""
    ends: int = 0


class Receiver:
    """Receives the WAL of one server into one archive, through a slot of its own."""

    def __init__(
        self,
        *,
        binaries: Binaries,
        target: Target,
        archive: WalArchive,
        slot: str,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        pause_max: timedelta = PAUSE_MAX,
        settle_every: timedelta = SETTLE_EVERY,
    ) -> None:
        self._binaries = binaries
        self._target = target
        self._archive = archive
        self._slot = slot
        self._clock = clock
        self._pause_max = pause_max
        self._settle_every = settle_every
        self._report = Report(streaming=False, since=clock())
        self._heard = False

    @property
    def report(self) -> Report:
        """How it does now."""
        return self._report

    async def run(self) -> None:
        """Receive until cancelled; never returns. The child has ended when this has."""
        failures = 0
        while True:
            began = time.monotonic()
            try:
                with _alone(self._archive):
                    await self._attempt()
            except (PostgresError, DamagedError, OSError) as error:
                self._fails(*self._words(error))
            failures = 0 if time.monotonic() - began > _MENDED_SECONDS else failures + 1
            await asyncio.sleep(min(_pause(failures), self._pause_max.total_seconds()))

    async def _attempt(self) -> None:
        """One life of pg_receivewal, from the look at the slot to its end.

        Raises:
            PostgresError: why it ended, or could not begin.
        """
        self._heard = False
        await self._settle()
        await self._prepare()
        async with together() as group:
            settling = group.create_task(self._settle_for_ever())
            try:
                finished = await self._stream()
            finally:
                settling.cancel()
        await self._after(finished)

    async def _prepare(self) -> None:
        """Have a slot that can be used, on the cluster that the archive is of."""
        known = await self._archive.cluster()
        async with connection(self._target) as conn:
            row = await conn.fetchrow(SLOT, self._slot)
            if known is not None and known.system_identifier != row["system_identifier"]:
                raise PostgresError(
                    f"{self._target.place} is another cluster ({row['system_identifier']}) than "
                    f"the one whose WAL is in {self._archive.folder}.",
                    next_step="See where the database's dsn leads. For a new cluster, move the "
                    "folder away, with the backups that need it.",
                )
            if row["type"] != "physical":
                raise PostgresError(
                    f"The slot {self._slot} on {self._target.place} is no physical one.",
                    next_step="Choose another name: backups.archive.slot in the inventory.",
                )
            await self._have_slot(conn, row)
        await self._archive.mend(row["segment_bytes"])

    async def _have_slot(self, conn: Any, row: Any) -> None:
        if row["there"] and not row["lost"]:
            return
        try:
            if row["lost"]:
                await conn.execute(DROP_SLOT, self._slot)
            await conn.execute(CREATE_SLOT, self._slot)
        except asyncpg.DuplicateObjectError:
            return
        except asyncpg.PostgresError as error:
            raise PostgresError(
                f"The slot {self._slot} cannot be made on {self._target.place}: {error}.",
                next_step="The user needs the REPLICATION attribute, and the server a free "
                "place (max_replication_slots).",
            ) from error
        if row["lost"]:
            self._notes(f"The server had given up the slot {self._slot}; it was made anew.")

    async def _stream(self) -> Finished:
        incoming = self._archive.incoming
        return await run_program(
            [
                self._binaries.program("pg_receivewal"),
                "--directory",
                incoming,
                f"--dbname={_KEEPALIVE}",
                f"--slot={self._slot}",
                "--synchronous",
                "--no-loop",
                "--no-password",
                "--verbose",
                f"--status-interval={_STATUS_SECONDS}",
            ],
            time_limit=_RUN_LIMIT,
            as_server=False,  # the archive belongs to us, out of reach of the servers' account
            environ=self._target.environ(
                application_name=application_name(self._slot),
                connect_timeout=self._target.words.get("connect_timeout") or _CONNECT_SECONDS,
            ),
            on_line=self._hear,
        )

    def _hear(self, line: str) -> None:
        self._heard = self._heard or "starting log streaming" in line

    async def _settle_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._settle_every.total_seconds())
            # It says so before the server has agreed; a moment later it has ended, or streams.
            if self._heard and not self._report.streaming:
                self._report = replace(self._report, streaming=True, since=self._clock())
            if await self._settle() and self._report.streaming and self._report.problem:
                self._report = replace(self._report, problem="", next_step="")

    async def _settle(self) -> bool:
        """Keep what has come; whether that worked. What did not must not stop the stream."""
        try:
            await self._archive.settle()
        except (PostgresError, DamagedError, OSError) as error:
            problem, next_step = self._words(error)
        else:
            return True
        self._report = replace(self._report, problem=problem, next_step=next_step)
        return False

    async def _after(self, finished: Finished) -> None:
        """Make room for another beginning where this one cannot be repeated, and say why.

        Raises:
            PostgresError: always: it has ended.
        """
        said = finished.stderr[-_LAST_CHARS:]
        if _REMOVED in said:
            # With nothing in the folder it began where the slot says. That may be a place of
            # the past: pg_receivewal confirms its own before the server says that it is gone.
            if not await self._archive.set_aside():
                await drop_slot(self._target, self._slot)
            self._notes("The server no longer has WAL that was not received.")
        elif _NOT_OURS in said:
            await self._begin_elsewhere(said)
        raise self._failure(finished, said)

    async def _begin_elsewhere(self, said: str) -> None:
        """Follow a server whose history left ours before the end of what was received."""
        known = await self._archive.cluster()
        forked = _FORKED.search(said)
        begin_after = None
        if forked is not None and known is not None:
            number = lsn_number(forked[2]) // known.segment_bytes
            begin_after = segment_name(int(forked[1]), number - 1, known.segment_bytes)
        await self._archive.set_aside(begin_after=begin_after)
        where = f" at {forked[2]}" if forked else ""
        self._notes(f"The server's history left the one that was received{where}.")

    def _failure(self, finished: Finished, said: str) -> PostgresError:
        place = self._target.place
        if _ACTIVE in said:
            return PostgresError(
                f"The slot {self._slot} on {place} is used by another receiver.",
                next_step="Wait a minute if a worker has just ended; else see who uses it in "
                "pg_replication_slots.",
            )
        if any(words in said for words in _SPACE):
            return PostgresError(
                f"There is no room for WAL in {self._archive.folder}.",
                next_step="Free some space there; receiving goes on by itself.",
            )
        return PostgresError(
            f"pg_receivewal on {place} ended: {_reason(finished)}",
            next_step="It is started again by itself. If this stays: the user needs the "
            "REPLICATION attribute and a line for replication in pg_hba.conf.",
        )

    def _words(self, error: PostgresError | DamagedError | OSError) -> tuple[str, str]:
        """What is wrong, and what to do."""
        match error:
            case PostgresError():
                return error.problem, error.next_step
            case DamagedError():
                return str(error), "Look at that file. Nothing was removed, and what follows waits."
            case _:
                return (
                    f"{self._archive.folder} cannot be written: {error.strerror or error}.",
                    "Free some space there; receiving goes on by itself.",
                )

    def _fails(self, problem: str, next_step: str) -> None:
        since = self._clock() if self._report.streaming else self._report.since
        self._report = replace(
            self._report,
            streaming=False,
            since=since,
            problem=problem,
            next_step=next_step,
            ends=self._report.ends + 1,
        )

    def _notes(self, note: str) -> None:
        self._report = replace(self._report, note=note)


def application_name(slot: str) -> str:
    """What pg_stat_replication calls our receiver: at most 63 characters."""
    return f"twokey wal {slot}"[:63]


async def drop_slot(target: Target, slot: str) -> None:
    """Let go of the server's WAL; harmless where the slot is gone. Call it when `run` has ended.

    Raises:
        PostgresError: the server cannot be reached, or somebody uses the slot.
    """
    async with connection(target) as conn:
        try:
            await conn.execute(DROP_SLOT, slot)
        except asyncpg.PostgresError as error:
            raise PostgresError(
                f"The slot {slot} on {target.place} cannot be dropped: {error}.",
                next_step=f"As a superuser: SELECT pg_drop_replication_slot('{slot}');",
            ) from error


@contextmanager
def _alone(archive: WalArchive) -> Iterator[None]:
    """Hold the folder's lock, which ends with our process.

    Raises:
        PostgresError: another process holds it.
    """
    archive.incoming.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(archive.incoming / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PostgresError(
                f"Another process receives WAL into {archive.incoming}.",
                next_step="Leave it to that one, or end it: `fuser` of the file lock in that "
                "folder names it.",
            ) from None
        yield
    finally:
        os.close(handle)


def _pause(failures: int) -> float:
    return _FIRST_PAUSE_SECONDS * 2.0 ** min(failures, 16)


def _reason(finished: Finished) -> str:
    """The first error that it named: the last one only says that it was disconnected."""
    errors = [line for line in finished.stderr.splitlines() if "error:" in line]
    named = [line.split("error:", 1)[1].strip() for line in errors if "disconnected" not in line]
    return named[-1] if named else finished.last_words
