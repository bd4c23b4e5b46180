"""An application that uses the demo's shop, so that there is something to see: it is made up.

It reads, and keeps a table of visits of its own. One of its statements wants an index that is
missing, and one page asks for each order's customer on its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any, Final

import asyncpg

APPLICATION: Final = "shop"
PAUSE_SECONDS: Final = 0.5
AWAY_SECONDS: Final = 2.0
STATEMENT_SECONDS_MAX: Final = 10
CUSTOMERS: Final = 20_000
ORDERS: Final = 150_000
VISITS_KEPT: Final = 10_000

MAKE_VISITS: Final = """
    CREATE TABLE IF NOT EXISTS visits (
        id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        customer_id bigint NOT NULL,
        at          timestamptz NOT NULL DEFAULT now()
    )
"""
VISIT: Final = "INSERT INTO visits (customer_id) VALUES ($1)"
FORGET_VISITS: Final = "DELETE FROM visits WHERE id <= (SELECT max(id) FROM visits) - $1"
ONE_ORDER: Final = "SELECT status, total_cents FROM orders WHERE id = $1"
OF_CUSTOMER: Final = """
    SELECT id, total_cents FROM orders WHERE customer_id = $1 ORDER BY placed_at DESC LIMIT 10
"""
PLACED_AT: Final = "SELECT placed_at FROM orders WHERE id = $1"
# No index knows when orders were placed.
OF_A_MOMENT: Final = "SELECT id, customer_id FROM orders WHERE placed_at = $1::timestamptz"
# For each of these orders its customer is asked for.
NEWEST: Final = "SELECT customer_id FROM orders WHERE id > $1 AND id <= $1 + 20"
CUSTOMER: Final = "SELECT email FROM customers WHERE id = $1"
CHARGE: Final = "INSERT INTO charges (card, cents) VALUES (format('card %s', $1::int), $2)"
FORGET_CHARGES: Final = "DELETE FROM charges WHERE id <= (SELECT max(id) FROM charges) - $1"
CHARGES_KEPT: Final = 30_000
SALES: Final = "SELECT sum(cents) FROM daily_sales WHERE day >= $1::text::date"

Visitor = Callable[[Any, random.Random], Any]


async def _shop(conn: Any, chance: random.Random) -> None:
    customer = chance.randint(1, CUSTOMERS)
    await conn.execute(VISIT, customer)
    await conn.fetch(ONE_ORDER, chance.randint(1, ORDERS))
    await conn.fetch(OF_CUSTOMER, customer)
    moment = await conn.fetchval(PLACED_AT, chance.randint(1, ORDERS))
    await conn.fetch(OF_A_MOMENT, moment)
    for row in await conn.fetch(NEWEST, chance.randint(0, ORDERS - 20)):
        await conn.fetch(CUSTOMER, row["customer_id"])
    if chance.random() < 1 / 100:
        await conn.execute(FORGET_VISITS, VISITS_KEPT)


async def _reports(conn: Any, chance: random.Random) -> None:
    await conn.fetch(SALES, f"2024-{chance.randint(1, 12):02}-01")


async def _payments(conn: Any, chance: random.Random) -> None:
    await conn.execute(CHARGE, chance.randint(0, 499), chance.randint(100, 90_000))
    if chance.random() < 1 / 100:
        await conn.execute(FORGET_CHARGES, CHARGES_KEPT)


_VISITORS: Final[Mapping[str, Visitor]] = MappingProxyType(
    {"orders": _shop, "reports": _reports, "payments": _payments}
)


@asynccontextmanager
async def visitors(dsns: Mapping[str, str]) -> AsyncIterator[None]:
    """Use the demo's clusters (their DSNs by name) until the block ends."""
    tasks = [
        asyncio.create_task(_visit(dsn, name)) for name, dsn in dsns.items() if name in _VISITORS
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _visit(dsn: str, name: str) -> None:
    """Come back whenever the server is there again: it is restarted, restored, replaced."""
    chance = random.Random(name)  # noqa: S311 - which customer comes is no secret
    while True:
        with contextlib.suppress(OSError, TimeoutError, asyncpg.PostgresError,
                                 asyncpg.InterfaceError):  # fmt: skip
            await _visit_once(dsn, _VISITORS[name], chance)
        await asyncio.sleep(AWAY_SECONDS)


async def _visit_once(dsn: str, visit: Visitor, chance: random.Random) -> None:
    conn = await asyncpg.connect(
        dsn,
        timeout=STATEMENT_SECONDS_MAX,
        command_timeout=STATEMENT_SECONDS_MAX,
        server_settings={"application_name": APPLICATION},
    )
    try:
        if visit is _shop:
            await conn.execute(MAKE_VISITS)
        while True:
            await visit(conn, chance)
            await asyncio.sleep(PAUSE_SECONDS)
    finally:
        conn.terminate()
