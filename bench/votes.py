"""Votes per second, on one request and on many, with few and with a million stored requests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from approvals.records import RequestRecord
from approvals.service import Approvals, Seen
from bench.places import place
from bench.table import Result
from bench.town import DBAS, approvals_on, ask_for, ballot
from store.connect import Store, connect

STORED = (1_000, 1_000_000)
REQUESTS = 100
CLIENTS = 16

# Copies of one real request, long over, with its gate and its vote.
FILL = """
    WITH model AS (SELECT * FROM requests ORDER BY id LIMIT 1),
    copied AS (
        INSERT INTO requests (state, version, operation, database, asked_by, asked_by_slack,
               authors, door, reason, params, plan, plan_hash, policy_hash, attributes, rule, step,
               asked_at, expires_at, ended_at, detail, channel)
        SELECT 'denied', 3, operation, 'old' || n % 50, asked_by, asked_by_slack, authors, door,
               reason, params, plan, plan_hash, policy_hash, attributes, rule, step,
               asked_at - n * interval '1 minute', expires_at, asked_at, detail, channel
          FROM model, generate_series(1, $1::int) AS n
     RETURNING id, plan_hash, policy_hash
    )
    INSERT INTO votes (request_id, plan_hash, policy_hash, step, person, slack, groups, verdict,
           reason, door, at, key_id, signature)
    SELECT id, plan_hash, policy_hash, 0, 'ben@acme.example', '', '{dba}', 'deny', 'no', 'slack',
           now(), 'k', 's'
      FROM copied
"""


async def measure() -> list[Result]:
    """Rates at both sizes, and what the second costs beside the first."""
    async with place() as where:
        store = connect(where.store_dsn, size=CLIENTS + 4)
        approvals = approvals_on(store, where)
        rates: list[tuple[float, float]] = []
        have = 0
        try:
            await approvals.ask(ask_for("backup"))
            for size in STORED:
                await _fill(store, size - have)
                have = size
                await _on_many(approvals)  # warm caches and plans of both sizes alike
                rates.append((await _on_one(approvals), await _on_many(approvals)))
        finally:
            await store.close()
    (one_few, many_few), (one_much, many_much) = rates
    return [
        _row("on one request", one_few, one_much),
        _row(f"on many requests, {CLIENTS} clients", many_few, many_much),
    ]


def _row(what: str, few: float, much: float) -> Result:
    return Result(
        what=f"votes per second {what}: 1,000,000 requests beside 1,000",
        ours=f"{much:.0f}",
        floor=f"{few:.0f}",
        ratio=f"costs {few / much:.2f}",
        aim="at most 1.3",
    )


async def _fill(store: Store, count: int) -> None:
    conn = await store.direct()
    try:
        await conn.execute("SET ROLE NONE")
        await conn.execute(FILL, count)
        await conn.execute("ANALYZE requests")
        await conn.execute("ANALYZE votes")
        await conn.execute("CHECKPOINT")
    finally:
        await conn.close()


async def _asked(approvals: Approvals) -> RequestRecord:
    asked = await approvals.ask(ask_for("backup"))
    assert asked.request is not None, asked.problem
    return asked.request


async def _on_one(approvals: Approvals) -> float:
    """All votes press on one request's lock; after two of them they are told it is decided."""
    seconds = 0.0
    for _ in range(3):
        request = await _asked(approvals)
        start = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for voter in DBAS:
                group.create_task(approvals.vote(ballot(request.id, voter, _seen(request))))
        seconds += time.perf_counter() - start
    return 3 * len(DBAS) / seconds


async def _on_many(approvals: Approvals) -> float:
    """One vote on each of many requests, all pending."""
    requests = [await _asked(approvals) for _ in range(REQUESTS)]
    start = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(CLIENTS):
            group.create_task(_vote_all(approvals, requests[number::CLIENTS]))
    return REQUESTS / (time.perf_counter() - start)


async def _vote_all(approvals: Approvals, requests: Sequence[RequestRecord]) -> None:
    for request in requests:
        decided = await approvals.vote(ballot(request.id, DBAS[0], _seen(request)))
        assert decided.ok, decided.problem


def _seen(request: RequestRecord) -> Seen:
    return Seen(plan_hash=request.plan_hash, policy_hash=request.policy_hash, step=request.step)
