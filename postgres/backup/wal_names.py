"""Names of WAL files, and the positions that they stand for. Pure, and quick to import.

A segment's name is 24 hexadecimal digits: timeline, then its number in two parts. Its number
counts segments from the beginning of all WAL: number times size is where it begins.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from postgres.errors import PostgresError

PARTIAL_SUFFIX: Final = ".partial"
HISTORY_SUFFIX: Final = ".history"
SEGMENT: Final = re.compile(r"[0-9A-F]{24}")
HISTORY: Final = re.compile(r"([0-9A-F]{8})\.history")
# What an archive_command is called with: also the label of a backup, and the end of a timeline.
ARCHIVABLE: Final = re.compile(
    r"[0-9A-F]{24}(\.[0-9A-F]{8}\.backup|\.partial)?|[0-9A-F]{8}\.history"
)
_LSN: Final = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")
_NUMBERS_PER_LOG: Final = 1 << 32
_HISTORY_LINE: Final = re.compile(r"\s*(\d+)\s+([0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8})(\s.*)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """A timeline was left at an LSN such as 0/5000148, and the next one began there."""

    timeline: int
    lsn: str


def is_segment(name: str) -> bool:
    """Whether this is the name of a whole segment."""
    return SEGMENT.fullmatch(name) is not None


def timeline_of(name: str) -> int:
    """The timeline of a segment, also of a `.partial` one, or of a history file."""
    return int(name[:8], 16)


def number_of(name: str, segment_bytes: int) -> int:
    """Which segment it is, counted from the beginning of all WAL."""
    return int(name[8:16], 16) * (_NUMBERS_PER_LOG // segment_bytes) + int(name[16:24], 16)


def segment_name(timeline: int, number: int, segment_bytes: int) -> str:
    """The name of a segment."""
    per_log = _NUMBERS_PER_LOG // segment_bytes
    return f"{timeline:08X}{number // per_log:08X}{number % per_log:08X}"


def segment_at(timeline: int, lsn: str, segment_bytes: int) -> str:
    """The name of the segment that holds the byte at an LSN."""
    return segment_name(timeline, lsn_number(lsn) // segment_bytes, segment_bytes)


def history_name(timeline: int) -> str:
    """The name of a timeline's history file."""
    return f"{timeline:08X}{HISTORY_SUFFIX}"


def lsn_number(text: str) -> int:
    """An LSN such as 1/6B000028 as a count of bytes.

    Raises:
        PostgresError: it is none.
    """
    found = _LSN.fullmatch(text)
    if found is None:
        raise PostgresError(
            f"{text!r} is no position in WAL.", next_step="Write it as PostgreSQL does: 1/6B000028."
        )
    return (int(found[1], 16) << 32) + int(found[2], 16)


def lsn_text(number: int) -> str:
    """A count of bytes as PostgreSQL writes it."""
    return f"{number >> 32:X}/{number & 0xFFFFFFFF:X}"


def parse_history(text: str) -> tuple[Switch, ...]:
    """What a timeline's history file says: its ancestors, oldest first, and where each was left.

    Raises:
        PostgresError: it is damaged.
    """
    switches: list[Switch] = []
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _HISTORY_LINE.fullmatch(line)
        older = switches[-1] if switches else None
        if found is None or (older is not None and int(found[1]) <= older.timeline):
            raise PostgresError(
                f"A timeline's history file is damaged at {line[:80]!r}.",
                next_step="Take it from the server's pg_wal folder once more.",
            )
        switches.append(Switch(timeline=int(found[1]), lsn=found[2]))
    return tuple(switches)
