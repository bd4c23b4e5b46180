"""What statements took: of each hour the heaviest, as sums; and their texts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from store.tables import statement_texts, statements

# Of an hour stay those that took the longest, and those that were called most: what asks for
# one row at a time (N+1) takes little each time.
HEAVIEST_KEPT: Final = 100
MOST_CALLED_KEPT: Final = 20
# While an hour runs there is room for more: what is light now may be heavy at its end.
RUNNING_FACTOR: Final = 3
SUMS_MAX: Final = 2_000
HOURS_MAX: Final = 20_000
TEXT_CHARS_MAX: Final = 10_000
# How often it is noted that a text is still of use.
SEEN_EVERY: Final = timedelta(days=1)

_ADDED: Final = (
    "calls", "total_ms", "square_ms", "rows", "blocks_hit", "blocks_read", "temp_blocks",
    "wal_bytes",
)  # fmt: skip

KEEP_HEAVIEST: Final = sa.text("""
    DELETE FROM statements s
     USING (SELECT queryid,
                   row_number() OVER (ORDER BY total_ms DESC, queryid) AS by_time,
                   row_number() OVER (ORDER BY calls DESC, queryid)    AS by_calls
              FROM statements
             WHERE database = :database AND node = :node AND at = :at) ranked
     WHERE s.database = :database AND s.node = :node AND s.at = :at
       AND s.queryid = ranked.queryid
       AND ranked.by_time > :heaviest AND ranked.by_calls > :most_called
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementSum:
    """What all calls of one statement took together within a span.

    `square_ms`: the sum of the squared times, for their spread. `text` is normalised, without
    literals, and '' where it is not known (yet). Utility statements are BEGIN, COMMIT and such.
    """

    queryid: int
    calls: int
    total_ms: float
    square_ms: float
    max_ms: float
    rows: int
    blocks_hit: int
    blocks_read: int
    temp_blocks: int
    wal_bytes: int
    text: str = ""
    is_utility: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementHour:
    """What one statement took in the hour that begins at `at`."""

    at: datetime
    node: str
    queryid: int
    calls: int
    total_ms: float
    square_ms: float
    max_ms: float
    rows: int
    text: str = ""
    is_utility: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementText:
    """The text behind a queryid."""

    queryid: int
    text: str
    is_utility: bool


async def add_statements(
    conn: AsyncConnection,
    database: str,
    node: str,
    hour: datetime,
    sums: Sequence[StatementSum],
) -> None:
    """Add what statements took to the sums of an hour; the lightest give way.

    `hour`: its beginning; the hour before is over with it. Not safe to repeat: the caller
    knows what is stored already.
    """
    if not sums:
        return
    statement = insert(statements)
    new = statement.excluded
    changed: dict[str, Any] = {name: statements.c[name] + new[name] for name in _ADDED}
    changed["max_ms"] = sa.func.greatest(statements.c.max_ms, new.max_ms)
    await conn.execute(
        statement.on_conflict_do_update(
            index_elements=[
                statements.c.database, statements.c.node, statements.c.at, statements.c.queryid,
            ],
            set_=changed,
        ),
        [_row(database, node, hour, each) for each in sorted(sums, key=lambda each: each.queryid)],
    )  # fmt: skip
    for at, factor in ((hour, RUNNING_FACTOR), (hour - timedelta(hours=1), 1)):
        limits = {"heaviest": HEAVIEST_KEPT * factor, "most_called": MOST_CALLED_KEPT * factor}
        await conn.execute(KEEP_HEAVIEST, {"database": database, "node": node, "at": at, **limits})


async def statement_sums(
    conn: AsyncConnection,
    database: str,
    *,
    since: datetime,
    until: datetime,
    node: str | None = None,
) -> Sequence[StatementSum]:
    """Hours that begin from `since` to before `until` summed, heaviest first; at most `SUMS_MAX`.

    Of one node, or of all of them.
    """
    added = [sa.cast(sa.func.sum(statements.c[name]), statements.c[name].type) for name in _ADDED]
    query = (
        sa.select(
            statements.c.queryid,
            *(column.label(name) for column, name in zip(added, _ADDED, strict=True)),
            sa.func.max(statements.c.max_ms).label("max_ms"),
            sa.func.coalesce(statement_texts.c.text, "").label("text"),
            sa.func.coalesce(statement_texts.c.is_utility, sa.false()).label("is_utility"),
        )
        .select_from(_with_texts())
        .where(*_within(database, since, until, node))
        .group_by(statements.c.queryid, statement_texts.c.text, statement_texts.c.is_utility)
        .order_by(sa.func.sum(statements.c.total_ms).desc(), statements.c.queryid)
        .limit(SUMS_MAX)
    )
    return [StatementSum(**row) for row in (await conn.execute(query)).mappings()]


async def statement_hours(
    conn: AsyncConnection,
    database: str,
    *,
    since: datetime,
    until: datetime,
    node: str | None = None,
) -> Sequence[StatementHour]:
    """Each statement's hours, oldest first, of each the heaviest first; the newest `HOURS_MAX`."""
    names = ("at", "node", "queryid", "calls", "total_ms", "square_ms", "max_ms", "rows")
    query = (
        sa.select(
            *(statements.c[name] for name in names),
            sa.func.coalesce(statement_texts.c.text, "").label("text"),
            sa.func.coalesce(statement_texts.c.is_utility, sa.false()).label("is_utility"),
        )
        .select_from(_with_texts())
        .where(*_within(database, since, until, node))
        .order_by(statements.c.at.desc(), statements.c.node.desc(), statements.c.total_ms)
        .limit(HOURS_MAX)
    )
    return [StatementHour(**row) for row in (await conn.execute(query)).mappings()][::-1]


async def unknown_texts(
    conn: AsyncConnection, database: str, queryids: Collection[int], *, at: datetime
) -> Sequence[int]:
    """Which of these have no text yet. It is noted (once a day) that the others are of use."""
    asked = list(queryids)
    mine = (
        statement_texts.c.database == database,
        statement_texts.c.queryid == sa.func.any(sa.cast(asked, sa.ARRAY(sa.BigInteger))),
    )
    found = await conn.execute(sa.select(statement_texts.c.queryid).where(*mine))
    known = set(found.scalars())
    await conn.execute(
        statement_texts.update()
        .where(*mine, statement_texts.c.seen_at < at - SEEN_EVERY)
        .values(seen_at=at)
    )
    return sorted(set(asked) - known)


async def add_texts(
    conn: AsyncConnection, database: str, texts: Sequence[StatementText], *, at: datetime
) -> None:
    """Store texts, cut at `TEXT_CHARS_MAX`; one that is there stays as it is."""
    values = [
        {
            "database": database,
            "queryid": each.queryid,
            "text": each.text.replace("\0", "")[:TEXT_CHARS_MAX],
            "is_utility": each.is_utility,
            "seen_at": at,
        }
        for each in sorted(texts, key=lambda each: each.queryid)
    ]
    if values:
        await conn.execute(insert(statement_texts).on_conflict_do_nothing(), values)


def _row(database: str, node: str, hour: datetime, each: StatementSum) -> dict[str, object]:
    values = asdict(each)
    del values["text"], values["is_utility"]
    return {"database": database, "node": node, "at": hour, **values}


def _with_texts() -> sa.Join:
    return statements.outerjoin(
        statement_texts,
        (statement_texts.c.database == statements.c.database)
        & (statement_texts.c.queryid == statements.c.queryid),
    )


def _within(
    database: str, since: datetime, until: datetime, node: str | None
) -> list[sa.ColumnElement[bool]]:
    wanted = [
        statements.c.database == database, statements.c.at >= since, statements.c.at < until,
    ]  # fmt: skip
    return wanted if node is None else [*wanted, statements.c.node == node]
