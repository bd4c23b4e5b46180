"""What of a database's backups is kept, what may go, and why: one sentence for each. Pure.

Everything is an instant in UTC, so that no zone and no change of clocks moves it. A judgement
says no more than what the catalogue knows: what is on disk is `jobs.reconcile`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from jobs.backup_settings import ArchiveMethod, BackupSettings, BackupTier
from jobs.operation import JobError
from jobs.text import span_text
from jobs.timetable import interval_of
from postgres.backup.wal_names import lsn_number
from store.backups import BackupRecord, ListedBackup

# What a backup that nobody gave a tier is kept as.
BY_HAND: Final = (BackupTier.DAILY,)
# There to be restored, proven or not; what is being removed or was lost is neither.
USABLE: Final = frozenset({"complete", "damaged"})
JUDGED: Final = USABLE | {"removing", "lost"}


class NothingDueError(JobError):
    """There is nothing to remove now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Where a cluster stood at a moment: which one it is, and on which timeline."""

    at: datetime
    system_identifier: str
    timeline: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A backup, whether it is kept, and why in one sentence.

    `until`: it is kept at least so long; None: until something happens, which `why` names.
    """

    listed: ListedBackup
    kept: bool
    why: str
    until: datetime | None

    @property
    def backup(self) -> BackupRecord:
        """The backup."""
        return self.listed.backup


@dataclass(frozen=True, slots=True, kw_only=True)
class Trim:
    """WAL before the start of this backup serves nothing any more."""

    backup_id: str
    lsn: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """All backups, newest first.

    `trim` is None where no WAL may go, and then `untrimmed` says why.
    """

    judged: tuple[Judged, ...]
    trim: Trim | None
    untrimmed: str

    @property
    def kept(self) -> tuple[Judged, ...]:
        """What stays."""
        return tuple(each for each in self.judged if each.kept)

    @property
    def doomed(self) -> tuple[Judged, ...]:
        """What may go, in the order in which it has to: what builds on another one first."""
        bases = {each.backup.id: each.backup.base for each in self.judged}
        going = [each for each in self.judged if not each.kept]
        return tuple(
            sorted(going, key=lambda each: (-_depth(each.backup.id, bases), _age(each.listed)))
        )


def judge(
    backups: Iterable[ListedBackup],
    settings: BackupSettings,
    now: datetime,
    *,
    line: Line | None = None,
) -> Judgement:
    """Which backups are kept and which may go.

    `line`: where the cluster stands by its newest mark, if there is one.

    Judged again after what may go is gone, nothing more may go at the same time; and what may
    go once may go at every later time, unless something new is known.
    """
    known = sorted(
        (each for each in backups if each.backup.state in JUDGED), key=_age, reverse=True
    )
    facts = _Facts.of(known, settings, now, line)
    verdicts = {each.backup.id: _verdict(each, facts) for each in known}
    _keep_bases(verdicts)
    judged = tuple(verdicts[each.backup.id] for each in known)
    trim = _trim(known, facts)
    return Judgement(
        judged=judged,
        trim=trim if isinstance(trim, Trim) else None,
        untrimmed=trim if isinstance(trim, str) else "",
    )


def tiers_of(backup: BackupRecord) -> tuple[BackupTier, ...] | None:
    """What a backup is kept for; None when one of its tiers has a name that means nothing."""
    try:
        return tuple(BackupTier(name) for name in backup.tiers) or BY_HAND
    except ValueError:
        return None


def serves(
    backups: Iterable[ListedBackup], tier: BackupTier, settings: BackupSettings, now: datetime
) -> str | None:
    """The full backup that can serve a tier which is due now as well, so that none is taken.

    The newest complete one of at most `share_within`, which nobody has found damaged. A tier
    whose backups are of another kind takes its own, and one that is due every hour is not
    served by its last one.
    """
    schedule = settings.tiers.get(tier)
    if schedule is not None and schedule.kind != "full":
        return None
    within = settings.share_within
    if schedule is not None:
        within = min(within, interval_of(schedule.cron, settings.zone, now) / 2)
    fit = [
        each
        for each in backups
        if each.backup.state == "complete"
        and each.backup.kind == "full"
        and timedelta(0) <= now - each.backup.started_at <= within
    ]
    return max(fit, key=_age).backup.id if fit else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Facts:
    """What the verdict on each backup is made of. `bases`: full backups that may open the window.

    `protected`: the backups without which too little is left, and why.
    """

    settings: BackupSettings
    now: datetime
    protected: Mapping[str, str]
    bases: Sequence[BackupRecord]
    proven: BackupRecord | None

    @staticmethod
    def of(
        known: Sequence[ListedBackup], settings: BackupSettings, now: datetime, line: Line | None
    ) -> _Facts:
        """`known` is newest first."""
        usable = [each for each in known if each.backup.state == "complete"]
        proven = [each for each in usable if each.verified is not None and each.verified.ok]
        return _Facts(
            settings=settings,
            now=now,
            protected=_protected(usable, proven),
            bases=_bases([each.backup for each in usable], line),
            proven=proven[0].backup if proven else None,
        )

    @property
    def is_continuous(self) -> bool:
        """Whether every moment of the last days has to stay recoverable."""
        return self.settings.archive.method is not ArchiveMethod.NONE


def _age(listed: ListedBackup) -> tuple[datetime, str]:
    return listed.backup.started_at, listed.backup.id


def _depth(backup_id: str, bases: Mapping[str, str | None]) -> int:
    """On how many others a backup builds; a catalogue that goes in circles ends too."""
    depth, at = 0, bases.get(backup_id)
    while at is not None and depth <= len(bases):
        depth, at = depth + 1, bases.get(at)
    return depth


def _protected(usable: Sequence[ListedBackup], proven: Sequence[ListedBackup]) -> Mapping[str, str]:
    """Why these stay however old they are; both are newest first."""
    chosen: dict[str, str] = {}
    for found, why in (
        (usable, "The newest complete backup."),
        (proven, "The last backup that a restore has proven."),
        (_full(usable), "The newest complete full backup."),
        (_full(proven), "The last full backup that a restore has proven."),
    ):
        if found:
            chosen.setdefault(found[0].backup.id, why)
    return chosen


def _full(backups: Sequence[ListedBackup]) -> Sequence[ListedBackup]:
    return [each for each in backups if each.backup.kind == "full"]


def _bases(complete: Sequence[BackupRecord], line: Line | None) -> Sequence[BackupRecord]:
    """The full backups from which the WAL leads to where the cluster stands today.

    After a failover or a restore in place only backups of the new timeline surely do: where it
    branched off, the catalogue does not know, and an older backup may be the only one before
    that. So for as long as the window is, older ones stay.
    """
    physical = [backup for backup in complete if backup.kind != "logical"]
    if not physical:
        return ()
    newest = physical[0]
    stands = (newest.system_identifier, newest.timeline)
    if line is not None and line.at > newest.ended_at:
        stands = (line.system_identifier, line.timeline)
    return [
        backup
        for backup in physical
        if backup.kind == "full" and (backup.system_identifier, backup.timeline) == stands
    ]


def _verdict(listed: ListedBackup, facts: _Facts) -> Judged:
    """About one backup by itself; what builds on it is looked at later."""
    backup = listed.backup
    if backup.state == "removing":
        why = "Its removal was begun and has not ended."
        return Judged(listed=listed, kept=False, why=why, until=None)
    tiers = tiers_of(backup)
    if tiers is None:
        why = f"Kept for {', '.join(backup.tiers)}, which says nothing here."
        return Judged(listed=listed, kept=True, why=why, until=None)
    if backup.hold is not None:
        return Judged(listed=listed, kept=True, why=_held(backup), until=None)
    until, tier = max((backup.started_at + facts.settings.keep_of(tier), tier) for tier in tiers)
    window = _window_until(backup, facts)
    if facts.now < until:
        ends = until if window is _OUTSIDE else _later(until, window)
        return Judged(listed=listed, kept=True, why=f"Kept {_as(tier, facts)}.", until=ends)
    if (needed := _still_needed(backup, facts, window)) is not None:
        ends = window if window is not _OUTSIDE and backup.id not in facts.protected else None
        return Judged(listed=listed, kept=True, why=needed, until=ends)
    why = f"Was kept {_as(tier, facts)}, until {_moment(until)}."
    return Judged(listed=listed, kept=False, why=why, until=until)


# What `_window_until` says of a backup that no moment of the last days needs.
_OUTSIDE: Final = datetime.min.replace(tzinfo=UTC)


def _window_until(backup: BackupRecord, facts: _Facts) -> datetime | None:
    """Until when the continuous window needs a backup; None: until there is a newer full one.

    The window opens at the newest full backup that ended before it: that one and all after it
    are needed, and none before it.
    """
    if not facts.is_continuous or backup.kind == "logical" or backup.state == "removing":
        return _OUTSIDE
    keep = facts.settings.archive.keep
    ends = [base.ended_at + keep for base in facts.bases if base.started_at > backup.started_at]
    if not ends:
        return None
    return min(ends) if facts.now < min(ends) else _OUTSIDE


def _later(until: datetime, window: datetime | None) -> datetime | None:
    return None if window is None else max(until, window)


def _still_needed(backup: BackupRecord, facts: _Facts, window: datetime | None) -> str | None:
    """Why a backup stays whose time is over, or None."""
    if why := facts.protected.get(backup.id):
        return why
    if window is not _OUTSIDE:
        return f"The last {span_text(facts.settings.archive.keep)} are recovered from it and WAL."
    if backup.state != "complete" and not _proven_after(backup, facts):
        what = "Damaged" if backup.state == "damaged" else "Not found where it should be"
        return f"{what}, and no newer backup is proven yet."
    return None


def _proven_after(backup: BackupRecord, facts: _Facts) -> bool:
    return facts.proven is not None and facts.proven.started_at > backup.started_at


def _keep_bases(verdicts: dict[str, Judged]) -> None:
    """Keep whatever a kept backup builds on, and that's own base, as long as it is kept."""
    for child in [each for each in verdicts.values() if each.kept]:
        needs = child
        seen = {child.backup.id}
        while (base := verdicts.get(needs.backup.base or "")) and base.backup.id not in seen:
            seen.add(base.backup.id)
            if base.backup.state == "removing":
                break  # nobody can bring it back
            until = None if None in (base.until, child.until) else _latest(base, child)
            why = base.why if base.kept else f"{needs.backup.id} builds on it."
            verdicts[base.backup.id] = replace(base, kept=True, why=why, until=until)
            needs = verdicts[base.backup.id]


def _latest(base: Judged, child: Judged) -> datetime | None:
    return max((each.until for each in (base, child) if each.until is not None), default=None)


def _trim(known: Sequence[ListedBackup], facts: _Facts) -> Trim | str:
    """Where the WAL begins that the window needs, or why all of it stays."""
    if not facts.is_continuous:
        return "No WAL is archived."
    if not facts.bases:
        return "There is no full backup of the cluster as it is today, so all WAL stays."
    needed = [each.backup for each in known if _window_until(each.backup, facts) is not _OUTSIDE]
    if len({backup.system_identifier for backup in needed}) > 1:
        return "Backups of two clusters are within the window, so all WAL stays."
    first = min(needed, key=lambda backup: lsn_number(backup.start_lsn))
    return Trim(backup_id=first.id, lsn=first.start_lsn)


def _held(backup: BackupRecord) -> str:
    hold = backup.hold or {}
    return f"On hold by {hold.get('by', 'somebody')}: {hold.get('reason', 'no reason given')}"


def _as(tier: BackupTier, facts: _Facts) -> str:
    return f"{span_text(facts.settings.keep_of(tier))} as {tier}"


def _moment(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
