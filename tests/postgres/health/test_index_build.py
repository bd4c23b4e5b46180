"""Indexes are built and dropped on a real server; workers, backends and patience end early."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from postgres.dsn import parse_dsn
from postgres.errors import PostgresError
from postgres.health.index_build import (
    BuildLimits,
    Move,
    Order,
    build,
    drop,
    fraction_of,
    is_free,
    next_move,
    progress_text,
)
from postgres.health.index_terms import read_terms
from tests.conftest import Target
from tests.postgres.health.builder import QUICK, order_of, silent

ROOT = Path(__file__).parents[3]
IMPATIENT = replace(QUICK, lock=timedelta(seconds=0.2), again=2)
NAME = "orders_customer_tk000000"
TABLE = """
    CREATE TABLE orders (id int PRIMARY KEY, customer int NOT NULL);
    INSERT INTO orders SELECT n, n % 100 FROM generate_series(1, 2000) AS n;
"""
STATE = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass($1)"


@pytest.fixture
async def conn(target: Target) -> AsyncIterator[Any]:
    """A connection to a fresh database with a table in it."""
    made = await asyncpg.connect(target.dsn)
    await made.execute(TABLE)
    yield made
    await made.close()


async def ordered(conn: Any, target: Target, *, unique: bool = False, name: str = NAME) -> Any:
    kind = "UNIQUE INDEX" if unique else "INDEX"
    return {
        "dsn": target.dsn,
        "name": name,
        "table_oid": await conn.fetchval("SELECT 'orders'::regclass::oid"),
        "statement": f"CREATE {kind} CONCURRENTLY {name} ON public.orders USING btree (customer)",
    }


async def build_now(wanted: Any, *, limits: BuildLimits = QUICK, order: Order | None = None) -> Any:
    return await build(
        parse_dsn(wanted["dsn"]), order or order_of(wanted), limits=limits, tell=silent
    )


@asynccontextmanager
async def old_transaction(target: Target) -> AsyncIterator[Any]:
    """Somebody who wrote to the table, and does not end."""
    other = await asyncpg.connect(target.dsn)
    try:
        await other.execute("BEGIN; INSERT INTO orders VALUES (-1, 1)")
        yield other
    finally:
        await other.close()


async def until(probe: Callable[[], Any]) -> Any:
    async with asyncio.timeout(30):
        while not (found := await probe()):
            await asyncio.sleep(0.02)
        return found


async def builder_of(conn: Any) -> Any:
    return await conn.fetchval("SELECT pid FROM pg_stat_progress_create_index LIMIT 1")


async def test_an_index_is_built_and_told_of(conn: Any, target: Target) -> None:
    wanted = await ordered(conn, target)
    assert await is_free(parse_dsn(target.dsn), "public", NAME)
    made = await build_now(wanted)
    assert made.size_bytes > 0
    assert made.definition.endswith("USING btree (customer)")
    assert await conn.fetchval(STATE, NAME) is True
    assert not await is_free(parse_dsn(target.dsn), "public", NAME)


async def test_an_index_that_is_there_already_is_taken(conn: Any, target: Target) -> None:
    wanted = await ordered(conn, target)
    first = await build_now(wanted)
    assert await build_now(wanted) == first


async def test_progress_says_who_holds_it_up(conn: Any, target: Target) -> None:
    told: list[str] = []

    async def tell(text: str, fraction: float | None) -> None:
        told.append(text)

    wanted = await ordered(conn, target)
    async with old_transaction(target) as other:
        pid = other.get_server_pid()
        building = asyncio.create_task(
            build(parse_dsn(target.dsn), order_of(wanted), limits=QUICK, tell=tell)
        )
        await until(lambda: _has(told, f"for process {pid}"))
        await other.execute("ROLLBACK")
        await building
    assert await conn.fetchval(STATE, NAME) is True


async def test_duplicates_are_said_without_their_values_and_nothing_is_left(
    conn: Any, target: Target
) -> None:
    wanted = await ordered(conn, target, unique=True)
    order = replace(order_of(wanted), terms=read_terms("customer", unique=True))
    with pytest.raises(PostgresError, match="some rows have the same values") as failed:
        await build_now(wanted, order=order)
    assert "(customer)=" not in failed.value.problem
    assert await conn.fetchval("SELECT to_regclass($1)", NAME) is None


async def test_old_transactions_are_waited_for_so_long_and_no_longer(
    conn: Any, target: Target
) -> None:
    wanted = await ordered(conn, target)
    async with old_transaction(target):
        with pytest.raises(PostgresError, match="older transactions held it up") as failed:
            await build_now(wanted, limits=replace(IMPATIENT, cleanup=timedelta(seconds=0.5)))
    assert "/db locks" in failed.value.next_step or "half-built" in failed.value.next_step


async def test_a_wait_that_was_too_long_is_tried_again(conn: Any, target: Target) -> None:
    told: list[str] = []
    wanted = await ordered(conn, target)
    async with old_transaction(target) as other:

        async def tell(text: str, fraction: float | None) -> None:
            told.append(text)
            if "trying again" in text:
                await other.execute("ROLLBACK")

        limits = replace(IMPATIENT, again=4)
        made = await build(parse_dsn(target.dsn), order_of(wanted), limits=limits, tell=tell)
    assert made.size_bytes > 0
    assert any("trying again" in text for text in told)
    assert await conn.fetchval(STATE, NAME) is True


async def test_a_cancelled_build_leaves_nothing(conn: Any, target: Target) -> None:
    wanted = await ordered(conn, target)
    async with old_transaction(target) as other:
        building = asyncio.create_task(build_now(wanted))
        await until(lambda: builder_of(conn))
        building.cancel()
        # Its clean-up waits for the old transaction as well.
        await asyncio.sleep(0)
        await until(lambda: _gone_builder(conn))
        await other.execute("ROLLBACK")
        with pytest.raises(asyncio.CancelledError):
            await building
    assert await conn.fetchval("SELECT to_regclass($1)", NAME) is None


async def test_after_a_killed_worker_the_backend_that_goes_on_is_waited_for(
    conn: Any, target: Target
) -> None:
    wanted = await ordered(conn, target)
    async with old_transaction(target) as other:
        process = await _killed(conn, wanted)
        assert await builder_of(conn) is not None, "the server has not noticed"
        going_on = asyncio.create_task(build_now(wanted))
        await asyncio.sleep(0.1)
        assert not going_on.done()
        await other.execute("ROLLBACK")
        made = await going_on
    assert process.returncode == -9
    assert made.size_bytes > 0
    assert await _indexes(conn) == [NAME, "orders_pkey"]


async def test_after_a_killed_worker_what_is_half_built_is_dropped_and_built_again(
    conn: Any, target: Target
) -> None:
    wanted = await ordered(conn, target)
    async with old_transaction(target) as other:
        await _killed(conn, wanted)
        left = await conn.fetchval("SELECT to_regclass($1)::oid", NAME)
        await conn.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_progress_create_index")
        await until(lambda: _gone_builder(conn))
        assert await conn.fetchval(STATE, NAME) is False
        await other.execute("ROLLBACK")
    made = await build_now(wanted)
    assert made.oid != left
    assert await _indexes(conn) == [NAME, "orders_pkey"]
    assert await conn.fetchval(STATE, NAME) is True


async def test_a_half_built_index_of_somebody_else_is_left_alone(conn: Any, target: Target) -> None:
    await conn.execute("INSERT INTO orders VALUES (0, 1)")
    with pytest.raises(asyncpg.UniqueViolationError):
        await conn.execute(
            f"CREATE UNIQUE INDEX CONCURRENTLY {NAME} ON orders (customer, (id % 2))"
        )
    wanted = await ordered(conn, target)
    with pytest.raises(PostgresError, match="Something else is called"):
        await build_now(wanted)
    assert await conn.fetchval(STATE, NAME) is False


async def test_dropping_twice_is_dropping_once(conn: Any, target: Target) -> None:
    await build_now(await ordered(conn, target))
    goal = parse_dsn(target.dsn)
    assert await drop(goal, "public", NAME, limits=QUICK, tell=silent) is True
    assert await drop(goal, "public", NAME, limits=QUICK, tell=silent) is False
    assert await _indexes(conn) == ["orders_pkey"]


async def test_a_drop_that_is_held_up_says_that_queries_no_longer_use_it(
    conn: Any, target: Target
) -> None:
    await build_now(await ordered(conn, target))
    goal = parse_dsn(target.dsn)
    async with old_transaction(target):
        with pytest.raises(PostgresError, match="no longer used by queries already"):
            await drop(goal, "public", NAME, limits=IMPATIENT, tell=silent)
    assert await drop(goal, "public", NAME, limits=QUICK, tell=silent) is True


async def test_it_is_not_built_over_a_table_of_the_same_name_that_came_later(
    conn: Any, target: Target
) -> None:
    wanted = await ordered(conn, target)
    await build_now(wanted)
    await conn.execute("ALTER TABLE orders RENAME TO old")
    await conn.execute(TABLE.replace("PRIMARY KEY", ""))
    wanted["table_oid"] = await conn.fetchval("SELECT 'orders'::regclass::oid")
    with pytest.raises(PostgresError, match="Something else is called"):
        await build_now(wanted)


ORDER = Order(schema="public", name="i", table_oid=5, statement="", terms=read_terms("customer"))
HALF = {
    "table_oid": 5, "is_valid": False, "builder": None,
    "definition": "CREATE INDEX i ON public.orders USING btree (customer)",
}  # fmt: skip


@pytest.mark.parametrize(
    ("found", "move"),
    [
        (None, Move.CREATE),
        ({**HALF, "is_valid": True}, Move.TAKE),
        (HALF, Move.CLEAR),
        ({**HALF, "builder": 77}, Move.WAIT),
        ({**HALF, "table_oid": 6}, Move.REFUSE),
        ({**HALF, "definition": None}, Move.REFUSE),
        ({**HALF, "definition": HALF["definition"].replace("customer", "id")}, Move.REFUSE),
    ],
)
def test_the_next_move_follows_from_what_is_there(found: Any, move: Move) -> None:
    assert next_move(found, ORDER) is move


def row(phase: str, **more: Any) -> Any:
    nothing = dict.fromkeys(
        ("lockers_total", "lockers_done", "blocks_total", "blocks_done", "tuples_total",
         "tuples_done"), 0
    )  # fmt: skip
    return {**nothing, "phase": phase, "locker": None, "name": "", "locker_seconds": None, **more}


def test_progress_grows_from_phase_to_phase() -> None:
    building = "building index: scanning table"
    seen = [
        fraction_of(row("waiting for writers before build", lockers_total=2)),
        fraction_of(row(building, blocks_total=100)),
        fraction_of(row(building, blocks_total=100, blocks_done=50)),
        fraction_of(row("index validation: scanning table", blocks_total=10, blocks_done=10)),
        fraction_of(row("waiting for old snapshots", lockers_total=2, lockers_done=1)),
    ]
    assert seen == sorted(seen)  # type: ignore[type-var]
    assert len(set(seen)) == len(seen)
    assert fraction_of(row("dreaming")) is None
    waiting = row("waiting for old snapshots", locker=9, lockers_total=2, name="app")
    assert "0 of 2 done, now for process 9 (app)" in progress_text(waiting)


async def _killed(conn: Any, wanted: Any) -> Any:
    """A worker process that died while its index was being built."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.postgres.health.builder", json.dumps(wanted), cwd=ROOT
    )
    await until(lambda: builder_of(conn))
    process.kill()
    await process.wait()
    return process


async def _has(told: list[str], text: str) -> bool:
    return any(text in each for each in told)


async def _gone_builder(conn: Any) -> bool:
    return await builder_of(conn) is None


async def _indexes(conn: Any) -> list[str]:
    rows = await conn.fetch(
        "SELECT indexrelid::regclass::text AS name FROM pg_index"
        " WHERE indrelid = 'orders'::regclass ORDER BY 1"
    )
    return [row["name"] for row in rows]
