"""The judgement on a database's backups by what the store knows, and WAL that serves nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from jobs.operation import Database
from jobs.retention import Judgement, Line, Trim, judge
from jobs.text import count_text
from postgres.backup.engine import Archive, Segment
from postgres.backup.facts import BackupFacts
from store.backups import all_backups
from store.keeping import newest_mark

# Of a segment's name: timeline, then its number, which is what makes it older or newer.
_TIMELINE_CHARS: Final = 8
_NAME_CHARS: Final = 24
# So long after a backup its older WAL may still come in.
LATE: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trimming:
    """WAL files that may go: those before the segment `before`."""

    before: str
    files: int
    size_bytes: int


async def judgement_of(
    conn: AsyncConnection, database: Database, now: datetime, *, without: str = ""
) -> Judgement:
    """What of a database's backups is kept and what may go.

    `without`: as if this backup were not on hold.
    """
    mark = await newest_mark(conn, database.name)
    line = mark and Line(at=mark[0], system_identifier=mark[1], timeline=mark[2])
    known = [
        replace(each, backup=replace(each.backup, hold=None)) if each.backup.id == without else each
        for each in await all_backups(conn, database.name)
    ]
    return judge(known, database.backups, now, line=line)


def trimming(archive: Archive, trim: Trim, backups: Iterable[BackupFacts]) -> Trimming | str:
    """Which WAL a trim removes, or why all of it stays. Pure.

    A segment that is older by its name than the backup and came long after it may be another
    cluster's, whose WAL counts from the beginning again: then all of it stays.
    """
    start = next((facts for facts in backups if facts.id == trim.backup_id), None)
    if start is None or len(start.start_wal) != _NAME_CHARS:
        return f"The facts of {trim.backup_id} are not at hand, so all WAL stays."
    older = [each for each in archive.segments if _is_before(each, start.start_wal)]
    late = [each for each in older if each.at > start.ended_at + LATE]
    if late:
        return (
            f"{count_text(len(late), 'WAL file')} before the start of {start.id} came long after"
            " it, maybe from another cluster, so all WAL stays."
        )
    return Trimming(
        before=start.start_wal,
        files=len(older),
        size_bytes=sum(each.size_bytes for each in older),
    )


def _is_before(segment: Segment, before: str) -> bool:
    number = slice(_TIMELINE_CHARS, _NAME_CHARS)
    return segment.name[number] < before[number]
