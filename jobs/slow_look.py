"""Where statements and plans come from: the store's hours, or the server itself, and EXPLAIN."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from jobs.operation import JobError, Reader, Session
from jobs.slow_statements import Line, Window, covers, windows_before, worst
from postgres.health.explain import NoPlanError, PlanNode, generic_plan
from postgres.health.plan_words import Remark, stands_out, tables_of
from postgres.health.statement_deltas import Kind as StatementKind
from postgres.health.statements import find_statements, kind_of, read_texts, told
from store.statements import StatementSum, statement_sums

LOOK_LIMIT: Final = timedelta(seconds=5)
# Planning waits for no lock, and takes no longer than this.
_LOCK_TIMEOUT: Final = "300ms"
KEPT: Final = timedelta(days=35)
PLANS_TRIED_MAX: Final = 3
_HOUR: Final = timedelta(hours=1)
_READ_SECONDS: Final = 5.0

HOURS: Final = sa.text("""
    SELECT count(DISTINCT at) AS hours, max(at) AS newest, min(at) AS oldest
      FROM statements
     WHERE database = :database AND at >= :since AND at < :until
""").bindparams(
    sa.bindparam("since", type_=sa.TIMESTAMP(timezone=True)),
    sa.bindparam("until", type_=sa.TIMESTAMP(timezone=True)),
)

# Statements of this database alone, over all users; of nested ones only those that called them.
NOW: Final = """
    SELECT /* twokey-monitor */ queryid, sum(calls)::bigint AS calls,
           sum(total_exec_time) AS total_ms,
           sum(calls * (stddev_exec_time ^ 2 + mean_exec_time ^ 2)) AS square_ms,
           max(max_exec_time) AS max_ms, sum(rows)::bigint AS rows,
           sum(shared_blks_hit)::bigint AS blocks_hit,
           sum(shared_blks_read)::bigint AS blocks_read,
           sum(temp_blks_written)::bigint AS temp_blocks, sum(wal_bytes)::bigint AS wal_bytes,
           sum(sum(total_exec_time)) OVER () AS all_ms
      FROM {space}.pg_stat_statements(false)
     WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
       AND queryid IS NOT NULL AND {is_top}
     GROUP BY queryid
    HAVING sum(calls) > 0
     ORDER BY sum(total_exec_time) DESC, queryid
     LIMIT 60
"""

TABLE_ROWS: Final = """
    SELECT /* twokey-monitor */ n.nspname AS space, c.relname AS name, c.reltuples AS rows
      FROM unnest($1::text[], $2::text[]) AS asked (space, name)
      JOIN pg_namespace n ON n.nspname = asked.space
      JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = asked.name
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Since:
    """What the server itself has counted, since when (None: nobody knows)."""

    sums: tuple[StatementSum, ...]
    all_ms: float
    reset: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """The plan of a statement, or why there is none."""

    line: Line
    plan: PlanNode | None = None
    remark: Remark | None = None
    why_not: str = ""


async def window_of(
    conn: AsyncConnection, database: str, since: datetime, until: datetime, *, now: datetime
) -> Window:
    """What the store has of these hours; of the running hour, the part that is over counts."""
    values = {"database": database, "since": since, "until": until}
    row = (await conn.execute(HOURS, values)).mappings().one()
    if not row["hours"]:
        return Window(since=since, until=until, hours=0.0)
    running = now - row["newest"]
    hours = row["hours"] - (1 - max(running / _HOUR, 1 / 60) if running < _HOUR else 0)
    sums = await statement_sums(conn, database, since=since, until=until)
    oldest = max(since, row["oldest"])
    return Window(since=oldest, until=until, hours=hours, sums=tuple(sums))


async def earlier_window(
    conn: AsyncConnection, database: str, window: Window, *, now: datetime
) -> Window | None:
    """The same hours last week; where they are not known, the longest time before; or None."""
    wanted = windows_before(window.since, window.until, kept_since=now - KEPT)
    for since, until in wanted:
        found = await window_of(conn, database, since, until, now=now)
        if covers(found.hours, window.hours):
            return found
    return None


async def counted_by_the_server(reader: Reader) -> Since:
    """The heaviest statements since the server's statistics were reset.

    Raises:
        JobError: pg_stat_statements is missing or hidden; what it says is what to do.
    """
    async with reader.session(limit=LOOK_LIMIT) as session:
        conn: Any = session
        where = await find_statements(conn, limit=_READ_SECONDS)
        if isinstance(where, str):
            raise JobError(where, next_step="Then ask again: /db slow.")
        moment = await conn.fetchrow(where.moment(), timeout=_READ_SECONDS)
        if not moment["sees_all"]:
            raise JobError(
                "Our user may not see the statements of others.",
                next_step="As a superuser there: GRANT pg_monitor TO our user; then ask again.",
            )
        is_top = "toplevel" if where.version >= (1, 9) else "true"
        rows = await session.fetch(NOW.format(space=where.space, is_top=is_top))
        ids = [row["queryid"] for row in rows]
        texts = await read_texts(conn, where, ids, limit=_READ_SECONDS) if ids else {}
    reset = moment["reset"]
    return Since(
        sums=tuple(
            _sum(row, texts.get(row["queryid"], "")) for row in rows if _is_theirs(row, texts)
        ),
        all_ms=float(rows[0]["all_ms"]) if rows else 0.0,
        reset=None if reset is None else datetime.fromtimestamp(reset, UTC),
    )


async def explained(reader: Reader, lines: Sequence[Line]) -> tuple[Explained, ...]:
    """The plan of the heaviest statement that has one, after those that have none and why."""
    tried: list[Explained] = []
    settings = {"lock_timeout": _LOCK_TIMEOUT, "jit": "off"}
    async with reader.session(limit=LOOK_LIMIT, settings=settings) as session:
        for line in worst(lines)[:PLANS_TRIED_MAX]:
            try:
                plan = await generic_plan(session, line.text)
            except NoPlanError as error:
                tried.append(Explained(line=line, why_not=f"{error.problem} {error.next_step}"))
                continue
            remark = stands_out(plan, await _table_rows(session, plan))
            tried.append(Explained(line=line, plan=plan, remark=remark))
            break
    return tuple(tried)


async def _table_rows(session: Session, plan: PlanNode) -> Mapping[tuple[str, str], float]:
    tables = sorted(tables_of(plan))
    if not tables:
        return {}
    spaces, names = [space for space, _ in tables], [name for _, name in tables]
    rows = await session.fetch(TABLE_ROWS, spaces, names)
    return {(row["space"], row["name"]): float(row["rows"]) for row in rows}


def _is_theirs(row: Mapping[str, Any], texts: Mapping[int, str]) -> bool:
    return kind_of(texts.get(row["queryid"], "")) is not StatementKind.OURS


def _sum(row: Mapping[str, Any], text: str) -> StatementSum:
    values = {name: row[name] for name in row.keys() if name != "all_ms"}  # noqa: SIM118 - a Record
    return StatementSum(
        **values, text=told(text), is_utility=kind_of(text) is StatementKind.UTILITY
    )
