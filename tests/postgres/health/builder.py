"""A process that builds an index until it is killed: `python -m tests.postgres.health.builder`."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import timedelta
from typing import Any

from postgres.dsn import parse_dsn
from postgres.health.index_build import BuildLimits, Order, build
from postgres.health.index_terms import plain_terms

QUICK = BuildLimits(
    lock=timedelta(seconds=20),
    pause=timedelta(seconds=0.05),
    look=timedelta(seconds=0.05),
    cleanup=timedelta(seconds=3),
)


def order_of(wanted: dict[str, Any]) -> Order:
    """The order that a test has written down."""
    return Order(
        schema="public",
        name=wanted["name"],
        table_oid=wanted["table_oid"],
        statement=wanted["statement"],
        terms=plain_terms(["customer"]),
    )


async def silent(text: str, fraction: float | None) -> None:
    """Tells nobody."""


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    asyncio.run(build(parse_dsn(asked["dsn"]), order_of(asked), limits=QUICK, tell=silent))
