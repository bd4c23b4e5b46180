"""A past for the demo's databases: 90 days of sizes, made up, so that a forecast has a history.

The newest day is what is really there; the days before it grow towards that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Final

import asyncpg
import sqlalchemy as sa

from bot.process import utc_now
from sandbox.clusters import DemoDatabase
from store.connect import Store
from store.sizes import DATABASE, TABLE, VOLUME_TOTAL, WAL, Size, record_sizes

DAYS: Final = 90
SECONDS_MAX: Final = 30
# How much of today's size it had then; a year at this pace doubles it.
_SHARE_BEFORE: Final = 0.8
_WEEKEND: Final = 0.4  # of a working day's growth
_TOTAL_BYTES: Final = 4 * 1024**3

IS_THERE: Final = sa.text("SELECT EXISTS (SELECT FROM sizes WHERE database = :name) AS known")
SIZES: Final = """
    SELECT (SELECT sum(pg_database_size(oid)) FROM pg_database
             WHERE datallowconn AND NOT datistemplate)::bigint AS database,
           (SELECT sum(size) FROM pg_ls_waldir())::bigint      AS wal
"""
TABLES: Final = """
    SELECT n.nspname || '.' || c.relname AS name, pg_total_relation_size(c.oid) AS bytes
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind = 'r' AND n.nspname = 'public'
"""


async def remember_growth(store: Store, clusters: Sequence[DemoDatabase]) -> None:
    """Write a past for each database that has none, up to yesterday."""
    today = utc_now().date()
    for cluster in clusters:
        async with store.begin() as conn:
            if (await conn.execute(IS_THERE, {"name": cluster.name})).scalar_one():
                continue
        now = await _sizes(cluster)
        # All of it or none: half a past would be taken for the whole at the next start.
        async with store.begin() as conn:
            for back in range(DAYS, 0, -1):
                day = today - timedelta(days=back)
                await record_sizes(conn, cluster.name, day, _then(now, _share(day, today)))


_STEADY: Final = frozenset({WAL, VOLUME_TOTAL})


def _then(now: Mapping[str, int], share: float) -> dict[str, Size]:
    return {
        what: Size(bytes=round(size * (share if what not in _STEADY else 1)))
        for what, size in now.items()
    }


def _share(day: date, today: date) -> float:
    """Which share of today's size there was on a day: little grows at weekends."""
    grown = sum(_pace(day + timedelta(days=n)) for n in range((today - day).days))
    whole = sum(_pace(today - timedelta(days=n)) for n in range(1, DAYS + 1))
    return 1 - (1 - _SHARE_BEFORE) * grown / whole


def _pace(day: date) -> float:
    usual = _WEEKEND if day.isoweekday() > 5 else 1.0  # noqa: PLR2004 - Saturday, Sunday
    return usual * (1 + 0.2 * math.sin(day.toordinal()))


async def _sizes(cluster: DemoDatabase) -> dict[str, int]:
    conn = await asyncpg.connect(cluster.dsn, timeout=SECONDS_MAX)
    try:
        await conn.execute("CHECKPOINT", timeout=SECONDS_MAX)  # lets go of WAL of the filling
        row = await conn.fetchrow(SIZES, timeout=SECONDS_MAX)
        tables = await conn.fetch(TABLES, timeout=SECONDS_MAX)
    finally:
        await conn.close()
    found = {TABLE + each["name"]: int(each["bytes"]) for each in tables}
    return found | {
        DATABASE: int(row["database"]), WAL: int(row["wal"]), VOLUME_TOTAL: _TOTAL_BYTES
    }  # fmt: skip
