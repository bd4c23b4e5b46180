"""The tour's sixth act: a server hands over, then one is killed, and what that cost is measured."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from bot.cli.tour_play import (
    ANA,
    BEN,
    RUN_SECONDS_MAX,
    Tour,
    expect,
    number_in,
    quoted,
    text_of,
)

_LINES_MAX: Final = 16
_REPORT_LINES_MAX: Final = 44


async def prove_payments(tour: Tour, user: str) -> str:
    """Have somebody ask for a backup of payments, and for its proof; what is said of that."""
    for command in ("backup", "verify"):
        number = number_in(await tour.ask(user, f"/db {command} payments"))
        await tour.card(number, says="Done", seconds=RUN_SECONDS_MAX)
    return await tour.thread(number, "is proven")


async def _looked(tour: Tour) -> list[str]:
    told = expect(await tour.ask(ANA, "/db replication payments"), "takes writes")
    return quoted("Ana is told", told)[:_LINES_MAX]


async def _refused(tour: Tour) -> list[str]:
    refused = expect(await tour.ask(ANA, "/db failover payments"), "Verified backup")
    proven = await prove_payments(tour, ANA)
    return [
        *quoted("Ana is told", refused)[:3],
        *quoted("a backup is taken and verified", proven)[:2],
    ]


async def _switched(tour: Tour) -> list[str]:
    number = number_in(await tour.ask(ANA, "/db failover payments"))
    card = text_of(await tour.card(number, says="Waiting"))
    await tour.press(BEN, number, "approve")
    await tour.card(number, says="Done", seconds=RUN_SECONDS_MAX)
    said = await tour.thread(number, "is the primary")
    checked = [line for line in card.splitlines() if line.startswith("*Checked, and well")]
    return [*(f"the card says: {line}" for line in checked), *quoted("the thread says", said)]


async def _drilled(tour: Tour) -> list[str]:
    told = await tour.ask(ANA, "/db drill payments primary-crash back=false")
    number = number_in(told)
    card = text_of(await tour.card(number, says="Waiting"))
    await tour.read(BEN, number)
    await tour.approve_by_name(BEN, number, "payments")
    said = await tour.thread(number, "Drill passed")
    await tour.card(number, says="Done", seconds=RUN_SECONDS_MAX)
    lost = [line for line in card.splitlines() if "Replication is asynchronous" in line]
    return [
        *(f"the card says: {line}" for line in lost),
        *quoted("the thread says", said)[:_REPORT_LINES_MAX],
    ]


async def _listed(tour: Tour) -> list[str]:
    told = expect(await tour.ask(ANA, "/db drills payments"), "1 of 1 passed")
    return quoted("Ana is told", told)[:_LINES_MAX]


FAILOVER: Final[Sequence[tuple[str, Callable[[Tour], Awaitable[Sequence[str]]]]]] = (
    ("payments has two servers: who is the primary, and is the other one ready?", _looked),
    ("The primary is to hand over; without a proven way back it does not.", _refused),
    ("Now Ben agrees: the other server takes over, and that applications can write is proven.",
     _switched),
    ("The primary is killed on purpose: what was lost, for how long could nobody write?", _drilled),
    ("Which disasters were rehearsed, and what did they cost?", _listed),
)  # fmt: skip
