"""How a database's WAL archive stands, out of what was seen of it. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, assert_never

from jobs.backup_settings import ArchiveMethod
from jobs.text import span_text
from postgres.backup.engine import Archive
from postgres.backup.wal import Gap, contiguous_end, gaps, newest_timeline
from postgres.backup.wal_names import (
    lsn_number,
    lsn_text,
    number_of,
    segment_at,
    timeline_of,
)
from postgres.sizes import pretty_bytes

# So long may a start, or a restart after a failure, take before anybody is told.
START_GRACE: Final = timedelta(seconds=45)
UNLIMITED: Final = -1


class ArchiveStanding(StrEnum):
    """How an archive stands."""

    STREAMING = "streaming"  # all is well, also where segments come by archive_command
    STARTING = "starting"
    BEHIND = "behind"
    BROKEN = "broken"
    OFF = "off"


class SlotState(StrEnum):
    """Our replication slot on the server."""

    ACTIVE = "active"
    INACTIVE = "inactive"
    LOST = "lost"
    MISSING = "missing"
    NONE = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stand:
    """Where a server stands. `at` is by its clock; `timeline` is None on a standby.

    `received_lsn`: how far our receiver has told it that it is. `keep_size_mb`: the server's
    own limit for slots; -1: none. `archived_at`, `failed_at`, `failed_wal`: its archiver's.
    """

    at: datetime
    system_identifier: str
    timeline: int | None
    lsn: str
    next_xid: int
    segment_bytes: int
    slot: SlotState = SlotState.NONE
    slot_bytes: int | None = None
    keep_size_mb: int = UNLIMITED
    major: int = 0
    received_lsn: str | None = None
    archive_mode: str = "off"
    archived_at: datetime | None = None
    failed_at: datetime | None = None
    failed_wal: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Why something could not be looked at."""

    problem: str
    next_step: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiving:
    """How the receiver does; see `postgres.backup.receiver.Report`."""

    streaming: bool
    since: datetime
    problem: str = ""
    next_step: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LastBackup:
    """The newest backup that WAL can be replayed on; it carries its own WAL up to `end_lsn`."""

    id: str
    timeline: int
    end_lsn: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What the archive holds. `cut`: what is missing after the last backup.

    `last_whole`: the newest complete segment of the newest timeline, '' for none. `joined`:
    it goes on where the last backup ends; None: there is no backup.
    """

    timeline: int | None = None
    last_segment: str = ""
    last_whole: str = ""
    gaps: tuple[Gap, ...] = ()
    cut: Gap | None = None
    joined: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the inventory asks for; see `jobs.backup_settings.ArchiveSettings`."""

    database: str
    method: ArchiveMethod
    slot: str
    slot_bytes_max: int
    lag_max: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How an archive stands; `received_lsn` and `lag_bytes` as far as they are known."""

    standing: ArchiveStanding
    problem: str = ""
    next_step: str = ""
    received_lsn: str | None = None
    lag_bytes: int | None = None


_Finding = tuple[ArchiveStanding, Trouble]
_NOTHING: Final = Trouble(problem="", next_step="")
_SILENT: Final = Trouble(
    problem="The receiver of WAL does not come to stream.",
    next_step="See the worker's log, and whether the server takes connections.",
)


def held(archive: Archive, segment_bytes: int, last: LastBackup | None) -> Held:
    """What an archive holds, and whether it leads on from the last backup.

    Raises:
        PostgresError: a timeline's history file is damaged.
    """
    timeline = newest_timeline(archive)
    if timeline is None or not archive.segments:
        return Held(timeline=timeline, joined=None if last is None else False)
    newest = max(archive.segments, key=lambda segment: segment.name)
    whole = [segment.name for segment in archive.segments if not segment.is_partial]
    found = gaps(archive, segment_bytes)
    made = Held(
        timeline=timeline,
        last_segment=newest.name,
        last_whole=max(whole, default=""),
        gaps=found,
    )
    if last is None:
        return made
    start = segment_at(last.timeline, last.end_lsn, segment_bytes)
    reached = contiguous_end(
        archive, timeline=timeline, start_wal=start, segment_bytes=segment_bytes
    )
    if reached is None:
        return replace(made, joined=False)
    after = [gap for gap in found if gap.first[8:] > reached[8:]]
    return replace(made, joined=True, cut=after[0] if reached != newest.name and after else None)


def judge(
    wishes: Wishes,
    *,
    now: datetime,
    stand: Stand | Trouble,
    receiving: Receiving | Trouble | None,
    kept: Held | Trouble,
    history: Sequence[tuple[datetime, str]] = (),
    dropped: Trouble | None = None,
) -> Health:
    """How the archive stands. `history`: where the server stood earlier, oldest first.

    `receiving` is None where no receiver of ours is at work. `dropped`: what is to be said of
    a slot that was dropped not long ago.
    """
    if isinstance(stand, Trouble):
        return Health(
            standing=ArchiveStanding.BROKEN, problem=stand.problem, next_step=stand.next_step
        )
    received = received_by(wishes, stand, kept)
    standing, trouble = (
        (dropped and (ArchiveStanding.BROKEN, dropped))
        or _coming(wishes, stand, receiving, now=now)
        or _kept(wishes, kept)
        or _lagging(wishes, behind(history, received, now=stand.at))
        or (ArchiveStanding.STREAMING, _unjoined(wishes, kept))
    )
    return Health(
        standing=standing,
        problem=trouble.problem,
        next_step=trouble.next_step,
        received_lsn=None if received is None else lsn_text(received),
        lag_bytes=None if received is None else max(lsn_number(stand.lsn) - received, 0),
    )


def endangers(wishes: Wishes, stand: Stand) -> bool:
    """Whether our slot holds back more WAL than it may, on a server that has no limit itself."""
    return (
        wishes.method is ArchiveMethod.RECEIVE
        and stand.keep_size_mb == UNLIMITED
        and stand.slot in {SlotState.ACTIVE, SlotState.INACTIVE}
        and (stand.slot_bytes or 0) > wishes.slot_bytes_max
    )


def endangered(wishes: Wishes, stand: Stand) -> Trouble:
    """What to say of a slot that was dropped because it endangered the server."""
    return Trouble(
        problem=f"The slot {wishes.slot} of {wishes.database} held back "
        f"{pretty_bytes(stand.slot_bytes or 0)} of WAL, more than the "
        f"{pretty_bytes(wishes.slot_bytes_max)} that it may: it is dropped, so that the server's "
        "disk does not fill. What was not received by then is lost to the archive.",
        next_step=f"See why receiving was behind, then take a full backup: /db backup "
        f"{wishes.database}. max_slot_wal_keep_size on the server limits slots without us.",
    )


def received_by(wishes: Wishes, stand: Stand, kept: Held | Trouble) -> int | None:
    """Up to which byte the archive has the WAL of the server's timeline; None: nobody knows."""
    if wishes.method is ArchiveMethod.RECEIVE:
        return None if stand.received_lsn is None else lsn_number(stand.received_lsn)
    if isinstance(kept, Trouble) or not kept.last_whole:
        return None
    if stand.timeline is not None and timeline_of(kept.last_whole) != stand.timeline:
        return None
    return (number_of(kept.last_whole, stand.segment_bytes) + 1) * stand.segment_bytes


def still_ahead(
    history: deque[tuple[datetime, str]], wishes: Wishes, stand: Stand, kept: Held | Trouble
) -> None:
    """Drop from a history where the server stood what has come since."""
    received = received_by(wishes, stand, kept)
    while received is not None and history and lsn_number(history[0][1]) <= received:
        history.popleft()


def behind(
    history: Sequence[tuple[datetime, str]], received: int | None, *, now: datetime
) -> timedelta:
    """For how long the server has been ahead of what was received."""
    ahead = [at for at, lsn in history if received is None or lsn_number(lsn) > received]
    return max(now - ahead[0], timedelta(0)) if ahead else timedelta(0)


def _coming(
    wishes: Wishes, stand: Stand, receiving: Receiving | Trouble | None, *, now: datetime
) -> _Finding | None:
    """What is wrong with how WAL comes here, if anything."""
    match wishes.method:
        case ArchiveMethod.RECEIVE:
            return _receiver(receiving, now)
        case ArchiveMethod.COMMAND | ArchiveMethod.ENGINE:
            return _archiver(wishes, stand)
        case ArchiveMethod.NONE:
            return ArchiveStanding.OFF, _NOTHING
        case _:
            assert_never(wishes.method)


def _receiver(receiving: Receiving | Trouble | None, now: datetime) -> _Finding | None:
    if receiving is None:
        return ArchiveStanding.STARTING, _NOTHING
    if isinstance(receiving, Trouble):
        return ArchiveStanding.BROKEN, receiving
    if receiving.streaming and not receiving.problem:
        return None
    trouble = Trouble(problem=receiving.problem, next_step=receiving.next_step)
    if not receiving.streaming and now - receiving.since < START_GRACE:
        return ArchiveStanding.STARTING, trouble
    return ArchiveStanding.BROKEN, trouble if trouble.problem else _SILENT


def _archiver(wishes: Wishes, stand: Stand) -> _Finding | None:
    """The server's own archiver, where we rely on it."""
    if stand.archive_mode == "off":
        return ArchiveStanding.BROKEN, Trouble(
            problem=f"The server of {wishes.database} archives nothing: archive_mode is off.",
            next_step="Set archive_mode = on and archive_command there, and restart it.",
        )
    if stand.failed_at is None or (stand.archived_at and stand.archived_at >= stand.failed_at):
        return None
    return ArchiveStanding.BROKEN, Trouble(
        problem=f"The archive_command of {wishes.database} failed for {stand.failed_wal} at "
        f"{stand.failed_at:%Y-%m-%d %H:%M:%S} UTC, and has not succeeded since.",
        next_step="Read the server's log for what the command said; the server tries again.",
    )


def _kept(wishes: Wishes, kept: Held | Trouble) -> _Finding | None:
    """What is wrong with what is kept, if anything."""
    match kept:
        case Trouble():
            return ArchiveStanding.BROKEN, kept
        case Held(cut=Gap() as cut):
            return ArchiveStanding.BROKEN, _cut(wishes, cut)
        case _:
            return None


def _lagging(wishes: Wishes, late: timedelta) -> _Finding | None:
    return (ArchiveStanding.BEHIND, _late(wishes, late)) if late > wishes.lag_max else None


def _cut(wishes: Wishes, gap: Gap) -> Trouble:
    span = gap.first if gap.count == 1 else f"{gap.first} to {gap.last}"
    return Trouble(
        problem=f"The WAL archive of {wishes.database} lacks {span}: no moment after that can be "
        "recovered from the last backup.",
        next_step=f"Take a full backup now: /db backup {wishes.database}.",
    )


def _late(wishes: Wishes, late: timedelta) -> Trouble:
    if wishes.method is ArchiveMethod.RECEIVE:
        step = "See how busy the network and the backup folder's disk are."
    else:
        step = (
            "If little is written there, set archive_timeout = 60 on the server: it hands over "
            "whole segments only."
        )
    return Trouble(
        problem=f"The WAL archive of {wishes.database} has been behind the server for "
        f"{span_text(late)}.",
        next_step=step,
    )


def _unjoined(wishes: Wishes, kept: Held | Trouble) -> Trouble:
    """All is well, but for a backup that WAL could be replayed on."""
    match kept:
        case Held(joined=None):
            why = "There is no backup that WAL could be replayed on"
        case Held(joined=False):
            why = "The last backup ended before the WAL that is kept begins"
        case _:
            return _NOTHING
    return Trouble(
        problem=f"{why}: no moment of {wishes.database} can be recovered from the archive yet.",
        next_step=f"Take a full backup: /db backup {wishes.database}.",
    )
