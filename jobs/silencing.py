"""Until when a silence lasts, as people write it, and whose messages it changes."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from pydantic import JsonValue
from sqlalchemy.ext.asyncio import AsyncConnection

from approvals.dates import span as dated
from approvals.times import duration
from approvals.words import BadInputError
from jobs.alert_rules import rules_of
from jobs.alerts import NAMES
from jobs.operation import Database, JobError
from store.incidents import open_incidents
from store.outbox import post
from store.silencing import names_told

SPAN_MAX: Final = timedelta(days=30)
SPAN_MIN: Final = timedelta(minutes=1)
EXAMPLES: Final = "30m, 4h, 2d, 18:00, until Friday, or 2026-11-25T06:00+01:00"
_CLOCK: Final = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")
_LEAD: Final = re.compile(r"(?:for|until|till)\s+", re.IGNORECASE)
_SPAN: Final = re.compile(r"(?:\d{1,6}(?:min|[mhdw]))+", re.IGNORECASE)


def looks_like_end(text: str) -> bool:
    """Whether `text` is written like the end of a silence, be it a possible one or not."""
    said = _LEAD.sub("", text.strip(), count=1)
    return bool(
        said != text.strip()
        or _SPAN.fullmatch(said)
        or _CLOCK.fullmatch(said)
        or _iso(said, ZoneInfo("UTC"))
    )


def end_of(text: str, *, now: datetime, zone: str) -> datetime:
    """When a silence ends that begins `now`; a time of day is the next one in `zone`.

    Raises:
        JobError: it is none, is over, or is later than 30 days from now.
    """
    said = _LEAD.sub("", text.strip(), count=1)
    end = _end(said, now, ZoneInfo(zone))
    if end is None:
        raise JobError(
            f"{text!r} does not say how long to be silent.", next_step=f"Write {EXAMPLES}."
        )
    if end - now > SPAN_MAX:
        raise JobError(
            f"It would be silent for more than {SPAN_MAX.days} days.",
            next_step="Write an earlier end, and silence it again then; or change the alert's rule"
            " in the inventory.",
        )
    if end - now < SPAN_MIN:
        raise JobError(
            f"{text!r} is over, or as good as over.", next_step=f"Write a later end: {EXAMPLES}."
        )
    return end


def _end(said: str, now: datetime, zone: ZoneInfo) -> datetime | None:
    if _SPAN.fullmatch(said):
        try:
            return now + duration(said.lower().replace("min", "m"))
        except (ValueError, OverflowError):
            return now + 2 * SPAN_MAX
    if clock := _CLOCK.fullmatch(said):
        return _next(time(int(clock[1]), int(clock[2])), now, zone)
    if at := _iso(said, zone):
        return at
    try:
        return dated(["until", *said.split()], now=now, zone=zone).end
    except BadInputError:
        return None


def _next(clock: time, now: datetime, zone: ZoneInfo) -> datetime:
    today = now.astimezone(zone).date()
    at = datetime.combine(today, clock, tzinfo=zone)
    if at <= now:
        at = datetime.combine(today + timedelta(days=1), clock, tzinfo=zone)
    return at.astimezone(UTC)


def _iso(said: str, zone: ZoneInfo) -> datetime | None:
    """An ISO timestamp with its time; a day alone is read as people mean it, to its end."""
    try:
        at = datetime.fromisoformat(said)
        known = at if at.tzinfo else at.replace(tzinfo=zone)
        return known.astimezone(UTC) if ":" in said else None
    except (ValueError, OverflowError):
        return None


async def known_names(conn: AsyncConnection, database: Database) -> Sequence[str]:
    """The alerts that there are for a database: its rules', those of backups, and what fired."""
    told = await names_told(conn, database.name)
    return sorted({*rules_of(database.monitoring), *NAMES, *told})


def named(name: str, known: Iterable[str], *, database: str) -> str:
    """The alert that somebody means, in its own spelling; '' for all of them.

    Raises:
        JobError: nothing of this name is known of the database, so that it would silence nothing.
    """
    if not name:
        return ""
    by_word = {each.casefold(): each for each in known}
    if found := by_word.get(name.casefold()):
        return found
    near = difflib.get_close_matches(name.casefold(), list(by_word), n=1, cutoff=0.5)
    raise JobError(
        f"No alert called {name!r} is known of {database}.",
        next_step=f"Did you mean {by_word[near[0]]}?"
        if near
        else f"/db alerts {database} says what fires; leave the name out to silence everything.",
    )


async def redraw_incidents(
    conn: AsyncConnection,
    database: str,
    *,
    names: Sequence[str],
    text: str,
    mark: str,
    at: datetime,
) -> None:
    """Have the messages of what is open on a database drawn anew, with a note in their threads.

    `names`: only those where one of these fires; '' is any. In the caller's transaction.
    """
    for incident in await open_incidents(conn, database):
        if "" not in names and not any(each.name in names for each in incident.firing):
            continue
        for payload in ({"kind": "card"}, {"kind": "note", "text": text, "mark": mark}):
            told: dict[str, JsonValue] = {"incident": incident.id, **payload}
            await post(
                conn, topic="incident", request_id=None, channel=incident.channel, payload=told,
                now=at,
            )  # fmt: skip
