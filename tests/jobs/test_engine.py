"""The queue: in the granting transaction, no run twice, through absences of the store."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import asyncpg
import pytest
import sqlalchemy as sa

from approvals.words import RequestId, RunId
from jobs.engine import Drop, Later, PgQueue, Start, Verdict
from tests.jobs.support import Bench, Step, clock, eventually


async def test_a_rolled_back_grant_leaves_neither_run_nor_delivery(bench: Bench) -> None:
    class UndoError(Exception):
        pass

    await bench.grant(Step(name="one"))
    await bench.fetch("DELETE FROM pgqueuer")
    async with bench.store.begin() as conn:
        await conn.execute(sa.text("UPDATE runs SET state = 'refused', started_at = NULL"))
    with pytest.raises(UndoError):
        async with bench.store.begin() as conn:
            await bench.queue.enqueue(
                conn, request_id=RequestId(1), database="orders", operation="work", now=clock()
            )
            raise UndoError
    assert await bench.state(RunId(1)) == "refused"
    assert await bench.one("SELECT count(*) FROM pgqueuer") == 0


async def test_a_delivery_that_is_the_first_statement_of_a_transaction_is_part_of_it(
    bench: Bench,
) -> None:
    class UndoError(Exception):
        pass

    with pytest.raises(UndoError):
        async with bench.store.begin() as conn:
            await bench.queue.redeliver(conn, [RunId(7)])
            raise UndoError
    assert await bench.one("SELECT count(*) FROM pgqueuer") == 0


async def test_a_run_waits_in_the_queue_once(bench: Bench) -> None:
    run_id = await bench.grant(Step(name="one"))
    async with bench.store.begin() as conn:
        await bench.queue.redeliver(conn, [run_id])
        await bench.queue.redeliver(conn, [run_id])
    assert await bench.one("SELECT count(*) FROM pgqueuer") == 1


async def test_deliveries_wake_a_consumer_at_once(bench: Bench) -> None:
    """Well before the consumer would look by itself."""
    seen: list[RunId] = []

    async def handler(run_id: RunId) -> Verdict:
        seen.append(run_id)
        return Drop()

    stop = asyncio.Event()
    queue = PgQueue(bench.store, poll=timedelta(hours=1))
    consumer = asyncio.create_task(queue.consume(handler, stop, places=1))
    await _listening(bench)
    run_id = await bench.grant(Step(name="one"))
    await eventually(lambda: _is(seen, [run_id]))
    stop.set()
    await asyncio.wait_for(consumer, 30)
    assert await bench.one("SELECT count(*) FROM pgqueuer") == 0


async def test_what_is_put_off_comes_again_and_sooner_when_hurried(bench: Bench) -> None:
    seen: list[RunId] = []

    async def handler(run_id: RunId) -> Verdict:
        seen.append(run_id)
        return Later(timedelta(hours=1)) if len(seen) == 1 else Drop()

    stop = asyncio.Event()
    consumer = asyncio.create_task(
        PgQueue(bench.store, poll=timedelta(hours=1)).consume(handler, stop, places=1)
    )
    run_id = await bench.grant(Step(name="one"))

    async def put_off() -> bool:
        return bool(await bench.fetch("SELECT FROM pgqueuer WHERE execute_after > now()"))

    await eventually(put_off)
    await _listening(bench)
    async with bench.store.begin() as conn:
        await bench.queue.hurry(conn, run_id)
    await eventually(lambda: _is(seen, [run_id, run_id]))
    stop.set()
    await asyncio.wait_for(consumer, 30)


async def test_no_more_bodies_at_a_time_than_there_are_places(bench: Bench) -> None:
    at_work = most = ended = 0

    async def body() -> None:
        nonlocal at_work, most, ended
        at_work += 1
        most = max(most, at_work)
        await asyncio.sleep(0.05)
        at_work -= 1
        ended += 1

    async def handler(run_id: RunId) -> Verdict:
        return Start(body)

    for _ in range(6):
        await bench.grant(Step(name="one"))
    stop = asyncio.Event()
    consumer = asyncio.create_task(bench.queue.consume(handler, stop, places=2))

    async def all_ended() -> bool:
        return ended == 6

    await eventually(all_ended)
    stop.set()
    await asyncio.wait_for(consumer, 30)
    assert most == 2


async def test_a_handler_that_breaks_is_asked_again_and_ends_nothing(bench: Bench) -> None:
    calls = 0

    async def handler(run_id: RunId) -> Verdict:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ZeroDivisionError
        return Drop()

    await bench.grant(Step(name="one"))
    stop = asyncio.Event()
    consumer = asyncio.create_task(
        PgQueue(bench.store, poll=timedelta(seconds=0.1)).consume(handler, stop, places=1)
    )

    async def twice() -> bool:
        return calls == 2

    await eventually(twice)
    stop.set()
    await asyncio.wait_for(consumer, 30)


async def _is(seen: list[RunId], expected: list[RunId]) -> bool:
    return seen == expected


async def _listening(bench: Bench) -> None:
    """Return once a consumer will hear of deliveries."""
    admin = await asyncpg.connect(bench.store.dsn.get_secret_value())

    async def there() -> bool:
        return bool(
            await admin.fetch(
                "SELECT FROM pg_stat_activity WHERE datname = current_database()"
                " AND query LIKE 'LISTEN%' AND state = 'idle'"
            )
        )

    await eventually(there)
    await admin.close()
