"""Audit entries at 32 clients beside plain inserts, and how fast chains are verified."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import sqlalchemy as sa

from approvals import audit
from bench.places import place
from bench.table import Result
from store.connect import Store, connect

CLIENTS = 32
EACH = 100
DETAIL = {"plan": "h" * 64, "policy": "p" * 64, "verdict": "approve"}
NOW = datetime(2026, 11, 22, tzinfo=UTC)
PLAIN = sa.text("""
    INSERT INTO plain (at, actor, action, detail) VALUES (:at, :actor, :action, '{}')
""")


async def measure() -> list[Result]:
    """Rates of both, of one chain and of sixteen, and of the verification."""
    async with place() as where:
        store = connect(where.store_dsn, size=CLIENTS)
        owner = connect(where.store_dsn, size=CLIENTS, role="postgres")
        try:
            async with owner.begin() as conn:
                await conn.execute(sa.text(
                    "CREATE TABLE plain (id bigserial PRIMARY KEY, at timestamptz, actor text,"
                    " action text, detail jsonb)"
                ))  # fmt: skip
            plain = await _rate(lambda client: _plain(owner, client))
            one = await _rate(lambda _: _append(store, "orders"))
            many = await _rate(lambda client: _append(store, f"database-{client % 16}"))
            entries, seconds = await _verified(store)
        finally:
            await store.close()
            await owner.close()
    return [
        Result(
            what=f"audit entries per second, {CLIENTS} clients, one chain / sixteen",
            ours=f"{one:.0f} / {many:.0f}",
            floor=f"{plain:.0f} plain inserts",
            ratio=f"{one / plain:.2f} / {many / plain:.2f}",
        ),
        Result(what="audit verify: rows per second", ours=f"{entries / seconds:.0f}"),
    ]


async def _rate(work: Callable[[int], Awaitable[None]]) -> float:
    async def client(number: int) -> None:
        for _ in range(EACH):
            await work(number)

    await work(0)
    start = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(CLIENTS):
            group.create_task(client(number))
    return CLIENTS * EACH / (time.perf_counter() - start)


async def _plain(store: Store, client: int) -> None:
    async with store.begin() as conn:
        await conn.execute(PLAIN, {"at": NOW, "actor": str(client), "action": "voted"})


async def _append(store: Store, chain: str) -> None:
    async with store.begin() as conn:
        await audit.append(
            conn, chain=chain, at=NOW, actor="ben@acme.example", action="voted", detail=DETAIL
        )


async def _verified(store: Store) -> tuple[int, float]:
    start = time.perf_counter()
    async with store.begin() as conn:
        entries = [entry async for entry in audit.read(conn)]
        findings = audit.verify(entries, await audit.heads(conn))
    assert not findings, findings
    return len(entries), time.perf_counter() - start
