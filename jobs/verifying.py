"""Which backup is proven next, and to which moment. Pure; chance comes in as a number."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from postgres.restore.target import END, RecoveryTarget, at_time
from postgres.restore.window import Window
from store.backups import BackupRecord, ListedBackup
from store.proofs import LastProof

# What is shorter is not worth a choice.
WINDOW_MIN: Final = timedelta(seconds=2)
_NEVER: Final = datetime.min.replace(tzinfo=UTC)


def choose_backup(listed: Iterable[ListedBackup], last: LastProof | None) -> BackupRecord | None:
    """The backup whose turn it is; None where there is no good one.

    Two take turns: the newest, which one would restore first, and the one that was proven
    longest ago, first of all the oldest that never was. `last`: the last verification of all,
    also of a backup that is gone.
    """
    good = [each for each in listed if each.backup.state == "complete"]
    if not good:
        return None
    if last is not None and _was_newest(last, good):
        return min(good, key=lambda each: (_proven_at(each), each.backup.started_at)).backup
    return max(good, key=lambda each: each.backup.started_at).backup


def random_target(
    windows: Sequence[Window], backup_id: str, *, draw: float, before: datetime
) -> RecoveryTarget:
    """A moment to recover this backup to; its own end where no WAL leads on from it.

    `draw` is from 0 to below 1. The moment lies before the end of the next backup, from which
    later moments would be recovered, and before `before`: the last minutes may still be on
    their way to the archive.
    """
    mine = [window for window in windows if window.backup.id == backup_id]
    if not mine:
        return END
    window = mine[-1]  # that of the newest timeline
    later = [
        other.since
        for other in windows
        if other.timeline == window.timeline and other.since > window.since
    ]
    span = min([window.until, before, *later]) - window.since
    if span < WINDOW_MIN:
        return END
    # Whole seconds: people read and type it.
    moment = window.since + timedelta(seconds=int(span.total_seconds() * draw))
    return at_time(max(moment.replace(microsecond=0), window.since))


def _was_newest(last: LastProof, listed: Iterable[ListedBackup]) -> bool:
    """Whether that verification was of the backup that was the newest at its time."""
    return not any(last.started_at < each.backup.started_at < last.at for each in listed)


def _proven_at(listed: ListedBackup) -> datetime:
    return listed.verified.at if listed.verified else _NEVER
