"""Samples of five minutes, of an hour and of a day as one row each.

A roll-up is always made anew from all that its span has, never added to: any number of workers
may try, and what came late counts once. `5m` is made of samples, `1h` of `5m`, `1d` of `1h`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.ext.asyncio import AsyncConnection

from store.samples import WIDTHS, Width

_AT: Final = TIMESTAMP(timezone=True)
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Make:
    """`again`: how far before the newest span all is made anew; `bite`: of one transaction.

    `again` covers what may come late: `store.samples.LATE_MAX`, and a span of the source.
    """

    again: timedelta
    bite: timedelta


_MAKE: Final[Mapping[Width, _Make]] = MappingProxyType(
    {
        "5m": _Make(again=timedelta(minutes=15), bite=timedelta(minutes=30)),
        "1h": _Make(again=timedelta(hours=1), bite=timedelta(hours=6)),
        "1d": _Make(again=timedelta(days=1), bite=timedelta(days=4)),
    }
)

# Not wait: whoever is at it does the same.
ALONE: Final = sa.text("""
    SELECT pg_try_advisory_xact_lock(hashtext('twokey rollups'), hashtext(:width))
""")

# Not what a clock that is ahead has written.
NEWEST: Final = sa.text("""
    SELECT max(at) FROM rollups WHERE width = :width AND at <= :now
""").bindparams(sa.bindparam("now", type_=_AT))
NEXT_SAMPLE: Final = sa.text("""
    SELECT min(at) FROM samples WHERE at >= :after AND at <= :now
""").bindparams(sa.bindparam("after", type_=_AT), sa.bindparam("now", type_=_AT))
NEXT_ROLLUP: Final = sa.text("""
    SELECT min(at) FROM rollups WHERE width = :source AND at >= :after AND at <= :now
""").bindparams(sa.bindparam("after", type_=_AT), sa.bindparam("now", type_=_AT))

# A value's place is its metric's name; numbers shrink to seven digits, as charts show fewer.
FROM_SAMPLES: Final = sa.text("""
    INSERT INTO rollups (database, node, width, at, numbers)
    SELECT database, node, '5m', span,
           jsonb_object_agg(name, jsonb_build_array(
               number, average::real, least::real, most::real, last::real))
      FROM (SELECT s.database, s.node, n.name,
                   to_timestamp(floor(extract(epoch FROM s.at) / 300) * 300) AS span,
                   count(*) AS number, avg(n.value::double precision) AS average,
                   min(n.value::double precision) AS least,
                   max(n.value::double precision) AS most,
                   (array_agg(n.value::double precision ORDER BY s.at DESC))[1] AS last
              FROM samples s
             CROSS JOIN LATERAL jsonb_each_text(s.numbers) AS n (name, value)
             WHERE s.at >= :since AND s.at < :until
             GROUP BY s.database, s.node, span, n.name) each
     GROUP BY database, node, span
     ORDER BY database, node, span
        ON CONFLICT (database, node, width, at) DO UPDATE SET numbers = excluded.numbers
     WHERE rollups.numbers IS DISTINCT FROM excluded.numbers
""").bindparams(
    sa.bindparam("since", type_=_AT),
    sa.bindparam("until", type_=_AT),
)

FROM_ROLLUPS: Final = sa.text("""
    INSERT INTO rollups (database, node, width, at, numbers)
    SELECT database, node, :width, span,
           jsonb_object_agg(name, jsonb_build_array(
               number, average::real, least::real, most::real, last::real))
      FROM (SELECT r.database, r.node, to_timestamp(
                           floor(extract(epoch FROM r.at) / :seconds) * :seconds) AS span, n.name,
                   sum((n.value ->> 0)::bigint) AS number,
                   sum((n.value ->> 1)::double precision * (n.value ->> 0)::bigint)
                       / sum((n.value ->> 0)::bigint) AS average,
                   min((n.value ->> 2)::double precision) AS least,
                   max((n.value ->> 3)::double precision) AS most,
                   (array_agg((n.value ->> 4)::double precision ORDER BY r.at DESC))[1] AS last
              FROM rollups r
             CROSS JOIN LATERAL jsonb_each(r.numbers) AS n (name, value)
             WHERE r.width = :source AND r.at >= :since AND r.at < :until
             GROUP BY r.database, r.node, span, n.name) each
     GROUP BY database, node, span
     ORDER BY database, node, span
        ON CONFLICT (database, node, width, at) DO UPDATE SET numbers = excluded.numbers
     WHERE rollups.numbers IS DISTINCT FROM excluded.numbers
""").bindparams(
    sa.bindparam("width", type_=sa.Text()),
    sa.bindparam("seconds", type_=sa.Integer()),
    sa.bindparam("since", type_=_AT),
    sa.bindparam("until", type_=_AT),
)

_SOURCE: Final[Mapping[Width, Width | None]] = MappingProxyType(
    {"5m": None, "1h": "5m", "1d": "1h"}
)


async def roll_up(conn: AsyncConnection, width: Width, now: datetime) -> bool:
    """Make the newest spans of a width anew and a bite of those that follow; whether more do.

    The span that runs now is made of what it has so far. False too while another worker is at
    it. To be called in a transaction of its own, and again for the next bite.
    """
    if not (await conn.execute(ALONE, {"width": width})).scalar_one():
        return False
    make, step = _MAKE[width], WIDTHS[width]
    newest = await newest_rollup(conn, width, now)
    if newest is not None:
        await _make(conn, width, newest - make.again, newest + step)
    first = await _next(conn, width, EPOCH if newest is None else newest + step, now)
    if first is None:
        return False
    since = first - (first - EPOCH) % step
    await _make(conn, width, since, since + make.bite)
    return since + make.bite <= now


async def newest_rollup(conn: AsyncConnection, width: Width, now: datetime) -> datetime | None:
    """When the newest span of a width begins, or None before the first."""
    found: datetime | None = (await conn.execute(NEWEST, {"width": width, "now": now})).scalar_one()
    return found


async def _next(
    conn: AsyncConnection, width: Width, after: datetime, now: datetime
) -> datetime | None:
    """The first of what a width is made of from `after` on: nobody may have looked for days."""
    values = {"after": after, "now": now}
    source = _SOURCE[width]
    if source is None:
        query = await conn.execute(NEXT_SAMPLE, values)
    else:
        query = await conn.execute(NEXT_ROLLUP, values | {"source": source})
    found: datetime | None = query.scalar_one()
    return found


async def _make(conn: AsyncConnection, width: Width, since: datetime, until: datetime) -> None:
    values: dict[str, object] = {"since": since, "until": until}
    source = _SOURCE[width]
    if source is None:
        await conn.execute(FROM_SAMPLES, values)
    else:
        await conn.execute(
            FROM_ROLLUPS,
            values
            | {"width": width, "source": source, "seconds": int(WIDTHS[width].total_seconds())},
        )
