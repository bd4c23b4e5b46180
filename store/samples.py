"""What was measured: the last word on each node, and one row for each collection of it."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Literal, assert_never

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, TIMESTAMP, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from store.tables import nodes, samples

Width = Literal["5m", "1h", "1d"]
WIDTHS: Final[Mapping[Width, timedelta]] = {
    "5m": timedelta(minutes=5),
    "1h": timedelta(hours=1),
    "1d": timedelta(days=1),
}
# More than the longest kept history has at 30 s: 2 days raw, 14 days of 5m, 400 days of 1h.
POINTS_MAX: Final = 10_000
# Points enough for a chart of any size.
CHART_POINTS: Final = 400
# So late may a look come (a collector keeps it while the store is away) and still be stored.
LATE_MAX: Final = timedelta(minutes=10)
# A look from so far ahead was stored with a wrong clock: it must not keep all others out.
AHEAD_MAX: Final = timedelta(minutes=15)
# Whoever stopped looking at a node this long ago does not look at it any more.
FORGOTTEN_AFTER: Final = timedelta(minutes=15)
KEY: Final = ("database", "node")
NUMBER_MAX: Final = 1e30
_DIGITS: Final = 6
_AT: Final = TIMESTAMP(timezone=True)
_NAMES: Final = ARRAY(sa.Text())

# Of two workers that both believe a database theirs, the second waits here and sees the first.
WRITE_ALONE: Final = sa.text("""
    SELECT pg_advisory_xact_lock(hashtext('twokey samples'), hashtext(:database))
""")

# Only what is asked for leaves the server: a row holds some fifty numbers.
RAW_SERIES: Final = sa.text("""
    SELECT at,
           ARRAY(SELECT (numbers ->> name)::double precision
                   FROM unnest(:metrics) WITH ORDINALITY AS asked (name, place)
                  ORDER BY place) AS average
      FROM samples
     WHERE database = :database AND node = :node AND at >= :since AND at < :until
     ORDER BY at DESC
     LIMIT :points
""").bindparams(
    sa.bindparam("metrics", type_=_NAMES),
    sa.bindparam("since", type_=_AT),
    sa.bindparam("until", type_=_AT),
)

ROLLED_SERIES: Final = sa.text("""
    SELECT at,
           ARRAY(SELECT (numbers -> name ->> 1)::double precision
                   FROM unnest(:metrics) WITH ORDINALITY AS asked (name, place)
                  ORDER BY place) AS average,
           ARRAY(SELECT (numbers -> name ->> 2)::double precision
                   FROM unnest(:metrics) WITH ORDINALITY AS asked (name, place)
                  ORDER BY place) AS least,
           ARRAY(SELECT (numbers -> name ->> 3)::double precision
                   FROM unnest(:metrics) WITH ORDINALITY AS asked (name, place)
                  ORDER BY place) AS most
      FROM rollups
     WHERE database = :database AND node = :node AND width = :width
       AND at >= :since AND at < :until
     ORDER BY at DESC
     LIMIT :points
""").bindparams(
    sa.bindparam("metrics", type_=_NAMES),
    sa.bindparam("since", type_=_AT),
    sa.bindparam("until", type_=_AT),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRow:
    """The last word on a node. `at`: the last attempt; `seen_at`: the last that it answered.

    `numbers` has the names of `postgres.health.metrics`. While `ok` is False, `detail` is what
    was known when the node answered last; `problem` and `next_step` are sentences then, or
    about what could be read only in part. `collector`: the worker that looked.
    """

    database: str
    node: str
    at: datetime
    ok: bool
    region: str = ""
    collector: str = ""
    seen_at: datetime | None = None
    problem: str = ""
    next_step: str = ""
    numbers: Mapping[str, float | None] = field(default_factory=dict)
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """Numbers of a moment, or of the span that begins at `at`.

    `numbers` are averages of the span. A metric that was not measured has None in all three;
    of a moment all three say the same.
    """

    at: datetime
    numbers: Mapping[str, float | None]
    least: Mapping[str, float | None]
    most: Mapping[str, float | None]


async def nodes_of(
    conn: AsyncConnection, databases: Collection[str] | None = None
) -> Sequence[NodeRow]:
    """The nodes of these databases (None: of all), by database and name."""
    query = sa.select(nodes).order_by(nodes.c.database, nodes.c.node)
    if databases is not None:
        query = query.where(nodes.c.database.in_(list(databases)))
    return [NodeRow(**row) for row in (await conn.execute(query)).mappings()]


async def nodes_in_short(conn: AsyncConnection) -> Sequence[NodeRow]:
    """All nodes with nothing in their `detail` but `role`: it is most of a row."""
    role = sa.func.jsonb_build_object("role", nodes.c.detail["role"])
    columns = [
        role.label(column.name) if column is nodes.c.detail else column for column in nodes.c
    ]
    query = sa.select(*columns).order_by(nodes.c.database, nodes.c.node)
    return [NodeRow(**row) for row in (await conn.execute(query)).mappings()]


async def record(
    conn: AsyncConnection, rows: Sequence[NodeRow], *, gap: timedelta = timedelta(0)
) -> Sequence[NodeRow]:
    """Store looks at one database's nodes, and return those that were stored.

    Any number of each node, in any order. What is not newer than what is stored of a node is
    left out: to store the same again changes nothing, also when nobody heard that it had been
    committed. So is what comes less than `gap` after another collector's look: when a database
    goes from one worker to another, both may look at it at once.

    Raises:
        ValueError: rows of several databases.
    """
    databases = {row.database for row in rows}
    if not rows:
        return ()
    if len(databases) > 1:
        raise ValueError(f"one database at a time, not {', '.join(sorted(databases))}")
    await conn.execute(WRITE_ALONE, {"database": databases.copy().pop()})
    known = {row.node: row for row in await nodes_of(conn, databases)}
    fresh = [
        row
        for row in sorted(rows, key=lambda row: row.at)
        if _is_news(row, known.get(row.node), gap)
    ]
    if not fresh:
        return ()
    await conn.execute(insert(samples).on_conflict_do_nothing(), [_sample(row) for row in fresh])
    newest = {row.node: row for row in fresh}
    for node, row in sorted(newest.items()):
        await _save_node(conn, row, [each for each in fresh if each.node == node])
    return fresh


async def forget_nodes(
    conn: AsyncConnection, known: Mapping[str, Collection[str]], *, now: datetime
) -> int:
    """Remove the rows of nodes that no inventory has any more; how many.

    `known`: the nodes of each database of this worker's inventory. What another worker still
    looks at stays, as its inventory may be newer. An empty `known` removes nothing.
    """
    pairs = [(database, node) for database, names in known.items() for node in names]
    if not pairs:
        return 0
    query = nodes.delete().where(
        sa.tuple_(nodes.c.database, nodes.c.node).not_in(pairs),
        nodes.c.at < now - FORGOTTEN_AFTER,
    )
    return (await conn.execute(query)).rowcount


async def series(
    conn: AsyncConnection,
    database: str,
    node: str,
    metrics: Sequence[str],
    *,
    since: datetime,
    until: datetime,
    width: Width | None,
) -> Sequence[Point]:
    """The points from `since` to before `until`, oldest first; at most the newest `POINTS_MAX`.

    `width` None: as it was collected, which is kept for two days; see `width_for`.
    """
    values: dict[str, object] = {
        "database": database, "node": node, "metrics": list(metrics), "since": since,
        "until": until, "points": POINTS_MAX,
    }  # fmt: skip
    if width is None:
        found = await conn.execute(RAW_SERIES, values)
        points = [_point(metrics, row.at, row.average, row.average, row.average) for row in found]
    else:
        found = await conn.execute(ROLLED_SERIES, values | {"width": width})
        points = [_point(metrics, row.at, row.average, row.least, row.most) for row in found]
    return points[::-1]


def width_for(span: timedelta, *, every: timedelta = timedelta(seconds=30)) -> Width | None:
    """The finest width at which a chart of `span` has at most `CHART_POINTS`, and that is kept."""
    if span / every <= CHART_POINTS:
        return None
    for width, step in WIDTHS.items():
        match width:
            case "5m" | "1h":
                if span / step <= CHART_POINTS:
                    return width
            case "1d":
                return width
            case other:
                assert_never(other)
    return "1d"


def rounded(value: float | None) -> float | None:
    """Six digits, whole numbers whole: what is stored for years shall be short; None: no number.

    Within what a `real` holds: a number beyond would stop every roll-up that meets it.
    """
    if value is None or not math.isfinite(value) or abs(value) > NUMBER_MAX:
        return None
    if abs(value) < 1 / NUMBER_MAX:
        return 0
    return round(value) if abs(value) >= 10**_DIGITS else float(f"{value:.{_DIGITS}g}")


def _is_news(row: NodeRow, stored: NodeRow | None, gap: timedelta) -> bool:
    if stored is None:
        return True
    if stored.at - row.at > AHEAD_MAX:
        return True
    is_ours = stored.collector == row.collector
    return row.at > stored.at and (is_ours or row.at - stored.at >= gap)


def _sample(row: NodeRow) -> dict[str, object]:
    numbers = {name: rounded(value) for name, value in row.numbers.items()}
    return {
        "database": row.database,
        "node": row.node,
        "at": row.at,
        "numbers": {name: value for name, value in numbers.items() if value is not None},
    }


async def _save_node(conn: AsyncConnection, row: NodeRow, looks: Iterable[NodeRow]) -> None:
    """`looks`: all that are stored now, as a node may have answered in one before the last."""
    answered = [look for look in looks if look.ok]
    values: dict[str, Any] = {
        "database": row.database,
        "node": row.node,
        "region": row.region,
        "collector": row.collector,
        "at": row.at,
        "ok": row.ok,
        "seen_at": answered[-1].at if answered else None,
        "problem": row.problem,
        "next_step": row.next_step,
        "numbers": {name: rounded(value) for name, value in row.numbers.items()},
        "detail": dict(answered[-1].detail if answered else row.detail),
    }
    statement = insert(nodes).values(values)
    new = statement.excluded
    changed: dict[str, Any] = {name: new[name] for name in values if name not in KEY}
    changed["seen_at"] = sa.func.coalesce(new.seen_at, nodes.c.seen_at)
    if not answered:
        changed["detail"] = nodes.c.detail
    await conn.execute(
        statement.on_conflict_do_update(
            index_elements=[nodes.c.database, nodes.c.node], set_=changed
        )
    )


def _point(
    metrics: Sequence[str],
    at: datetime,
    average: Sequence[float | None],
    least: Sequence[float | None],
    most: Sequence[float | None],
) -> Point:
    return Point(
        at=at,
        numbers=dict(zip(metrics, average, strict=True)),
        least=dict(zip(metrics, least, strict=True)),
        most=dict(zip(metrics, most, strict=True)),
    )
