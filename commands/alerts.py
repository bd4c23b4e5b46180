"""`/db alerts [orders]`: what fires, who is at it, and what was over within a day."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from pydantic import BaseModel, Field

from jobs.alerting_text import value_text
from jobs.operation import Answer, Context, Kind, Operation, Risk, Suggestion, Table
from jobs.text import count_text, span_text
from store.alerts import firing_alerts
from store.incidents import AlertRow
from store.silences import SilenceRow, active_silences
from store.silencing import resolved_alerts

RECENT: Final = timedelta(hours=24)
ROWS_MAX: Final = 50
_NEXT_MAX: Final = 5
_SILENCES_MAX: Final = 10
_LABEL_CHARS_MAX: Final = 40
_FIRING: Final = "firing"
_COLUMNS: Final = ("Database", "Alert", "Severity", "State", "Value", "Since", "Who")


class Params(BaseModel, extra="forbid"):
    """Which database, or all of them."""

    database: str = Field(
        default="", description="Database in the inventory; empty: all", examples=["orders"]
    )


async def answer(context: Context, params: Params) -> Answer:
    """What fires, the worst database first, then what was over within a day."""
    name = params.database or None
    async with context.store.begin() as conn:
        firing = await firing_alerts(conn, name)
        over = await resolved_alerts(conn, name, since=context.now - RECENT)
        silences = await active_silences(conn, context.now, name)
    shown = [*worst_first(firing), *over]
    return Answer(
        title=_title(params.database, firing),
        lines=(
            *_next_steps(worst_first(firing), silences),
            *_silent(silences),
            *_left_out(len(shown)),
            *(() if shown else (f"Nothing has fired within {span_text(RECENT)}.",)),
        ),
        table=Table(
            columns=_COLUMNS,
            rows=tuple(_row(alert, silences, context.now) for alert in shown[:ROWS_MAX]),
        )
        if shown
        else None,
        suggestions=tuple(_suggestions(params.database)),
    )


def worst_first(firing: Iterable[AlertRow]) -> Sequence[AlertRow]:
    """By database, that with the worst and the most first; in each, the worst and oldest first."""
    of: dict[str, list[AlertRow]] = {}
    for alert in firing:
        of.setdefault(alert.database, []).append(alert)

    def weight(alerts: list[AlertRow]) -> tuple[int, int]:
        return (-sum(_is_critical(each) for each in alerts), -len(alerts))

    ordered = sorted(of.items(), key=lambda item: (*weight(item[1]), item[0]))
    return [
        alert
        for _, alerts in ordered
        for alert in sorted(alerts, key=lambda each: (not _is_critical(each), each.fired_at))
    ]


def _is_critical(alert: AlertRow) -> bool:
    return alert.severity == "critical"


def _title(database: str, firing: Sequence[AlertRow]) -> str:
    if not firing:
        return f"No alert fires{f' on {database}' if database else ''}"
    critical = sum(map(_is_critical, firing))
    where = database or count_text(len({each.database for each in firing}), "database")
    fire = "fires" if len(firing) == 1 else "fire"
    return f"{count_text(len(firing), 'alert')} {fire} on {where}, {critical} critical"


def _next_steps(firing: Sequence[AlertRow], silences: Sequence[SilenceRow]) -> Iterable[str]:
    """What to do about what nobody looks after, and nobody has silenced."""
    unseen = [each for each in firing if _state(each, silences) == _FIRING]
    for alert in unseen[:_NEXT_MAX]:
        yield f"{alert.database}, {alert.name}: {alert.problem} Next: {alert.next_step}"


def _silent(silences: Sequence[SilenceRow]) -> Iterable[str]:
    for each in silences[:_SILENCES_MAX]:
        what = each.name or "everything"
        until = f"{each.ends_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        yield f"Silent on {each.database} until {until}: {what}, by {each.by}: {each.reason}"
    if (more := len(silences) - _SILENCES_MAX) > 0:
        yield f"…and {count_text(more, 'more silence')}."


def _left_out(rows: int) -> Iterable[str]:
    if rows > ROWS_MAX:
        yield f"{ROWS_MAX} of {rows} are shown: ask for one database."


def _row(alert: AlertRow, silences: Sequence[SilenceRow], now: datetime) -> tuple[str, ...]:
    about = alert.detail.get("about", alert.label)
    label = f" ({str(about)[:_LABEL_CHARS_MAX]})" if about else ""
    return (
        alert.database,
        f"{alert.name}{label}",
        alert.severity,
        _state(alert, silences),
        value_text(alert),
        _age(alert, now),
        alert.acked_by or "-",
    )


def _state(alert: AlertRow, silences: Sequence[SilenceRow]) -> str:
    if not alert.is_firing:
        return "over"
    if any(each.database == alert.database and each.name in {"", alert.name} for each in silences):
        return "silenced"
    if alert.detail.get("muted"):
        return "not told"  # another alert says it, or a run is at work
    return "acknowledged" if alert.acked_by else _FIRING


def _age(alert: AlertRow, now: datetime) -> str:
    if alert.resolved_at is None:
        return span_text(now - alert.fired_at)
    lasted = span_text(alert.resolved_at - alert.fired_at)
    return f"{span_text(now - alert.resolved_at)} ago, for {lasted}"


def _suggestions(database: str) -> Iterable[Suggestion]:
    if database:
        yield Suggestion(text="Silence", operation="silence", params={"database": database})


OPERATION = Operation(
    name="alerts",
    summary="What fires, who is at it, and what was over within a day",
    kind=Kind.QUERY,
    risk=Risk.NONE,
    params=Params,
    example="/db alerts orders",
    answer=answer,
    is_routed=False,  # our store says it
)
