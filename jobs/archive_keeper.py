"""Looks after one database's WAL archive: supervises its receiver, and tells how it stands.

What it decides stands in `jobs.archive_health`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Final, Self

from jobs.archive_health import (
    ArchiveStanding,
    Health,
    Held,
    Receiving,
    SlotState,
    Stand,
    Trouble,
    Wishes,
    endangered,
    endangers,
    judge,
    still_ahead,
)
from jobs.archive_look import last_backup, look_at_archive, look_at_server
from jobs.away import is_away
from jobs.backup_settings import ArchiveMethod, BackupTier
from jobs.engines import engine_of
from jobs.operation import Database, JobError, Reader
from jobs.routes import Route, Routes
from jobs.routing import routed
from postgres.backup.native_engine import WAL_FOLDER
from postgres.backup.receiver import Receiver, application_name, drop_slot
from postgres.backup.wal_archive import WalArchive
from postgres.binaries import Binaries, find_binaries
from postgres.cluster.words import ClusterKind, Role
from postgres.dsn import parse_dsn
from postgres.errors import PostgresError
from store.archives import ArchiveState, save_archive
from store.connect import Store
from store.marks import WalMark, trim_marks, write_mark

log: Final = logging.getLogger("twokey.jobs")

HISTORY_MAX: Final = 2_000  # looks that are remembered, to say for how long an archive is late
MARKS_KEPT_BESIDE: Final = timedelta(days=2)
# A slot that was dropped is news for so long, even if all goes well after it.
DROP_TOLD: Final = timedelta(minutes=15)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often what is looked at. `pause_max`: between two attempts to receive."""

    look: timedelta = timedelta(seconds=5)
    mark: timedelta = timedelta(seconds=30)
    listing: timedelta = timedelta(seconds=60)
    trim: timedelta = timedelta(hours=1)
    pause_max: timedelta = timedelta(seconds=30)
    settle: timedelta = timedelta(seconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What a keeper works with. `worker` names it in the archive's row."""

    store: Store
    reader: Callable[[Database], Reader]
    routes: Routes
    worker: str
    clock: Callable[[], datetime]
    environ: Mapping[str, str]
    pace: Pace


@dataclass(slots=True)
class _Memory:
    """What a keeper remembers between looks. Times are ours, but those in `history`."""

    history: deque[tuple[datetime, str]] = field(default_factory=lambda: deque(maxlen=HISTORY_MAX))
    timeline: tuple[str, int | None] | None = None
    kept: Held | Trouble = field(default_factory=Held)
    listed_at: datetime | None = None
    listed_for: object = None
    marked_at: datetime | None = None
    trimmed_at: datetime | None = None
    dropped: Trouble | None = None
    dropped_at: datetime | None = None
    told: str = ""
    left: str = ""


class Keeper:
    """Looks after one archive. As a context: no receiver of it is left at the end."""

    def __init__(self, tools: Tools, database: Database) -> None:
        settings = database.backups
        receives = settings.archive.method is ArchiveMethod.RECEIVE
        self._tools = tools
        self._wanted = database
        self._database = database  # at the server whose WAL is received
        self._memory = _Memory()
        self._receiver: Receiver | Trouble | None = None
        self._receiving: asyncio.Task[None] | None = None
        self._wishes = Wishes(
            database=database.name,
            method=settings.archive.method,
            slot=settings.slot_of(database.name) if receives else "",
            slot_bytes_max=settings.archive.slot_bytes_max,
            lag_max=settings.archive.lag_max,
        )

    async def __aenter__(self) -> Self:
        """Nothing is begun before the first look."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """End the receiver."""
        await self._stop()

    async def look(self) -> None:
        """Once: see how all stands, have a receiver, do what must be done, and tell it.

        While the store is away nothing is told, and all else is done.
        """
        wishes = self._wishes
        route = await self._tools.routes.route(self._wanted)
        stand = await self._stand(route)
        if isinstance(stand, Stand):
            self._remember(stand)
            if endangers(wishes, stand):
                await self._drop_slot(stand)
            elif wishes.method is ArchiveMethod.RECEIVE:
                await self._have_receiver(stand.major)
        try:
            health = await self._judge_and_tell(stand)
        except Exception as error:
            if not is_away(error):
                raise
            self._log(f"the store is away ({type(error).__name__})")
        else:
            if health.standing is ArchiveStanding.STREAMING:
                await self._let_go(route)

    async def _stand(self, route: Route) -> Stand | Trouble:
        """How the server stands that takes writes now; the receiver of another one is ended.

        While nobody can tell which that is, nothing new is followed, and what comes still comes.
        """
        if refusal := route.refusal:
            return Trouble(problem=refusal.problem, next_step=refusal.next_step)
        if route.database.dsn != self._database.dsn:
            await self._stop()
        self._database = route.database
        wishes = self._wishes
        return await look_at_server(
            self._tools.reader(self._database),
            slot=wishes.slot,
            receiver=application_name(wishes.slot),
        )

    async def _let_go(self, route: Route) -> None:
        """Drop our slot where a pair's primary was before: nobody reads it, and it keeps WAL.

        Only while all that it kept is in the archive. Patroni looks after slots itself.
        """
        for node in left_behind(self._wanted, route, self._wishes.slot):
            try:
                there = routed(self._wanted, node)
                await drop_slot(parse_dsn(there.dsn.get_secret_value()), self._wishes.slot)
                said = f"{node}: our slot is dropped, as another server is the primary"
            except PostgresError as error:
                said = f"{node}: {error.problem}"
            if said != self._memory.left:
                log.info("WAL archive of %s: %s", self._database.name, said)
                self._memory.left = said

    async def _judge_and_tell(self, stand: Stand | Trouble) -> Health:
        now, memory = self._tools.clock(), self._memory
        if isinstance(stand, Stand):
            await self._list(stand, now)
        told = memory.dropped_at is not None and now - memory.dropped_at < DROP_TOLD
        health = judge(
            self._wishes,
            now=now,
            stand=stand,
            receiving=self._report(),
            kept=memory.kept,
            history=tuple(memory.history),
            dropped=memory.dropped if told else None,
        )
        self._log(f"{health.standing} {health.problem}")
        await self._tell(stand, health, now)
        return health

    async def _have_receiver(self, server_major: int) -> None:
        if self._receiving is not None:
            if not self._receiving.done():
                return
            self._receiving.result()  # only a mistake of ours ends it: it must be seen
        try:
            binaries = await asyncio.to_thread(self._binaries, server_major)
            target = parse_dsn(self._database.dsn.get_secret_value())
        except PostgresError as error:
            self._receiver = Trouble(problem=error.problem, next_step=error.next_step)
            return
        self._receiver = Receiver(
            binaries=binaries,
            target=target,
            archive=archive_of(self._database),
            slot=self._wishes.slot,
            clock=self._tools.clock,
            pause_max=self._tools.pace.pause_max,
            settle_every=self._tools.pace.settle,
        )
        self._receiving = asyncio.create_task(self._receiver.run())

    def _binaries(self, server_major: int) -> Binaries:
        """Programs that can receive from the server: none older than it."""
        found = find_binaries(self._tools.environ)
        if found.major < server_major:
            found = find_binaries(self._tools.environ, major=server_major)
        found.program("pg_receivewal")
        return found

    def _report(self) -> Receiving | Trouble | None:
        match self._receiver:
            case Receiver(report=report):
                return Receiving(
                    streaming=report.streaming,
                    since=report.since,
                    problem=report.problem,
                    next_step=report.next_step,
                )
            case other:
                return other

    async def _stop(self) -> None:
        """End the receiver and its child."""
        task, self._receiving, self._receiver = self._receiving, None, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def _drop_slot(self, stand: Stand) -> None:
        """Let the server's WAL go. The next look makes a new slot, and goes on from there."""
        await self._stop()
        self._memory.dropped_at = self._tools.clock()
        try:
            target = parse_dsn(self._database.dsn.get_secret_value())
            await drop_slot(target, self._wishes.slot)
            self._memory.dropped = endangered(self._wishes, stand)
        except PostgresError as error:
            self._memory.dropped = Trouble(problem=error.problem, next_step=error.next_step)

    def _remember(self, stand: Stand) -> None:
        """Where the server is ahead of what was received, since when."""
        memory, place = self._memory, (stand.system_identifier, stand.timeline)
        if memory.timeline != place:  # positions of another timeline say nothing about this one
            memory.history.clear()
            memory.timeline = place
        if not memory.history or memory.history[-1][1] != stand.lsn:
            memory.history.append((stand.at, stand.lsn))
        still_ahead(memory.history, self._wishes, stand, memory.kept)

    async def _list(self, stand: Stand, now: datetime) -> None:
        """Look at what is kept, now and again, and whenever something may have been lost."""
        memory, receiver = self._memory, self._receiver
        reason = (
            stand.timeline,
            receiver.report.ends if isinstance(receiver, Receiver) else 0,
            await last_backup(self._tools.store, self._database.name),
        )
        if not _is_due(memory.listed_at, self._tools.pace.listing, now) and (
            reason == memory.listed_for
        ):
            return
        try:
            engine = engine_of(self._database, self._tools.environ)
        except JobError as error:
            memory.kept = Trouble(problem=error.problem, next_step=error.next_step)
        else:
            memory.kept = await look_at_archive(engine, stand.segment_bytes, reason[-1])
        memory.listed_at, memory.listed_for = now, reason

    async def _tell(self, stand: Stand | Trouble, health: Health, now: datetime) -> None:
        memory, name = self._memory, self._database.name
        mark = _mark(name, stand) if _is_due(memory.marked_at, self._tools.pace.mark, now) else None
        trims = _is_due(memory.trimmed_at, self._tools.pace.trim, now)
        async with self._tools.store.begin() as conn:
            await save_archive(conn, self._row(stand, health, now))
            if mark is not None:
                await write_mark(conn, mark)
            if trims:
                await trim_marks(conn, name, now - _marks_kept(self._database))
        if mark is not None:
            memory.marked_at = now
        if trims:
            memory.trimmed_at = now

    def _row(self, stand: Stand | Trouble, health: Health, now: datetime) -> ArchiveState:
        kept = self._memory.kept if isinstance(self._memory.kept, Held) else Held()
        seen = stand if isinstance(stand, Stand) else None
        return ArchiveState(
            database=self._database.name,
            at=now,
            keeper=self._tools.worker,
            method=self._wishes.method,
            state=health.standing,
            timeline=kept.timeline if seen is None else seen.timeline or kept.timeline,
            last_segment=kept.last_segment,
            received_lsn=health.received_lsn,
            lag_bytes=health.lag_bytes,
            slot=self._wishes.slot,
            slot_state=SlotState.NONE if seen is None else seen.slot,
            slot_bytes=None if seen is None or not self._wishes.slot else seen.slot_bytes,
            gaps=[asdict(gap) for gap in kept.gaps],
            problem=health.problem,
            next_step=health.next_step,
        )

    def _log(self, words: str) -> None:
        """Say how it stands whenever that changes."""
        if words != self._memory.told:
            log.info("WAL archive of %s: %s", self._database.name, words)
            self._memory.told = words


def left_behind(database: Database, route: Route, slot: str) -> tuple[str, ...]:
    """The standbys of a pair on which our slot is, and nobody uses it. Pure."""
    cluster = database.cluster
    if cluster is None or cluster.kind is not ClusterKind.PAIR or route.refusal or not slot:
        return ()
    return tuple(
        node.name
        for node in route.nodes
        if node.role is Role.STANDBY
        and any(each.name == slot and not each.is_active for each in node.slots)
    )


def archive_of(database: Database) -> WalArchive:
    """Where a receiver of ours puts a database's WAL."""
    keys = database.backups.encryption
    return WalArchive(
        database.backup_folder / WAL_FOLDER,
        keys.recipient if keys else None,
        keys.identity if keys else None,
    )


def _mark(database: str, stand: Stand | Trouble) -> WalMark | None:
    """Where a primary stands; None for a standby, which has no timeline of its own to write on."""
    if isinstance(stand, Trouble) or stand.timeline is None:
        return None
    return WalMark(
        database=database,
        at=stand.at,
        system_identifier=stand.system_identifier,
        timeline=stand.timeline,
        lsn=stand.lsn,
        next_xid=stand.next_xid,
    )


def _marks_kept(database: Database) -> timedelta:
    """As long as any backup is."""
    longest = max(database.backups.keep_of(tier) for tier in BackupTier)
    return longest + MARKS_KEPT_BESIDE


def _is_due(last: datetime | None, every: timedelta, now: datetime) -> bool:
    """Whether it is time again, also after a clock was set back."""
    return last is None or not last <= now < last + every
