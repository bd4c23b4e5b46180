"""A rehearsed restore: from which backup, what it would have lost, and what is said of it. Pure.

Nothing is harmed: a moment is declared the disaster, and from then on only what stands in the
archive counts. Spans are seconds, times aware and in UTC.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from pydantic import JsonValue, TypeAdapter

from jobs.backup_settings import ArchiveMethod
from jobs.drill_words import Cost
from jobs.text import count_text, span_text
from postgres.backup.frozen import Stand
from postgres.backup.wal_names import lsn_number
from postgres.cluster.loss import Loss
from postgres.errors import DamagedError, PostgresError
from postgres.restore.ending import UnreachedError
from postgres.restore.window import Mark
from store.backups import ListedBackup

_LOGICAL: Final = "logical"


@dataclass(frozen=True, slots=True, kw_only=True)
class Disaster:
    """What was true when the disaster was declared, as the next life of a run must know it.

    `acked_at`: of the last acknowledged row before it.
    """

    at: datetime
    acked_at: datetime
    stand: Stand


DISASTER: Final = TypeAdapter(Disaster)


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """How the copy came about. `holds`: until when it surely has all that was committed.

    `*_seconds`: parts of the restore; `usable_seconds`: from the disaster until a row was
    written and read back there and the critical queries passed, None where that never came.
    `row_seconds`: the same until that row alone, None where none could be written.
    """

    backup_id: str
    reached_lsn: str
    reached_at: datetime | None
    holds: datetime
    lay_out_seconds: float
    replay_seconds: float
    promote_seconds: float
    row_seconds: float | None
    usable_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreDrilled:
    """What a rehearsed restore found, as a step returns it.

    `at`: the moment that was declared the disaster. `cost` None: nobody can tell what was lost.
    `seconds`: from the disaster until the copy was usable, also where `cost` is None; None: it
    never was. `is_exact` False: another life took that time, and it is the most that it can be.
    `is_rpo_exact` False: no row of the ledger survived, and the cost's RPO is the most that it
    can be. `is_connected`: it took a row and gave it back, applications' role is there, and
    the critical queries passed; `connectivity` says which, or what did not. `facts`: for people.
    """

    at: datetime
    backup_id: str
    cost: Cost | None
    is_connected: bool
    connectivity: str
    seconds: float | None
    is_exact: bool
    is_rpo_exact: bool
    facts: tuple[tuple[str, str], ...]


DRILLED: Final = TypeAdapter(RestoreDrilled)


def drilled_json(drilled: RestoreDrilled) -> JsonValue:
    """As a step stores it; `DRILLED.validate_python` reads it again."""
    told: JsonValue = DRILLED.dump_python(drilled, mode="json")
    return told


def disaster_json(disaster: Disaster) -> JsonValue:
    """As a checkpoint."""
    told: JsonValue = DISASTER.dump_python(disaster, mode="json")
    return told


def disaster_of(checkpoint: JsonValue) -> Disaster | None:
    """From a checkpoint; None: none was declared yet."""
    return None if checkpoint is None else DISASTER.validate_python(checkpoint)


def source_of_disaster(listed: Iterable[ListedBackup]) -> ListedBackup | None:
    """What would be restored: the newest proven backup, else the newest good one; None: none.

    A logical one only where there is no other: no WAL leads on from it.
    """
    good = [each for each in listed if each.backup.state == "complete"]
    return max(good, key=_worth, default=None)


def is_proven(listed: ListedBackup) -> bool:
    """Whether its last verification found it good."""
    return listed.verified is not None and listed.verified.ok


def is_of_the_backup(error: PostgresError) -> bool:
    """Whether a failed recovery says something of the backup or its WAL, not of our host. Pure."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, DamagedError | UnreachedError):
            return True
        cause = cause.__cause__
    return False


def _worth(listed: ListedBackup) -> tuple[bool, bool, datetime]:
    backup = listed.backup
    return backup.kind != _LOGICAL, is_proven(listed), backup.started_at


def newer_unproven(listed: Iterable[ListedBackup], chosen: ListedBackup) -> ListedBackup | None:
    """The newest good backup where that is not the chosen one, which was proven."""
    later = [
        each
        for each in listed
        if each.backup.state == "complete"
        and each.backup.kind != _LOGICAL
        and each.backup.started_at > chosen.backup.started_at
    ]
    return max(later, key=lambda each: each.backup.started_at, default=None)


def holds_until(
    *,
    backup_ended_at: datetime,
    reached_at: datetime | None,
    reached_lsn: str,
    timeline: int,
    marks: Iterable[Mark],
) -> datetime:
    """Until when a copy surely has everything that was committed.

    Its last commit says so of a busy database, a mark of where the server stood of a quiet one.
    """
    end = lsn_number(reached_lsn)
    covered = (
        mark.at for mark in marks if mark.timeline == timeline and lsn_number(mark.lsn) <= end
    )
    known = [backup_ended_at, *covered, *([reached_at] if reached_at else [])]
    return max(known)


def cost_of_restore(loss: Loss, disaster: Disaster, copied: Copied, *, is_one_life: bool) -> Cost:
    """What the ledger and the copy say together.

    Where no row of the ledger has survived, more than the ledger is lost: then the loss reaches
    back to what the copy surely has, which is the most that it can be. Writes pause from the last
    acknowledged row until the copy took one.
    """
    rpo = loss.rpo_seconds
    if is_all_lost(loss):
        rpo = max(rpo, (disaster.at - copied.holds).total_seconds())
    before = max((disaster.at - disaster.acked_at).total_seconds(), 0.0)
    since = copied.row_seconds if copied.row_seconds is not None else 0.0
    return Cost(
        acknowledged=loss.acknowledged,
        lost=loss.lost,
        ambiguous=loss.ambiguous,
        rpo_seconds=rpo,
        heartbeat_seconds=loss.heartbeat_seconds,
        write_gap_seconds=before + since,
        rto_seconds=copied.usable_seconds,
        is_exact=is_one_life,
    )


def is_all_lost(found: Loss | Cost) -> bool:
    """Whether no row of the ledger survived, so that more than the ledger is lost."""
    return bool(found.lost) and found.lost == found.acknowledged


def loss_words(cost: Cost | None, why: str) -> str:
    """What was lost, for people. `why`: where nobody can tell."""
    if cost is None:
        return f"nobody can tell: {why}"
    rows = count_text(cost.acknowledged, "acknowledged row")
    if not cost.lost:
        return f"none of {rows}"
    span = span_text(timedelta(seconds=cost.rpo_seconds))
    if is_all_lost(cost):
        return f"all of {rows}, and whatever else was committed in at most {span}"
    return f"{cost.lost:,} of {rows}, those of the last {span}"


def archive_words(stand: Stand, method: ArchiveMethod, *, has_copy: bool) -> str:
    """How far the archive had come, for people."""
    match stand:
        case Stand(last="") if method is ArchiveMethod.NONE:
            return "WAL is not archived: everything since the backup is lost"
        case Stand(last=""):
            return "it holds nothing: everything since the backup is lost"
        case Stand(is_open=True) if has_copy:
            return f"within {stand.last}, which was being received"
        case Stand(is_open=True):
            return f"before {stand.last}: what had come of that one went with the earlier worker"
        case _:
            return f"to the end of {stand.last}, the last whole file"


def facts_of_copy(
    copied: Copied, disaster: Disaster, *, backup_age: timedelta, archive: str, lost: str
) -> Iterator[tuple[str, str]]:
    """What is told of a restore that came to its end."""
    yield "Declared lost", f"{disaster.at:%Y-%m-%d %H:%M:%S} UTC; nothing was harmed"
    yield "Backup", f"{copied.backup_id}, {span_text(backup_age)} old then"
    yield "Archive then", archive
    commit = f", last commit {copied.reached_at:%H:%M:%S.%f} UTC" if copied.reached_at else ""
    yield "Copy ends at", f"LSN {copied.reached_lsn}{commit}"
    yield "Lost", lost
    parts = (
        ("laid out", copied.lay_out_seconds),
        ("replayed", copied.replay_seconds),
        ("promoted", copied.promote_seconds),
    )
    yield "Restore", ", ".join(f"{name} in {span_text(_span(each))}" for name, each in parts)
    if copied.row_seconds is not None:
        yield "First row after", span_text(_span(copied.row_seconds))
    if copied.usable_seconds is not None:
        yield "Usable after", span_text(_span(copied.usable_seconds))


def _span(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)
