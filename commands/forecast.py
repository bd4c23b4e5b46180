"""`/db forecast orders`: how large it will be, when its volume is full, what grows, what to do."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel, Field

from jobs.capacity import CapacityReport, Growing, Refusal, forecast_of
from jobs.capacity_words import advice, chart, headline, outlook_text, reasons, scope_text
from jobs.metric_text import bytes_text
from jobs.operation import Answer, Context, JobError, Kind, Operation, Risk, Table

COLUMNS = ("Table", "Size", "Grown", "Share of growth")


class Params(BaseModel, extra="forbid"):
    """Which database."""

    database: str = Field(description="Database in the inventory", examples=["orders"])


async def answer(context: Context, params: Params) -> Answer:
    """Forecast the size of a database from the last 90 days."""
    async with context.store.begin() as conn:
        found = await forecast_of(conn, context.database, context.now)
    if isinstance(found, Refusal):
        raise JobError(found.problem, next_step=found.next_step)
    return Answer(
        title=f"Forecast of {params.database}",
        lines=(
            headline(found),
            *(f"• {line}" for line in advice(found)),
            " ".join(reasons(found)),
        ),
        facts=tuple(_facts(found)),
        charts=(chart(found),),
        table=_table(found.growing),
        numbers=_numbers(found),
    )


def _facts(report: CapacityReport) -> Iterator[tuple[str, str]]:
    forecast = report.forecast
    yield "What", scope_text(report)
    yield "History", f"{forecast.measured_days} days, since {forecast.first:%d %b %Y}"
    yield "Now", bytes_text(forecast.size)
    yield "Growth a day", bytes_text(forecast.bytes_per_day, signed=True)
    for outlook in forecast.outlooks:
        yield f"In {outlook.days} days", outlook_text(outlook)


def _table(growing: tuple[Growing, ...]) -> Table | None:
    if not growing:
        return None
    rows = tuple(
        (
            f"{one.name} (new)" if one.is_new else one.name,
            bytes_text(one.bytes),
            f"{bytes_text(one.grown, signed=True)} since {one.since:%d %b}",
            "-" if one.share is None else f"{one.share:.0%}",
        )
        for one in growing
    )
    return Table(columns=COLUMNS, rows=rows)


def _numbers(report: CapacityReport) -> dict[str, int | float | str]:
    """What programs ask for: sizes in bytes, and days until the volume is full."""
    full = report.forecast.full
    days = {"p10": full.p10, "p50": full.p50, "p90": full.p90} if full is not None else {}
    return {
        "size_bytes": round(report.forecast.size),
        "bytes_per_day": round(report.forecast.bytes_per_day),
        **{f"bytes_in_{one.days}_days": round(one.mid) for one in report.forecast.outlooks},
        **{f"days_until_full_{name}": day for name, day in days.items() if day is not None},
    }


OPERATION = Operation(
    name="forecast",
    summary="Say how large a database will be, when its volume is full, and what to do",
    kind=Kind.QUERY,
    risk=Risk.NONE,
    params=Params,
    example="/db forecast orders",
    answer=answer,
    is_cached=True,
    is_routed=False,  # our store says it
)
