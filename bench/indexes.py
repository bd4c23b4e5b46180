"""Index advice on a seeded shop with known answers: found, missed, wrong; and the time it saves."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg

from bench.table import Result
from postgres.errors import PostgresError
from postgres.health.advisor import SETTINGS, Advice, advise
from postgres.health.advisor_planner import AdviceLimits
from postgres.health.index_terms import written
from postgres.server import Server, create, find_binaries

ROOT = Path(__file__).parents[1]
MAJOR = 15  # Debian packages hypopg for it
OLD = datetime(2025, 1, 2, tzinfo=UTC)
LIMITS = AdviceLimits(mean_ms_min=0.5)
SCHEMA = """
    CREATE EXTENSION pg_stat_statements;
    CREATE EXTENSION hypopg;
    SELECT setseed(0.25);
    CREATE TABLE customers (id int PRIMARY KEY, email text NOT NULL, city text NOT NULL);
    INSERT INTO customers
    SELECT n, 'Person' || n || '@example.org', 'city ' || n % 30 FROM generate_series(1, 60000) n;
    CREATE TABLE orders (
        id int PRIMARY KEY, customer_id int NOT NULL, product_id int NOT NULL,
        status text NOT NULL, is_gift boolean NOT NULL, warehouse int NOT NULL,
        created_at timestamptz NOT NULL, cents int NOT NULL, note text NOT NULL
    );
    INSERT INTO orders
    SELECT n, 1 + (random() * 59999)::int, 1 + (random() * 4999)::int,
           CASE WHEN n % 900 = 0 THEN 'stuck' ELSE 'done' END, n % 2 = 0, n % 4,
           '2025-01-01'::timestamptz + n * interval '1 minute', n % 5000, repeat('x', 60)
      FROM generate_series(1, 400000) n;
    CREATE TABLE items (order_id int NOT NULL, sku text NOT NULL, amount int NOT NULL);
    INSERT INTO items SELECT 1 + n / 2, 'sku ' || n % 3000, n % 7 FROM generate_series(1, 600000) n;
    CREATE TABLE settings (name text PRIMARY KEY, value text);
    INSERT INTO settings SELECT 'name ' || n, 'x' FROM generate_series(1, 200) n;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A statement and the indexes that it ought to get; none: nothing may be proposed."""

    sql: str
    args: tuple[Any, ...]
    wants: tuple[str, ...] = ()


def _case(sql: str, *args: Any, wants: tuple[str, ...] = ()) -> Case:
    return Case(sql=sql, args=args, wants=wants)


CASES = (
    _case("SELECT * FROM orders WHERE customer_id = $1 ORDER BY created_at DESC", 17,
          wants=("orders(customer_id)",)),
    _case("SELECT cents FROM orders WHERE product_id IN ($1, $2)", 5, 6,
          wants=("orders(product_id)",)),
    _case("SELECT cents FROM orders WHERE customer_id = $1 OR product_id = $2", 8, 9,
          wants=("orders(customer_id)", "orders(product_id)")),
    _case("SELECT id FROM customers WHERE lower(email) = $1", "person9@example.org",
          wants=("customers(lower(email))",)),
    _case("SELECT id FROM customers WHERE email = $1", "Person9@example.org",
          wants=("customers(email)",)),
    _case("SELECT id, note FROM orders WHERE status = $1", "stuck", wants=("orders(status)",)),
    _case("SELECT count(cents) FROM orders WHERE created_at > $1",
          datetime(2025, 10, 5, tzinfo=UTC), wants=("orders(created_at)",)),
    _case("SELECT sku, amount FROM items WHERE order_id = $1", 700, wants=("items(order_id)",)),
    _case("SELECT order_id FROM items WHERE sku = $1 AND amount > $2", "sku 7", 5,
          wants=("items(sku)",)),
    _case("UPDATE orders SET note = note WHERE customer_id = $1", 21,
          wants=("orders(customer_id)",)),
    _case("SELECT id, note FROM orders WHERE is_gift = $1", True),
    _case("SELECT id, note FROM orders WHERE warehouse = $1", 2),
    _case("SELECT id, note FROM orders WHERE created_at > $1", OLD),
    _case("SELECT id FROM orders WHERE note LIKE $1", "%y%"),
    _case("SELECT name FROM settings WHERE value = $1", "y"),
    _case("SELECT warehouse, sum(cents) FROM orders GROUP BY warehouse"),
    _case("SELECT note FROM orders WHERE id = $1", 12),
)  # fmt: skip


async def measure() -> list[Result]:
    """Found, missed and wrong, and what the statements took before and after."""
    try:
        binaries = find_binaries(os.environ, major=MAJOR)
    except PostgresError:
        binaries = None
    if binaries is None or "hypopg" not in binaries.extensions:
        return [
            Result(what="index advice", ours=f"not measured: no PostgreSQL {MAJOR} with hypopg")
        ]
    (ROOT / ".bench").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / ".bench", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        settings = {"shared_preload_libraries": "pg_stat_statements", "shared_buffers": "256MB",
                    "jit": "off", "max_parallel_workers_per_gather": "0"}  # fmt: skip
        server = await create(binaries, Path(name) / "pg", settings=settings)
        await server.start()
        try:
            return await _measured(server)
        finally:
            await server.stop("immediate")


async def _measured(server: Server) -> list[Result]:
    conn = await asyncpg.connect(server.dsn())
    try:
        await conn.execute(SCHEMA)
        await conn.execute("VACUUM ANALYZE")
        await conn.execute("SELECT pg_stat_statements_reset()")
        before = await _times(conn)
        start = time.perf_counter()
        advice = await _advice(server)
        seconds = time.perf_counter() - start
        found = {_text(each.table.name, each.terms): each for each in advice.proposals}
        for each in found.values():
            columns = written(each.terms)["columns"]
            await conn.execute(f"CREATE INDEX ON {each.table.text} ({columns})")
        await conn.execute("ANALYZE")
        again = await _advice(server)
        after = await _times(conn)
    finally:
        await conn.close()
    return _results(found, before, after, seconds=seconds, looked_at=advice.looked_at,
                    again=len(again.proposals))  # fmt: skip


async def _advice(server: Server) -> Advice:
    settings = {**SETTINGS, "default_transaction_read_only": "on"}
    session = await asyncpg.connect(server.dsn(), server_settings=settings)
    try:
        return await advise(session, limits=LIMITS)
    finally:
        await session.close()


async def _times(conn: Any) -> list[float]:
    """Milliseconds of each case: the best of three."""
    times: list[float] = []
    for case in CASES:
        tried: list[float] = []
        for _ in range(3):
            start = time.perf_counter()
            await conn.fetch(case.sql, *case.args)
            tried.append((time.perf_counter() - start) * 1000)
        times.append(min(tried))
    return times


def _results(
    found: Mapping[str, Any], before: Sequence[float], after: Sequence[float], *, seconds: float,
    looked_at: int, again: int,
) -> list[Result]:  # fmt: skip
    expected = {want for case in CASES for want in case.wants}
    # One that begins with what was wanted does its work, and is larger than it need be.
    wide = {
        one: want
        for want in expected - set(found)
        for one in found
        if one.startswith(want.removesuffix(")") + ",")
    }
    missed = sorted(expected - set(found) - set(wide.values()))
    wrong = sorted(set(found) - expected - set(wide))
    helped = [place for place, case in enumerate(CASES) if case.wants]
    gains = sorted(before[place] / after[place] for place in helped)
    left = len(CASES) - len(helped)
    return [
        Result(
            what=f"index advice: {len(expected)} that pay, found as narrow / wider / missed;"
            f" wrong with {left} traps",
            ours=f"{len(expected) - len(missed) - len(wide)} / {len(wide)} / {len(missed)};"
            f" {len(wrong)}"
            + (f" (missed {', '.join(missed)})" if missed else "")
            + (f" (wrong {', '.join(wrong)})" if wrong else ""),
            aim="none missed; 0 wrong",
        ),
        Result(
            what=f"index advice: {len(helped)} statements that gain, ms together, before / after",
            ours=f"{sum(after[place] for place in helped):.1f}",
            floor=f"{sum(before[place] for place in helped):.1f} without the indexes",
            ratio=f"each {gains[0]:.0f} to {gains[-1]:.0f} times as fast",
        ),
        Result(
            what=f"index advice: s for {looked_at} statements; proposed again once they are there",
            ours=f"{seconds:.2f}; {again}",
            aim="0 again",
        ),
    ]


def _text(table: str, terms: Any) -> str:
    return f"{table}({written(terms)['columns']})"
