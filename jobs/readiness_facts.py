"""What the ten checks need beside backups and the last samples. SQL only, of the store.

A few statements, whatever the number of databases.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, TIMESTAMP
from sqlalchemy.ext.asyncio import AsyncConnection

from approvals import anchoring
from jobs.drill_stored import report_of
from jobs.health_state import HealthState
from store.drills import StoredDrill, newest_drills

PEAK_OVER: Final = timedelta(days=7)
SLOW_OVER: Final = timedelta(days=1)
SIZES_OVER: Final = timedelta(days=90)
_NAMES: Final = ARRAY(sa.Text())
_AT: Final = TIMESTAMP(timezone=True)
_SLOW_MS: Final = 1000

# Whole days out of the days' roll-ups, the last hours out of the hours': each of few rows.
LOADS: Final = sa.text("""
    SELECT n.name,
           max((r.numbers -> 'pool_usage_pct' ->> 3)::double precision) AS pool_peak,
           avg((r.numbers -> 'slow_queries' ->> 1)::double precision)
               FILTER (WHERE r.width = '1h' AND r.at >= :slow_since)    AS slow_average,
           min(r.at)                                                    AS since
      FROM unnest(:names, :nodes) AS n(name, node)
      JOIN rollups r
        ON r.database = n.name AND r.node = n.node
       AND (   (r.width = '1d' AND r.at >= :since)
            OR (r.width = '1h' AND r.at >= :slow_since))
     GROUP BY n.name
""").bindparams(
    sa.bindparam("names", type_=_NAMES), sa.bindparam("nodes", type_=_NAMES),
    sa.bindparam("since", type_=_AT), sa.bindparam("slow_since", type_=_AT),
)  # fmt: skip

SLOW_ONES: Final = sa.text("""
    SELECT database, count(*) AS slow
      FROM (SELECT s.database, s.queryid
              FROM unnest(:names) AS n(name)
              JOIN statements s ON s.database = n.name AND s.at >= :since
              JOIN statement_texts t ON t.database = s.database AND t.queryid = s.queryid
             WHERE NOT t.is_utility
             GROUP BY s.database, s.queryid
            HAVING sum(s.total_ms) > :slow_ms * sum(s.calls)) AS slow
     GROUP BY database
""").bindparams(sa.bindparam("names", type_=_NAMES), sa.bindparam("since", type_=_AT))

# What was rehearsed or done for real: only what has ended well.
DONE: Final = sa.text("""
    SELECT database, operation, max(ended_at) AS at
      FROM requests
     WHERE database = ANY(:names)
       AND operation = 'restore'
       AND state IN ('done', 'closed')
     GROUP BY database, operation
""").bindparams(sa.bindparam("names", type_=_NAMES))

# A table has its trigger when the newest of its requests that has ended well did not remove it.
AUDITED: Final = sa.text("""
    SELECT database, at, name
      FROM (SELECT DISTINCT ON (database, params ->> 'table')
                   database, params ->> 'table' AS name, params ->> 'action' AS action,
                   ended_at AS at
              FROM requests
             WHERE database = ANY(:names)
               AND operation = 'audit-trigger'
               AND state IN ('done', 'closed')
             ORDER BY database, params ->> 'table', id DESC) AS newest
     WHERE action IS DISTINCT FROM 'remove'
""").bindparams(sa.bindparam("names", type_=_NAMES))

SIZES: Final = sa.text("""
    SELECT database, count(*) AS days, max(day) AS newest
      FROM sizes
     WHERE database = ANY(:names)
       AND what = 'database'
       AND day >= :day
     GROUP BY database
""").bindparams(sa.bindparam("names", type_=_NAMES))


@dataclass(frozen=True, slots=True, kw_only=True)
class PassedDrill:
    """The newest drill that passed. Seconds are None where its report cannot be read.

    `is_intact`: its report is the one whose hash was stored with it.
    """

    request_id: int
    kind: str
    at: datetime
    rpo_seconds: float | None = None
    rto_seconds: float | None = None
    is_intact: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Of one database. Percent, per minute, days; None: nobody knows.

    `slow_statements`: those that took over a second on average, of the last day. `audited`:
    tables with an audit trigger, by when it was put there. `anchored_at`: of Twokey's own audit.
    """

    pool_peak: float | None = None
    slow_average: float | None = None
    slow_statements: int | None = None
    measured_since: datetime | None = None
    restored_at: datetime | None = None
    drill: PassedDrill | None = None
    audited: Mapping[str, datetime] = field(default_factory=dict)
    anchored_at: datetime | None = None
    size_days: int = 0
    sized_on: date | None = None


async def facts_of(
    conn: AsyncConnection, states: Iterable[HealthState], now: datetime
) -> Mapping[str, Facts]:
    """The facts of each of these databases, by its name."""
    known = list(states)
    names = [state.database.name for state in known]
    loads = await _loads(conn, known, now)
    slow = await _by_name(conn, SLOW_ONES, names=names, since=now - SLOW_OVER, slow_ms=_SLOW_MS)
    done = (await conn.execute(DONE, {"names": names})).mappings()
    ended = {(row["database"], row["operation"]): row["at"] for row in done}
    audited: dict[str, dict[str, datetime]] = {}
    for row in (await conn.execute(AUDITED, {"names": names})).mappings():
        audited.setdefault(row["database"], {})[row["name"]] = row["at"]
    sizes = await _by_name(conn, SIZES, names=names, day=(now - SIZES_OVER).date())
    anchored_at = await _anchored_at(conn)
    drills = await newest_drills(conn)
    return {
        name: Facts(
            **loads.get(name, {}),
            slow_statements=slow[name]["slow"] if name in slow else 0,
            restored_at=ended.get((name, "restore")),
            drill=_passed(drills.get(name)),
            audited=audited.get(name, {}),
            anchored_at=anchored_at,
            size_days=sizes[name]["days"] if name in sizes else 0,
            sized_on=sizes[name]["newest"] if name in sizes else None,
        )
        for name in names
    }


def _passed(drill: StoredDrill | None) -> PassedDrill | None:
    if drill is None or drill.ended_at is None:
        return None
    report = report_of(drill)
    cost = report.cost if report else None
    return PassedDrill(
        request_id=drill.request_id,
        kind=drill.kind,
        at=drill.ended_at,
        rpo_seconds=cost.rpo_seconds if cost else None,
        rto_seconds=cost.rto_seconds if cost else None,
        is_intact=drill.is_intact,
    )


async def _loads(
    conn: AsyncConnection, states: Sequence[HealthState], now: datetime
) -> Mapping[str, Mapping[str, Any]]:
    """Of the node that takes writes now."""
    nodes = {state.database.name: state.main.node for state in states if state.main}
    values = {
        "names": list(nodes), "nodes": list(nodes.values()),
        "since": now - PEAK_OVER, "slow_since": now - SLOW_OVER,
    }  # fmt: skip
    rows = (await conn.execute(LOADS, values)).mappings()
    return {
        row["name"]: {
            "pool_peak": row["pool_peak"],
            "slow_average": row["slow_average"],
            "measured_since": row["since"],
        }
        for row in rows
    }


async def _by_name(
    conn: AsyncConnection, query: sa.TextClause, **values: Any
) -> Mapping[str, Mapping[str, Any]]:
    rows = (await conn.execute(query, values)).mappings()
    return {row["database"]: dict(row) for row in rows}


async def _anchored_at(conn: AsyncConnection) -> datetime | None:
    values = {"schedule": anchoring.SCHEDULE}
    found = (await conn.execute(anchoring.NEWEST, values)).scalar_one_or_none()
    return datetime.fromisoformat(found["at"]) if found else None
