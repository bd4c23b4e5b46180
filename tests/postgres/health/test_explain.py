"""Generic plans on real servers: never executed, as far as our rights go, on old versions too."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from postgres.health.explain import NoPlanError, generic_plan, parse_plan
from postgres.server import Server
from tests.postgres.health.explaining import connected, shop_of

READ_ONLY = {"default_transaction_read_only": "on"}


@pytest.fixture(scope="module", params=[17, 15])
def shop(request: pytest.FixtureRequest) -> Iterator[Server]:
    with shop_of(request.param) as made:
        yield made


async def test_a_plan_of_unknown_constants(shop: Server) -> None:
    async with connected(shop, "reader", **READ_ONLY) as conn:
        plan = await generic_plan(conn, "select * from orders where id = $1 and note = $2")
        assert (plan.node_type, plan.schema, plan.relation) == ("Index Scan", "public", "orders")
        assert plan.indexes == {"orders_pkey"}
        assert plan.rows == 1
        slow = await generic_plan(conn, "select * from orders where customer = $1")
        assert slow.node_type == "Seq Scan"
        assert slow.cost > plan.cost
        assert slow.has_filter
        assert not slow.indexes


async def test_texts_of_pg_stat_statements_that_no_parser_takes(shop: Server) -> None:
    async with connected(shop, **READ_ONLY) as conn:
        await conn.execute(
            "select extract(month from placed) from orders"
            " where placed > now() - interval '3 days' limit 5"
        )
        text = await conn.fetchval(
            "select query from pg_stat_statements where query like 'select extract%'"
        )
        assert "interval $" in text
        plan = await generic_plan(conn, text)
        assert {"Limit", "Seq Scan"} <= {node.node_type for node in plan.nodes()}


async def test_partitions_are_shown_although_nothing_is_known_of_the_key(shop: Server) -> None:
    async with connected(shop, **READ_ONLY) as conn:
        plan = await generic_plan(conn, "select * from parted where k = $1")
        assert {"part_1", "part_2"} <= {node.relation for node in plan.nodes()}
        assert await conn.fetchval("show enable_partition_pruning") == "on"


async def test_a_write_is_planned_as_what_it_finds_where_we_may_only_read(shop: Server) -> None:
    async with connected(shop, "reader", **READ_ONLY) as conn:
        plan = await generic_plan(conn, "update orders set note = $1 where id = $2")
        assert plan.node_type in {"Index Scan", "Index Only Scan"}
        plan = await generic_plan(conn, "delete from orders using customers c where c.id = $1")
        assert "ModifyTable" not in {node.node_type for node in plan.nodes()}
        with pytest.raises(NoPlanError, match="right to write"):
            await generic_plan(conn, "insert into orders values ($1)")
    async with connected(shop, **READ_ONLY) as conn:
        plan = await generic_plan(conn, "delete from orders where id = $1")
        assert plan.node_type == "ModifyTable"


async def test_nothing_is_ever_executed(shop: Server) -> None:
    async with connected(shop) as conn:  # one that could write
        await generic_plan(conn, "delete from orders")
        assert await conn.fetchval("select count(*) from orders") == 20_000
        for text in ("delete from customers; delete from orders", "truncate orders",
                     "select 1 as x into made", "explain analyze delete from orders"):  # fmt: skip
            with pytest.raises(NoPlanError):
                await generic_plan(conn, text)
        assert await conn.fetchval("select count(*) from orders") == 20_000
        assert await conn.fetchval("select to_regclass('made')") is None


@pytest.mark.parametrize(
    ("user", "text", "why"),
    [
        ("watcher", "select * from orders where id = $1", "may not read"),
        ("watcher", "update orders set id = $1 where id = $2", "may not read"),
        ("reader", "select * from gone where id = $1", "search_path"),
        ("reader", "vacuum orders", "utility"),
        ("reader", "select 1; select 2", "several"),
        ("reader", "select * from orders where note = 'hunter2", "cut off"),
        ("reader", "select 'hunter2'::int", "SQLSTATE 22P02"),
    ],
)
async def test_what_has_no_plan_says_why_without_a_literal(
    shop: Server, user: str, text: str, why: str
) -> None:
    async with connected(shop, user, **READ_ONLY) as conn:
        with pytest.raises(NoPlanError, match=why) as refusal:
            await generic_plan(conn, text)
        assert refusal.value.next_step
        assert "hunter2" not in refusal.value.problem
        # The session is as it was, and goes on.
        assert not await conn.fetch(
            "select from pg_prepared_statements where name = 'twokey_explained'"
        )


async def test_a_table_that_somebody_rebuilds_is_no_reason_to_wait(shop: Server) -> None:
    async with connected(shop) as other, connected(shop, lock_timeout="50ms") as conn:
        await other.execute("BEGIN; LOCK customers")
        with pytest.raises(NoPlanError, match="waited for a lock"):
            await generic_plan(conn, "select * from customers where id = $1")


async def test_an_index_that_is_made_meanwhile_is_in_the_next_plan(shop: Server) -> None:
    text = "select * from orders where customer = $1"
    async with connected(shop) as conn:
        before = await generic_plan(conn, text)
        await conn.execute("CREATE INDEX now_there ON orders (customer)")
        try:
            assert (await generic_plan(conn, text)).indexes == {"now_there"}
        finally:
            await conn.execute("DROP INDEX now_there")
        assert before.indexes == frozenset()


def test_a_plan_is_read_from_json() -> None:
    plan = parse_plan(
        {
            "Node Type": "Limit", "Total Cost": 2.5, "Plan Rows": 1,
            "Plans": [{"Node Type": "Seq Scan", "Total Cost": 2, "Plan Rows": 3, "Alias": "o",
                       "Relation Name": "orders", "Schema": "public", "Filter": "(a = $1)"}],
        }
    )  # fmt: skip
    assert [node.node_type for node in plan.nodes()] == ["Limit", "Seq Scan"]
    assert plan.children[0].has_filter


async def test_a_statement_that_calls_their_own_code_is_not_planned(shop: Server) -> None:
    async with connected(shop) as conn:
        await conn.execute("""
            CREATE OR REPLACE FUNCTION theirs() RETURNS int STABLE LANGUAGE plpgsql AS
                $$ BEGIN RAISE EXCEPTION 'it ran'; END $$
        """)
        with pytest.raises(NoPlanError, match="a function of the database's own"):
            await generic_plan(conn, "SELECT * FROM orders WHERE id = theirs()")
        await conn.execute("DROP FUNCTION theirs()")
