"""Index advice on a seeded shop: what is found with hypopg, and what is said without it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from postgres.health.advisor import Advice, advise
from postgres.health.advisor_candidates import Proposal
from postgres.health.advisor_planner import AdviceLimits
from postgres.health.index_terms import written
from postgres.server import Server
from tests.postgres.health.advised import advising, connected, run_often, shop_of

# The shop is small, so that the tests are fast.
SMALL = AdviceLimits(mean_ms_min=0, cost_min=200)
RESET = "SELECT pg_stat_statements_reset()"


@pytest.fixture(scope="module")
def fifteen() -> Iterator[Server]:
    """Debian's PostgreSQL 15 with hypopg; skipped by name where there is none."""
    with shop_of(15) as made:
        if "hypopg" not in made.binaries.extensions:
            pytest.skip("hypopg is not installed for PostgreSQL 15")
        yield made


@pytest.fixture(scope="module")
def seventeen() -> Iterator[Server]:
    """A PostgreSQL 17 without hypopg."""
    with shop_of(17) as made:
        if "hypopg" in made.binaries.extensions:
            pytest.skip("this PostgreSQL 17 has hypopg")
        yield made


async def advised(
    server: Server, *runs: tuple[Any, ...], user: str = "reader", limits: AdviceLimits = SMALL
) -> Advice:
    """The advice after these statements were run, three times each."""
    async with connected(server) as conn:
        await conn.execute(RESET)
        for query, *args in runs:
            await run_often(conn, query, *args)
    async with advising(server, user) as session:
        return await advise(session, limits=limits)


def columns_of(advice: Advice) -> list[str]:
    return sorted(
        f"{each.table.name}: {written(each.terms)['columns']}" for each in advice.proposals
    )


FOUND = [
    ("SELECT * FROM orders WHERE customer_id = $1", 17),
    ("SELECT id FROM orders WHERE product_id IN ($1, $2)", 17, 18),
    ("SELECT id FROM customers WHERE lower(email) = $1", "person5@example.org"),
    ("SELECT id, note FROM orders WHERE status = $1", "stuck"),
]


async def test_indexes_that_pay_are_found_with_their_cost_and_size(fifteen: Server) -> None:
    advice = await advised(fifteen, *FOUND)
    assert columns_of(advice) == [
        "customers: lower(email)",
        "orders: customer_id",
        "orders: product_id",
        "orders: status",
    ]
    assert advice.missing == ()
    for proposal in advice.proposals:
        assert proposal.is_tried
        assert proposal.saved_ms > 0
        (gain,) = proposal.gains
        assert gain.cost_after is not None
        assert gain.cost_after < gain.cost_before / 2
    (skewed,) = [each for each in advice.proposals if each.columns == ("status",)]
    assert skewed.gains[0].hint.startswith("status = a value that 0.")
    assert "stuck" not in skewed.gains[0].hint


async def test_what_would_not_pay_is_not_proposed(fifteen: Server) -> None:
    advice = await advised(
        fifteen,
        ("SELECT id, note FROM orders WHERE flag = $1", True),
        ("SELECT id, note FROM orders WHERE status = $1", "done"),
        ("SELECT id FROM orders WHERE note LIKE $1", "y%"),
        ("SELECT value FROM settings WHERE value = $1", "y"),
        ("SELECT note FROM orders WHERE id = $1", 5),
        ("SELECT id, note FROM orders WHERE created_at > $1::text::timestamptz", "2026-01-01"),
    )
    assert columns_of(advice) == []
    assert sum(advice.skipped.values()) == 6


async def test_an_or_gets_both_indexes_and_a_join_the_one_that_it_lacks(fifteen: Server) -> None:
    either = "SELECT note FROM orders WHERE customer_id = $1 OR product_id = $2"
    assert columns_of(await advised(fifteen, (either, 7, 8))) == [
        "orders: customer_id",
        "orders: product_id",
    ]
    join = (
        "SELECT o.note FROM orders o JOIN customers c ON c.id = o.customer_id"
        " WHERE c.city = 'city 5' AND c.email = $1"
    )
    assert "orders: customer_id" in columns_of(await advised(fifteen, (join, "nobody")))


async def test_an_update_is_planned_as_what_it_looks_for_and_counts_as_its_writes(
    fifteen: Server,
) -> None:
    async with connected(fifteen) as conn:
        await conn.execute(
            "UPDATE orders SET product_id = product_id WHERE id < 100;"
            " SELECT pg_stat_force_next_flush()"
        )
    advice = await advised(
        fifteen,
        ("UPDATE orders SET product_id = product_id WHERE customer_id = $1", 7),
        ("SELECT note FROM orders WHERE product_id = $1", 7),
    )
    assert columns_of(advice) == ["orders: customer_id", "orders: product_id"]
    by_column = {each.columns: each for each in advice.proposals}
    assert by_column["customer_id",].hot_lost == 0
    assert 0 <= by_column["product_id",].hot_lost <= 3
    assert by_column["customer_id",].table.writes > 40_000


async def test_once_it_is_there_it_is_proposed_no_more(fifteen: Server) -> None:
    async with connected(fifteen) as conn:
        await conn.execute("CREATE INDEX ready ON orders (customer_id)")
        try:
            advice = await advised(fifteen, FOUND[0])
        finally:
            await conn.execute("DROP INDEX ready")
    assert columns_of(advice) == []


async def test_nothing_hypothetical_and_nothing_written_is_left(fifteen: Server) -> None:
    async with advising(fifteen) as session:
        before = await session.fetchval("SELECT count(*) FROM pg_class")
        await advise(session, limits=SMALL)
        assert await session.fetchval("SELECT count(*) FROM hypopg()") == 0
        assert await session.fetchval("SELECT count(*) FROM pg_prepared_statements"
                                      " WHERE NOT from_sql IS FALSE") == 0  # fmt: skip
        assert await session.fetchval("SELECT count(*) FROM pg_class") == before


async def test_tables_of_another_search_path_are_found(fifteen: Server) -> None:
    async with connected(fifteen) as conn:
        await conn.execute(
            "CREATE SCHEMA sales; CREATE TABLE sales.deals AS SELECT * FROM orders;"
            " ANALYZE sales.deals; SET search_path = sales"
        )
        try:
            await conn.execute(f"SELECT 1; {'SELECT public.pg_stat_statements_reset()'}")
            await run_often(conn, "SELECT note FROM deals WHERE customer_id = $1", 7)
            async with advising(fifteen) as session:
                advice = await advise(session, limits=SMALL)
        finally:
            await conn.execute("DROP SCHEMA sales CASCADE")
    assert [each.table.text for each in advice.proposals] == ["sales.deals"]


async def test_functions_of_the_database_s_own_are_not_run_by_planning(fifteen: Server) -> None:
    async with connected(fifteen) as conn:
        await conn.execute(
            "CREATE FUNCTION trap(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS"
            " 'BEGIN RAISE EXCEPTION ''planned''; END'"
        )
        await conn.execute(RESET)
        await conn.execute("PREPARE p AS SELECT note FROM orders WHERE customer_id = trap($1)")
        try:
            with pytest.raises(Exception, match="planned"):
                await conn.execute("EXECUTE p (1)")
            await conn.execute(
                "CREATE OR REPLACE FUNCTION trap(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS"
                " 'BEGIN RETURN 1; END'"
            )
            await run_often(conn, "SELECT note FROM orders WHERE customer_id = trap($1)", 1)
            async with advising(fifteen) as session:
                advice = await advise(session, limits=SMALL)
        finally:
            await conn.execute("DROP FUNCTION trap")
    assert columns_of(advice) == []
    assert any("database's own" in why for why in advice.skipped)


async def test_no_time_left_is_said(fifteen: Server) -> None:
    advice = await advised(fifteen, *FOUND, limits=replace(SMALL, whole=timedelta(0)))
    assert advice.looked_at <= 1
    assert advice.left_out >= 3


async def test_without_the_right_to_read_it_says_so_instead_of_nothing(fifteen: Server) -> None:
    advice = await advised(fifteen, *FOUND, user="watcher")
    assert advice.proposals == ()
    (missing,) = advice.missing
    assert "public.customers, public.orders" in missing.problem
    assert "pg_read_all_data" in missing.next_step


async def test_without_the_right_to_see_texts_it_says_so(fifteen: Server) -> None:
    advice = await advised(fifteen, *FOUND, user="owner")
    assert any("pg_read_all_stats" in each.next_step for each in advice.missing)


async def test_without_hypopg_it_guesses_and_says_that_it_does(seventeen: Server) -> None:
    advice = await advised(seventeen, *FOUND)
    assert columns_of(advice) == [
        "customers: lower(email)",
        "orders: customer_id",
        "orders: product_id",
    ]
    for proposal in advice.proposals:
        assert not proposal.is_tried
        assert _untold(proposal)
    assert "hypopg is missing" in advice.missing[0].problem
    assert "CREATE EXTENSION hypopg" in advice.missing[0].next_step


async def test_without_statements_it_says_what_to_do(seventeen: Server) -> None:
    async with connected(seventeen) as conn:
        await conn.execute("DROP EXTENSION pg_stat_statements")
        try:
            async with advising(seventeen) as session:
                advice = await advise(session, limits=SMALL)
        finally:
            await conn.execute("CREATE EXTENSION pg_stat_statements")
    assert advice.proposals == ()
    assert "shared_preload_libraries" in advice.missing[0].next_step


def _untold(proposal: Proposal) -> bool:
    return all(gain.cost_after is None and gain.saved_ms is None for gain in proposal.gains)
