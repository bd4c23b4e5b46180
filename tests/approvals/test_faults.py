"""A decision that is cut off anywhere has not happened; then it can happen whole."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from approvals.calls import Decision
from approvals.service import Approvals
from approvals.words import Door
from store.connect import Store
from store.quick import Statement
from tests.approvals.support import ANA, BEN, CLEO, KEYS, Clock, Queue, a_ballot, an_ask, policy_of

TABLES = ("requests", "gates", "votes", "audit_log", "audit_heads", "outbox", "runs", "deliveries")


class Cut(Exception):  # noqa: N818
    """The connection was killed."""


class CuttingStore:
    """The store, killing its connection before the statement number `at`."""

    def __init__(self, store: Store, at: int) -> None:
        self.store = store
        self.left = at
        self.cut = False

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        async with self.store.begin() as conn:
            yield CuttingConnection(conn, self)  # type: ignore[misc]
            if self.left == 0:
                await self.kill(conn)
            self.left -= 1

    @asynccontextmanager
    async def single(self) -> AsyncIterator[AsyncConnection]:
        """Each statement commits by itself, so there is no death between it and its commit."""
        async with self.store.single() as conn:
            yield CuttingConnection(conn, self)  # type: ignore[misc]

    async def rows(self, statement: Statement, values: Mapping[str, object]) -> Any:
        """As `single`: cut before the statement, or not at all."""
        if self.left == 0:
            self.cut = True
            await self.store.quick.close()
            raise Cut
        self.left -= 1
        return await self.store.rows(statement, values)

    async def kill(self, conn: AsyncConnection) -> None:
        self.cut = True
        raw = await conn.get_raw_connection()
        raw.driver_connection.terminate()  # type: ignore[union-attr]
        raise Cut


class CuttingConnection:
    def __init__(self, conn: AsyncConnection, store: CuttingStore) -> None:
        self.conn = conn
        self.store = store

    async def execute(self, statement: Any, values: Any = None) -> Any:
        if self.store.left == 0:
            await self.store.kill(self.conn)
        self.store.left -= 1
        return await self.conn.execute(statement, values)


async def picture(store: Store) -> dict[str, list[Any]]:
    """All that is stored, but for what only numbers it."""
    found: dict[str, list[Any]] = {}
    async with store.begin() as conn:
        for table in TABLES:
            rows = await conn.execute(sa.text(f"SELECT * FROM {table} AS t ORDER BY t"))
            found[table] = [tuple(row) for row in rows]
    return found


def service(store: Any) -> Approvals:
    glass = {"groups": ["dba"], "reviewers": ["security"], "review_within": "1d"}
    return Approvals(
        store=store,
        keys=KEYS,
        queue=Queue(),
        clock=Clock(),
        policy=policy_of(2, break_glass=glass),
    )


Act = Callable[[Approvals, Decision], Awaitable[Decision]]

ACTS: dict[str, Act] = {
    "ask": lambda a, _: a.ask(an_ask(delivery="again")),
    "deciding vote": lambda a, asked: a.vote(a_ballot(asked, CLEO, delivery="v")),
    "cancel": lambda a, asked: a.cancel(
        asked.request.id,  # type: ignore[union-attr]
        by=ANA,
        door=Door.SLACK,
        delivery="c",
    ),
    "break glass": lambda a, asked: a.break_glass(
        asked.request.id,  # type: ignore[union-attr]
        by=BEN,
        reason="outage",
        door=Door.SLACK,
        delivery="b",
    ),
}


@pytest.mark.parametrize("name", ACTS)
async def test_nothing_is_half_done_wherever_the_connection_dies(store: Store, name: str) -> None:
    whole = service(store)
    asked = await whole.ask(an_ask())
    await whole.vote(a_ballot(asked, BEN))
    before = await picture(store)
    cuts = 0
    while True:
        cutting = CuttingStore(store, cuts)
        try:
            decision = await ACTS[name](service(cutting), asked)
        except Exception:
            if not cutting.cut:
                raise
        if cutting.cut:
            assert await picture(store) == before
        if not cutting.cut:
            break
        cuts += 1
    assert cuts >= 3
    assert decision.ok
    assert not decision.noop
    assert await picture(store) != before
