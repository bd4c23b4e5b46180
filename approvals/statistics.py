"""How agreeing goes, in numbers for managers: about groups and rules, never about a person."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, TIMESTAMP
from sqlalchemy.ext.asyncio import AsyncConnection

from approvals.records import RequestRecord
from approvals.words import State
from store.connect import Store

# A vote this soon after opening the plan was hardly given to what it says.
RUBBER_STAMP_SECONDS: Final = 5

# One statement, so that all numbers are of one moment. Only requests that somebody had to
# agree to have a lead time; a mark that is no group's name begins with a sign of ours.
# As a range, two bounds would be guessed to leave a handful of rows, and be joined row by row.
NUMBERS: Final = sa.text("""
    WITH asked AS MATERIALIZED (
        SELECT r.id, r.operation, r.rule, r.state, r.asked_at, r.approved_at,
               coalesce(r.approved_at, CASE WHEN r.state = 'denied' THEN r.ended_at END)
                   AS decided_at,
               r.detail -> 'glass' ->> 'at' IS NOT NULL AS broken,
               EXISTS (SELECT FROM gates g WHERE g.request_id = r.id) AS gated
          FROM requests r
         WHERE r.asked_at >= :since
           AND (r.asked_at > :until) IS NOT TRUE
           AND (CAST(:databases AS text[]) IS NULL OR r.database = ANY(:databases))
    ), timed AS (
        SELECT operation, rule, extract(epoch FROM decided_at - asked_at) AS seconds
          FROM asked
         WHERE gated AND decided_at IS NOT NULL
    ), cast_votes AS MATERIALIZED (
        SELECT v.request_id, v.plan_hash, v.person, v.step, v.groups, v.at, v.verdict,
               asked.rule, asked.asked_at
          FROM asked
          JOIN votes v ON v.request_id = asked.id
         WHERE v.verdict IN ('approve', 'deny')
    ), steps AS (
        SELECT rule, step,
               extract(epoch FROM max(at) - coalesce(
                   lag(max(at)) OVER (PARTITION BY request_id ORDER BY step), min(asked_at)
               )) AS seconds
          FROM cast_votes
         WHERE verdict = 'approve'
           AND request_id IN (SELECT request_id FROM cast_votes WHERE step > 0)
         GROUP BY request_id, rule, step
    ), opened AS (
        SELECT CASE WHEN first.at <= v.at THEN extract(epoch FROM v.at - first.at) END AS seconds
          FROM cast_votes v
          LEFT JOIN (SELECT d.request_id, d.plan_hash, d.person, min(d.at) AS at
                       FROM readings d
                       JOIN asked ON asked.id = d.request_id
                      GROUP BY d.request_id, d.plan_hash, d.person) AS first
                 ON first.request_id = v.request_id AND first.plan_hash = v.plan_hash
                AND first.person = v.person
         WHERE v.verdict = 'approve'
    )
    SELECT (SELECT count(*) FROM asked)                                            AS asked,
           (SELECT count(*) FROM asked WHERE state = 'expired' AND approved_at IS NULL) AS lapsed,
           (SELECT count(*) FROM asked WHERE state = 'denied')                     AS denied,
           (SELECT count(*) FROM asked WHERE broken)                               AS broken,
           (SELECT count(*) FROM audit_log l JOIN asked ON asked.id = l.request_id
             WHERE l.action IN ('send_back', 'change_plan')
               AND l.detail ->> 'result' = 'ok')                                   AS reapprovals,
           (SELECT coalesce(jsonb_agg(to_jsonb(t)), '[]') FROM (
                SELECT CASE WHEN grouping(operation) = 0 THEN 'operation'
                            WHEN grouping(rule) = 0      THEN 'rule' ELSE '' END   AS by,
                       coalesce(operation, rule, '')                               AS name,
                       count(*)                                                    AS count,
                       percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds)        AS median,
                       percentile_cont(0.9) WITHIN GROUP (ORDER BY seconds)        AS p90
                  FROM timed
                 GROUP BY GROUPING SETS ((), (operation), (rule))
                HAVING count(*) > 0) AS t)           AS lead,
           (SELECT coalesce(jsonb_agg(to_jsonb(t)), '[]') FROM (
                SELECT 'step' AS by, rule || ', step ' || step + 1                 AS name,
                       count(*)                                                    AS count,
                       percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds)        AS median,
                       percentile_cont(0.9) WITHIN GROUP (ORDER BY seconds)        AS p90
                  FROM steps GROUP BY rule, step) AS t)                            AS steps,
           (SELECT coalesce(jsonb_agg(to_jsonb(t)), '[]') FROM (
                SELECT 'group' AS by, mark                                         AS name,
                       count(*)                                                    AS count,
                       percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds)        AS median,
                       percentile_cont(0.9) WITHIN GROUP (ORDER BY seconds)        AS p90
                  FROM (SELECT mark, extract(epoch FROM at - asked_at) AS seconds
                          FROM cast_votes, unnest(groups) AS mark
                         WHERE left(mark, 1) NOT IN ('=', '@', '!')) AS said
                 GROUP BY mark) AS t)                                              AS groups,
           (SELECT to_jsonb(t) FROM (
                SELECT count(*)                                                    AS votes,
                       count(seconds)                                              AS opened,
                       count(*) FILTER (WHERE seconds < :stamp)                    AS stamps,
                       percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds)        AS median
                  FROM opened) AS t)                                               AS reading,
           (SELECT count(*) FROM requests r
             WHERE (r.state = 'needs_review'
                    OR (r.state = 'executing' AND r.detail -> 'glass' ->> 'at' IS NOT NULL))
               AND (CAST(:databases AS text[]) IS NULL OR r.database = ANY(:databases)))  AS debt,
           (SELECT count(*) FROM requests r
             WHERE r.state = 'needs_review'
               AND CAST(r.detail -> 'glass' ->> 'review_by' AS timestamptz) <= :at
               AND (CAST(:databases AS text[]) IS NULL OR r.database = ANY(:databases)))  AS overdue
""").bindparams(
    sa.bindparam("since", type_=TIMESTAMP(timezone=True)),
    sa.bindparam("until", type_=TIMESTAMP(timezone=True)),
    sa.bindparam("at", type_=TIMESTAMP(timezone=True)),
    sa.bindparam("databases", type_=ARRAY(sa.Text())),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """How long something took, in seconds. `by`: operation, rule, step, group, or '' for all."""

    by: str
    name: str
    count: int
    median: float
    p90: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Requests that wait for a group now; the seconds since they were asked for."""

    group: str
    count: int
    median: float
    longest: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Everything of a period. `lead` is from asking to the decision.

    `votes` are approvals; of `opened` the plan was looked at before, and `stamps` came within
    five seconds of that. `debt` runs wait for their review now, `overdue` too long.
    """

    since: datetime
    until: datetime
    database: str | None
    asked: int
    lapsed: int
    denied: int
    reapprovals: int
    broken: int
    debt: int
    overdue: int
    lead: tuple[Spread, ...]
    waiting: tuple[Waiting, ...]
    votes: int
    opened: int
    stamps: int
    reading_median: float | None
    delegations: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LeadTimes:
    """The few numbers of a period that a digest tells. `decided` None: nothing was."""

    asked: int
    lapsed: int
    denied: int
    debt: int
    overdue: int
    decided: Spread | None


async def numbers(
    store: Store,
    *,
    since: datetime,
    at: datetime,
    database: str | None,
    pending: Iterable[RequestRecord],
    delegations: int,
) -> Statistics:
    """The statistics of what was asked for from `since` on.

    `pending` are the open requests of today, `delegations` so many are in use.
    """
    databases = None if database is None else [database]
    async with store.begin() as conn:
        row = await _numbers(conn, since=since, until=at, at=at, databases=databases)
    reading = row["reading"]
    counts = ("asked", "lapsed", "denied", "reapprovals", "broken", "debt", "overdue")
    return Statistics(
        since=since,
        until=at,
        database=database,
        **{name: int(row[name]) for name in counts},
        lead=tuple(spreads([*row["lead"], *row["steps"], *row["groups"]])),
        waiting=tuple(waiting(pending, at)),
        votes=reading["votes"],
        opened=reading["opened"],
        stamps=reading["stamps"],
        reading_median=reading["median"],
        delegations=delegations,
    )


async def lead_times(
    conn: AsyncConnection,
    *,
    since: datetime,
    until: datetime,
    at: datetime,
    databases: Sequence[str],
) -> LeadTimes:
    """What was asked for of these databases from `since` to `until`, by the same measure."""
    row = await _numbers(conn, since=since, until=until, at=at, databases=databases)
    counts = ("asked", "lapsed", "denied", "debt", "overdue")
    return LeadTimes(
        **{name: int(row[name]) for name in counts},
        decided=next((each for each in spreads(row["lead"]) if not each.by), None),
    )


async def _numbers(
    conn: AsyncConnection,
    *,
    since: datetime,
    until: datetime,
    at: datetime,
    databases: Sequence[str] | None,
) -> Mapping[str, Any]:
    values = {
        "since": since, "until": until, "at": at, "stamp": RUBBER_STAMP_SECONDS,
        "databases": None if databases is None else list(databases),
    }  # fmt: skip
    return dict((await conn.execute(NUMBERS, values)).mappings().one())


def spreads(rows: Iterable[Mapping[str, Any]]) -> Sequence[Spread]:
    """Rows as values: all of it first, then by kind and name. Pure."""
    found = [
        Spread(
            by=row["by"],
            name=row["name"],
            count=row["count"],
            median=float(row["median"]),
            p90=float(row["p90"]),
        )
        for row in rows
    ]
    order = ("", "operation", "rule", "step", "group")
    # A rule of one step says nothing more by its steps.
    stepped = {each.name.rpartition(", step ")[0] for each in found if _is_later_step(each)}
    kept = [
        each for each in found if each.by != "step" or each.name.rpartition(", step ")[0] in stepped
    ]
    return sorted(kept, key=lambda each: (order.index(each.by), each.name))


def waiting(records: Iterable[RequestRecord], at: datetime) -> Sequence[Waiting]:
    """For which groups requests wait now, the longest first. Pure."""
    ages: dict[str, list[float]] = {}
    for record in records:
        if record.state is not State.PENDING:
            continue
        age = (at - record.asked_at).total_seconds()
        groups = {
            group for gate in record.gates if gate.open and not gate.is_met for group in gate.groups
        }
        for group in groups:
            ages.setdefault(group, []).append(age)
    found = [
        Waiting(group=group, count=len(many), median=median(many), longest=max(many))
        for group, many in ages.items()
    ]
    return sorted(found, key=lambda each: (-each.longest, each.group))


def _is_later_step(each: Spread) -> bool:
    return each.by == "step" and not each.name.endswith(", step 1")
