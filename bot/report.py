"""The statistics of approvals for people and scripts: `/db approvals`, `twokey approvals`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any, Final

from approvals.service import Approvals
from approvals.statistics import RUBBER_STAMP_SECONDS, Spread, Statistics, Waiting, numbers
from approvals.times import duration
from approvals.words import BadInputError
from bot.blocks import Message
from bot.desk import Desk, Typed
from bot.views.answer import answer_message
from jobs.operation import Answer, Table
from store.connect import Store

SINCE: Final = "30d"
PERIOD_MAX: Final = timedelta(days=366)
PENDING_MAX: Final = 200
_HEADS: Final = {"": "Everything", "operation": "", "rule": "Rule ", "step": "", "group": "Group "}
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


async def approvals_word(desk: Desk, typed: Typed, rest: Sequence[str]) -> Message:
    """`/db approvals [database] [30d]`.

    Raises:
        ExplainedError: it was not understood, or this person may not ask.
    """
    await desk.person(typed.team, typed.user)
    database, period = None, SINCE
    for word in rest:
        if word[:1].isdecimal():
            period = word
        elif database is None:
            database = desk.inventory.database(word).name
        else:
            raise BadInputError(
                f"/db approvals does not understand {word!r}.",
                next_step="Write it like this: /db approvals orders 30d",
            )
    found = await statistics_of(
        desk.store, desk.approvals, at=desk.clock(), period=period, database=database
    )
    return answer_message(as_answer(found))


async def statistics_of(
    store: Store, approvals: Approvals, *, at: datetime, period: str, database: str | None
) -> Statistics:
    """The statistics of a period that ends now.

    Raises:
        BadInputError: the period is none, or too long.
    """
    try:
        length = duration(period)
    except ValueError as error:
        raise BadInputError(f"The period {error}.", next_step="Write 30d, 2w or 12h.") from None
    if not timedelta(0) < length <= PERIOD_MAX:
        raise BadInputError(
            f"{period!r} is no period of up to {PERIOD_MAX.days} days.",
            next_step="Write 30d, 2w or 12h.",
        )
    pending = await approvals.recent(database=database, open_only=True, limit=PENDING_MAX)
    in_use = [each for each in await approvals.delegations.open() if each.holds(at)]
    return await numbers(
        store,
        since=at - length,
        at=at,
        database=database,
        pending=pending,
        delegations=len(in_use),
    )


def as_answer(found: Statistics) -> Answer:
    """The statistics as Slack shows them. Pure."""
    days = max(1, round((found.until - found.since).total_seconds() / _DAY))
    return Answer(
        title=f"Approvals of {found.database or 'all databases'}, the last {days} days",
        lines=tuple(lines(found)),
        table=Table(
            columns=("From asking to the decision", "Times", "Median", "9 of 10 within"),
            rows=tuple(_row(spread) for spread in found.lead),
        )
        if found.lead
        else None,
    )


def lines(found: Statistics) -> Sequence[str]:
    """What stands above the table. Pure."""
    asked = (
        f"{found.asked} asked for, {found.denied} denied, {found.lapsed} lapsed without a"
        f" decision, {found.reapprovals} agreed to anew after a change."
    )
    glass = (
        f"Glass broken {found.broken} times; {found.debt} reviews are owed,"
        f" {found.overdue} of them overdue."
    )
    in_use = f"{found.delegations} delegations are in use."
    return [asked, _reading(found), glass, in_use, *(_waiting(each) for each in found.waiting)]


def as_json(found: Statistics) -> Mapping[str, Any]:
    """The statistics for scripts; moments in ISO 8601, lengths in seconds. Pure."""
    return {
        **asdict(found),
        "since": found.since.isoformat(),
        "until": found.until.isoformat(),
    }


def spoken(seconds: float) -> str:
    """A length of time: 45 s, 12 min, 3.5 h, 2.0 days. Pure."""
    if seconds < _MINUTE:
        return f"{seconds:.0f} s"
    if seconds < _HOUR:
        return f"{seconds / _MINUTE:.0f} min"
    if seconds < 2 * _DAY:
        return f"{seconds / _HOUR:.1f} h"
    return f"{seconds / _DAY:.1f} days"


def _row(spread: Spread) -> tuple[str, str, str, str]:
    name = f"{_HEADS[spread.by]}{spread.name}"
    return name, str(spread.count), spoken(spread.median), spoken(spread.p90)


def _waiting(each: Waiting) -> str:
    return (
        f"Waiting for {each.group}: {each.count}, the longest for {spoken(each.longest)},"
        f" half of them for more than {spoken(each.median)}."
    )


def _reading(found: Statistics) -> str:
    if not found.votes:
        return "Nobody has approved anything."
    middle = "" if found.reading_median is None else f", half within {spoken(found.reading_median)}"
    return (
        f"{found.votes} approvals; before {found.opened} of them the plan was opened{middle}, and"
        f" {found.stamps} came less than {RUBBER_STAMP_SECONDS} s after that."
    )
