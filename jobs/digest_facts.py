"""What the store knows of a day or a week: for digests. SQL only, and what makes values of rows.

A few statements, whatever the number of databases.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, TIMESTAMP
from sqlalchemy.ext.asyncio import AsyncConnection

from approvals.statistics import LeadTimes, lead_times
from jobs.backup_state import states
from jobs.digest import AlertSum, ApprovalSum, DatabaseDigest, Digest, Period, Waiting
from jobs.digest_charts import charts
from jobs.digest_words import named
from jobs.health_state import HealthState, health_states
from jobs.health_status import Judged, judged
from jobs.operation import Chart, Database
from jobs.readiness import Readiness, readiness
from jobs.readiness_backups import RESTORED
from jobs.readiness_facts import facts_of

NOISIEST_MAX: Final = 3
UNACKED_MAX: Final = 20
# Sizes of a chart: twelve weeks say how something grows.
SIZES_OVER: Final = timedelta(days=84)
_NAMES: Final = ARRAY(sa.Text())
_AT: Final = TIMESTAMP(timezone=True)
_INSTANT: Final = timedelta(microseconds=1)

# Of the node that the inventory itself names: what applications connect to. Each hour counts by
# its samples, so that one in which nobody looked does not weigh as much as a full one.
LOADS: Final = sa.text("""
    SELECT database, is_now, sum(samples * up) / nullif(sum(samples), 0) AS up,
           count(*) AS hours, avg(p95) AS p95, avg(qps) AS qps
      FROM (SELECT database, at >= :since                                   AS is_now,
                   (numbers -> 'up' ->> 0)::double precision               AS samples,
                   (numbers -> 'up' ->> 1)::double precision               AS up,
                   (numbers -> 'query_ms_p95' ->> 1)::double precision     AS p95,
                   (numbers -> 'qps' ->> 1)::double precision              AS qps
              FROM rollups
             WHERE database = ANY(:names)
               AND node = database
               AND width = '1h'
               AND at >= :before
               AND at < :until) AS hours
     GROUP BY database, is_now
""").bindparams(
    sa.bindparam("names", type_=_NAMES),
    *(sa.bindparam(name, type_=_AT) for name in ("since", "before", "until")),
)

# All that was taken counts, also what a prune has removed since.
BACKUPS: Final = sa.text("""
    SELECT n.name AS database,
           (SELECT count(*) FROM backups b
             WHERE b.database = n.name AND b.ended_at >= :since AND b.ended_at < :until) AS taken,
           proofs.good, proofs.bad
      FROM unnest(:names) AS n(name)
     CROSS JOIN LATERAL (
           SELECT count(*) FILTER (WHERE v.ok)     AS good,
                  count(*) FILTER (WHERE NOT v.ok) AS bad
             FROM backups b
             JOIN verifications v ON v.backup_id = b.id
            WHERE b.database = n.name AND v.at >= :since AND v.at < :until) AS proofs
""").bindparams(
    sa.bindparam("names", type_=_NAMES),
    *(sa.bindparam(name, type_=_AT) for name in ("since", "until")),
)

# Each alert counts in the period in which it began.
ALERTS: Final = sa.text("""
    SELECT fired_at >= :since AS is_now, database, name, count(*) AS fired,
           count(acked_at) AS acked,
           percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM resolved_at - fired_at))
               AS resolve_seconds
      FROM alerts
     WHERE database = ANY(:names)
       AND fired_at >= :before
       AND fired_at < :until
     GROUP BY GROUPING SETS ((is_now), (is_now, database), (is_now, name))
""").bindparams(
    sa.bindparam("names", type_=_NAMES),
    *(sa.bindparam(name, type_=_AT) for name in ("since", "before", "until")),
)

WAITING: Final = sa.text("""
    SELECT count(*) AS requests, min(asked_at) AS oldest
      FROM requests
     WHERE database = ANY(:names)
       AND state = 'pending'
       AND expires_at > :now
""").bindparams(sa.bindparam("names", type_=_NAMES), sa.bindparam("now", type_=_AT))

# The load of all of them together; an hour or a day in which one was not seen is of the others.
LOAD_POINTS: Final = sa.text("""
    SELECT at, sum((numbers -> 'qps' ->> 1)::double precision) AS qps,
           sum((numbers -> 'tps' ->> 1)::double precision) AS tps
      FROM rollups
     WHERE database = ANY(:names)
       AND node = database
       AND width = :width
       AND at >= :before
       AND at < :until
     GROUP BY at
     ORDER BY at
""").bindparams(
    sa.bindparam("names", type_=_NAMES),
    *(sa.bindparam(name, type_=_AT) for name in ("before", "until")),
)

SIZES: Final = sa.text("""
    SELECT database, day, bytes
      FROM sizes
     WHERE database = ANY(:names)
       AND what = 'database'
       AND day >= :day
     ORDER BY database, day
""").bindparams(sa.bindparam("names", type_=_NAMES))


async def digest_of(
    conn: AsyncConnection, databases: Iterable[Database], period: Period, now: datetime
) -> Digest:
    """The digest of these databases, of a period that ends now."""
    wanted = sorted(databases, key=lambda database: database.name)
    names = [database.name for database in wanted]
    since, before = now - period.length, now - 2 * period.length
    values = {"names": names, "since": since, "before": before, "until": now}
    health = await health_states(conn, wanted)
    facts = await facts_of(conn, health, now)
    ready = {
        state.database.name: readiness(state, each, facts[state.database.name], now)
        for state, each in zip(await states(conn, wanted, now), health, strict=True)
    }
    loads = await _loads(conn, values)
    backups = (await conn.execute(BACKUPS, values)).mappings()
    proofs = {row["database"]: dict(row) for row in backups}
    alerts = [dict(row) for row in (await conn.execute(ALERTS, values)).mappings()]
    fired = {row["database"]: row["fired"] for row in alerts if row["is_now"] and row["database"]}
    return Digest(
        period=period,
        since=since,
        until=now,
        databases=tuple(
            _database(each, ready[each.database.name], loads, proofs[each.database.name],
                      fired.get(each.database.name, 0), period, now)
            for each in health
        ),
        alerts=_alerts(alerts, is_now=True),
        alerts_before=_alerts(alerts, is_now=False),
        noisiest=_noisiest(alerts),
        approvals=_approvals(
            await lead_times(conn, since=since, until=now, at=now, databases=names)
        ),
        approvals_before=_approvals(
            await lead_times(conn, since=before, until=since - _INSTANT, at=now, databases=names)
        ),
        waiting=await _waiting(conn, health, now),
        charts=await _charts(conn, names, period, now),
    )  # fmt: skip


async def _loads(
    conn: AsyncConnection, values: Mapping[str, Any]
) -> Mapping[tuple[str, bool], Mapping[str, Any]]:
    rows = (await conn.execute(LOADS, values)).mappings()
    return {(row["database"], row["is_now"]): dict(row) for row in rows}


def _database(
    state: HealthState,
    ready: Readiness,
    loads: Mapping[tuple[str, bool], Mapping[str, Any]],
    proofs: Mapping[str, Any],
    fired: int,
    period: Period,
    now: datetime,
) -> DatabaseDigest:
    name, found, numbers = state.database.name, judged(state, now), state.numbers
    load, was = loads.get((name, True), {}), loads.get((name, False), {})
    hours = period.length / timedelta(hours=1)
    met = {check.number for check in ready.checks} - {check.number for check in ready.missing}
    return DatabaseDigest(
        name=name,
        status=found.status,
        problem=_problem(found),
        ready=ready.met,
        ready_of=len(ready.checks),
        backups=proofs["taken"],
        verified=proofs["good"],
        failed_proofs=proofs["bad"],
        has_backup=ready.has_backup,
        is_proven=RESTORED in met,
        alerts=fired,
        up_pct=_percent(load.get("up")),
        up_pct_before=_percent(was.get("up")),
        seen=min(1.0, load.get("hours", 0) / hours),
        bytes=numbers.get("database_bytes"),
        growth=numbers.get("growth_bytes_day"),
        days_until_full=numbers.get("days_until_full"),
        p95_ms=load.get("p95"),
        p95_ms_before=was.get("p95"),
        qps=load.get("qps"),
        qps_before=was.get("qps"),
    )


def _problem(found: Judged) -> str:
    """The reason of its status, shorter where alerts say it."""
    names = list(dict.fromkeys(alert.title for alert in found.state.alerts))
    if not names:
        return found.reason
    return f"{named(names)} {'fires' if len(names) == 1 else 'fire'}."


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _alerts(rows: Iterable[Mapping[str, Any]], *, is_now: bool) -> AlertSum:
    whole = (
        row
        for row in rows
        if row["is_now"] is is_now and row["database"] is None and row["name"] is None
    )
    row = next(whole, None)
    if row is None:
        return AlertSum()
    return AlertSum(fired=row["fired"], acked=row["acked"], resolve_seconds=row["resolve_seconds"])


def _noisiest(rows: Iterable[Mapping[str, Any]]) -> tuple[tuple[str, int], ...]:
    found = [(row["name"], row["fired"]) for row in rows if row["is_now"] and row["name"]]
    return tuple(sorted(found, key=lambda pair: (-pair[1], pair[0]))[:NOISIEST_MAX])


def _approvals(found: LeadTimes) -> ApprovalSum:
    return ApprovalSum(
        asked=found.asked,
        denied=found.denied,
        lapsed=found.lapsed,
        overdue=found.overdue,
        lead_seconds=found.decided.median if found.decided else None,
    )


async def _waiting(conn: AsyncConnection, health: Sequence[HealthState], now: datetime) -> Waiting:
    names = [state.database.name for state in health]
    row = (await conn.execute(WAITING, {"names": names, "now": now})).mappings().one()
    unacked = [
        f"{alert.title} on {state.database.name}"
        for state in health
        for alert in state.alerts
        if alert.severity == "critical" and not alert.acked_by
    ]
    oldest = row["oldest"]
    return Waiting(
        requests=row["requests"],
        longest_seconds=(now - oldest).total_seconds() if oldest else 0.0,
        unacked=tuple(unacked[:UNACKED_MAX]),
    )


async def _charts(
    conn: AsyncConnection, names: Sequence[str], period: Period, now: datetime
) -> tuple[Chart, ...]:
    width = "1h" if period is Period.DAILY else "1d"
    load = await conn.execute(
        LOAD_POINTS,
        {"names": list(names), "width": width, "before": now - 2 * period.length, "until": now},
    )
    points = [(row.at, row.qps if row.qps is not None else row.tps) for row in load]
    found = await conn.execute(SIZES, {"names": list(names), "day": (now - SIZES_OVER).date()})
    sizes: dict[str, dict[date, int]] = {}
    for row in found:
        sizes.setdefault(row.database, {})[row.day] = row.bytes
    return await asyncio.to_thread(charts, points, sizes, period, now)
