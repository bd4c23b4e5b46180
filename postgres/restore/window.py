"""Which backup and which WAL a recovery to a target takes, or why there is none. Pure.

Whatever can be known before anything is unpacked is refused here: a moment outside of what is
recoverable, and a hole in the WAL.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, assert_never

from postgres.backup.engine import Archive
from postgres.backup.facts import BackupFacts
from postgres.backup.wal import lsn_number, newest_timeline
from postgres.errors import PostgresError
from postgres.restore.reach import UTC_TEXT, Mark, Window, is_on, record_end, settle, spans, windows
from postgres.restore.target import RecoveryTarget

__all__ = [
    "Choice",
    "HoleError",
    "Mark",
    "Window",
    "choose",
    "live_timeline",
    "spans",
    "windows",
]

_SPANS_SHOWN_MAX: Final = 3


class HoleError(PostgresError):
    """WAL that the target needs is missing, although later WAL is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """How a target is reached: from this backup, with these WAL segments, on this timeline.

    `proof_lsn`: when this LSN has been replayed, nothing that belongs to the target is
    missing, also if no later transaction shows it; None: nobody knows such an LSN.
    `is_open`: the last segment is partial, and may hold less than its name says. `note` is for
    people, if there is something to say about the choice.
    """

    target: RecoveryTarget
    backup: BackupFacts
    timeline: int
    wal: tuple[str, ...] = ()
    proof_lsn: str | None = None
    is_open: bool = False
    note: str = ""

    @property
    def wal_bytes(self) -> int:
        """The size of the WAL that must come from the archive."""
        return len(self.wal) * self.backup.wal_segment_bytes


def choose(
    backups: Sequence[BackupFacts],
    archive: Archive,
    target: RecoveryTarget,
    *,
    marks: Sequence[Mark] = (),
    backup_id: str | None = None,
) -> Choice:
    """The newest backup that leads to the target, or the one that was asked for.

    Never a logical one, but at its own end if it was asked for; never one of another cluster
    than the newest backup's. Marks are in the order of time.

    Raises:
        HoleError: WAL on the way there is missing; it is named.
        PostgresError: there is none; it says what can be recovered.
    """
    marks = settle(marks)
    asked = [facts for facts in backups if backup_id in (None, facts.id)]
    if backup_id is not None and not asked:
        raise PostgresError(
            f"There is no backup {backup_id}.", next_step="List the backups, and name one of them."
        )
    if target.kind == "end":
        return _at_its_end(asked, target, is_named=backup_id is not None)
    if backup_id is not None and asked[0].kind == "logical":
        raise PostgresError(
            f"{backup_id} is a logical backup: it holds one moment, and no WAL leads on from it.",
            next_step="Ask for `end`, or leave the backup out, so that a full one is chosen.",
        )
    found = [window for window in windows(backups, archive, marks) if window.backup in asked]
    if not found:
        raise PostgresError(
            f"There is no backup from which {target} can be recovered.",
            next_step="Take a full backup: what is written from then on can be recovered.",
        )
    return _chosen(found, archive, target, marks)


def _at_its_end(asked: Sequence[BackupFacts], target: RecoveryTarget, *, is_named: bool) -> Choice:
    fitting = [facts for facts in asked if is_named or facts.kind != "logical"]
    if not fitting:
        raise PostgresError(
            "There is no backup to recover from.", next_step="Take a full backup first."
        )
    newest = max(fitting, key=lambda facts: facts.ended_at)
    return Choice(target=target, backup=newest, timeline=newest.timeline)


def _chosen(
    found: Sequence[Window], archive: Archive, target: RecoveryTarget, marks: Sequence[Mark]
) -> Choice:
    match target.kind:
        case "time":
            return _by_time(found, archive, target, marks)
        case "lsn":
            return _by_lsn(found, target)
        case "xid":
            return _by_xid(found, archive, target, marks)
        case "point":
            return _from_oldest(found, target)
        case "latest":
            window = _on_newest_timeline(found)[-1]
            note = f"WAL {window.missing} is missing: nothing after it can be recovered."
            return _choice(target, window, window.wal, note=note if window.missing else "")
        case "end":
            raise AssertionError(target)  # see `choose`
        case _:
            assert_never(target.kind)


def _choice(
    target: RecoveryTarget,
    window: Window,
    wal: tuple[str, ...],
    *,
    proof_lsn: str | None = None,
    note: str = "",
) -> Choice:
    return Choice(
        target=target,
        backup=window.backup,
        timeline=window.timeline,
        wal=wal,
        proof_lsn=proof_lsn,
        is_open=window.is_open and wal == window.wal,
        note=note,
    )


def _by_time(
    found: Sequence[Window], archive: Archive, target: RecoveryTarget, marks: Sequence[Mark]
) -> Choice:
    moment = target.at
    if moment is None:  # a target by time has one
        raise AssertionError(target)
    timeline = live_timeline(moment, archive, marks)
    fitting = [w for w in found if timeline in (w.timeline, None) and w.has_time(moment)]
    if not fitting:
        raise _outside(found, moment)
    window = fitting[-1]
    until = lsn_number(window.until_lsn)
    proof = next(
        (
            mark.lsn
            for mark in marks
            if mark.at >= moment
            and is_on(archive, window.timeline, mark)
            and lsn_number(mark.lsn) <= until
        ),
        None,
    )
    if proof is None:
        return _choice(target, window, window.wal)
    # One more: where nothing was committed after the moment, the next may show it at once.
    wal = window.wal[: len(window.wal_to(proof)) + 1]
    return _choice(target, window, wal, proof_lsn=proof)


def _by_lsn(found: Sequence[Window], target: RecoveryTarget) -> Choice:
    lsn = record_end(target.value)
    fitting = [window for window in found if window.has_lsn(lsn)]
    if not fitting:
        raise _outside_of_lsns(found, target)
    timeline = max(window.timeline for window in fitting)
    window = [window for window in fitting if window.timeline == timeline][-1]
    # PostgreSQL stops at the first record that begins there or later: maybe in the next one.
    wal = window.wal_to(lsn)
    return _choice(target, window, window.wal[: len(wal) + 1], proof_lsn=lsn)


def _by_xid(
    found: Sequence[Window], archive: Archive, target: RecoveryTarget, marks: Sequence[Mark]
) -> Choice:
    """From the newest backup that ended before the transaction can have begun."""
    number = int(target.value)
    usable = _on_newest_timeline(found)
    before = [
        lsn_number(mark.lsn)
        for mark in marks
        if mark.next_xid is not None
        and mark.next_xid <= number
        and is_on(archive, usable[-1].timeline, mark)
    ]
    if not before:
        return _from_oldest(found, target)
    fitting = [w for w in usable if lsn_number(w.since_lsn) <= max(before)]
    if not fitting:
        return _from_oldest(found, target)
    return _choice(target, fitting[-1], fitting[-1].wal)


def _from_oldest(found: Sequence[Window], target: RecoveryTarget) -> Choice:
    """Nobody knows where it is, so all WAL that leads to the end is gone through."""
    usable = _on_newest_timeline(found)
    end = lsn_number(usable[-1].until_lsn)
    reaching = [window for window in usable if lsn_number(window.until_lsn) == end]
    window = reaching[0]
    note = (
        f"Nobody knows beforehand where {target} is, so all WAL from {window.backup.id} on is "
        "searched; naming a later backup makes it quicker."
    )
    return _choice(target, window, window.wal, note=note if len(reaching) > 1 else "")


def live_timeline(moment: datetime, archive: Archive, marks: Sequence[Mark]) -> int | None:
    """The timeline that a moment belongs to; None: nothing was kept.

    The newest one, unless the marks say that the server went another way then: a timeline
    that was left for an earlier moment of it keeps what was written after that moment.
    """
    newest = newest_timeline(archive)
    before = next((mark for mark in reversed(marks) if mark.at <= moment), None)
    after = next((mark for mark in marks if mark.at > moment), None)
    if newest is None or before is None:
        return newest
    for timeline in range(newest, before.timeline, -1):
        stays = after is not None and after.timeline == before.timeline
        if is_on(archive, timeline, before) and (
            not stays or (after is not None and is_on(archive, timeline, after))
        ):
            return timeline
    return before.timeline


def _on_newest_timeline(found: Sequence[Window]) -> Sequence[Window]:
    newest = max(window.timeline for window in found)
    return [window for window in found if window.timeline == newest]


def _outside(found: Sequence[Window], moment: datetime) -> PostgresError:
    """Why a time cannot be recovered, and what can."""
    shown, what = f"{moment:{UTC_TEXT}}", _recoverable(found)
    before = [window for window in found if window.since <= moment]
    if not before:
        first = min(found, key=lambda window: window.since)
        return PostgresError(
            f"{shown} is before the end of the oldest backup that leads on from there: "
            f"{first.backup.id} ended at {first.since:{UTC_TEXT}}.",
            next_step=what,
        )
    nearest = max(before, key=lambda window: (window.until, window.since))
    if nearest.missing:
        return HoleError(
            f"{shown} cannot be recovered: the WAL file {nearest.missing} is missing after the "
            f"backup {nearest.backup.id}.",
            next_step=f"{what} If that file is still on the server or elsewhere, put it into "
            "the archive.",
        )
    if not nearest.wal:
        return PostgresError(
            f"{shown} cannot be recovered: no WAL is kept after the backup {nearest.backup.id}.",
            next_step=f"{what} Other moments need continuous archiving.",
        )
    return PostgresError(
        f"{shown} is later than what is kept: the WAL goes up to {nearest.until:{UTC_TEXT}}.",
        next_step=f"{what} Ask for `latest` to get everything that is kept.",
    )


def _outside_of_lsns(found: Sequence[Window], target: RecoveryTarget) -> PostgresError:
    """Why an LSN cannot be recovered, and which can."""
    ranges = sorted({(window.since_lsn, window.until_lsn) for window in found if window.wal})
    shown = ", ".join(f"{low} to {high}" for low, high in ranges[-_SPANS_SHOWN_MAX:])
    holes = sorted({window.missing for window in found if window.missing})
    hole = f" The WAL file {holes[0]} is missing." if holes else ""
    return (HoleError if holes else PostgresError)(
        f"The LSN {target.value} is outside of the WAL that is kept.{hole}",
        next_step=f"Recoverable: LSN {shown}." if shown else _recoverable(found),
    )


def _recoverable(found: Sequence[Window]) -> str:
    shown = [
        f"{begin:{UTC_TEXT}} to {end:{UTC_TEXT}}" if begin < end else f"{begin:{UTC_TEXT}}"
        for begin, end in spans(found)[-_SPANS_SHOWN_MAX:]
    ]
    return f"Recoverable: {', and '.join(shown)}."
