"""Tells a database's channel of the drill of the quarter, a week and an hour ahead.

A firing as any other (`jobs.schedules`): the message is stored in its transaction, so that any
number of bots announce once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Final

from pydantic import JsonValue
from sqlalchemy.ext.asyncio import AsyncConnection

from approvals.rules import Rule
from bot.explain import window_text
from bot.scheduled_rules import agreement, is_by_accident
from jobs.cluster_settings import DrillKind
from jobs.drill_notices import NOTICE, Ahead, DrillNotice
from jobs.drill_ways import drill_limits
from jobs.operation import Database
from jobs.schedules import Firing, Schedule
from jobs.timetable import Timed
from store import outbox

RuleOf = Callable[[Timed], Rule | None]
_NOW: Final = timedelta(0)


def notice_schedule(
    ahead: Ahead, database: Database, *, rule_of: RuleOf, clock: Callable[[], datetime]
) -> Schedule:
    """An announcement that is posted when it fires.

    Raises:
        BadInputError: the cron text or the zone cannot be used.
    """

    async def act(conn: AsyncConnection, firing: Firing) -> Mapping[str, JsonValue]:
        now = clock()
        told = notice(ahead, database, rule_of(ahead.timed), at=ahead.drill_at(firing), now=now)
        row = await outbox.post(
            conn,
            topic="drill",
            request_id=None,
            channel=database.channel,
            payload=NOTICE.dump_python(told, mode="json"),
            now=now,
        )
        return {"outbox": row, "drill": told.at.isoformat()}

    return ahead.schedule(act)


def notice(
    ahead: Ahead, database: Database, rule: Rule | None, *, at: datetime, now: datetime
) -> DrillNotice:
    """What is announced of the drill at `at`, as the policy stands `now`. Pure."""
    rto, rpo = drill_limits(database)
    problem = ""
    if rule is None:
        problem = "No rule of the policy lets it run, so it will be refused."
    elif is_by_accident(ahead.timed, rule):
        problem = (
            f"The rule {rule.name} would let it begin with nobody agreeing and does not name"
            " drills, so it will not be asked for."
        )
    return DrillNotice(
        database=database.name,
        kind=DrillKind(ahead.timed.params["kind"]),
        at=at,
        left=max(at - now, _NOW),
        agree=agreement(rule) if rule else "",
        rule=rule.name if rule else "",
        hours=" or ".join(window_text(each) for each in rule.windows) if rule else "",
        waits=rule.expires_after if rule else _NOW,
        rto=rto,
        rpo=rpo,
        problem=problem,
    )
