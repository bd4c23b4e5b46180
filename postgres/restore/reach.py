"""What can be recovered, and from which backup. Pure.

A backup alone can be recovered to its own end. With WAL that was kept without a hole from
there on, to every moment up to the end of that WAL. What the server itself said of its place
in the WAL from time to time (`Mark`) tells which LSN a time stands for, which timeline it
belongs to, and that a quiet database is covered although nothing was written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from postgres.backup.engine import Archive, Segment
from postgres.backup.facts import BackupFacts
from postgres.backup.wal import (
    ancestors,
    contiguous_end,
    gaps,
    lsn_number,
    lsn_text,
    names_between,
    newest_timeline,
    number_of,
    segment_name,
    timeline_of,
)

UTC_TEXT: Final = "%Y-%m-%d %H:%M:%S UTC"
_PAGE_BYTES: Final = 8192
_HEADER_BYTES_MAX: Final = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """At this moment the server wrote at this LSN; its next transaction was to be `next_xid`."""

    at: datetime
    timeline: int
    lsn: str
    next_xid: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What one backup can be recovered to on the way to one timeline.

    From `since` and `since_lsn`, its own end, up to `until` and before `until_lsn`. `wal` are
    the segments after those that the backup itself has; `missing` is the first that is not
    kept although later ones are. `is_open`: the last segment is partial, so how far it really
    goes shows only in a recovery.
    """

    backup: BackupFacts
    timeline: int
    since: datetime
    since_lsn: str
    until: datetime
    until_lsn: str
    wal: tuple[str, ...] = ()
    missing: str | None = None
    is_open: bool = False

    def has_time(self, moment: datetime) -> bool:
        """Whether a moment can be recovered."""
        return self.since <= moment <= self.until

    def has_lsn(self, lsn: str) -> bool:
        """Whether the WAL goes from the backup's end to this LSN."""
        low, high = lsn_number(self.since_lsn), lsn_number(self.until_lsn)
        return low <= lsn_number(lsn) <= high

    def wal_to(self, lsn: str) -> tuple[str, ...]:
        """The part of `wal` that goes up to the segment with this LSN."""
        last = lsn_number(lsn) // self.backup.wal_segment_bytes
        size = self.backup.wal_segment_bytes
        return tuple(name for name in self.wal if number_of(name, size) <= last)

    def __str__(self) -> str:
        """The times, for people."""
        if self.until == self.since:
            return f"{self.since:{UTC_TEXT}} (the end of {self.backup.id})"
        return f"{self.since:{UTC_TEXT}} to {self.until:{UTC_TEXT}}"


def windows(
    backups: Sequence[BackupFacts], archive: Archive, marks: Sequence[Mark] = ()
) -> tuple[Window, ...]:
    """What each backup can be recovered to on the way to each timeline, oldest backup first.

    Logical backups have no WAL and so no window, and neither has a backup of another cluster
    than the newest one. Marks are in the order of time. Of one backup, the window of the newest
    timeline comes last.
    """
    marks = settle(marks)
    physical = [facts for facts in backups if facts.kind != "logical"]
    if not physical:
        return ()
    system = max(physical, key=lambda facts: facts.ended_at).system_identifier
    found = [
        window
        for facts in sorted(physical, key=lambda facts: facts.ended_at)
        if facts.system_identifier == system
        for timeline in _timelines(facts, archive)
        if (window := _window(facts, archive, marks, timeline))
    ]
    return tuple(found)


def spans(found: Sequence[Window]) -> tuple[tuple[datetime, datetime], ...]:
    """The stretches of time that can be recovered from any backup, oldest first."""
    merged: list[tuple[datetime, datetime]] = []
    for window in sorted(found, key=lambda window: window.since):
        if merged and window.since <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], window.until))
        else:
            merged.append((window.since, window.until))
    return tuple(merged)


def settle(marks: Sequence[Mark]) -> tuple[Mark, ...]:
    """The same marks with LSNs at which a record can end, see `record_end`."""
    return tuple(replace(mark, lsn=record_end(mark.lsn)) for mark in marks)


def record_end(lsn: str) -> str:
    """Where the record before an LSN ended.

    A server that is to write next on a fresh page says the place behind that page's header,
    which no replay reaches before something was written there.
    """
    number = lsn_number(lsn)
    offset = number % _PAGE_BYTES
    return lsn_text(number - offset if offset <= _HEADER_BYTES_MAX else number)


def is_on(archive: Archive, timeline: int, mark: Mark) -> bool:
    """Whether the way to a timeline leads through what was written at a mark."""
    if mark.timeline == timeline:
        return True
    switches = {switch.timeline: switch.lsn for switch in ancestors(archive.histories, timeline)}
    left = switches.get(mark.timeline)
    return left is not None and lsn_number(mark.lsn) <= lsn_number(left)


def _timelines(facts: BackupFacts, archive: Archive) -> Iterator[int]:
    """The backup's own timeline, and those that came out of it after the backup's end."""
    yield facts.timeline
    newest = newest_timeline(archive) or facts.timeline
    end = Mark(at=facts.ended_at, timeline=facts.timeline, lsn=facts.end_lsn)
    for timeline in range(facts.timeline + 1, newest + 1):
        if is_on(archive, timeline, end):
            yield timeline


def _window(
    facts: BackupFacts, archive: Archive, marks: Sequence[Mark], timeline: int
) -> Window | None:
    """None where the way to the timeline breaks off before it begins."""
    size = facts.wal_segment_bytes
    begin = _begin(facts, archive)
    last = contiguous_end(archive, timeline=timeline, start_wal=begin, segment_bytes=size)
    if last is None or timeline_of(last) < timeline:
        return _alone(facts, archive) if timeline == facts.timeline else None
    segment = {segment.name: segment for segment in archive.segments}[last]
    until_lsn = lsn_text((number_of(last, size) + 1) * size)
    seen = [mark for mark in marks if is_on(archive, timeline, mark)]
    return Window(
        backup=facts,
        timeline=timeline,
        since=facts.ended_at,
        since_lsn=facts.end_lsn,
        until=max(facts.ended_at, _until(segment, until_lsn, seen)),
        until_lsn=until_lsn,
        wal=names_between(archive.histories, begin, last, size),
        missing=_missing_after(last, archive, size, is_partial=segment.is_partial),
        is_open=segment.is_partial,
    )


def _begin(facts: BackupFacts, archive: Archive) -> str:
    """The first segment that must come from the archive.

    A native backup brings its own WAL. Its last segment ends where the backup does: a primary
    begins a new one then, so that what comes later may begin with the next. Other engines keep
    all WAL in their archive.
    """
    if facts.engine != "native":
        return facts.start_wal
    size = facts.wal_segment_bytes
    following = segment_name(facts.timeline, number_of(facts.end_wal, size) + 1, size)
    there = {segment.name for segment in archive.segments}
    return following if facts.end_wal not in there and following in there else facts.end_wal


def _alone(facts: BackupFacts, archive: Archive) -> Window | None:
    """A backup without later WAL; None for one whose own WAL should be in the archive."""
    if facts.engine != "native":
        return None
    size = facts.wal_segment_bytes
    return Window(
        backup=facts,
        timeline=facts.timeline,
        since=facts.ended_at,
        since_lsn=facts.end_lsn,
        until=facts.ended_at,
        until_lsn=facts.end_lsn,
        missing=_missing_after(facts.end_wal, archive, size, is_partial=False),
    )


def _until(segment: Segment, until_lsn: str, seen: Sequence[Mark]) -> datetime:
    """Up to when nothing can be missing, if WAL ends with this segment.

    What was written before the segment's last change is in it. After that, marks tell that
    nothing was written. How much of a partial segment has come is not known: the first mark
    after its last change is believed to be in it, and so are those that say the same.
    """
    limit = lsn_number(until_lsn)
    if segment.is_partial:
        later = [mark for mark in seen if mark.at > segment.at]
        limit = min(limit, lsn_number(later[0].lsn)) if later else limit
    held = [mark.at for mark in seen if lsn_number(mark.lsn) <= limit]
    return max([segment.at, *held])


def _missing_after(last: str, archive: Archive, size: int, *, is_partial: bool) -> str | None:
    """The first segment that is not kept, where later ones are; None: nothing comes later."""
    number = number_of(last, size)
    later = [
        name
        for segment in archive.segments
        if timeline_of(name := segment.name) == timeline_of(last) and number_of(name, size) > number
    ]
    if later:
        return last if is_partial else segment_name(timeline_of(last), number + 1, size)
    holes = [hole.first for hole in gaps(archive, size)]
    return next((name for name in holes if 0 <= number_of(name, size) - number <= 1), None)
