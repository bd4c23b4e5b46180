"""The tour's fifth act: a schema is changed while it is used, and taken back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from bot.cli.tour_play import (
    ANA,
    BEN,
    CLEO,
    OLE,
    RUN_SECONDS_MAX,
    Tour,
    TourError,
    expect,
    number_in,
    quoted,
)

_LINES_MAX: Final = 14
_SCHEMA: Final = """
    SELECT string_agg(attname, ', ' ORDER BY attnum)
      FROM pg_attribute
     WHERE attrelid = 'public.orders'::regclass AND attnum > 0 AND NOT attisdropped
"""


async def _planned(tour: Tour) -> list[str]:
    told = await tour.late("/db migrate orders plan", "orders_total")
    expect(told, "Tested in staging")
    refused = await tour.ask(ANA, "/db migrate orders")
    expect(refused, "The policy refuses this on purpose")
    return [
        *quoted("Ana is told", told)[:_LINES_MAX],
        *quoted("asked for at once", refused)[:4],
    ]


async def _tried(tour: Tour) -> list[str]:
    first = number_in(await tour.ask(ANA, "/db migrate orders-dev"))
    said = await tour.thread(first, "applied on orders-dev")
    second = number_in(await tour.ask(ANA, "/db migrate orders-staging"))
    await tour.card(second, says="Waiting")
    await tour.press(OLE, second, "approve")
    more = await tour.thread(second, "applied on orders-staging")
    return [*quoted("in development", said)[:6], *quoted("in staging", more)[:3]]


async def _rehearsed(tour: Tour) -> list[str]:
    # The story has damaged what was proven before.
    for command in ("backup", "verify"):
        number = number_in(await tour.ask(ANA, f"/db {command} orders"))
        await tour.card(number, says="Waiting")
        await tour.press(BEN, number, "approve")
        await tour.press(CLEO, number, "approve")
        await tour.card(number, says="Done", seconds=RUN_SECONDS_MAX)
    number = number_in(await tour.ask(ANA, "/db rehearse orders"))
    said = await tour.thread(number, "Rehearsed on")
    await tour.card(number, says="Done", seconds=RUN_SECONDS_MAX)
    return quoted("the thread says", said)[:_LINES_MAX]


async def _applied(tour: Tour) -> list[str]:
    number = number_in(await tour.ask(ANA, "/db migrate orders"))
    await tour.card(number, says="Waiting")
    await tour.press(BEN, number, "approve")
    said = await tour.thread(number, "applied on orders")
    await tour.card(number, says="Done", seconds=RUN_SECONDS_MAX)
    tour.notes["migrated"] = number
    there = await tour.value(_SCHEMA)
    if "total" not in there.split(", "):
        raise TourError(f"It was not applied: {there}")
    return [*quoted("the thread says", said)[:_LINES_MAX], f"orders has: {there}"]


async def _filled(tour: Tour) -> list[str]:
    asked = '/db backfill orders public.orders "total = total_cents / 100.0" where="total IS NULL"'
    number = number_in(await tour.ask(ANA, asked))
    await tour.card(number, says="Waiting")
    await tour.press(BEN, number, "approve")
    await tour.card(number, says="Done", seconds=RUN_SECONDS_MAX)
    said = await tour.thread(number, "150,000")
    left = await tour.value("SELECT count(*) FROM orders WHERE total IS NULL")
    expect(str(left), "0")
    return [*quoted("the thread says", said)[:_LINES_MAX], f"orders without one: {left}"]


async def _taken_back(tour: Tour) -> list[str]:
    await tour.undo(ANA, tour.notes["migrated"], "The release is postponed.")
    number = tour.notes["migrated"] + 2
    await tour.card(number, says="Waiting")
    await tour.read(BEN, number)
    return await _agreed(tour, number)


async def _agreed(tour: Tour, number: int) -> list[str]:
    await tour.press(BEN, number, "approve")
    said = await tour.thread(number, "taken back on orders")
    await tour.card(number, says="Done", seconds=RUN_SECONDS_MAX)
    there = await tour.value(_SCHEMA)
    if "total" in there.split(", "):
        raise TourError(f"It was not taken back: {there}")
    told = expect(await tour.ask(ANA, "/db migrate orders status"), "2 migrations pending")
    return [
        *quoted("the thread says", said)[:6],
        f"orders has: {there}",
        *quoted("Ana is told", told)[:4],
    ]


MIGRATIONS: Final[Sequence[tuple[str, Callable[[Tour], Awaitable[Sequence[str]]]]]] = (
    ("Ana looks what the pending migrations would do; production wants them elsewhere first.",
     _planned),
    ("She applies them in development, and in staging, where Ole agrees.", _tried),
    ("A backup is taken and proven; on a copy restored from it they are rehearsed.", _rehearsed),
    ("Ben agrees, and production is migrated while the shop uses it.", _applied),
    ("The new column is filled in, in batches that wait for everybody else.", _filled),
    ("The release is postponed: one button takes it back, with the data said that it costs.",
     _taken_back),
)  # fmt: skip
