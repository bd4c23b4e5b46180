"""`/db health [orders]`: one screen of how a database does, or a line for each of them.

Reads only the store, so that it answers at once, also while a database is in trouble.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from pydantic import BaseModel, Field

from jobs.asked_databases import asked_databases
from jobs.health_history import History, history_of, values_of
from jobs.health_state import HealthState, health_states, role_of
from jobs.health_status import (
    Judged,
    Status,
    advice,
    judged,
    suggestions,
    why_unseen,
    worst_first,
)
from jobs.metric_text import NOT_KNOWN, bytes_text, metric_text, number_text
from jobs.operation import (
    Answer,
    Chart,
    ChartKind,
    Context,
    Kind,
    Operation,
    Risk,
    Series,
    Table,
)
from jobs.text import count_text, span_text
from jobs.trends import Trend
from store.samples import NodeRow

_DATABASES_MAX: Final = 100
_TABLES_MAX: Final = 10
_NODES_MAX: Final = 10
_POINTS_MIN: Final = 3
_WHY_CHARS_MAX: Final = 36


class Params(BaseModel, extra="forbid"):
    """Which database, or all of them."""

    database: str = Field(
        default="", description="Database in the inventory; all of them when left out"
    )


async def answer(context: Context, params: Params) -> Answer:
    """One database in full, or one line for each, the worst first."""
    wanted = asked_databases(context, params.database)
    async with context.store.begin() as conn:
        known = await health_states(conn, wanted)
        if not params.database:
            found = [judged(state, context.now) for state in known]
            return _of_all(worst_first(found), context.now)
        one = judged(known[0], context.now)
        node = one.state.main.node if one.state.main else params.database
        history = await history_of(conn, params.database, node, context.now)
    return _of_one(one, history, context.now)


def _of_one(one: Judged, history: History, now: datetime) -> Answer:
    state, name = one.state, one.state.database.name
    next_steps = advice(state, now)
    title = f"Health of {name}: {one.status}"
    steps = [f"{number}. {each.text}" for number, each in enumerate(next_steps, start=1)]
    lines = (one.reason, *(("What to do next:", *steps) if steps else ("Nothing to do.",)))
    if state.seen_at is None:
        return Answer(title=title, lines=lines, suggestions=suggestions(state, next_steps))
    tables = _tables(state.detail)
    is_now = why_unseen(state, now) is None and state.main is not None and state.main.ok
    return Answer(
        title=title,
        lines=lines,
        facts=(*(_groups(state, history.trends) if is_now else ()), *_nodes(state, now)),
        charts=_chart(name, history),
        table=Table(columns=("Largest tables", "Size", "Indexes", "Rows"), rows=tables)
        if tables
        else None,
        suggestions=suggestions(state, next_steps),
    )


def _of_all(found: Sequence[Judged], now: datetime) -> Answer:
    counts = [
        f"{count} {status}"
        for status in Status
        if (count := sum(each.status is status for each in found))
    ]
    shown = found[:_DATABASES_MAX]
    rest = len(found) - len(shown)
    return Answer(
        title=f"Health of {count_text(len(found), 'database')}: {', '.join(counts)}",
        lines=(
            "The worst first. One of them in full: /db health NAME",
            *((f"And {rest} more that are no worse.",) if rest else ()),
        ),
        table=Table(
            columns=("Database", "Status", "Why", "Pool", "p95", "Lag", "Disk", "Full in"),
            rows=tuple(_row(each, now) for each in shown),
        ),
    )


def _row(each: Judged, now: datetime) -> tuple[str, ...]:
    numbers = each.state.numbers if each.state.seen_at is not None else {}
    names = ("pool_usage_pct", "query_ms_p95", "replication_lag_ms", "disk_usage_pct")
    shown = (_short(name, numbers) for name in (*names, "days_until_full"))
    return (each.state.database.name, str(each.status), _why(each, now), *shown)


def _why(each: Judged, now: datetime) -> str:
    """In a cell: what fires, or why nobody sees it."""
    if each.status is Status.HEALTHY:
        return "-"
    unseen = why_unseen(each.state, now)
    names = ", ".join(dict.fromkeys(alert.title for alert in each.state.alerts))
    why = names or (unseen[0] if unseen else each.reason)
    return why if len(why) <= _WHY_CHARS_MAX else f"{why[: _WHY_CHARS_MAX - 1]}…"


def _short(name: str, numbers: Mapping[str, float | None]) -> str:
    return "-" if numbers.get(name) is None else metric_text(name, numbers.get(name))


def _groups(state: HealthState, trends: Mapping[str, Trend]) -> Iterator[tuple[str, str]]:
    """The guide's four groups, a line for each number."""
    said = _Said(state.numbers, trends)
    yield "Connections", _lines(_connections(said))
    yield "Performance", _lines(_performance(said))
    yield "Health", _lines(_condition(said, state))
    yield "Storage", _lines(_storage(said))


class _Said:
    """Numbers as people read them, with what has changed since."""

    def __init__(self, numbers: Mapping[str, float | None], trends: Mapping[str, Trend]) -> None:
        self._numbers, self._trends = numbers, trends

    def __call__(self, name: str, words: str, *, more: str = "") -> str:
        trend = self._trends.get(name)
        changed = f" ({trend.text})" if trend else ""
        return f"{words} {metric_text(name, self._numbers.get(name))}{more}{changed}"

    def value(self, name: str) -> float | None:
        """The bare number."""
        return self._numbers.get(name)

    def known(self, name: str) -> bool:
        """Whether there is a number at all."""
        return self._numbers.get(name) is not None


def _connections(said: _Said) -> Iterator[str]:
    in_transaction = said.value("connections_idle_in_transaction")
    beside = f", {number_text(in_transaction)} in a transaction" if in_transaction else ""
    usable = said.value("connections_usable")
    slots = f" of {number_text(usable)} slots" if usable else ""
    yield said("connections_active", "active")
    yield said("connections_idle", "idle", more=beside)
    yield said("connections_waiting", "waiting")
    yield said("pool_usage_pct", "pool use", more=slots)


def _performance(said: _Said) -> Iterator[str]:
    yield said("query_ms_avg", "average query")
    yield said("query_ms_p95", "95 of 100 within")
    most = said.value("slow_queries_max")
    if said.known("slow_queries"):
        limit = f", at most {number_text(most)}" if most is not None else ""
        yield said("slow_queries", "slow queries about", more=limit)
    else:
        yield f"slow queries {NOT_KNOWN}"
    yield said("qps", "queries")
    yield said("cache_hit_pct", "cache hit")


def _condition(said: _Said, state: HealthState) -> Iterator[str]:
    streaming = said.value("replicas_streaming")
    expected = _expected_replicas(state)
    if expected or streaming:
        of = f", {number_text(streaming or 0)} of {expected} stream"
        yield said("replication_lag_ms", "replication lag", more=of)
    else:
        yield "replication: no standby"
    yield said("deadlocks", "deadlocks")
    yield said("lock_waits", "lock waits")
    yield said("xid_age_pct", "wraparound", more=" of the way")
    failing = said.value("archive_failing_s")
    if failing:
        yield said("archive_failing_s", "archiver failing for")
    elif failing is not None:
        yield "archiver fine"
    if said.value("slots_inactive") or said.value("slot_retained_bytes_max"):
        held = metric_text("slot_retained_bytes_max", said.value("slot_retained_bytes_max"))
        yield said("slots_inactive", "unused slots", more=f", {held} held back")


def _expected_replicas(state: HealthState) -> int:
    wanted = state.database.monitoring.replicas
    return len(state.database.replicas) if wanted is None else wanted


def _storage(said: _Said) -> Iterator[str]:
    yield said("database_bytes", "size")
    yield said("growth_bytes_day", "growth")
    free = said.value("disk_free_bytes")
    yield said("disk_usage_pct", "disk", more=f", {bytes_text(free)} free" if free else "")
    days = said.value("days_until_full")
    if days is not None:
        yield f"full in {metric_text('days_until_full', days)} at the earliest"


def _lines(lines: Iterable[str]) -> str:
    return "\n".join(lines)


def _nodes(state: HealthState, now: datetime) -> Iterator[tuple[str, str]]:
    """Every node: where, what it is, and how old what we know of it is."""
    for node in state.nodes[:_NODES_MAX]:
        region = node.region or "no region"
        yield f"Node {node.node}", f"{role_of(node) or 'role unknown'}, {region}, {_age(node, now)}"
    if (rest := len(state.nodes) - _NODES_MAX) > 0:
        yield "More nodes", count_text(rest, "node")


def _age(node: NodeRow, now: datetime) -> str:
    if node.seen_at is None:
        return "never seen"
    ago = span_text(max(now - node.seen_at, now - now))
    return f"seen {ago} ago" if node.ok else f"DOES NOT ANSWER, seen {ago} ago"


def _tables(detail: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
    given = detail.get("tables")
    tables = given[:_TABLES_MAX] if isinstance(given, list) else []
    return tuple(
        (
            str(each["name"]),
            f"{'' if each.get('is_exact', True) else 'about '}{bytes_text(each['bytes'])}",
            bytes_text(each.get("index_bytes") or 0),
            number_text(each["rows"]) if (each.get("rows") or -1) >= 0 else NOT_KNOWN,
        )
        for each in tables
    )


def _chart(name: str, history: History) -> tuple[Chart, ...]:
    """The load of the last day; without statement statistics, the connections."""
    for metric, words, unit in (
        ("qps", "Queries per second", "per second"),
        ("connections_total", "Connections", "connections"),
    ):
        points = [(point.at, point.numbers.get(metric)) for point in history.hours]
        values = values_of(history.hours, metric)
        if len(values) < _POINTS_MIN:
            continue
        alt = (
            f"{words} of {name} in the last 24 hours: {number_text(min(values))} to"
            f" {number_text(max(values))}, now {number_text(values[-1])}."
        )
        return (
            Chart(
                title=f"{words}, last 24 hours",
                kind=ChartKind.LINE,
                labels=tuple(f"{at:%H:%M}" for at, _ in points),
                series=(Series(name=words, values=tuple(value for _, value in points)),),
                alt=alt,
                unit=unit,
            ),
        )
    return ()


OPERATION = Operation(
    name="health",
    summary="Show how databases do: status, numbers, trends, and what to do next",
    kind=Kind.QUERY,
    risk=Risk.NONE,
    params=Params,
    example="/db health orders",
    answer=answer,
    is_routed=False,  # our store says it
)
