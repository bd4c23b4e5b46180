"""Continuity of WAL: what an archive holds without a hole, across timelines. Pure.

A new timeline begins inside a segment of the old one: that segment exists once more under the
new timeline's name, with the old one's bytes up to the switch. So the way to a new timeline
takes segments of the old one up to that segment, and from there on those of the new one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

from postgres.backup.engine import Archive
from postgres.backup.wal_names import (
    Switch,
    history_name,
    is_segment,
    lsn_number,
    lsn_text,
    number_of,
    parse_history,
    segment_at,
    segment_name,
    timeline_of,
)

__all__ = [
    "Gap",
    "Switch",
    "ancestors",
    "contiguous_end",
    "covered",
    "gaps",
    "history_name",
    "is_segment",
    "lsn_number",
    "lsn_text",
    "missing",
    "names_between",
    "newest_timeline",
    "number_of",
    "parse_history",
    "segment_at",
    "segment_name",
    "timeline_of",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Segments of one timeline that are not there: the first and the last name, and how many."""

    timeline: int
    first: str
    last: str
    count: int


@dataclass(frozen=True, slots=True)
class _Leg:
    """A part of the way to a timeline: its segments from `begin` up to but not `end`."""

    timeline: int
    begin: int
    end: int | None


def newest_timeline(archive: Archive) -> int | None:
    """The highest timeline that the archive knows of; None: it is empty."""
    numbers = [timeline_of(segment.name) for segment in archive.segments]
    return max([*numbers, *archive.histories], default=None)


def ancestors(histories: Mapping[int, str], timeline: int) -> tuple[Switch, ...]:
    """The timelines that lead to `timeline`, oldest first; empty for one without a history file.

    Raises:
        PostgresError: its history file is damaged.
    """
    return parse_history(histories.get(timeline, ""))


def gaps(archive: Archive, segment_bytes: int) -> tuple[Gap, ...]:
    """What is missing between segments that are there, in the order of names.

    Also where a timeline leads into the next: between the last segment that is kept of the
    old one, and the switch; between the switch, and the first that is kept of the new one.
    """
    kept = _numbers(archive, segment_bytes)
    found: set[Gap] = set()
    for timeline, numbers in kept.items():
        for before, after in pairwise(sorted(numbers)):
            found |= _gap(timeline, before + 1, after, segment_bytes)
        found |= _gaps_at_switch(archive, kept, timeline, segment_bytes)
    return tuple(sorted(found, key=lambda gap: gap.first))


def names_between(
    histories: Mapping[int, str], start_wal: str, end_wal: str, segment_bytes: int
) -> tuple[str, ...]:
    """All segments from one to another one of the same timeline or of one that came out of it.

    Empty when no way leads there. There are as many names as segments: bound the range first.
    """
    return tuple(_way(histories, start_wal, timeline_of(end_wal), segment_bytes, until=end_wal))


def missing(
    archive: Archive, *, start_wal: str, end_wal: str, segment_bytes: int
) -> tuple[str, ...]:
    """Which segments of a range are not there; a partial one is there only as the last."""
    whole = {segment.name for segment in archive.segments if not segment.is_partial}
    there = {segment.name for segment in archive.segments}
    names = names_between(archive.histories, start_wal, end_wal, segment_bytes)
    if not names:
        return (end_wal,)
    lacking = [name for name in names[:-1] if name not in whole]
    return (*lacking, *(names[-1:] if names[-1] not in there else ()))


def covered(archive: Archive, *, start_wal: str, end_wal: str, segment_bytes: int) -> bool:
    """Whether the archive holds all WAL of a range, its first and last segment included."""
    return not missing(archive, start_wal=start_wal, end_wal=end_wal, segment_bytes=segment_bytes)


def contiguous_end(
    archive: Archive, *, timeline: int, start_wal: str, segment_bytes: int
) -> str | None:
    """The last segment on the way to `timeline` that is reached from `start_wal` without a hole.

    A partial segment can be the last one. None: the first is not there, or `timeline` did not
    come out of the timeline of `start_wal`.
    """
    partial = {segment.name: segment.is_partial for segment in archive.segments}
    whole = {segment.name for segment in archive.segments if not segment.is_partial}
    reached = None
    for name in _way(archive.histories, start_wal, timeline, segment_bytes):
        if name not in partial:
            break
        reached = name
        if name not in whole:
            break
    return reached


def _way(
    histories: Mapping[int, str],
    start_wal: str,
    timeline: int,
    segment_bytes: int,
    *,
    until: str | None = None,
) -> Iterator[str]:
    """Names on the way to a timeline, without an end unless `until` is given."""
    start = number_of(start_wal, segment_bytes)
    last = None if until is None else number_of(until, segment_bytes)
    legs = _legs(histories, timeline, segment_bytes)
    origin = [leg for leg in legs if leg.timeline == timeline_of(start_wal)]
    # Past the switch the old timeline is a dead branch: nothing leads from there.
    if not origin or (origin[0].end is not None and start > origin[0].end):
        return
    for leg in legs[legs.index(origin[0]) :]:
        number = max(leg.begin, start)
        while (leg.end is None or number < leg.end) and (last is None or number <= last):
            yield segment_name(leg.timeline, number, segment_bytes)
            number += 1


def _legs(histories: Mapping[int, str], timeline: int, segment_bytes: int) -> list[_Leg]:
    legs: list[_Leg] = []
    begin = 0
    for switch in ancestors(histories, timeline):
        end = lsn_number(switch.lsn) // segment_bytes
        legs.append(_Leg(switch.timeline, begin, end))
        begin = end
    return [*legs, _Leg(timeline, begin, None)]


def _gaps_at_switch(
    archive: Archive, kept: Mapping[int, set[int]], timeline: int, segment_bytes: int
) -> set[Gap]:
    """Holes on the last step of the way to a timeline; none when nothing is kept before it."""
    switches = ancestors(archive.histories, timeline)
    older = kept.get(switches[-1].timeline, set()) if switches else set()
    begin = lsn_number(switches[-1].lsn) // segment_bytes if switches else 0
    before = [number for number in older if number < begin]
    if not before:
        return set()
    found = _gap(switches[-1].timeline, max(before) + 1, begin, segment_bytes)
    return found | _gap(timeline, begin, min(kept[timeline]), segment_bytes)


def _gap(timeline: int, begin: int, end: int, segment_bytes: int) -> set[Gap]:
    """The gap from `begin` up to but not `end`; none when there is nothing between."""
    if begin >= end:
        return set()
    first = segment_name(timeline, begin, segment_bytes)
    last = segment_name(timeline, end - 1, segment_bytes)
    return {Gap(timeline=timeline, first=first, last=last, count=end - begin)}


def _numbers(archive: Archive, segment_bytes: int) -> dict[int, set[int]]:
    """The numbers that are kept of each timeline. A partial segment is one that has come."""
    kept: dict[int, set[int]] = {}
    for segment in archive.segments:
        numbers = kept.setdefault(timeline_of(segment.name), set())
        numbers.add(number_of(segment.name, segment_bytes))
    return kept
