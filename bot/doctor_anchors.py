"""The doctor's look at the audit's anchors: how old, and whether the file can only grow."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from approvals.anchor_file import AnchorFileError, Attribute, attribute_of, read_file
from bot.anchoring import AnchorPlace
from bot.finding import Finding
from jobs.schedules import next_due

NAME: Final = "audit anchors"
AGE_MAX: Final = timedelta(hours=26)
_SLACK: Final = timedelta(hours=2)


def examine_anchors(
    place: AnchorPlace | None, *, now: datetime, is_needed: bool
) -> Iterator[Finding]:
    """What this host's file says of itself; `is_needed`: the store is one that people rely on."""
    if place is None:
        yield Finding(
            name=NAME,
            ok=not is_needed,
            says="none: nobody would see if the store's owner cut a chain or made it anew",
            fix="In the inventory: anchors: {channel: C0123ABCD, file: /var/lib/twokey/anchors}",
        )
        return
    if place.file is None:
        yield Finding(name=NAME, ok=True, says=f"posted to {place.channel}; no file on this host")
        return
    yield _newest(place.file, _age_max(place, now), now)
    if place.file.exists():
        yield _attribute(place.file)


def _newest(path: Path, age_max: timedelta, now: datetime) -> Finding:
    try:
        kept = read_file(path)
    except AnchorFileError as error:
        return Finding(name=NAME, ok=False, says=error.problem, fix=error.next_step)
    if kept is None or kept.newest_at is None:
        return Finding(
            name=NAME,
            ok=False,
            says=f"{path} holds no anchor yet.",
            fix="Take one now: twokey audit anchor",
        )
    if kept.problems:
        return Finding(
            name=NAME,
            ok=False,
            says=kept.problems[0],
            fix="Compare the file with what was posted to the channel; keep both.",
        )
    age = now - kept.newest_at
    when = f"{kept.count} in {path}, the newest of {kept.newest_at:%Y-%m-%d %H:%M} UTC"
    if age > age_max:
        return Finding(
            name=NAME,
            ok=False,
            says=f"{when}, {age.total_seconds() / 3600:.0f} hours ago.",
            fix="Look whether a bot runs on this host, and take one now: twokey audit anchor",
        )
    return Finding(name=NAME, ok=True, says=when)


def _attribute(path: Path) -> Finding:
    name = "audit anchors' file"
    match attribute_of(path):
        case Attribute.APPEND_ONLY:
            return Finding(name=name, ok=True, says="the file system lets it only grow")
        case Attribute.PLAIN:
            return Finding(
                name=name,
                ok=False,
                says=f"{path} can be rewritten by its owner.",
                fix=f"As root: chattr +a {path}",
            )
        case Attribute.UNKNOWN:
            return Finding(
                name=name,
                ok=True,
                says="whether it can only grow cannot be known on this file system; "
                "one with chattr +a is better",
            )


def _age_max(place: AnchorPlace, now: datetime) -> timedelta:
    """26 hours, or more where anchors are taken less often."""
    schedule = place.schedule()
    first = next_due(schedule, now)
    second = next_due(schedule, first) if first else None
    gap = second - first if first and second else AGE_MAX
    return max(AGE_MAX, gap + _SLACK)
