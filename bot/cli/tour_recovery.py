"""The tour's third act: something is lost, and comes back from what was kept."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import asyncpg

from approvals.counting import count_text
from bot.cli.tour_play import (
    ANA,
    BEN,
    CLEO,
    RUN_SECONDS_MAX,
    Tour,
    TourError,
    expect,
    quoted,
    text_of,
)

_SQL_SECONDS_MAX: Final = 30
_LINES_MAX: Final = 8


async def _archive(tour: Tour) -> list[str]:
    told = expect(await tour.ask(ANA, "/db backups orders"), "any moment from")
    return [line for line in quoted("Ana is told", told) if "any moment" in line]


async def _lost(tour: Tour) -> list[str]:
    rows = await _value(tour, "orders", "SELECT count(*) FROM payments")
    moment = await _value(tour, "orders", "SELECT clock_timestamp()")
    await _value(tour, "orders", "DELETE FROM payments WHERE cents > 100")
    left = await _value(tour, "orders", "SELECT count(*) FROM payments")
    tour.notes["payments"], tour.notes["moment"] = rows, moment
    return [f"at {moment:%H:%M:%S} UTC there were {rows:,} payments; now there are {left:,}"]


async def _scratch(tour: Tour) -> list[str]:
    moment: datetime = tour.notes["moment"]
    at = f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f} UTC"
    expect(await tour.ask(ANA, f"/db restore orders --to '{at}' --into scratch"), "#8")
    card = text_of(await tour.card(8, says="Waiting"))
    await tour.press(BEN, 8, "approve")
    said = await tour.thread(8, "runs")
    await tour.card(8, says="Done", seconds=RUN_SECONDS_MAX)
    tour.notes["scratch"] = _scratch_in(said)
    lost = [line for line in card.splitlines() if "transaction" in line]
    return [
        *(f"the card says: {line}" for line in lost),
        *quoted("the thread says", said)[:_LINES_MAX],
    ]


async def _table(tour: Tour) -> list[str]:
    words = f"/db recover-table orders public.payments --from {tour.notes['scratch']}"
    expect(await tour.ask(ANA, words), "#9")
    await tour.card(9, says="Waiting")
    await tour.press(CLEO, 9, "approve")
    await tour.card(9, says="Done", seconds=RUN_SECONDS_MAX)
    found = await _value(tour, "orders", "SELECT count(*) FROM restored_9.payments")
    if found != tour.notes["payments"]:
        raise TourError(f"{found} payments came back of {tour.notes['payments']}.")
    await _value(
        tour,
        "orders",
        "INSERT INTO payments SELECT * FROM restored_9.payments ON CONFLICT DO NOTHING",
    )
    back = await _value(tour, "orders", "SELECT count(*) FROM payments")
    expect(await tour.ask(ANA, f"/db drop-scratch {tour.notes['scratch']}"), "#10")
    await tour.card(10, says="Done", seconds=RUN_SECONDS_MAX)
    return [
        f"restored_9.payments has {found:,} rows; what was deleted is put back: {back:,} payments",
        "the scratch server is dropped",
    ]


async def _place(tour: Tour) -> list[str]:
    expect(await tour.ask(ANA, "/db backup reports"), "#11")
    await tour.card(11, says="Done", seconds=RUN_SECONDS_MAX)
    moment = await _value(tour, "reports", "SELECT clock_timestamp()")
    await _value(tour, "reports", "DROP TABLE daily_sales")
    at = f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f} UTC"
    expect(await tour.ask(ANA, f"/db restore reports --to '{at}' --into place"), "#12")
    await tour.card(12, says="Waiting")
    pages = await tour.read(BEN, 12)
    await tour.approve_by_name(BEN, 12, "reports")
    said = await tour.thread(12, "reports")
    await tour.card(12, says="Done", seconds=RUN_SECONDS_MAX)
    days = await _value(tour, "reports", "SELECT count(*) FROM daily_sales")
    return [
        f"Ben opens {count_text(pages, 'page')}, types the database's name, and approves",
        *quoted("the thread says", said)[:_LINES_MAX],
        f"daily_sales is there again, with {days} rows; what it replaced is kept aside",
    ]


async def _undone(tour: Tour) -> list[str]:
    await tour.undo(ANA, 12, "The table was dropped on purpose.")
    await tour.card(13, says="Waiting")
    await tour.read(BEN, 13)
    await tour.approve_by_name(BEN, 13, "reports")
    await tour.card(13, says="Done", seconds=RUN_SECONDS_MAX)
    said = await tour.thread(13, "reports")
    there = await _value(tour, "reports", "SELECT to_regclass('daily_sales')::text")
    if there is not None:
        raise TourError(f"The undo did not bring back the server without the table: {said}")
    return [
        *quoted("the thread says", said)[:_LINES_MAX],
        "reports is as it was before the restore: the table is gone",
    ]


RECOVERY: Final[Sequence[tuple[str, Callable[[Tour], Awaitable[Sequence[str]]]]]] = (
    ("All changes of orders are archived as they happen.", _archive),
    ("Somebody deletes too many payments.", _lost),
    ("Ana asks for orders as it was a moment before, in a scratch server.", _scratch),
    ("The table comes back out of it, beside the other one; nothing is overwritten.", _table),
    ("reports loses a table, and is put back in place to the moment before.", _place),
    ("That was a mistake as well: it is undone.", _undone),
)


async def _value(tour: Tour, database: str, query: str) -> Any:
    """The first value of what an application sends to one of the clusters."""
    (cluster,) = (each for each in tour.world.clusters if each.name == database)
    conn = await asyncpg.connect(cluster.dsn, timeout=_SQL_SECONDS_MAX)
    try:
        return await conn.fetchval(query, timeout=_SQL_SECONDS_MAX)
    finally:
        await conn.close()


def _scratch_in(text: str) -> str:
    found = re.search(r"drop-scratch ([\w.-]+)", text)
    if found is None:
        raise TourError(f"There is no scratch server in: {text}")
    return found[1]
