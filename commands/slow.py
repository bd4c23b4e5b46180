"""`/db slow orders [24h]`: which statements take the time, what changed, and what would help."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, Literal

from pydantic import BaseModel, Field

from jobs.metric_text import number_text, unit_text
from jobs.n_plus_one import Pair, n_plus_one
from jobs.operation import Answer, Context, JobError, Kind, Operation, Risk, Suggestion, Table
from jobs.slow_look import (
    Explained,
    counted_by_the_server,
    earlier_window,
    explained,
    window_of,
)
from jobs.slow_statements import WEEK, Line, Window, change_text, lines_of
from jobs.text import span_text
from postgres.health.metrics import Unit
from postgres.health.plan_words import drawn
from postgres.health.statement_text import key_lookup, shown
from postgres.sizes import pretty_bytes
from store.statements import statement_hours

PATIENCE: Final = timedelta(seconds=20)
COLUMNS: Final = (
    "#", "Share", "Time", "Calls", "Mean", "p95", "Rows", "Read", "Hit", "Change",
)  # fmt: skip
# What a line of a code block shows without wrapping.
STATEMENT_CHARS_MAX: Final = 80
_PAIR_CHARS_MAX: Final = 90
# N+1 shows over many hours, whatever was asked for.
PAIRS_SINCE: Final = timedelta(days=3)
_HOUR: Final = timedelta(hours=1)
_MOMENT: Final = "%a %d %b %H:%M"
SINCE: Final[Mapping[str, timedelta]] = {
    "1h": timedelta(hours=1),
    "6h": timedelta(hours=6),
    "24h": timedelta(hours=24),
    "7d": timedelta(days=7),
    "30d": timedelta(days=30),
}


class Params(BaseModel, extra="forbid"):
    """Which database, and how far back."""

    database: str = Field(description="Database in the inventory", examples=["orders"])
    since: Literal["1h", "6h", "24h", "7d", "30d"] = Field(
        default="24h", description="How far back", examples=["24h"]
    )


async def answer(context: Context, params: Params) -> Answer:
    """From the hours that are stored; while there are none, from the server's own counters.

    Raises:
        JobError: the store has nothing, and the server cannot say either.
    """
    until = _floor(context.now) + _HOUR
    since = until - max(SINCE[params.since], _HOUR)
    async with context.store.begin() as conn:
        window = await window_of(conn, params.database, since, until, now=context.now)
        earlier = (
            await earlier_window(conn, params.database, window, now=context.now)
            if window.sums
            else None
        )
        hours = (
            await statement_hours(
                conn, params.database, since=until - PAIRS_SINCE, until=until
            )
            if window.sums
            else ()
        )  # fmt: skip
    if not window.sums:
        return await _from_the_server(context, params)
    lines = lines_of(window, earlier)
    return await _answer(
        context,
        params,
        lines,
        said=tuple(_windows(window, earlier, context.now)),
        pairs=n_plus_one(hours, key_lookup),
    )


_COUNTED: Final = (
    "No hours are stored of this yet: this is all since the server's statistics were reset"
    " ({since}), with nothing to compare with."
)
_ESTIMATED: Final = (
    "p95 is estimated from mean and spread (lognormal): no server keeps single executions."
)


async def _from_the_server(context: Context, params: Params) -> Answer:
    counted = await counted_by_the_server(context.reader)
    since = f"{counted.reset:{_MOMENT}} UTC" if counted.reset else "an unknown time"
    window = Window(since=context.now, until=context.now, hours=0.0, sums=counted.sums)
    said = (_COUNTED.format(since=since), _ESTIMATED)
    lines = lines_of(window, None, all_ms=counted.all_ms)
    return await _answer(context, params, lines, said=said, pairs=())


async def _answer(
    context: Context,
    params: Params,
    lines: Sequence[Line],
    *,
    said: Sequence[str],
    pairs: Sequence[Pair],
) -> Answer:
    title = f"Slow statements of {params.database}"
    if not lines:
        return Answer(title=f"{title}: nothing ran", lines=tuple(said))
    plans, unreached = await _explained(context, lines)
    numbers = {line.queryid: number for number, line in enumerate(lines, start=1)}
    return Answer(
        title=title,
        lines=(*said, *_marked(lines), *_plans(plans, numbers), *unreached, *map(_pair, pairs)),
        statements=tuple(_listed(number, line) for number, line in enumerate(lines, start=1)),
        facts=tuple(_facts(plans, numbers)),
        table=Table(
            columns=COLUMNS,
            rows=tuple(_row(number, line) for number, line in enumerate(lines, start=1)),
        ),
        suggestions=tuple(_suggestions(plans, params.database)),
    )


async def _explained(
    context: Context, lines: Sequence[Line]
) -> tuple[tuple[Explained, ...], tuple[str, ...]]:
    """Plans, or why the server cannot be asked: what is stored is told nevertheless."""
    try:
        return await explained(context.reader, lines), ()
    except JobError as error:
        return (), (f"No plan: {error.problem} {error.next_step}",)


def _windows(window: Window, earlier: Window | None, now: datetime) -> Iterator[str]:
    yield f"Since {window.since:{_MOMENT}} UTC ({span_text(now - window.since)})."
    if earlier is None:
        yield "There are no earlier hours to compare with yet."
    elif abs((window.since - earlier.since) - WEEK) < _HOUR:
        yield (
            f"Change: per hour, against the same hours last week ({earlier.since:{_MOMENT}} to"
            f" {earlier.until:{_MOMENT}} UTC)."
        )
    else:
        yield (
            "Change: per hour, against all that there is before"
            f" ({earlier.since:{_MOMENT}} to {earlier.until:{_MOMENT}} UTC): last week's hours are"
            " not known."
        )
    yield _ESTIMATED


def _marked(lines: Sequence[Line]) -> Iterator[str]:
    slow = [f"#{number}" for number, line in enumerate(lines, start=1) if line.is_slow]
    if slow:
        which = f"{', '.join(slow)} {'takes' if len(slow) == 1 else 'take'}"
        yield f"{which} more than a second on average: the guide's list of slow queries."


def _plans(plans: Sequence[Explained], numbers: Mapping[int, int]) -> Iterator[str]:
    for each in plans:
        number = numbers[each.line.queryid]
        if each.remark is not None:
            yield f"Plan of #{number}: {each.remark.text}"
        else:
            yield f"No plan of #{number}: {each.why_not}"


def _facts(plans: Sequence[Explained], numbers: Mapping[int, int]) -> Iterator[tuple[str, str]]:
    for each in plans:
        if each.plan is not None:
            name = f"Plan of #{numbers[each.line.queryid]} (generic, estimated, not executed)"
            yield name, "\n".join(drawn(each.plan))


def _pair(pair: Pair) -> str:
    child, parent = (shown(text, chars_max=_PAIR_CHARS_MAX) for text in (pair.child, pair.parent))
    return (
        f"Looks like N+1: “{child}” ran {pair.child_calls:,} times, once for each of the"
        f" {pair.parent_rows:,} rows of “{parent}” ({pair.hours} hours, correlation"
        f" {pair.correlation:.3f}). Asked for together: about {pair.saved_calls:,} calls fewer,"
        f" by a JOIN, your ORM's include, or {pair.key} = ANY ($1)."
    )


def _suggestions(plans: Sequence[Explained], database: str) -> Iterator[Suggestion]:
    if any(each.remark is not None and each.remark.asks_for_index for each in plans):
        yield Suggestion(
            text="Look for missing indexes",
            operation="indexes",
            params={"database": database},
            reason="its plan reads a whole table to find some rows",
        )


def _row(number: int, line: Line) -> tuple[str, ...]:
    mark = " !" if line.is_slow else ""
    return (
        str(number),
        f"{line.share:.0%}" if line.share >= 0.01 else "<1%",  # noqa: PLR2004 - one percent
        unit_text(Unit.MILLISECONDS, line.total_ms),
        f"{line.calls:,}",
        f"{unit_text(Unit.MILLISECONDS, line.mean_ms)}{mark}",
        f"~{unit_text(Unit.MILLISECONDS, line.p95_ms)}",
        number_text(line.rows_per_call),
        pretty_bytes(line.read_bytes) if line.read_bytes else "-",
        "-" if line.hit_share is None else f"{line.hit_share:.0%}",
        change_text(line.change),
    )


def _listed(number: int, line: Line) -> str:
    """A statement under its number, and what it had to write aside."""
    temp = f"  [{pretty_bytes(line.temp_bytes)} of temporary files]" if line.temp_bytes else ""
    text = shown(line.text, chars_max=STATEMENT_CHARS_MAX) or f"(text not known) {line.queryid}"
    return f"#{number:<3}{text}{temp}"


def _floor(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)


OPERATION = Operation(
    name="slow",
    summary="Statements by the time they take, what changed, and a plan for the worst",
    kind=Kind.QUERY,
    risk=Risk.NONE,
    params=Params,
    example="/db slow orders 24h",
    answer=answer,
    patience=PATIENCE,
    is_cached=True,
)
