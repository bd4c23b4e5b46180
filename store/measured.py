"""How long what was measured is kept. Removed in bites, so that no transaction is long."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.ext.asyncio import AsyncConnection

from store.rollups import newest_rollup
from store.samples import Width

SAMPLES_KEPT: Final = timedelta(days=2)
ROLLUPS_KEPT: Final[Mapping[Width, timedelta]] = MappingProxyType(
    {"5m": timedelta(days=14), "1h": timedelta(days=400), "1d": timedelta(days=3 * 366)}
)
SIZES_KEPT: Final = timedelta(days=3 * 366)
STATEMENTS_KEPT: Final = timedelta(days=35)
# It is noted once a day that a text is of use, and statements outlive the note by 35 days.
TEXTS_KEPT: Final = STATEMENTS_KEPT + timedelta(days=2)
# What is not rolled up yet is kept longer, but not for ever.
WAITS_MAX: Final = timedelta(days=2)
BITE: Final = 5_000
# What is made of which.
_MADE_OF: Final[Mapping[str, Width]] = MappingProxyType({"samples": "5m", "5m": "1h", "1h": "1d"})

_AT: Final = TIMESTAMP(timezone=True)


def _trim(table: str, key: str, condition: str) -> sa.TextClause:
    """Remove the first rows that a condition is true of; names are this file's own."""
    return sa.text(f"""
        DELETE FROM {table}
         WHERE ({key}) IN (SELECT {key} FROM {table} WHERE {condition} LIMIT {BITE})
    """)  # noqa: S608 - built of constants


TRIM_SAMPLES: Final = _trim("samples", "database, node, at", "at < :before").bindparams(
    sa.bindparam("before", type_=_AT)
)
TRIM_ROLLUPS: Final = _trim(
    "rollups", "database, node, width, at", "width = :width AND at < :before"
).bindparams(sa.bindparam("before", type_=_AT))
TRIM_STATEMENTS: Final = _trim(
    "statements", "database, node, at, queryid", "at < :before"
).bindparams(sa.bindparam("before", type_=_AT))
TRIM_TEXTS: Final = _trim("statement_texts", "database, queryid", "seen_at < :before").bindparams(
    sa.bindparam("before", type_=_AT)
)
TRIM_SIZES: Final = _trim("sizes", "database, what, day", "day < :before").bindparams(
    sa.bindparam("before", type_=sa.Date())
)


async def trim(conn: AsyncConnection, now: datetime) -> bool:
    """Remove a bite of everything whose time is over; whether there may be more.

    What a roll-up is made of stays until it is made. To be called in a transaction of its
    own, and again for the next bite.
    """
    steps: list[tuple[sa.TextClause, dict[str, Any]]] = [
        (TRIM_SAMPLES, {"before": await _before(conn, "samples", SAMPLES_KEPT, now)}),
        *[
            (TRIM_ROLLUPS, {"width": width, "before": await _before(conn, width, kept, now)})
            for width, kept in ROLLUPS_KEPT.items()
        ],
        (TRIM_STATEMENTS, {"before": now - STATEMENTS_KEPT}),
        (TRIM_TEXTS, {"before": now - TEXTS_KEPT}),
        (TRIM_SIZES, {"before": (now - SIZES_KEPT).date()}),
    ]
    removed = [(await conn.execute(statement, values)).rowcount for statement, values in steps]
    return max(removed) >= BITE


async def _before(conn: AsyncConnection, what: str, kept: timedelta, now: datetime) -> datetime:
    """All before this goes. On an hour's beginning: what is removed has whole spans."""
    before = now - kept
    if (width := _MADE_OF.get(what)) is not None:
        made = await newest_rollup(conn, width, now)
        rolled_up = now - kept - WAITS_MAX if made is None else made - timedelta(days=1)
        before = max(min(before, rolled_up), now - kept - WAITS_MAX)
    return before.replace(minute=0, second=0, microsecond=0)
