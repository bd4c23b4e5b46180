"""`/db pool orders`: how large the applications' connection pools should be, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncConnection

from jobs.operation import Answer, Context, Kind, Operation, Risk, Suggestion, Table
from jobs.pool_advice import MEASURED_MIN, Advice, Measured, advise, formula
from jobs.text import count_text, span_text
from store.samples import Point, nodes_of, series

SPAN: Final = MEASURED_MIN
# The newest minutes are not rolled up yet.
NEWEST: Final = timedelta(minutes=30)
_WIDTH: Final = "5m"
_BUCKET: Final = timedelta(minutes=5)
METRICS: Final = (
    "connections_total", "connections_active", "connections_idle", "connections_waiting",
    "connections_idle_in_transaction",
)  # fmt: skip
USERS_SHOWN_MAX: Final = 8
_NAME_CHARS_MAX: Final = 40

SLOTS: Final = """
    SELECT /* twokey-monitor */ current_setting('max_connections')::int AS max_connections,
           current_setting('superuser_reserved_connections')::int
         + coalesce(nullif(current_setting('reserved_connections', true), '')::int, 0) AS reserved,
           pg_is_in_recovery() AS standby,
           (SELECT count(*) FROM pg_stat_activity
             WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()) AS now
"""

# Who has the connections now. Without pg_monitor the states of others are hidden.
USERS: Final = """
    SELECT /* twokey-monitor */ coalesce(usename, '') AS user, application_name AS application,
           count(*) AS connections, count(*) FILTER (WHERE state = 'active') AS active,
           count(*) FILTER (WHERE state LIKE 'idle in transaction%') AS in_transaction,
           sum(count(*)) OVER () AS all_connections
      FROM pg_stat_activity
     WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
     GROUP BY 1, 2
     ORDER BY count(*) DESC, 1, 2
     LIMIT 8
"""


class Params(BaseModel, extra="forbid"):
    """Which database."""

    database: str = Field(description="Database in the inventory", examples=["orders"])


async def answer(context: Context, params: Params) -> Answer:
    """The formula, what was measured, and a line for each pool of the inventory.

    Raises:
        JobError: the server cannot be reached.
    """
    [slots] = await context.reader.rows(SLOTS)
    users = await context.reader.rows(USERS)
    async with context.store.begin() as conn:
        measured = await _measured(conn, context, slots)
    wanted = context.database.monitoring
    advice = advise(measured, wanted.pools, cores=wanted.cores, spindles=wanted.spindles)
    return Answer(
        title=f"Pools of {params.database}",
        lines=tuple(_lines(advice)),
        facts=tuple(_facts(context, measured, slots, advice, users)),
        table=_table(advice),
        suggestions=tuple(_suggestions(measured, params.database)),
    )


async def _measured(
    conn: AsyncConnection, context: Context, slots: Mapping[str, Any]
) -> Measured:  # fmt: skip
    name, now = context.database.name, context.now
    usable = slots["max_connections"] - slots["reserved"]
    rolled = await series(conn, name, name, METRICS, since=now - SPAN, until=now, width=_WIDTH)
    newest = await series(conn, name, name, METRICS, since=now - NEWEST, until=now, width=None)
    points = [*rolled, *newest]
    known = [point.at for point in points if point.numbers.get("connections_total") is not None]
    pooler = await _pooler(conn, name)
    return Measured(
        usable=usable,
        max_connections=slots["max_connections"],
        now=slots["now"],
        # A week of five-minute spans begins within the first of them.
        span=min(now - min(known) + _BUCKET, SPAN) if known else timedelta(0),
        peak=_most(points, "connections_total"),
        peak_active=_most(points, "connections_active"),
        peak_waiting=_most(points, "connections_waiting"),
        peak_idle_in_transaction=_most(points, "connections_idle_in_transaction"),
        idle_share=_idle_share(points),
        has_pooler=context.database.monitoring.pgbouncer is not None,
        pooler_waiting=int(pooler.get("waiting") or 0),
        pooler_wait_s=float(pooler.get("wait_s") or 0),
    )


async def _pooler(conn: AsyncConnection, name: str) -> Mapping[str, Any]:
    """What the last look said about PgBouncer."""
    rows = [row for row in await nodes_of(conn, [name]) if row.node == name]
    found = rows[0].detail.get("pgbouncer") if rows else None
    return found if isinstance(found, dict) else {}


def _most(points: Sequence[Point], metric: str) -> float | None:
    return max((value for p in points if (value := p.most.get(metric)) is not None), default=None)


def _idle_share(points: Sequence[Point]) -> float | None:
    """Idle connections of all, on average; None where nobody was connected."""
    pairs = [
        (idle, total)
        for point in points
        if (idle := point.numbers.get("connections_idle")) is not None
        and (total := point.numbers.get("connections_total")) is not None
    ]
    all_of_them = sum(total for _, total in pairs)
    return sum(idle for idle, _ in pairs) / all_of_them if all_of_them > 0 else None


def _lines(advice: Advice) -> Iterator[str]:
    changed = [each for each in advice.pools if each.size != each.pool.size]
    yield from (f"{each.text} ({each.why})" for each in changed)
    if len(advice.pools) > 1 and changed:
        yield f"All pools together: {advice.before:,} -> {advice.after:,}"
    yield from advice.findings
    if advice.pools and not changed and not advice.findings:
        yield "The pools fit the server, and nothing that was measured speaks against them."
    for each in advice.unknown:
        yield f"Not known. {each}"
    if changed:
        yield (
            "A starting value: change one pool, and look at p95 and waits for a day (/db health)"
            " before the next."
        )


def _facts(
    context: Context,
    measured: Measured,
    slots: Mapping[str, Any],
    advice: Advice,
    users: Sequence[Mapping[str, Any]],
) -> Iterator[tuple[str, str]]:
    wanted = context.database.monitoring
    if wanted.cores is not None:
        start = formula(wanted.cores, wanted.spindles)
        yield (
            "Formula",
            (f"({wanted.cores} cores * 2) + {wanted.spindles} spindles = {start}, as a start"),
        )
    else:
        yield "Formula", "(cores * 2) + spindles; the cores are not known"
    yield (
        "Slots",
        (
            f"{measured.usable:,} for clients (max_connections {measured.max_connections:,},"
            f" {slots['reserved']} reserved), {measured.now:,} taken now"
        ),
    )
    yield "Best below", f"{advice.budget:,} (80 %, where the alert begins)"
    if measured.peak is not None:
        yield f"Peaks of {span_text(measured.span)}", _peaks(measured)
    if users:
        yield "Connected now", _users(users)


def _peaks(measured: Measured) -> str:
    known = (
        ("connections", measured.peak),
        ("at work", measured.peak_active),
        ("waiting", measured.peak_waiting),
        ("idle in a transaction", measured.peak_idle_in_transaction),
    )
    told = [f"{value:,.0f} {name}" for name, value in known if value is not None]
    idle = measured.idle_share
    return ", ".join([*told, *([f"{idle:.0%} idle on average"] if idle is not None else [])])


def _users(users: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        f"{_short(each['user'])}/{_short(each['application']) or '-'}: {each['connections']:,}"
        f" ({each['active']} at work, {each['in_transaction']} idle in a transaction)"
        for each in users[:USERS_SHOWN_MAX]
    ]
    rest = int(users[0]["all_connections"]) - sum(each["connections"] for each in users)
    return "\n".join([*lines, *([f"and {count_text(rest, 'more connection')}"] if rest else [])])


def _table(advice: Advice) -> Table | None:
    if not advice.pools:
        return None
    return Table(
        columns=("Pool", "Instances", "Size", "In all", "Start with", "In all then", "Why"),
        rows=tuple(
            (
                f"{each.pool.name}{' (serverless)' if each.pool.is_serverless else ''}",
                f"{each.pool.instances:,}",
                f"{each.pool.size:,}",
                f"{each.before:,}",
                f"{each.size:,}",
                f"{each.after:,}",
                each.why,
            )
            for each in advice.pools
        ),
    )


def _suggestions(measured: Measured, database: str) -> Iterator[Suggestion]:
    if (measured.peak_waiting or 0) >= 1:
        yield Suggestion(
            text="Who waits for whom", operation="locks", params={"database": database}
        )


def _short(text: str) -> str:
    return text if len(text) <= _NAME_CHARS_MAX else f"{text[: _NAME_CHARS_MAX - 1]}…"


OPERATION = Operation(
    name="pool",
    summary="How large connection pools should be, from what was measured",
    kind=Kind.QUERY,
    risk=Risk.NONE,
    params=Params,
    example="/db pool orders",
    answer=answer,
    is_cached=True,
)
